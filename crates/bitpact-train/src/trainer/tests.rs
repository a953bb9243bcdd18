//! The loop on a backend that is no network trainer, only a deterministic function of what it is fed.

mod fake;
mod files;
mod kills;
mod switches;

use std::sync::atomic::AtomicBool;

use bitpact_data::{ImageShape, InMemory};
use bitpact_kernels::Isa;

use super::*;
use crate::recipe::Draft;
use crate::run_folder::{CONFIG, LAST, RECORDS};
use fake::FakeBackend;

const RECIPE: &str = r#"
dataset = "own"
arch = "tiny"
epochs = 3
batch_size = 8
lr = 0.1
schedule = "cosine"
clip_init = { percentile = 99, batches = 2 }
augment = { pad = 1, flip = true }
simulated_every = 2

[graph]
name = "tiny"
nodes = [
  { name = "input", op = "input", height = 6, width = 6, channels = 1 },
  { name = "conv1", op = "conv", out_channels = 4, kernel = 3, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 3 },
]
"#;

fn recipe(change: impl FnOnce(&mut Draft)) -> Recipe {
    let mut draft = Draft::parse(RECIPE, "test").unwrap();
    change(&mut draft);
    draft.finish().unwrap()
}

fn images(n: usize, seed: u64) -> InMemory {
    let key = bitpact_core::rng::Key::new(seed);
    let pixels = (0..n as u64 * 36).map(|i| key.below(i, 256) as u8).collect();
    let labels = (0..n).map(|i| (i % 3) as u16).collect();
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    InMemory::new(pixels, labels, ImageShape { h: 6, w: 6, c: 1 }, names).unwrap()
}

/// 27 training images: three batches of 8, the rest dropped. 13 test images: the last batch is partial.
struct Sets {
    train: InMemory,
    test: InMemory,
}

impl Sets {
    fn new() -> Self {
        Self { train: images(27, 1), test: images(13, 2) }
    }

    fn images(&self) -> Images<'_> {
        Images { train: &self.train, test: &self.test }
    }
}

/// Runs `recipe` in `folder`, stopping after `stop_after` steps of this process.
fn run(recipe: &Recipe, folder: &RunFolder, start: Start, stop_after: Option<u64>) -> Result<Outcome, RunError> {
    run_observed(recipe, folder, start, stop_after, &mut |_| {})
}

fn run_observed(
    recipe: &Recipe,
    folder: &RunFolder,
    start: Start,
    stop_after: Option<u64>,
    observer: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome, RunError> {
    let sets = Sets::new();
    let setup = Setup::new(recipe, &sets.images())?;
    let mut backend = FakeBackend::new(&setup);
    let stop = AtomicBool::new(stop_after == Some(0));
    let mut steps = 0;
    let mut observer = |event: Event<'_>| {
        if let Event::Step { .. } = event {
            steps += 1;
            stop.store(stop_after == Some(steps), Ordering::Relaxed);
        }
        observer(&event);
    };
    let options =
        RunOptions { backend: BackendKind::Cpu, isa: Isa::Scalar, threads: 1, stop: &stop, observer: &mut observer };
    Trainer::new(setup, sets.images(), folder, options).run(&mut backend, start)
}

fn fresh() -> Start {
    Start::Fresh { weights: None }
}

/// What the command does for `--resume`.
fn resume(path: &std::path::Path, stop_after: Option<u64>) -> Result<Outcome, RunError> {
    let folder = RunFolder::resume(path)?;
    match folder.checkpoint()? {
        Some((checkpoint, recipe)) => run(&recipe, &folder, Start::Resume(Box::new(checkpoint)), stop_after),
        None => run(&folder.config()?, &folder, fresh(), stop_after),
    }
}

/// The files that must not depend on how often a run was stopped.
fn results(path: &std::path::Path) -> Vec<Vec<u8>> {
    [CONFIG, LAST, BEST, MODEL].iter().map(|name| std::fs::read(path.join(name)).unwrap()).collect()
}

/// The records without what a clock measured, and without what compares epochs of one process.
fn timeless(path: &std::path::Path) -> Vec<Record> {
    let mut records = RunFolder::open(path).unwrap().records().unwrap();
    for record in &mut records {
        if let Record::Epoch(epoch) = record {
            (epoch.seconds, epoch.images_per_s, epoch.test_images_per_s) = (0.0, 0.0, 0.0);
            epoch.weights.clear();
        }
    }
    records
}

