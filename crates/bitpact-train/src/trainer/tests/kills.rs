//! Runs that are stopped at every step and killed at every write, then resumed: the same bytes as never stopping.

use super::*;
use crate::run_folder::Fault;

/// A plain recipe, and one with everything that is remembered between steps or done between epochs.
fn recipes() -> [Recipe; 2] {
    let switches = recipe(|d| {
        for (key, value) in [("bits", "float@1,W8A8@2,W4A4"), ("first_last", "same"), ("weight_quant", "lsq")] {
            d.set(key, value, "");
        }
        for (key, value) in [("ema_decay", 0.9), ("mixup", 0.5)] {
            d.set(key, value, "");
        }
        for (key, value) in [("bn_reestimate", 2), ("cutout", 3)] {
            d.set(key, value, "");
        }
        d.set("teacher", switches::teacher(), "");
    });
    [recipe(|_| {}), switches]
}

/// The results of a run that nothing disturbs.
fn undisturbed(recipe: &Recipe) -> (Vec<Vec<u8>>, Vec<Record>) {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(recipe, &folder, fresh(), None).unwrap();
    (results(folder.path()), timeless(folder.path()))
}

#[test]
fn stopping_after_any_step_and_resuming_changes_nothing() {
    for recipe in recipes() {
        let expected = undisturbed(&recipe);
        for stop_after in 0..=9 {
            let at = tempfile::tempdir().unwrap();
            let folder = RunFolder::create(at.path().join("run")).unwrap();
            let outcome = run(&recipe, &folder, fresh(), Some(stop_after)).unwrap();
            assert_eq!((outcome.step, outcome.finished), (stop_after, stop_after == 9));
            let outcome = resume(folder.path(), None).unwrap();
            assert_eq!((outcome.finished, outcome.epochs), (true, 3));
            assert_eq!((results(folder.path()), timeless(folder.path())), expected, "stopped after {stop_after}");
        }
    }
}

#[test]
fn stopping_again_and_again_after_every_step_changes_nothing() {
    for recipe in recipes() {
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("run")).unwrap();
        run(&recipe, &folder, fresh(), Some(1)).unwrap();
        while !resume(folder.path(), Some(1)).unwrap().finished {}
        assert_eq!((results(folder.path()), timeless(folder.path())), undisturbed(&recipe));
        let outcome = resume(folder.path(), None).unwrap();
        assert_eq!((outcome.finished, outcome.step), (true, 9), "resuming a finished run does nothing");
        assert_eq!((results(folder.path()), timeless(folder.path())), undisturbed(&recipe));
    }
}

/// Kills the run at its `n`-th write, for every n, each write both not begun and, for lines, half done; the resumed run
/// is killed at its own m-th write too.
#[test]
fn a_kill_at_any_write_loses_nothing() {
    for recipe in recipes() {
        let expected = undisturbed(&recipe);
        let mut kills = 0;
        for torn in [false, true] {
            for first in 0.. {
                let at = tempfile::tempdir().unwrap();
                let path = at.path().join("run");
                let folder = RunFolder::create(&path).unwrap();
                *folder.fault.borrow_mut() = Some(Fault { writes: first, torn });
                let killed = run(&recipe, &folder, fresh(), None).is_err();
                if !killed {
                    break;
                }
                kills += 1;
                if !path.join(CONFIG).exists() {
                    assert_eq!(first, 0, "only the very first write leaves nothing to resume");
                    continue;
                }
                std::fs::write(path.join(".bitpact-half-written"), "x").unwrap();
                let folder = RunFolder::resume(&path).unwrap();
                *folder.fault.borrow_mut() = Some(Fault { writes: first % 5, torn });
                let start = match folder.checkpoint().unwrap() {
                    Some((checkpoint, _)) => Start::Resume(Box::new(checkpoint)),
                    None => fresh(),
                };
                let _ = run(&folder.config().unwrap(), &folder, start, None);
                resume(&path, None).unwrap();
                assert_eq!((results(&path), timeless(&path)), expected, "killed at write {first}, torn {torn}");
                assert!(!path.join(".bitpact-half-written").exists());
            }
        }
        assert!(kills > 20, "{kills}");
    }
}

/// Every state a kill can leave: any set of the newer files beside the older checkpoint.
#[test]
fn an_older_checkpoint_beside_newer_files_is_enough() {
    for recipe in recipes() {
        let expected = undisturbed(&recipe);
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("run")).unwrap();
        run(&recipe, &folder, fresh(), Some(5)).unwrap();
        let older = std::fs::read(folder.file(LAST)).unwrap();
        resume(folder.path(), None).unwrap();
        std::fs::write(folder.file(LAST), older).unwrap();
        let mut records = std::fs::read(folder.file(RECORDS)).unwrap();
        records.truncate(records.len() - 9);
        std::fs::write(folder.file(RECORDS), records).unwrap();
        resume(folder.path(), None).unwrap();
        assert_eq!((results(folder.path()), timeless(folder.path())), expected);
    }
}

