//! The three tasks whose targets are no classes, from the drawn data to verified integers.

use std::sync::atomic::AtomicBool;

use bitpact_data::{Dataset, DatasetName, Examples, ImageShape, Limits, Split, TargetKind, load};
use bitpact_engine::{VerifyOptions, verify};
use bitpact_kernels::Isa;
use bitpact_model::IntegerModel;
use bitpact_train::{BackendKind, Draft, EpochRecord, Event, Images, Recipe, RunFolder, RunOptions, Start, train};

const TASKS: [(&str, DatasetName); 3] = [
    ("builtin-upscale", DatasetName::Upscale),
    ("builtin-segments", DatasetName::Segments),
    ("builtin-signals", DatasetName::Signals),
];

fn recipe(name: &str, changes: &[(&'static str, i64)]) -> Recipe {
    let mut draft = Draft::open(name).unwrap();
    changes.iter().for_each(|&(key, value)| draft.set(key, value, key));
    draft.finish().unwrap()
}

/// Trains a recipe and gives its last record and the integer network of the folder.
fn run(recipe: &Recipe, split: &Split, backend: BackendKind) -> (EpochRecord, IntegerModel) {
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path().join("run")).unwrap();
    let images = Images { train: &*split.train, test: &*split.test };
    let stop = AtomicBool::new(false);
    let observer = &mut |_: Event<'_>| ();
    let options = RunOptions { backend, isa: Isa::detect(), threads: 2, stop: &stop, observer };
    let outcome = train(recipe, images, &folder, Start::Fresh { weights: None }, options).unwrap();
    let file = folder.file("model.bitpact");
    (outcome.last.unwrap(), IntegerModel::load(file).unwrap())
}

/// Codes that differ from the interpreter's on any path.
fn different(model: &IntegerModel, test: &dyn Dataset, images: usize) -> u64 {
    let fill = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        range.zip(pixels.chunks_exact_mut(test.bytes_shape().len())).for_each(|(i, image)| test.image(i, image));
    };
    let found = verify(model, &VerifyOptions::up_to(2), images, fill, |_| ()).unwrap();
    assert!(found.codes > 0);
    found.different
}

#[test]
fn each_task_trains_converts_and_verifies() {
    for (name, set) in TASKS {
        let recipe = recipe(name, &[("epochs", 2), ("batch_size", 20)]);
        let split = load(set, None, Limits { train: Some(200), test: Some(30) }).unwrap();
        let (last, model) = run(&recipe, &split, BackendKind::Cpu);
        assert_eq!(different(&model, &*split.test, 3), 0, "{name}");
        let [first, second] = &last.integer[..] else { panic!("{name}: {:?}", last.integer) };
        let names = match split.train.target_kind() {
            TargetKind::Image(_) => ["psnr", "ssim"],
            TargetKind::Mask { .. } => ["miou", "pixels"],
            _ => ["mae", "rmse"],
        };
        assert_eq!([&first.name, &second.name], names, "{name}");
        assert!(last.integer_top1.is_none() && last.simulated[0].name == names[0], "{name}");
        // Integers and their simulation agree but for roundings at the middle between two codes.
        let (a, b) = (first.value, last.simulated[0].value);
        assert!((a - b).abs() <= 0.02 * b.abs(), "{name}: {a} and {b}");
    }
}

/// A set with every code times 256, as 16-bit codes.
fn widened(set: &dyn Dataset) -> Examples {
    let (shape, kind, n) = (set.image_shape(), set.target_kind(), set.len());
    let (mut codes, mut targets) = (Vec::new(), vec![0.0; n * kind.len()]);
    let mut image = vec![0; shape.len()];
    for (i, target) in targets.chunks_exact_mut(kind.len()).enumerate() {
        set.image(i, &mut image);
        codes.extend(image.iter().map(|&code| u16::from(code) << 8));
        set.target(i, target);
    }
    Examples::of_16_bits(&codes, targets, shape, kind, set.class_names().to_vec()).unwrap()
}

