//! Trained float weights that are taken at few bits: the network that is evaluated is as good as they are, from the
//! first epoch on.

use std::sync::atomic::AtomicBool;

use bitpact_core::rng::Key;
use bitpact_data::{ImageShape, InMemory};
use bitpact_kernels::Isa;
use bitpact_model::{Checkpoint, Tensor};
use bitpact_train::{BackendKind, Draft, EpochRecord, Event, Images, RunFolder, RunOptions, Start, train};

const RECIPE: &str = r#"
dataset = "own"
arch = "deep"
epochs = 8
batch_size = 24
lr = 0.05
"#;

/// The recipe with a network of ten layers between its ends, so that what does not fit in one shows in the last.
fn recipe() -> String {
    let layer = |i: usize| {
        let stride = if i == 4 || i == 8 { 2 } else { 1 };
        format!(
            "{{ name = \"conv{i}\", op = \"conv\", out_channels = 8, kernel = 3, stride = {stride}, padding = 1 }},\n\
             {{ name = \"bn{i}\", op = \"batch_norm\" }},\n{{ name = \"act{i}\", op = \"act\" }},\n"
        )
    };
    let layers: String = (0..11).map(layer).collect();
    let input = r#"{ name = "input", op = "input", height = 8, width = 8, channels = 1 },"#;
    let end = r#"{ name = "linear", op = "linear", out_features = 4 }"#;
    format!("{RECIPE}\n[graph]\nname = \"deep\"\nnodes = [\n{input}\n{layers}{end}\n]\n")
}

/// Images with one bright quarter, which is their class, among noise.
fn images(n: usize, seed: u64) -> InMemory {
    let key = Key::new(seed);
    let pixel = |i: usize, at: usize| {
        let (y, x) = (at / 8 / 4, at % 8 / 4);
        let noise = key.below((i * 64 + at) as u64, 120) as u8;
        if 2 * y + x == i % 4 { 100 + noise } else { noise }
    };
    let pixels = (0..n).flat_map(|i| (0..64).map(move |at| (i, at))).map(|(i, at)| pixel(i, at)).collect();
    let labels = (0..n).map(|i| (i % 4) as u16).collect();
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    InMemory::new(pixels, labels, ImageShape { h: 8, w: 8, c: 1 }, names).unwrap()
}

/// Trains, and returns the last epoch's record, the checkpoint and how many batches gave statistics.
fn run(
    change: impl Fn(&mut Draft),
    train_images: usize,
    weights: Option<std::collections::BTreeMap<String, Tensor>>,
) -> (EpochRecord, Checkpoint, u64) {
    let mut draft = Draft::parse(&recipe(), "test").unwrap();
    change(&mut draft);
    let (train_set, test_set) = (images(train_images, 1), images(80, 2));
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let (stop, mut batches) = (AtomicBool::new(false), 0);
    let mut observer = |event: Event<'_>| {
        if let Event::Initialized(report) = event {
            batches = report.statistics;
        }
    };
    let options =
        RunOptions { backend: BackendKind::Cpu, isa: Isa::detect(), threads: 1, stop: &stop, observer: &mut observer };
    let sets = Images { train: &train_set, test: &test_set };
    let outcome = train(&draft.finish().unwrap(), sets, &folder, Start::Fresh { weights }, options).unwrap();
    let (checkpoint, _) = folder.checkpoint().unwrap().unwrap();
    (outcome.last.unwrap(), checkpoint, batches)
}

#[test]
fn good_float_weights_are_good_at_few_bits_after_one_step() {
    let (float, checkpoint, _) = run(|d| d.set("bits", "float", ""), 240, None);
    assert!(float.top1() > 0.95, "{}", float.top1());
    for (bits, ema) in [("W4A4", 0.0), ("W4A4", 0.999), ("W3A4", 0.0), ("W8A8", 0.0)] {
        let change = |d: &mut Draft| {
            d.set("bits", bits, "");
            d.set("epochs", 1, "");
            d.set("lr", 1e-6, "");
            d.set("ema_decay", ema, "");
        };
        let (taken, _, batches) = run(change, 24, Some(checkpoint.model.tensors.clone()));
        let top1 = taken.integer_top1.unwrap();
        assert!(top1 > 0.9, "{bits}, average {ema}: {top1}, in float {}", float.top1());
        assert_eq!((taken.step, batches), (1, 1));
    }
}

#[test]
fn statistics_that_fit_are_kept() {
    let (float, checkpoint, _) = run(|d| d.set("bits", "float", ""), 240, None);
    let change = |d: &mut Draft| {
        d.set("bits", "float", "");
        d.set("epochs", 1, "");
        d.set("lr", 1e-6, "");
    };
    let (again, _, batches) = run(change, 240, Some(checkpoint.model.tensors.clone()));
    assert_eq!(batches, 0, "a float network's own statistics");
    assert!(again.top1() > float.top1() - 0.05);
    let mut without = checkpoint.model.tensors.clone();
    without.retain(|name, _| !name.contains(".running_"));
    let (again, _, batches) = run(change, 240, Some(without));
    assert_eq!(batches, 10, "a file that lacks them");
    assert!(again.top1() > float.top1() - 0.05, "{}", again.top1());
}