#[test]
fn more_epochs_go_on_from_the_end() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), None).unwrap();
    let (checkpoint, mut stored) = folder.checkpoint().unwrap().unwrap();
    stored.epochs = 4;
    let outcome = run(&stored, &folder, Start::Resume(Box::new(checkpoint)), None).unwrap();
    assert_eq!((outcome.finished, outcome.epochs, outcome.step), (true, 4, 12));
    assert_eq!(folder.config().unwrap().epochs, 4);
    assert_eq!(timeless(folder.path()).iter().filter(|r| matches!(r, Record::Epoch(_))).count(), 4);

    let (checkpoint, mut stored) = folder.checkpoint().unwrap().unwrap();
    stored.epochs = 2;
    let text = run(&stored, &folder, Start::Resume(Box::new(checkpoint)), None).unwrap_err().to_string();
    assert!(text.contains("last.safetensors") && text.contains("4 epochs are done, more than the 2"), "{text}");
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), Some(4)).unwrap();
    let good = Checkpoint::load(folder.file(LAST)).unwrap();
    let attempt = |change: &dyn Fn(&mut Checkpoint, &mut Recipe)| {
        let (mut checkpoint, mut recipe) = (good.clone(), folder.config().unwrap());
        change(&mut checkpoint, &mut recipe);
        run(&recipe, &folder, Start::Resume(Box::new(checkpoint)), None).unwrap_err().to_string()
    };
    let text = attempt(&|_, r| r.first_last = bitpact_graph::FirstLast::Same);
    assert!(text.contains("the run began with `first_last` as \"8bit\", now it is \"same\""), "{text}");
    let text = attempt(&|c, _| c.model.input.zero_point[0] = 7);
    assert!(text.contains("its network is not the one of its recipe"), "{text}");
    let text = attempt(&|c, _| c.training.as_mut().unwrap().step = 7);
    assert!(text.contains("step 7 does not lie in epoch 2"), "{text}");
    let text = attempt(&|c, _| c.model.class_names[0] = "z".to_owned());
    assert!(text.contains("class names"), "{text}");
    let text = attempt(&|c, _| c.training.as_mut().unwrap().progress["train_images"] = 30.into());
    assert!(text.contains("the run began with 30 training and 13 test images, now there are 27 and 13"), "{text}");
    let text = attempt(&|c, _| c.training.as_mut().unwrap().progress["sums"] = "x".into());
    assert!(text.contains("training progress"), "{text}");
    let text = attempt(&|c, _| c.training = None);
    assert!(text.contains("cannot be resumed"), "{text}");

    let bytes = std::fs::read(folder.file(LAST)).unwrap();
    for damage in [&bytes[..bytes.len() / 2], &bytes[..3], b""] {
        std::fs::write(folder.file(LAST), damage).unwrap();
        assert!(folder.checkpoint().unwrap_err().to_string().contains("last.safetensors"));
    }
    std::fs::write(folder.file(RECORDS), "{\"kind\":\"epoch\"}\n").unwrap();
    assert!(folder.records().unwrap_err().to_string().contains("records.jsonl, line 1: not a record"));
}

/// All files of a folder.
fn files(path: &std::path::Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn an_edited_config_is_told_and_kept() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), Some(4)).unwrap();
    let config = std::fs::read_to_string(folder.file(CONFIG)).unwrap();
    for (from, to, says) in [
        ("\nlr = 0.1", "\nlr = 0.2", "`lr` is 0.2, not 0.1"),
        ("epochs = 3", "epochs = 5", "`epochs` is 5, not 3"),
        ("dataset = \"own\"", "dataset = \"other\"", "`dataset` is \"other\", not \"own\""),
        ("epochs = 3", "epochs = three", "config.toml, line"),
    ] {
        assert!(config.contains(from), "{config}");
        std::fs::write(folder.file(CONFIG), config.replacen(from, to, 1)).unwrap();
        let before = files(folder.path());
        let text = resume(folder.path(), None).unwrap_err().to_string();
        assert!(text.contains("config.toml") && text.contains(says), "{text}");
        assert!(files(folder.path()) == before, "something was written");
    }
    let commented = format!("# a note of one's own\n{config}");
    std::fs::write(folder.file(CONFIG), &commented).unwrap();
    assert!(resume(folder.path(), None).unwrap().finished);
    assert_eq!(std::fs::read_to_string(folder.file(CONFIG)).unwrap(), commented, "it says the same");
}

#[test]
fn a_recipe_that_stands_in_the_folder_of_a_new_run_is_not_overwritten() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("run");
    std::fs::create_dir(&path).unwrap();
    let own = recipe(|d| d.set("lr", 0.3, "")).to_toml();
    std::fs::write(path.join(CONFIG), &own).unwrap();
    let text = run(&recipe(|_| {}), &RunFolder::create(&path).unwrap(), fresh(), None).unwrap_err().to_string();
    assert!(text.contains("config.toml: ") && text.contains("`lr` is 0.3, not 0.1"), "{text}");
    assert_eq!(files(&path).into_iter().collect::<Vec<_>>(), [(CONFIG.into(), own.into_bytes())]);
}

