//! What a path would be read as.

use bitpact_data::own::{Report, check};

use super::*;

fn report(folder: &Folder, options: &Options) -> Report {
    check(folder.path(), options, &|_, _| ()).unwrap()
}

#[test]
fn good_data_have_counts_sizes_and_kinds() {
    let folder = classes();
    folder.picture("train/ant/grey.png", RgbaImage::from_pixel(10, 10, Rgba([3; 4])));
    folder.write("train/ant/bad.png", b"x");
    folder.write("README.md", "x");
    let found = report(&folder, &Options::default());
    assert_eq!((found.task, found.problem.as_deref()), (Some(Task::Classify), None));
    assert_eq!(found.names, ["Bee", "ant", "zebra"]);
    assert_eq!((&found.halves[0].per_class[..], found.halves[0].name.as_str()), (&[5, 6, 5][..], "train"));
    assert_eq!((found.halves[1].examples, found.halves[1].name.as_str()), (6, "val/"));
    let [min, median, max] = found.sizes.unwrap();
    assert_eq!((min, max), ([10, 10], [28, 38]));
    assert!(median[0] * median[1] >= 100);
    assert_eq!(found.pixels, [("colour".to_owned(), 21), ("colour, alpha".to_owned(), 1)]);
    assert!(found.needed.len() == 1 && found.needed[0].contains("--crop"), "{:?}", found.needed);
    assert_eq!((found.shape, found.skipped.len(), found.odd.len()), (None, 1, 1));
    let found = report(&folder, &crop(8));
    assert_eq!((found.shape, found.needed.len()), (Some(ImageShape { h: 8, w: 8, c: 3 }), 0));
    let strict = report(&folder, &Options { strict: true, ..crop(8) });
    assert!(strict.problem.unwrap().contains("1 files cannot be used"));
}

#[test]
fn what_keeps_data_from_training_is_a_problem_and_what_only_needs_a_flag_is_not() {
    let folder = classes();
    folder.picture("train/cow/0.png", flat([1; 3], 9, 9));
    assert!(report(&folder, &crop(8)).problem.unwrap().contains("class `cow`"));
    let plain = Folder::new();
    for i in 0..6 {
        plain.picture(&format!("{}/{i}.png", ["a", "b"][i % 2]), flat([9; 3], 4, 4));
    }
    let found = report(&plain, &Options::default());
    assert!(found.problem.is_none() && found.needed[0].contains("--test-share"), "{found:?}");
    assert_eq!(found.halves[0].per_class, [3, 3]);
    for i in [1, 3, 5] {
        plain.write(&format!("b/{i}.png"), b"broken");
    }
    assert!(report(&plain, &Options::default()).problem.unwrap().contains("class `b`"));
    let alone = Folder::new();
    (0..3).for_each(|i| drop(alone.picture(&format!("{i}.png"), flat([9; 3], 20 + i, 20))));
    let found = report(&alone, &Options::default());
    assert_eq!((found.task, found.needed.len()), (Some(Task::Restore), 3), "{:?}", found.needed);
    assert!(found.problem.is_none() && found.skipped.is_empty());
    assert!(report(&Folder::new(), &Options::default()).problem.is_some());
    assert!(check(&alone.path().join("missing"), &Options::default(), &|_, _| ()).is_err());
}
