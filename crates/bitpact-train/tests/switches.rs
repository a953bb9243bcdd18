//! Every training switch on a small run of the real thing: it changes the result, and the result depends neither on the
//! number of threads nor on a stop in the middle.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bitpact_data::{DatasetName, Limits, Split, load};
use bitpact_kernels::Isa;
use bitpact_train::run_folder::{BEST, LAST, MODEL};
use bitpact_train::{BackendKind, Draft, Event, Images, Recipe, RunFolder, RunOptions, Start, train};

const RECIPE: &str = r#"
dataset = "builtin"
arch = "small"
bits = "W4A4"
epochs = 3
batch_size = 16
lr = 0.05
clip_init = { batches = 1 }
augment = { pad = 2, flip = true }
first_last = "same"

[graph]
name = "small"
nodes = [
  { name = "input", op = "input", height = 32, width = 32, channels = 3 },
  { name = "conv1", op = "conv", out_channels = 4, kernel = 3, stride = 2, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "conv2", op = "conv", out_channels = 8, kernel = 3, stride = 2, padding = 1 },
  { name = "bn2", op = "batch_norm" },
  { name = "act2", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 10 },
]
"#;

fn recipe(line: &str) -> Recipe {
    let (before, tables) = RECIPE.split_once("\n[graph]").unwrap();
    // Keys of tables come after the plain ones.
    let text = match line.starts_with('[') {
        true => format!("{RECIPE}{line}"),
        false => {
            let key = line.split(' ').next().unwrap();
            let kept = before.lines().filter(|l| !l.starts_with(&format!("{key} ="))).collect::<Vec<_>>().join("\n");
            format!("{kept}\n{line}\n[graph]{tables}")
        }
    };
    Draft::parse(&text, "test").unwrap().finish().unwrap()
}

/// Trains in `folder`, stopping after `stop_after` steps of this call.
fn run(recipe: &Recipe, split: &Split, folder: &RunFolder, start: Start, threads: usize, stop_after: Option<u64>) {
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let mut observer = |event: Event<'_>| {
        if let Event::Step { .. } = event {
            steps += 1;
            stop.store(stop_after == Some(steps), Ordering::Relaxed);
        }
    };
    let options =
        RunOptions { backend: BackendKind::Cpu, isa: Isa::detect(), threads, stop: &stop, observer: &mut observer };
    let images = Images { train: &*split.train, test: &*split.test };
    train(recipe, images, folder, start, options).unwrap();
}

fn results(folder: &RunFolder) -> Vec<Vec<u8>> {
    [LAST, BEST, MODEL].map(|name| std::fs::read(folder.file(name)).unwrap()).to_vec()
}

fn undisturbed(recipe: &Recipe, split: &Split, path: &Path) -> RunFolder {
    let folder = RunFolder::create(path).unwrap();
    run(recipe, split, &folder, Start::Fresh { weights: None }, 1, None);
    folder
}

#[test]
fn every_switch_changes_the_result_and_no_thread_or_stop_does() {
    let split = load(DatasetName::Builtin, None, Limits { train: Some(48), test: Some(20) }).unwrap();
    let at = tempfile::tempdir().unwrap();
    let plain = undisturbed(&recipe("seed = 1"), &split, &at.path().join("plain"));
    let teacher = format!("teacher = '{}'", plain.file(LAST).display());
    let switches = [
        "optimizer = \"adam\"",
        "optimizer = \"adamw\"",
        "max_grad_norm = 0.5",
        "[param_groups.\"conv*\"]\nlr = 0.01\nweight_decay = 0.01",
        "label_smoothing = 0.1",
        "sum_noise = 0.3",
        "cutout = 8",
        "mixup = 0.4",
        &teacher,
        "ema_decay = 0.9",
        "bn_reestimate = 2",
        "bits = \"float@1,W8A8@2,W2A2\"",
    ];
    for (i, line) in switches.into_iter().enumerate() {
        let recipe = recipe(line);
        let whole = undisturbed(&recipe, &split, &at.path().join(format!("whole{i}")));
        assert_ne!(results(&whole)[2], results(&plain)[2], "{line}");
        // Three steps an epoch: stopped within the second and at the end of the third.
        for stop_after in [1, 4, 6] {
            let folder = RunFolder::create(at.path().join(format!("stopped{i}-{stop_after}"))).unwrap();
            run(&recipe, &split, &folder, Start::Fresh { weights: None }, 2, Some(stop_after));
            let (checkpoint, stored) = folder.checkpoint().unwrap().unwrap();
            assert_eq!(stored, recipe);
            run(&stored, &split, &folder, Start::Resume(Box::new(checkpoint)), 2, None);
            assert_eq!(results(&folder), results(&whole), "{line}, stopped after {stop_after} steps");
        }
    }
}