#[test]
fn a_run_writes_every_file_and_evaluates_every_image() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let mut seen = Vec::new();
    let outcome = run_observed(&recipe(|_| {}), &folder, fresh(), None, &mut |event| match event {
        Event::Start { step, total_steps } => seen.push(format!("start {step} of {total_steps}")),
        Event::Calibrated(values) => seen.push(format!("calibrated {}", values.len())),
        Event::Step { epoch, batch, batches, .. } => seen.push(format!("step {epoch} {batch}/{batches}")),
        Event::Evaluating { simulated, done, images } if done == images => {
            seen.push(format!("evaluated {images} {simulated}"));
        }
        Event::Epoch(record) => seen.push(format!("epoch {}", record.epoch)),
        _ => {}
    })
    .unwrap();
    let mut expected = vec!["calibrated 1".to_owned(), "start 0 of 9".to_owned()];
    for epoch in 1..=3 {
        expected.extend((1..=3).map(|batch| format!("step {epoch} {batch}/3")));
        expected.push("evaluated 13 false".to_owned());
        // Every second epoch, and the last.
        expected.extend((epoch != 1).then(|| "evaluated 13 true".to_owned()));
        expected.push(format!("epoch {epoch}"));
    }
    assert_eq!(seen, expected);
    assert_eq!((outcome.finished, outcome.epochs, outcome.step), (true, 3, 9));
    let last = outcome.last.unwrap();
    assert_eq!((last.epoch, last.step, last.test_images), (3, 9, 13));
    assert!(last.integer_top1.is_some() && last.simulated_top1.is_some());
    assert_eq!(last.layers.len(), 1);
    let records = timeless(folder.path());
    let Record::Epoch(first) = &records[0] else { panic!("{records:?}") };
    assert_eq!((first.epoch, first.simulated_top1), (1, None));
    assert!((first.lr - folder.config().unwrap().schedule(3).lr(2)).abs() < 1e-12);

    let best = Checkpoint::load(folder.file(BEST)).unwrap();
    assert!(best.note.unwrap().contains("chosen on the test set") && best.training.is_none());
    let last = Checkpoint::load(folder.file(LAST)).unwrap();
    let converted = convert(&last.model).unwrap().model;
    assert_eq!(converted.to_bytes().unwrap(), std::fs::read(folder.file(MODEL)).unwrap());
    let config = folder.config().unwrap();
    assert_eq!(config, recipe(|_| {}));
}

#[test]
fn calibration_averages_the_first_batches_and_keeps_loaded_clip_values() {
    let at = tempfile::tempdir().unwrap();
    let clip = |name: &str, weights: Option<BTreeMap<String, Tensor>>| {
        let folder = RunFolder::create(at.path().join(name)).unwrap();
        run(&recipe(|_| {}), &folder, Start::Fresh { weights }, Some(0)).unwrap();
        Checkpoint::load(folder.file(LAST)).unwrap().model.tensors["act1.clip_val"].data[0]
    };
    // The fake's percentile is (the batch's sum of pixels) % 64 / 16 + 1, of the augmented images.
    let sets = Sets::new();
    let setup = Setup::new(&recipe(|_| {}), &sets.images()).unwrap();
    let batches = Batches::new(&setup, &sets.train);
    let mut backend = FakeBackend::new(&setup);
    let order = epoch_order(1, 0, 27);
    let mut values = Vec::new();
    for batch in order.chunks_exact(8).take(2) {
        let fill = |i: usize, out: &mut [u8], place| batches.fill(0, batch[i] as usize, out, place);
        values.push(f64::from(backend.calibrate(99.0, &fill).unwrap()["act1.clip_val"]));
    }
    assert_ne!(values[0], values[1]);
    assert_eq!(clip("calibrated", None), ((values[0] + values[1]) / 2.0) as f32);
    let weights = BTreeMap::from([("act1.clip_val".to_owned(), Tensor { shape: vec![1], data: vec![3.25] })]);
    assert_eq!(clip("loaded", Some(weights)), 3.25);
}