#[test]
fn signals_of_16_bits_train_as_those_of_8_and_verify() {
    let split = load(DatasetName::Signals, None, Limits { train: Some(20), test: Some(30) }).unwrap();
    let wide = [&split.train, &split.test].map(|half| widened(&**half));
    let changes: &[(&'static str, i64)] = &[("epochs", 1), ("batch_size", 20)];
    let narrow = recipe("builtin-signals", changes);
    let mut draft = Draft::open("builtin-signals").unwrap();
    changes.iter().for_each(|&(key, value)| draft.set(key, value, key));
    let [zero, scale] = [256.0 * f64::from(narrow.input.zero_point[0]), narrow.input.scale[0] / 256.0];
    let input = format!("bits = 16\nzero_point = {zero:.0}\nscale = {scale:e}");
    draft.set("input", toml::from_str::<toml::Table>(&input).unwrap(), "input");
    let recipe = draft.finish().unwrap();
    for backend in BackendKind::ALL {
        let (expected, _) = run(&narrow, &split, backend);
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(folder.path().join("run")).unwrap();
        let images = Images { train: &wide[0], test: &wide[1] };
        let stop = AtomicBool::new(false);
        let observer = &mut |_: Event<'_>| ();
        let options = RunOptions { backend, isa: Isa::detect(), threads: 2, stop: &stop, observer };
        let outcome = train(&recipe, images, &folder, Start::Fresh { weights: None }, options).unwrap();
        let model = IntegerModel::load(folder.file("model.bitpact")).unwrap();
        assert_eq!((model.input.bits, different(&model, &wide[1], 3)), (16, 0));
        // Of the same step, up to float32's roundings.
        let (a, b) = (outcome.last.unwrap().integer[0].value, expected.integer[0].value);
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{backend}: {a} and {b}");
    }
    // A recipe for pixels takes them once it is fitted, and without what is for pixels alone.
    let images = Images { train: &wide[0], test: &wide[1] };
    let refused = |recipe: &Recipe| bitpact_train::Setup::new(recipe, &images).unwrap_err().to_string();
    assert!(refused(&narrow).contains("codes of 16 bits, but the recipe's input has 8"), "{}", refused(&narrow));
    let mut fitted = narrow.clone();
    assert_eq!((fitted.fit_input(&wide[0]), fitted.input.clone()), (None, narrow.input.widened()));
    assert!(bitpact_train::Setup::new(&fitted, &images).is_ok());
    fitted.color_jitter = Some([0.1, 0.1, 0.0, 0.0]);
    assert!(refused(&fitted).contains("which color_jitter does not change"), "{}", refused(&fitted));
}

#[test]
fn codes_that_reach_a_part_of_their_bits_are_warned_of() {
    let shape = ImageShape { h: 1, w: 2, c: 1 };
    let set = |largest: u16| {
        let names = vec!["value".to_owned()];
        Examples::of_16_bits(&[0, largest], vec![0.0], shape, TargetKind::Numbers(1), names).unwrap()
    };
    let recipe = recipe("builtin-signals", &[]);
    let warning = recipe.clone().fit_input(&set(4095)).unwrap();
    assert!(warning.contains("reach 4095 of 65535"), "{warning}");
    let said = warning.split("input = ").nth(1).unwrap();
    let mut draft = Draft::open("builtin-signals").unwrap();
    draft.set("input", toml::from_str::<toml::Table>(&format!("input = {said}")).unwrap()["input"].clone(), "input");
    let mut told = draft.finish().unwrap();
    assert_eq!((told.input.bits, told.input.zero_point[0]), (16, 2047));
    let before = told.clone();
    assert_eq!((told.fit_input(&set(4095)), told), (None, before));
    assert_eq!(recipe.clone().fit_input(&set(1 << 14)), None);
}

#[test]
fn both_backends_have_the_same_losses() {
    for (name, set) in TASKS {
        // Calibrated clip values that are shared by what is concatenated depend on the order of computation.
        let recipe = recipe(name, &[("epochs", 1), ("batch_size", 4), ("clip_init", 2)]);
        let split = load(set, None, Limits { train: Some(4), test: Some(2) }).unwrap();
        let losses = [BackendKind::Cpu, BackendKind::Reference].map(|backend| run(&recipe, &split, backend).0.loss);
        assert!((losses[0] - losses[1]).abs() <= 1e-4 * losses[1].abs(), "{name}: {losses:?}");
    }
}

#[test]
fn what_does_not_go_with_a_target_is_refused_before_a_step() {
    let refused = |name: &str, set, change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::open(name).unwrap();
        change(&mut draft);
        let split = load(set, None, Limits { train: Some(40), test: Some(2) }).unwrap();
        let images = Images { train: &*split.train, test: &*split.test };
        bitpact_train::Setup::new(&draft.finish().unwrap(), &images).unwrap_err().to_string()
    };
    let augment = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    for (name, set, change, words) in [
        ("builtin-upscale", DatasetName::Upscale, augment("pad = 2\nflip = true"), "what lies beyond an image"),
        ("builtin-signals", DatasetName::Signals, augment("pad = 0\nflip = true"), "numbers do not move"),
    ] {
        let message = refused(name, set, &|draft| draft.set("augment", change.clone(), "augment"));
        assert!(message.contains(words), "{message}");
    }
    let message = refused("builtin-segments", DatasetName::Segments, &|draft| draft.set("mixup", 0.2, "mixup"));
    assert!(message.contains("mixup and label_smoothing are for classes"), "{message}");
    for (name, set, loss, words) in [
        ("builtin-segments", DatasetName::Segments, "l1", "does not go with their targets; `cross-entropy` does"),
        ("builtin", DatasetName::Builtin, "l2", "their targets are classes"),
    ] {
        let message = refused(name, set, &|draft| draft.set("loss", loss, "loss"));
        assert!(message.contains(words), "{message}");
    }
    let message =
        refused("builtin", DatasetName::Segments, &|draft| draft.set("dataset", "builtin-segments", "dataset"));
    assert!(message.contains("need an output of 32x32x5, the network gives 1x1x5"), "{message}");
}

/// The mean PSNR of bicubic enlargement (Keys 1981, a = -1/2), with pixels at the middle of their squares.
fn bicubic(test: &dyn Dataset) -> f64 {
    let weight = |d: f64| match d.abs() {
        d if d < 1.0 => 1.5 * d.powi(3) - 2.5 * d.powi(2) + 1.0,
        d if d < 2.0 => -0.5 * d.powi(3) + 2.5 * d.powi(2) - 4.0 * d + 2.0,
        _ => 0.0,
    };
    let TargetKind::Image(to) = test.target_kind() else { panic!("images") };
    let from = test.image_shape();
    let (mut small, mut target, mut sum) = (vec![0; from.len()], vec![0.0; to.len()], 0.0);
    for index in 0..test.len() {
        test.image(index, &mut small);
        test.target(index, &mut target);
        let squares = target.iter().enumerate().map(|(at, &wanted)| {
            let (y, x, c) = (at / to.c / to.w, at / to.c % to.w, at % to.c);
            let at = |place: usize, n: usize, side: usize| (place as f64 + 0.5) * side as f64 / n as f64 - 0.5;
            let (y, x) = (at(y, to.h, from.h), at(x, to.w, from.w));
            let mut value = 0.0;
            for (i, j) in (-1..=2).flat_map(|i| (-1..=2).map(move |j| (i, j))) {
                let (row, column) = (y.floor() as isize + i, x.floor() as isize + j);
                let clamp = |v: isize, side: usize| v.clamp(0, side as isize - 1) as usize;
                let pixel = small[(clamp(row, from.h) * from.w + clamp(column, from.w)) * from.c + c];
                value += weight(y - row as f64) * weight(x - column as f64) * f64::from(pixel);
            }
            (value.round_ties_even().clamp(0.0, 255.0) - f64::from(wanted) * 255.0).powi(2)
        });
        let mean = squares.sum::<f64>() / to.len() as f64;
        sum += 10.0 * (255.0f64.powi(2) / mean).log10();
    }
    sum / test.len() as f64
}

/// The whole recipes: enlarged drawings are at least 1 dB better than bicubic ones, parts overlap by at least 0.6, and
/// measures are three times as good as their mean.
#[test]
#[ignore = "takes minutes"]
fn each_recipe_reaches_its_mark() {
    for (name, set) in TASKS {
        let split = load(set, None, Limits::default()).unwrap();
        let (last, model) = run(&recipe(name, &[]), &split, BackendKind::Cpu);
        assert_eq!(different(&model, &*split.test, 100), 0, "{name}");
        let got = last.integer[0].value;
        let mark = match split.test.target_kind() {
            TargetKind::Image(_) => bicubic(&*split.test) + 1.0,
            TargetKind::Mask { .. } => 0.6,
            _ => mean_error(&split) / 3.0,
        };
        println!("{name}: {}, the mark is {mark:.4}", last.integer[0]);
        assert!(if last.integer[0].more_is_better() { got >= mark } else { got <= mark }, "{name}: {got}, {mark}");
    }
}

/// The mean absolute error of predicting the mean of the training targets.
fn mean_error(split: &Split) -> f64 {
    let n = split.train.target_kind().len();
    let all = |set: &dyn Dataset| -> Vec<f32> {
        let mut target = vec![0.0; n];
        let of = |i| {
            set.target(i, &mut target);
            target.clone()
        };
        (0..set.len()).flat_map(of).collect()
    };
    let (train, test) = (all(&*split.train), all(&*split.test));
    let means: Vec<f64> = (0..n)
        .map(|c| train[c..].iter().step_by(n).map(|&t| f64::from(t)).sum::<f64>() / split.train.len() as f64)
        .collect();
    test.iter().zip(means.iter().cycle()).map(|(&t, mean)| (f64::from(t) - mean).abs()).sum::<f64>() / test.len() as f64
}
