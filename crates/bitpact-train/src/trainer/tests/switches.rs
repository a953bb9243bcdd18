//! Averages, bits that change, and teachers, as the loop treats them.

use std::sync::OnceLock;

use bitpact_graph::WeightPlan;

use super::*;

/// The folder of a finished run to learn from.
pub(super) fn teacher() -> &'static str {
    static TEACHER: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = TEACHER.get_or_init(|| {
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("teacher")).unwrap();
        run(&recipe(|_| {}), &folder, fresh(), None).unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        (at, path)
    });
    path
}

fn last(folder: &RunFolder) -> Checkpoint {
    Checkpoint::load(folder.file(LAST)).unwrap()
}

#[test]
fn the_average_is_what_is_converted_and_the_raw_tensors_stand_beside_it() {
    let at = tempfile::tempdir().unwrap();
    let folder = |name: &str| RunFolder::create(at.path().join(name)).unwrap();
    let (plain, averaged) = (folder("plain"), folder("averaged"));
    run(&recipe(|_| {}), &plain, fresh(), None).unwrap();
    run(&recipe(|d| d.set("ema_decay", 0.9, "")), &averaged, fresh(), None).unwrap();
    let (plain, checkpoint) = (last(&plain), last(&averaged));
    let training = checkpoint.training.unwrap();
    assert_eq!(training.raw, plain.model.tensors, "averaging does not change what is trained");
    assert_ne!(checkpoint.model.tensors, training.raw);
    let converted = convert(&checkpoint.model).unwrap().model.to_bytes().unwrap();
    assert_eq!(converted, std::fs::read(averaged.file(MODEL)).unwrap());
    assert!(plain.training.unwrap().raw.is_empty());
}

#[test]
fn running_statistics_come_from_the_first_batches_of_the_epoch() {
    let at = tempfile::tempdir().unwrap();
    let statistics = |name: &str, batches: i64| {
        let folder = RunFolder::create(at.path().join(name)).unwrap();
        let change = |d: &mut Draft| {
            d.set("bn_reestimate", batches, "");
            d.set("cutout", 2, "");
        };
        run(&recipe(change), &folder, fresh(), Some(3)).unwrap();
        last(&folder).model
    };
    let (none, two, many) = (statistics("none", 0), statistics("two", 2), statistics("many", 1000));
    let setup = Setup::new(&recipe(|_| {}), &Sets::new().images()).unwrap();
    for (model, batches) in [(&two, 2), (&many, 3)] {
        // What the fake makes of the images as they are cropped and flipped, nothing cut out.
        let mut backend = FakeBackend::new(&setup);
        backend.load(&none.tensors, None).unwrap();
        let sets = Sets::new();
        let order = epoch_order(1, 0, 27);
        let source = Batches::new(&setup, &sets.train);
        for (batch, indices) in order.chunks_exact(8).take(batches).enumerate() {
            backend.reestimate(batch as u64, &|i, out, place| source.fill(0, indices[i] as usize, out, place));
        }
        assert_eq!(backend.tensors(), model.tensors, "{batches} batches");
    }
    assert_ne!(none.tensors, two.tensors);
}