#[test]
fn weights_of_another_network_are_taken_by_name_or_refused_by_shape() {
    let at = tempfile::tempdir().unwrap();
    let start = |name: &str, weights: Vec<(&str, Tensor)>| {
        let folder = RunFolder::create(at.path().join(name)).unwrap();
        let weights = weights.into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
        let mut report = None;
        let outcome =
            run_observed(&recipe(|_| {}), &folder, Start::Fresh { weights: Some(weights) }, Some(0), &mut |e| {
                if let Event::Initialized(r) = e {
                    report = Some((*r).clone());
                }
            });
        outcome.map(|_| (report.unwrap(), Checkpoint::load(folder.file(LAST)).unwrap().model))
    };
    let linear = Tensor::full(&[3, 4], 0.5);
    let (report, model) =
        start("good", vec![("linear.weight", linear.clone()), ("other", Tensor::full(&[2], 0.0))]).unwrap();
    assert_eq!(model.tensors["linear.weight"], linear);
    assert_eq!((report.loaded, report.unused), (vec!["linear.weight".to_owned()], vec!["other".to_owned()]));
    assert!(report.missing.contains(&"conv1.weight".to_owned()) && report.missing.len() == 7, "{:?}", report.missing);

    let bad = vec![("linear.weight", Tensor::full(&[4, 3], 0.5)), ("linear.bias", Tensor::full(&[7], 0.5))];
    let text = start("bad", bad).unwrap_err().to_string();
    assert_eq!(
        text,
        "weights to start from: `linear.bias` has shape [7], expected [3]; `linear.weight` has shape [4, 3], \
         expected [3, 4]"
    );
    assert!(!at.path().join("bad").join(CONFIG).exists(), "nothing was trained, so nothing is left to resume");
    let text = start("none", vec![("fc.weight", Tensor::full(&[1], 0.5))]).unwrap_err().to_string();
    assert!(text.contains("no tensor has a name of this network"), "{text}");
}

#[test]
fn learned_steps_start_from_the_weights_of_another_network() {
    let at = tempfile::tempdir().unwrap();
    let lsq = recipe(|d| {
        d.set("weight_quant", "lsq", "--weight-quant");
        d.set("first_last", "same", "--first-last");
    });
    let weights = [("linear.weight", Tensor::full(&[3, 4], 0.5)), ("linear.weight_step", Tensor::full(&[], 9.0))];
    let weights = weights.map(|(name, tensor)| (name.to_owned(), tensor)).into();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&lsq, &folder, Start::Fresh { weights: Some(weights) }, Some(0)).unwrap();
    let tensors = Checkpoint::load(folder.file(LAST)).unwrap().model.tensors;
    // 2 mean|w| / sqrt(7) at 4 bits with zero.
    assert_eq!(tensors["linear.weight_step"], Tensor::full(&[], (1.0 / 7f64.sqrt()) as f32));
    assert!(tensors["conv1.weight_step"].data[0] > 0.0);
}

#[test]
fn clip_values_go_from_layers_to_channels_and_back() {
    let at = tempfile::tempdir().unwrap();
    let clips = |name: &str, clip_scale: &str, given: Option<Tensor>| {
        let folder = RunFolder::create(at.path().join(name)).unwrap();
        let weights = given.map(|clips| BTreeMap::from([("act1.clip_val".to_owned(), clips)]));
        let recipe = recipe(|d| d.set("clip_scale", clip_scale, "clip_scale"));
        run(&recipe, &folder, Start::Fresh { weights }, Some(0)).unwrap();
        Checkpoint::load(folder.file(LAST)).unwrap().model.tensors["act1.clip_val"].clone()
    };
    let calibrated = clips("layer", "layer", None);
    let spread = clips("channels", "channel", None);
    assert!(spread.shape.len() == 1 && spread == Tensor::full(&spread.shape, calibrated.data[0]));
    let mut apart = Tensor::full(&spread.shape, 0.5);
    apart.data[1] = 2.5;
    assert_eq!(clips("from channels", "layer", Some(apart.clone())), Tensor::full(&[], 2.5));
    assert_eq!(clips("from a layer", "channel", Some(Tensor::full(&[], 3.0))), Tensor::full(&spread.shape, 3.0));
    assert_eq!(clips("the same", "channel", Some(apart.clone())), apart);
}

#[test]
fn sets_that_do_not_fit_are_refused_before_anything_is_written() {
    let sets = Sets::new();
    let error = |recipe: &Recipe, images: &Images<'_>| Setup::new(recipe, images).unwrap_err().to_string();
    let text = error(&recipe(|d| d.set("batch_size", 28, "--batch-size")), &sets.images());
    assert_eq!(text, "a batch of 28 images is larger than the training set of 27; lower batch_size");
    assert_eq!(Setup::new(&recipe(|d| d.set("batch_size", 27, "")), &sets.images()).unwrap().steps_per_epoch, 1);
    let other = InMemory::new(vec![0; 25], vec![0], ImageShape { h: 5, w: 5, c: 1 }, vec!["a".to_owned()]).unwrap();
    let text = error(&recipe(|_| {}), &Images { train: &sets.train, test: &other });
    assert!(text.contains("shape or class names differ"), "{text}");
    let text = error(&recipe(|_| {}), &Images { train: &other, test: &other });
    assert!(text.contains("the network reads 6x6x1 and gives 3 classes, the data set has 5x5x1 and 1"), "{text}");
    let text = error(&recipe(|_| {}), &Images { train: &Labels(1, 0), test: &sets.test });
    assert!(text.starts_with("the training images: image 0 has label 9, but there are 3 classes"), "{text}");
    let text = error(&recipe(|_| {}), &Images { train: &sets.train, test: &Labels(0, 0) });
    assert_eq!(text, "the test images: there are none");
}

