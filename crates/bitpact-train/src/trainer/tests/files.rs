//! Files of a run that are missing or damaged when it is resumed.

use super::*;
use crate::run_folder::BEST;

/// A finished run in `folder`, of a recipe that evaluates averages with statistics estimated anew, or of a plain one.
fn finished(folder: &RunFolder, averages: bool) {
    let recipe = recipe(|d| {
        if averages {
            d.set("ema_decay", 0.9, "");
            d.set("bn_reestimate", 2, "");
        }
    });
    run(&recipe, folder, fresh(), None).unwrap();
}

#[test]
fn a_resumed_run_writes_its_lost_integers_anew_from_the_checkpoint() {
    for (averages, damage) in
        [(false, None), (true, None), (false, Some(0)), (true, Some(40)), (false, Some(usize::MAX))]
    {
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("run")).unwrap();
        finished(&folder, averages);
        let (model, before) = (folder.file(MODEL), results(folder.path()));
        let whole = std::fs::read(&model).unwrap();
        match damage {
            None => std::fs::remove_file(&model).unwrap(),
            // Bytes beyond the end: one of them turned.
            Some(usize::MAX) => {
                let mut turned = whole.clone();
                turned[whole.len() / 2] ^= 4;
                std::fs::write(&model, turned).unwrap();
            }
            Some(kept) => std::fs::write(&model, &whole[..kept]).unwrap(),
        }
        let mut told = Vec::new();
        let folder = RunFolder::resume(folder.path()).unwrap();
        let (checkpoint, recipe) = folder.checkpoint().unwrap().unwrap();
        let mut observer = |event: &Event<'_>| {
            if let Event::Rebuilt { file, why } = event {
                told.push((*file, (*why).to_owned()));
            }
        };
        run_observed(&recipe, &folder, Start::Resume(Box::new(checkpoint)), None, &mut observer).unwrap();
        assert_eq!(results(folder.path()), before);
        let [(MODEL, why)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(why == "missing", damage.is_none(), "{why}");
        assert!(damage.is_none() || why.contains("damaged"), "{why}");
    }
}

#[test]
fn a_resumed_run_names_lost_files_that_no_checkpoint_holds() {
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage, &str); 7] = [
        (BEST, |path| std::fs::remove_file(path).unwrap(), "missing"),
        (BEST, |path| std::fs::write(path, "").unwrap(), "damaged"),
        (BEST, |path| cut(path, 3, 4), "damaged"),
        (RECORDS, |path| std::fs::remove_file(path).unwrap(), "0 whole epochs, and 3 are done"),
        (RECORDS, |path| std::fs::write(path, "").unwrap(), "0 whole epochs, and 3 are done"),
        (RECORDS, |path| cut(path, 1, 2), "whole epochs, and 3 are done"),
        (CONFIG, |path| std::fs::write(path, "epochs = ").unwrap(), "config.toml"),
    ];
    for (name, damage, says) in damages {
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("run")).unwrap();
        finished(&folder, false);
        damage(&folder.file(name));
        let left = [CONFIG, LAST, RECORDS, BEST, MODEL].map(|name| std::fs::read(folder.file(name)).ok());
        let error = resume(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(says), "{name}: {error}");
        assert!(
            left == [CONFIG, LAST, RECORDS, BEST, MODEL].map(|name| std::fs::read(folder.file(name)).ok()),
            "{name}"
        );
    }
}

/// Leaves `part` of `of` parts of a file.
fn cut(path: &std::path::Path, part: usize, of: usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() * part / of]).unwrap();
}

#[test]
fn a_run_that_stopped_within_an_epoch_misses_no_integers() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let recipe = recipe(|_| {});
    run(&recipe, &folder, fresh(), Some(4)).unwrap();
    std::fs::remove_file(folder.file(MODEL)).unwrap();
    assert!(resume(folder.path(), None).unwrap().finished);
    let whole = tempfile::tempdir().unwrap();
    let other = RunFolder::create(whole.path().join("run")).unwrap();
    run(&recipe, &other, fresh(), None).unwrap();
    assert_eq!(results(folder.path()), results(other.path()));
}

#[test]
fn a_run_that_began_with_words_that_change_nothing_is_resumed() {
    let mut draft = Draft::parse(RECIPE, "test").unwrap();
    for (key, value) in [("bits", "W8A8"), ("weight_quant", "sawb"), ("schedule", "constant")] {
        draft.set(key, value, "");
    }
    draft.set("lr_decay", 0.5, "");
    let recipe = draft.stored().finish().unwrap();
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&recipe, &folder, fresh(), Some(4)).unwrap();
    assert!(resume(folder.path(), None).unwrap().finished);
}
