//! Runs that are made to fail in one way each, and the warnings that name it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use bitpact_core::rng::Key;
use bitpact_data::{ImageShape, InMemory};
use bitpact_kernels::Isa;
use bitpact_model::Tensor;
use bitpact_train::{
    BackendKind, Draft, Event, Images, RunFolder, RunOptions, Start, WarningKind, WarningRecord, train,
};

const RECIPE: &str = r#"
dataset = "own"
arch = "small"
epochs = 5
batch_size = 20
lr = 0.05
weight_decay = 0

[graph]
name = "small"
nodes = [
  { name = "input", op = "input", height = 8, width = 8, channels = 1 },
  { name = "conv1", op = "conv", out_channels = 8, kernel = 3, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "conv2", op = "conv", out_channels = 16, kernel = 3, stride = 2, padding = 1 },
  { name = "bn2", op = "batch_norm" },
  { name = "act2", op = "act" },
  { name = "linear", op = "linear", out_features = 4 },
]
"#;

/// Images with one bright quarter, which is their class; of noise alone, with classes that follow from nothing, where
/// `is_noise`.
fn images(n: usize, seed: u64, is_noise: bool) -> InMemory {
    let key = Key::new(seed);
    let pixel = |i: usize, at: usize| {
        let (quarter, noise) = (2 * (at / 32) + at % 8 / 4, key.below((i * 64 + at) as u64, 100) as u8);
        if !is_noise && quarter == i % 4 { 140 + noise } else { noise }
    };
    let pixels = (0..n).flat_map(|i| (0..64).map(move |at| (i, at))).map(|(i, at)| pixel(i, at)).collect();
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let labels = (0..n).map(|i| (i % 4) as u16).collect();
    InMemory::new(pixels, labels, ImageShape { h: 8, w: 8, c: 1 }, names).unwrap()
}

/// The warnings of a run of `keys` over the recipe.
fn warnings(keys: &str, is_noise: bool) -> Vec<WarningRecord> {
    run(keys, is_noise, None).0
}

type Tensors = BTreeMap<String, Tensor>;

/// The same from `weights`, and what they became.
fn run(keys: &str, is_noise: bool, weights: Option<Tensors>) -> (Vec<WarningRecord>, Tensors) {
    let (plain, graph) = RECIPE.split_once("\n[graph]").unwrap();
    let key = |line: &str| line.split(" =").next().unwrap_or_default().to_owned();
    let changed: Vec<String> = keys.lines().map(key).collect();
    let kept = plain.lines().filter(|line| !changed.contains(&key(line))).collect::<Vec<_>>().join("\n");
    let text = format!("{kept}\n{keys}\n[graph]{graph}");
    let recipe = Draft::parse(&text, "test").unwrap().finish().unwrap();
    let (train_set, test_set) = (images(100, 1, is_noise), images(40, 2, is_noise));
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let (stop, mut told) = (AtomicBool::new(false), Vec::new());
    let mut observer = |event: Event<'_>| {
        if let Event::Warning(warning) = event {
            told.push(warning.clone());
        }
    };
    let options =
        RunOptions { backend: BackendKind::Cpu, isa: Isa::detect(), threads: 1, stop: &stop, observer: &mut observer };
    let sets = Images { train: &train_set, test: &test_set };
    train(&recipe, sets, &folder, Start::Fresh { weights }, options).unwrap();
    (told, folder.checkpoint().unwrap().unwrap().0.model.tensors)
}

/// The one kind of warning that `keys` bring about names `layer` and says `part`.
#[track_caller]
fn expect(keys: &str, is_noise: bool, kind: WarningKind, layer: &str, part: &str) {
    let told = warnings(keys, is_noise);
    let found = told.iter().find(|warning| warning.warning == kind && warning.layer == layer);
    let found = found.unwrap_or_else(|| panic!("{keys}: {told:?}"));
    assert!(found.message.contains(part), "{keys}: {}", found.message);
    assert!(told.iter().all(|warning| warning.warning == kind), "{keys}: other causes are named too: {told:?}");
}

#[test]
fn a_run_that_learns_gives_none() {
    assert_eq!(warnings("bits = \"W4A4\"", false), []);
    assert_eq!(warnings("bits = \"float\"", false), []);
    assert_eq!(warnings("bits = \"W4A4\"\nema_decay = 0.5\nbn_reestimate = 2", false), []);
}

#[test]
fn clip_values_far_above_what_layers_see_leave_them_dead() {
    expect("clip_init = 9000\nclip_lr = 0\nepochs = 1", false, WarningKind::Dead, "act1", "clip_init");
    expect("clip_init = 9000\nclip_lr = 0\nepochs = 1", false, WarningKind::Dead, "act2", "clip value 9000");
}

#[test]
fn clip_values_far_below_what_layers_see_clip_them() {
    expect(
        "clip_init = 0.02\nclip_lr = 0\nepochs = 2",
        false,
        WarningKind::Clipping,
        "act1",
        "start its clip value higher",
    );
}

#[test]
fn clip_values_that_decay_to_the_least_name_their_decay_and_others_their_rate() {
    let falls = "clip_init = 0.5\nclip_lr = 0.5\nepochs = 1";
    let told = warnings(&format!("{falls}\nclip_weight_decay = 3"), false);
    let held =
        told.iter().find(|warning| warning.warning == WarningKind::AlphaMin).unwrap_or_else(|| panic!("{told:?}"));
    assert!(held.message.contains("lower clip_weight_decay, or clip_lr"), "{}", held.message);
}

#[test]
fn clip_values_that_stand_still_are_told_while_they_should_move() {
    expect("clip_lr = 1e-7\nbatch_size = 1\nlr = 0.001", false, WarningKind::AlphaStill, "act1", "stayed within 1 %");
}

#[test]
fn a_loss_far_above_guessing_is_told() {
    expect("bits = \"float\"\nlr = 30\nmomentum = 0\nepochs = 1", false, WarningKind::Diverged, "", "lower lr");
}

#[test]
fn images_that_are_known_by_heart_are_no_fault_of_the_statistics() {
    expect("epochs = 40\nbits = \"W8A8\"\nlr = 0.1", true, WarningKind::Overfit, "", "by heart");
}

#[test]
fn statistics_that_do_not_fit_the_weights_are_told_as_that() {
    let (none, mut tensors) = run("bits = \"float\"", false, None);
    assert_eq!(none, []);
    let means = tensors.iter_mut().filter(|(name, _)| name.ends_with(".running_mean"));
    means.for_each(|(_, tensor)| tensor.data.iter_mut().for_each(|mean| *mean += 30.0));
    let keys = "bits = \"float\"\nlr = 1e-6\nepochs = 1";
    let (told, _) = run(keys, false, Some(tensors.clone()));
    let [WarningRecord { warning: WarningKind::Gap, message, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(message.contains("estimate them anew (bn_reestimate)"), "{message}");
    assert_eq!(run(&format!("{keys}\nbn_reestimate = 2"), false, Some(tensors)).0, [], "the remedy");
}
