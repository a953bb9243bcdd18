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