#[test]
fn bits_change_at_their_epochs_and_what_was_learned_stays() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let progressive = recipe(|d| {
        d.set("bits", "float@1,W8A8@2,W4A4", "");
        d.set("first_last", "same", "");
        d.set("weight_quant", "lsq", "");
    });
    let mut changes = Vec::new();
    let mut calibrated = 0;
    let observer = &mut |event: &Event<'_>| match event {
        Event::Bits { epoch, bits } => changes.push(format!("{bits} from {epoch}")),
        Event::Calibrated(_) => calibrated += 1,
        _ => {}
    };
    let mut ends = Vec::new();
    let mut start = fresh();
    for _ in 0..3 {
        run_observed(&progressive, &folder, start, Some(3), observer).unwrap();
        ends.push(last(&folder));
        start = Start::Resume(Box::new(last(&folder)));
    }
    assert_eq!((changes, calibrated), (vec!["W8A8 from 2".to_owned(), "W4A4 from 3".to_owned()], 1));
    let bits = |c: &Checkpoint| match c.model.plan.weights["conv1"] {
        WeightPlan::Float => 32,
        WeightPlan::Quantized(spec) => spec.bits.get(),
    };
    assert_eq!(ends.iter().map(bits).collect::<Vec<_>>(), [32, 8, 4]);
    let best = Checkpoint::load(folder.file(BEST)).unwrap();
    assert_eq!(bits(&best), 4, "the best epoch is one with the last bits");
    let records: Vec<_> = folder
        .records()
        .unwrap()
        .into_iter()
        .filter_map(|r| match r {
            Record::Epoch(epoch) => Some((epoch.epoch, epoch.bits.unwrap(), epoch.integer_top1.is_some())),
            Record::Warning(_) => None,
        })
        .collect();
    let wanted = [(1, "float", false), (2, "W8A8", true), (3, "W4A4", true)];
    assert_eq!(records, wanted.map(|(epoch, bits, integer)| (epoch, bits.to_owned(), integer)));

    // The change itself: stopped before the first step after it, nothing of it is in the file, so look at the first
    // steps.
    let second = ends[1].model.tensors.clone();
    let resumed = RunFolder::open(folder.path()).unwrap();
    run(&progressive, &resumed, Start::Resume(Box::new(ends[1].clone())), Some(1)).unwrap();
    let third = last(&resumed);
    let near =
        |name: &str| third.model.tensors[name].data.iter().zip(&second[name].data).all(|(a, b)| (a - b).abs() < 0.02);
    assert!(second.keys().all(|name| near(name)), "one step from where they were");
    assert!(third.model.tensors.contains_key("conv1.weight_step") && !second.contains_key("conv1.weight_step"));
    let momentum = &third.training.unwrap().momentum["conv1.weight"];
    assert!(momentum.data.iter().all(|v| v.abs() <= 0.1), "momentum began anew");
}

#[test]
fn bits_beyond_the_run_and_groups_of_nothing_are_refused() {
    let mut draft = Draft::parse(RECIPE, "test").unwrap();
    draft.set("bits", "W8A8@3,W4A4", "--bits");
    let text = draft.finish().unwrap_err().to_string();
    assert_eq!(text, "--bits: `bits` = W8A8@3,W4A4: expected epochs below the 3 of the run, not 3");
    let groups = |pattern: &str| {
        let recipe = recipe(|d| d.add_param_group(&format!("{pattern}:lr=0.1"), "").unwrap());
        Setup::new(&recipe, &Sets::new().images()).map(drop)
    };
    groups("conv1.*").unwrap();
    let text = groups("conv2.*").unwrap_err().to_string();
    assert!(text.contains("`param_groups`.\"conv2.*\": no trained tensor") && text.contains("bn1.bias"), "{text}");
    groups("bn1.running_mean").unwrap_err();
}

#[test]
fn a_teacher_must_fit_the_images_and_stay_the_same() {
    let at = tempfile::tempdir().unwrap();
    let taught = |path: &str| recipe(|d| d.set("teacher", path, ""));
    let missing = at.path().join("none.safetensors");
    let text = Setup::new(&taught(missing.to_str().unwrap()), &Sets::new().images()).unwrap_err().to_string();
    assert!(text.contains("none.safetensors: cannot read"), "{text}");

    let own = Checkpoint::load(std::path::Path::new(teacher()).join(LAST)).unwrap();
    let refused = |names: &[&str], shape: ImageShape| {
        let pixels = vec![0; 9 * shape.len()];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let other = InMemory::new(pixels, vec![0; 9], shape, names).unwrap();
        Setup::new(&taught(teacher()), &Images { train: &other, test: &other }).unwrap_err().to_string()
    };
    let shape = ImageShape { h: 6, w: 6, c: 1 };
    let text = refused(&["a", "b"], shape);
    assert!(text.contains("last.safetensors: it knows 3 classes, the training images have 2"), "{text}");
    assert!(refused(&["a", "b", "z"], shape).contains("other names"));
    let text = refused(&["a", "b", "c"], ImageShape { h: 8, ..shape });
    assert!(text.contains("it reads images of 6x6x1, the training images are 8x6x1"), "{text}");

    let folder = RunFolder::create(at.path().join("run")).unwrap();
    run(&taught(teacher()), &folder, fresh(), Some(4)).unwrap();
    let resume = |recipe: &Recipe| run(recipe, &folder, Start::Resume(Box::new(last(&folder))), Some(0));
    // The same network elsewhere is the same teacher; another is not, and none is another.
    let copy = at.path().join("copy.safetensors");
    std::fs::write(&copy, Checkpoint { training: None, ..own.clone() }.to_bytes().unwrap()).unwrap();
    resume(&taught(copy.to_str().unwrap())).unwrap();
    let mut other = own;
    other.model.tensors.get_mut("linear.bias").unwrap().data[0] += 1.0;
    std::fs::write(&copy, other.to_bytes().unwrap()).unwrap();
    let text = resume(&taught(copy.to_str().unwrap())).unwrap_err().to_string();
    assert!(text.contains("the run began with another teacher: one with checksum"), "{text}");
    let text = resume(&recipe(|_| {})).unwrap_err().to_string();
    assert!(text.contains("now there is none"), "{text}");
}