/// Some images of the right shape whose label is out of range.
struct Labels(usize, usize);

impl Dataset for Labels {
    fn len(&self) -> usize {
        self.0
    }
    fn image_shape(&self) -> ImageShape {
        ImageShape { h: 6, w: 6, c: 1 }
    }
    fn image(&self, _: usize, out: &mut [u8]) {
        out.fill(self.1 as u8);
    }
    fn label(&self, _: usize) -> usize {
        9
    }
    fn class_names(&self) -> &[String] {
        static NAMES: std::sync::LazyLock<Vec<String>> =
            std::sync::LazyLock::new(|| ["a", "b", "c"].map(str::to_owned).to_vec());
        &NAMES
    }
}

#[test]
fn a_float_network_is_evaluated_every_epoch_and_has_no_integer_file() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let outcome = run(&recipe(|_| {}).as_float(), &folder, fresh(), None).unwrap();
    assert!(!folder.file(MODEL).exists() && folder.file(BEST).exists());
    for record in timeless(folder.path()) {
        let Record::Epoch(epoch) = record else { panic!("no activations, no warnings") };
        assert!(epoch.integer_top1.is_none() && epoch.simulated_top1.is_some() && epoch.layers.is_empty());
    }
    let last = outcome.last.unwrap();
    assert_eq!(Some(last.top1()), last.simulated_top1);
}

#[test]
fn folders_that_hold_runs_or_nothing_are_told_apart() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("run");
    assert!(RunFolder::open(&path).unwrap_err().to_string().contains("cannot read the folder"));
    let folder = RunFolder::create(&path).unwrap();
    assert!(!path.exists(), "nothing is made before the first file");
    std::fs::create_dir(&path).unwrap();
    assert!(RunFolder::open(&path).unwrap_err().to_string().contains("holds no run"));
    folder.write_config(&recipe(|_| {})).unwrap();
    RunFolder::create(&path).expect("nothing was trained there yet");
    run(&recipe(|_| {}), &folder, fresh(), Some(0)).unwrap();
    let text = RunFolder::create(&path).unwrap_err().to_string();
    assert!(text.contains("holds a run already") && text.contains("--resume"), "{text}");
    let file = at.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let folder = RunFolder::create(file.join("run")).unwrap();
    let text = run(&recipe(|_| {}), &folder, fresh(), Some(0)).unwrap_err().to_string();
    assert!(text.contains("cannot make the folder") && text.contains("file/run"), "{text}");
}

#[test]
fn reading_a_run_while_it_is_written_disturbs_nothing() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let (path, mut reads) = (folder.path().to_owned(), 0);
    let mut look = |event: &Event<'_>| {
        if matches!(event, Event::Step { .. } | Event::Epoch(_)) {
            std::fs::write(path.join(".bitpact-being-written"), "half").unwrap();
            let read = RunFolder::open(&path).unwrap();
            read.records().unwrap();
            read.config().unwrap();
            read.checkpoint().unwrap().unwrap();
            assert!(path.join(".bitpact-being-written").exists(), "a reader removed a writer's file");
            reads += 1;
        }
    };
    run_observed(&recipe(|_| {}), &folder, fresh(), None, &mut look).unwrap();
    assert_eq!(reads, 12);
    RunFolder::resume(&path).unwrap();
    assert!(!path.join(".bitpact-being-written").exists(), "its next owner does");
    assert!(!path.join(".lock").exists());
}

#[test]
fn a_run_has_one_owner_at_a_time() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let path = folder.path().to_owned();
    // Both were found free; the first to write gets it.
    let late = RunFolder::create(&path).unwrap();
    let mut tried = 0;
    let mut intrude = |event: &Event<'_>| {
        if let Event::Step { .. } = event {
            for text in [
                RunFolder::resume(&path).unwrap_err().to_string(),
                resume(&path, None).unwrap_err().to_string(),
                run(&recipe(|_| {}), &late, fresh(), None).unwrap_err().to_string(),
            ] {
                let process = format!("process {} trains in this folder", std::process::id());
                assert!(text.contains(&process) && text.contains(path.to_str().unwrap()), "{text}");
            }
            tried += 1;
        }
    };
    run_observed(&recipe(|_| {}), &folder, fresh(), None, &mut intrude).unwrap();
    assert_eq!(tried, 9);
    let text = run(&recipe(|_| {}), &late, fresh(), None).unwrap_err().to_string();
    assert!(text.contains("holds a run already"), "{text}");
    assert!(resume(&path, None).unwrap().finished);
}