#[test]
fn a_run_whose_checkpoint_is_gone_is_not_begun_again() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), Some(4)).unwrap();
    let last = std::fs::read(folder.file(LAST)).unwrap();
    for left in [&[RECORDS, BEST, MODEL][..], &[BEST], &[MODEL], &[RECORDS]] {
        std::fs::remove_file(folder.file(LAST)).unwrap();
        let all = files(folder.path());
        for name in [RECORDS, BEST, MODEL].iter().filter(|name| !left.contains(name)) {
            std::fs::remove_file(folder.file(name)).unwrap();
        }
        let before = files(folder.path());
        let text = resume(folder.path(), None).unwrap_err().to_string();
        assert!(text.contains("last.safetensors: missing") && text.contains(left[0]), "{text}");
        assert!(files(folder.path()) == before, "something was written or emptied");
        all.into_iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
        std::fs::write(folder.file(LAST), &last).unwrap();
    }
    assert!(resume(folder.path(), None).unwrap().finished);
}

#[test]
fn other_images_of_the_same_number_are_noticed() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), Some(4)).unwrap();
    let attempt = |sets: &Sets| {
        let (checkpoint, recipe) = folder.checkpoint().unwrap().unwrap();
        let setup = Setup::new(&recipe, &sets.images()).unwrap();
        let (mut backend, stop) = (FakeBackend::new(&setup), AtomicBool::new(false));
        let options =
            RunOptions { backend: BackendKind::Cpu, isa: Isa::Scalar, threads: 1, stop: &stop, observer: &mut |_| {} };
        Trainer::new(setup, sets.images(), &folder, options).run(&mut backend, Start::Resume(Box::new(checkpoint)))
    };
    let before = files(folder.path());
    let pixels = |n: usize, seed: u64| {
        let key = bitpact_core::rng::Key::new(seed);
        (0..n as u64 * 36).map(|i| key.below(i, 256) as u8).collect::<Vec<u8>>()
    };
    let made = |pixels, labels: Vec<u16>| {
        InMemory::new(pixels, labels, ImageShape { h: 6, w: 6, c: 1 }, ["a", "b", "c"].map(str::to_owned).to_vec())
            .unwrap()
    };
    let labels = |n: u16| (0..n).map(|i| i % 3).collect::<Vec<u16>>();
    let mut relabelled = labels(27);
    relabelled[26] = 1;
    let mut repainted = pixels(13, 2);
    repainted[13 * 36 - 1] ^= 1;
    for (half, sets) in [
        ("training", Sets { train: images(27, 9), test: images(13, 2) }),
        ("test", Sets { train: images(27, 1), test: images(13, 9) }),
        ("training", Sets { train: made(pixels(27, 1), relabelled), test: images(13, 2) }),
        ("test", Sets { train: images(27, 1), test: made(repainted, labels(13)) }),
    ] {
        let text = attempt(&sets).unwrap_err().to_string();
        assert!(text.contains(&format!("the run began with other {half} images")), "{text}");
        assert!(files(folder.path()) == before, "something was written");
    }
    assert!(attempt(&Sets::new()).unwrap().finished);
}

#[test]
fn a_lengthened_run_says_so_and_remembers_it() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe(|_| {}), &folder, fresh(), None).unwrap();
    let (checkpoint, mut longer) = folder.checkpoint().unwrap().unwrap();
    longer.epochs = 4;
    let mut told = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Lengthened { from, to, lr } = event {
            told.push((*from, *to, *lr));
        }
    };
    // Killed when config.toml is about to be written.
    *folder.fault.borrow_mut() = Some(Fault { writes: 1, torn: false });
    run_observed(&longer, &folder, Start::Resume(Box::new(checkpoint)), None, &mut observer).unwrap_err();
    *folder.fault.borrow_mut() = None;
    let (from, to, [had, has]) = told[0];
    assert_eq!((told.len(), from, to), (1, 3, 4));
    assert_eq!((had, has), (longer.schedule(3).lr(8).min(had), longer.schedule(3).lr(9)));
    assert!(has > 2.0 * had, "a cosine that jumps back");
    assert_eq!(folder.config().unwrap().epochs, 3);
    assert_eq!(resume(folder.path(), None).unwrap().epochs, 4);
    assert_eq!(folder.config().unwrap().epochs, 4);
    let (checkpoint, _) = folder.checkpoint().unwrap().unwrap();
    let lengthened = &checkpoint.training.unwrap().progress["lengthened"];
    assert_eq!(*lengthened, serde_json::json!([{ "step": 9, "from": 3, "to": 4 }]));
}