/// With share r, image i is r of itself and the rest of the image as far from the end, both cropped, flipped and cut.
#[test]
fn batches_are_mixed_with_themselves_backwards() {
    let sets = Sets::new();
    let mixed = recipe(|d| {
        d.set("mixup", 0.3, "");
        d.set("cutout", 2, "");
    });
    let setup = Setup::new(&mixed, &sets.images()).unwrap();
    let batches = Batches::new(&setup, &sets.train);
    let shape = sets.train.image_shape();
    let place = Placement::dense(shape);
    let order = epoch_order(1, 0, 27);
    let image = |i: usize, mixup| {
        let mut out = vec![128; shape.len()];
        let label = batches.fill_step(0, &order[..8], i, mixup, &|_| None, &mut out, place);
        (out, label)
    };
    let shares: Vec<u16> = (0..500).map(|step| batches.mixup(step).unwrap()).collect();
    assert!(shares.iter().any(|&s| s < 20) && shares.iter().any(|&s| s > 236) && shares.iter().all(|&s| s <= 256));
    for share in [0, 77, 256] {
        for i in 0..8 {
            let ((own, label), (other, _)) = (image(i, None), image(7 - i, None));
            let (got, mixed_label) = image(i, Some(share));
            assert_eq!(label, mixed_label);
            for ((got, own), other) in got.iter().zip(own).zip(other) {
                let wanted =
                    (u32::from(share) * u32::from(own) + (256 - u32::from(share)) * u32::from(other) + 128) / 256;
                assert_eq!(u32::from(*got), wanted);
            }
        }
    }
    let plain = Batches::new(&Setup::new(&recipe(|_| {}), &sets.images()).unwrap(), &sets.train);
    assert_eq!(plain.mixup(3), None);
    let mut out = vec![128; shape.len()];
    plain.fill_step(0, &order[..8], 5, None, &|_| None, &mut out, place);
    let different = out.iter().zip(image(5, None).0).filter(|(a, b)| **a != *b).count();
    assert!((1..=4).contains(&different), "{different} pixels were cut out");
}

#[test]
fn the_best_epoch_follows_the_held_out_images_and_the_test_set_has_no_part_in_it() {
    let recipe = recipe(|d| {
        d.set("holdout", 7, "");
        d.set("batch_size", 5, "");
    });
    let sets = Sets::new();
    let images = |test| Images { train: &sets.train, test };
    let other = super::images(13, 77);
    let train_on = |test, at: &std::path::Path| {
        let folder = RunFolder::create(at).unwrap();
        let stop = AtomicBool::new(false);
        let options =
            RunOptions { backend: BackendKind::Cpu, isa: Isa::Scalar, threads: 1, stop: &stop, observer: &mut |_| {} };
        crate::train(&recipe, images(test), &folder, fresh(), options).unwrap();
        (std::fs::read(folder.file(BEST)).unwrap(), folder.records().unwrap())
    };
    let at = tempfile::tempdir().unwrap();
    let (best, records) = train_on(&sets.test, &at.path().join("a"));
    let (again, others) = train_on(&other, &at.path().join("b"));
    assert!(best == again, "the test set had a part in the choice");
    let held = |records: &[Record]| -> Vec<f64> {
        let epochs = records.iter().filter_map(|r| if let Record::Epoch(e) = r { Some(e) } else { None });
        epochs.map(|epoch| epoch.holdout_top1.unwrap()).collect()
    };
    assert_eq!(held(&records), held(&others));
    assert!(held(&records).iter().all(|top1| (top1 * 7.0 - (top1 * 7.0).round()).abs() < 1e-9));
    let note = Checkpoint::load(at.path().join("a").join(BEST)).unwrap().note.unwrap();
    assert!(note.contains("held-out"), "{note}");
    // Four batches of 20 images, not five of 27.
    assert_eq!(records.last().unwrap().step(), 12);
}

#[test]
fn images_that_are_held_out_must_leave_some_and_be_there() {
    let sets = Sets::new();
    for (holdout, says) in
        [(27, "27 are to be held out of 27, which leaves none"), (9, "0 of them are held out, the recipe says 9")]
    {
        let recipe = recipe(|d| d.set("holdout", holdout, ""));
        let at = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(at.path().join("run")).unwrap();
        let stop = AtomicBool::new(false);
        let options =
            RunOptions { backend: BackendKind::Cpu, isa: Isa::Scalar, threads: 1, stop: &stop, observer: &mut |_| {} };
        let text = match holdout {
            27 => crate::train(&recipe, sets.images(), &folder, fresh(), options).unwrap_err().to_string(),
            _ => run(&recipe, &folder, fresh(), None).unwrap_err().to_string(),
        };
        assert!(text.contains(says), "{text}");
        assert!(!folder.path().exists());
    }
}

#[test]
fn overrides_and_patterns_that_change_nothing_name_what_would() {
    let sets = Sets::new();
    let attempt = |text: &str| {
        let recipe = Draft::parse(&text_of(text), "test").unwrap().finish().unwrap();
        Setup::new(&recipe, &sets.images()).map(drop)
    };
    for (text, says) in [
        (
            "[overrides.conv1]\nactivation_bits = 3",
            "`activation_bits` changes nothing in `conv1`; `act1` would take it",
        ),
        ("[overrides.act1]\nweight_bits = 3", "`weight_bits` changes nothing in `act1`; `linear` would take it"),
        ("[overrides.conv1]\nclip_scale = \"channel\"", "`clip_scale` changes nothing in `conv1`"),
        ("[overrides.act1]\nweight_quant = \"sawb\"", "`weight_quant` changes nothing in `act1`"),
    ] {
        let error = attempt(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    attempt("[overrides.\"*1\"]\nactivation_bits = 3\nweight_bits = 3").unwrap();
    let undecayed = |pattern: &str| recipe(|d| d.set("no_weight_decay", vec![pattern.to_owned()], ""));
    let text = Setup::new(&undecayed("*.biass"), &sets.images()).unwrap_err().to_string();
    assert!(text.contains("`no_weight_decay`.\"*.biass\": no trained tensor has a name like this"), "{text}");
    Setup::new(&undecayed("*.clip_val"), &sets.images()).unwrap();
    Setup::new(&undecayed("*.clip_val").as_float(), &sets.images()).expect("the float network beside it");
}

/// The recipe of these tests with tables behind it.
fn text_of(tables: &str) -> String {
    format!("{RECIPE}\n{tables}\n")
}

#[test]
fn weights_of_which_no_layer_matches_are_refused() {
    let at = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(at.path().join("run")).unwrap();
    let norm = || Tensor::full(&[4], 1.0);
    let weights =
        [("bn1.weight", norm()), ("bn1.bias", norm()), ("features.0.weight", Tensor::full(&[4, 1, 3, 3], 0.1))];
    let weights: BTreeMap<_, _> = weights.map(|(name, tensor)| (name.to_owned(), tensor)).into();
    let begun = |weights| run(&recipe(|_| {}), &folder, Start::Fresh { weights: Some(weights) }, Some(0));
    let text = begun(weights.clone()).unwrap_err().to_string();
    for part in
        ["only 2 of the file's tensors", "such as conv1.weight, linear.weight", "the file has features.0.weight"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!folder.path().exists());
    let mut some = weights;
    some.insert("conv1.weight".to_owned(), Tensor::full(&[4, 1, 3, 3], 0.1));
    begun(some).unwrap();
}
