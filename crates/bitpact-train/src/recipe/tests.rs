use bitpact_data::DatasetName;
use bitpact_data::own::Task;
use bitpact_graph::{FirstLast, Shape, WeightPlan};

use super::*;
use crate::schedule::ScheduleKind;

const SMALL: &str = "dataset = \"builtin\"\narch = \"cnn\"\nepochs = 2\n";

fn small() -> Draft {
    Draft::parse(SMALL, "r.toml").unwrap()
}

/// The error of `SMALL` with `line` as its fourth line.
fn error_of(line: &str) -> String {
    let text = format!("{SMALL}{line}\n");
    Draft::parse(&text, "r.toml").and_then(Draft::finish).expect_err(line).to_string()
}

#[test]
fn every_builtin_recipe_is_whole_and_reads_back_from_its_own_config() {
    for name in BUILTIN_NAMES {
        let recipe = Recipe::open(name).unwrap();
        assert_eq!(recipe.name, name);
        let text = recipe.to_toml();
        let again = Draft::parse(&text, "config.toml").unwrap().finish().unwrap();
        assert_eq!(again, recipe, "{text}");
        assert_eq!(again.to_toml(), text);
        let info = recipe.dataset.parse::<bitpact_data::DatasetName>().unwrap().info();
        let (shape, classes) = match (info.image_shape, recipe.crop) {
            (_, Some(Crop([h, w]))) => (Shape::new(h, w, 3), 10),
            // Of one's own data nothing is known.
            _ if recipe.dataset == "folder" => (Shape::new(28, 28, 1), 10),
            (shape, None) => (Shape::new(shape.h, shape.w, shape.c), info.class_names.len()),
        };
        let graph = recipe.network(shape, classes).unwrap();
        recipe.plan(&graph).unwrap();
        assert!(recipe.as_float().plan(&graph).unwrap().is_float());
    }
}

#[test]
fn the_papers_recipe_has_the_papers_numbers() {
    let r = Recipe::open("cifar10-resnet20").unwrap();
    assert_eq!((r.epochs, r.batch_size, r.lr, r.momentum, r.weight_decay), (200, 128, 0.1, 0.9, 2e-4));
    assert_eq!(r.clip_weight_decay, r.weight_decay);
    assert_eq!((r.first_last, r.clip_init), (FirstLast::Bits8, ClipInit::Calibrate { percentile: 99.9, batches: 8 }));
    let s = r.schedule(390);
    assert_eq!([s.lr(60 * 390 - 1), s.lr(60 * 390)], [0.1, 0.1 * 0.1]);
    assert_eq!([s.lr(120 * 390 - 1), s.lr(120 * 390)], [0.1 * 0.1, 0.1 * 0.1 * 0.1]);
}

#[test]
fn the_torch_recipe_leaves_the_ends_in_float_and_decays_everything() {
    let r = Recipe::open("cifar10-resnet20-torch").unwrap();
    let graph = r.network(Shape::new(32, 32, 3), 10).unwrap();
    let plan = r.plan(&graph).unwrap();
    assert_eq!((plan.weights["conv1"], plan.weights["linear"]), (WeightPlan::Float, WeightPlan::Float));
    assert!(matches!(plan.weights["layer1.0.conv1"], WeightPlan::Quantized(_)));
    assert_eq!(r.clip_init, ClipInit::Fixed(10.0));
    let o = r.optimizer_config();
    assert_eq!((o.weight_decay, o.clip_weight_decay, o.clip_lr_scale), (2e-4, 2e-4, 1.0));
    assert!(o.no_weight_decay.is_empty() && !o.nesterov);
    let input = r.input_description(3);
    assert_eq!((input.zero_point, input.scale), (vec![128; 3], vec![1.0 / 64.0; 3]));
}

#[test]
fn flags_win_over_the_file() {
    let mut draft = small();
    draft.set("epochs", 7, "--epochs");
    draft.set("bits", "W2A3", "--bits");
    draft.set("clip_init", 10, "--clip-init");
    draft.set("seed", 0, "--seed");
    draft.set("limit_test", 20, "--limit-test");
    let recipe = draft.finish().unwrap();
    assert_eq!((recipe.epochs, recipe.bits.to_string().as_str(), recipe.seed), (7, "W2A3", 0));
    assert_eq!((recipe.clip_init, recipe.limit_test), (ClipInit::Fixed(10.0), Some(20)));
}

#[test]
fn fields_set_by_hand_are_checked_too() {
    let recipe = small().finish().unwrap();
    recipe.check().unwrap();
    let wrong = |change: fn(&mut Recipe)| {
        let mut recipe = recipe.clone();
        change(&mut recipe);
        recipe.check().unwrap_err().to_string()
    };
    assert!(wrong(|r| r.batch_size = 0).contains("`batch_size` = 0: expected a whole number"));
    assert!(wrong(|r| r.lr = f64::NAN).contains("`lr` = NaN"));
    assert!(wrong(|r| r.name = "../x".to_owned()).contains("expected up to 64 letters"));
    let text = wrong(|r| r.seed = u64::MAX);
    assert!(text.contains("u64") || text.contains("integer"), "{text}");
    assert!(wrong(|r| r.arch = "none".to_owned()).contains("`arch` = \"none\""));
}

#[test]
fn differences_name_the_keys() {
    let recipe = small().finish().unwrap();
    assert!(recipe.differences(&recipe.clone()).is_empty());
    let mut other = recipe.clone();
    (other.lr, other.limit_test) = (0.5, Some(3));
    let found = [("limit_test", "nothing", "3"), ("lr", "0.1", "0.5")];
    assert_eq!(recipe.differences(&other), found.map(|(k, a, b)| (k.to_owned(), a.to_owned(), b.to_owned())));
}

#[test]
fn unknown_keys_name_file_line_and_the_nearest_key() {
    for (line, near) in [
        ("epoch = 3", "`epochs`"),
        ("batch-size = 3", "`batch_size`"),
        ("weight_deacy = 3", "`weight_decay`"),
        ("clip_decay = 3", "`lr_decay`"),
        ("limits_train = 3", "`limit_train`"),
        ("mementum = 3", "`momentum`"),
    ] {
        let text = error_of(line);
        let key = line.split(' ').next().unwrap();
        assert!(text.starts_with(&format!("r.toml, line 4: unknown key `{key}` (did you mean {near}?)")), "{text}");
        assert!(text.contains("the keys are name, dataset"), "{text}");
    }
    let text = error_of("zzzzzz = 1");
    assert!(text.starts_with("r.toml, line 4: unknown key `zzzzzz`; the keys are"), "{text}");
    let text = error_of("[augment]\npadding = 4");
    assert!(text.contains("r.toml, line 4: `augment`") && text.contains("unknown field `padding`"), "{text}");
}

#[test]
fn bad_values_name_the_place_the_value_and_what_was_expected() {
    for (line, expected) in [
        ("bits = \"W9A4\"", "r.toml, line 4: `bits` = `W9A4`: 9 bits for weights, expected 1 to 8"),
        ("bits = \"W4A0\"", "r.toml, line 4: `bits` = `W4A0`: 0 bits for activations, expected 1 to 8"),
        ("bits = \"4\"", "`4` is not a bit width: expected `float` or a form like `W4A4`"),
        ("bits = 4", "`bits` = 4: invalid type: integer `4`, expected a string"),
        ("lr = 0", "`lr` = 0: expected a number above 0"),
        ("lr = -1.5", "`lr` = -1.5: expected a number above 0"),
        ("lr = nan", "`lr` = NaN: expected a number above 0"),
        ("lr = inf", "`lr` = inf: expected a number above 0"),
        ("lr = 1e39", "expected a number above 0"),
        ("lr = 1e-60", "expected a number above 0"),
        ("lr = \"fast\"", "`lr` = \"fast\": invalid type: string \"fast\", expected f64"),
        ("batch_size = 0", "`batch_size` = 0: expected a whole number, 1 to 1048576"),
        ("batch_size = 1.5", "`batch_size` = 1.5: expected a whole number"),
        ("precision = \"fp16\"", "`precision` = \"fp16\": expected one of \"fp32\", \"bf16\""),
        ("gradient_bits = 4", "`gradient_bits` = 4: expected 8, or no such key"),
        ("momentum = 1.0", "`momentum` = 1: expected a number of at least 0 and below 1"),
        ("momentum = -0.1", "expected a number of at least 0 and below 1"),
        ("momentum = 0\nnesterov = true", "r.toml, line 5: `nesterov` = true: expected a momentum above 0"),
        ("weight_decay = -1e-4", "`weight_decay` = -0.0001: expected a number of 0 or more"),
        ("clip_weight_decay = nan", "expected a number of 0 or more"),
        ("seed = -1", "`seed` = -1: expected a whole number, 0 or more"),
        ("limit_train = 0", "`limit_train` = 0: expected a whole number, 1 or more"),
        (
            "act_quant = \"pakt\"",
            "expected one of \"pact\", \"pact+\", \"lsq\", \"fixed\", \"relu\", \"sign\" (did you mean `pact`?)",
        ),
        ("clip_scale = \"group\"", "`clip_scale` = \"group\": expected one of \"layer\", \"channel\""),
        ("act_quant = \"pact-sym\"", "that is for signed activations alone"),
        ("weight_scale = \"group\"", "`weight_scale` = \"group\": expected one of \"layer\", \"channel\""),
        ("weight_quant = \"doreffa\"", "(did you mean `dorefa`?)"),
        (
            "weight_quant = 3",
            "`weight_quant` = 3: expected one of \"dorefa\", \"sawb\", \"sawb+\", \"lsq\", \"minmax\"",
        ),
        ("first_last = \"8-bit\"", "expected one of \"float\", \"8bit\", \"same\" (did you mean `8bit`?)"),
        ("schedule = \"cos\"", "expected one of \"constant\", \"step\", \"cosine\" (did you mean `cosine`?)"),
        ("clip_init = 0", "expected a number from 0.01 to 10000, \"calibrate\""),
        ("clip_init = \"auto\"", "`clip_init` = \"auto\": expected a number"),
        ("clip_init = { percentile = 101 }", "has percentile = 101: expected above 0 and at most 100"),
        ("clip_init = { batches = 0 }", "has batches = 0: expected 1 to 10000"),
        ("clip_init = { batch = 1 }", "unknown field `batch`"),
        ("milestones = [0.5, 0.3]", "expected fractions of the run, each above 0, below 1 and above the one before"),
        ("milestones = [60, 120]", "expected fractions of the run"),
        ("lr_decay = 0", "`lr_decay` = 0: expected a number above 0 and at most 1"),
        ("warmup_epochs = 2", "`warmup_epochs` = 2: expected less than the 2 epochs"),
        ("input = { scale = 0 }", "has scale = 0: expected a number from"),
        ("input = { zero_point = 300 }", "`input` has zero_point = 300: expected a whole number"),
        ("augment = { pad = 9999 }", "has pad = 9999: expected at most 1024 pixels"),
        ("name = \"../up\"", "expected up to 64 letters"),
        ("overrides = { \"layer3.*\" = { weight_bit = 3 } }", "unknown field `weight_bit`"),
        ("epochs = 3", "duplicate key"),
        ("lr = ", "r.toml, line 4: "),
    ] {
        let text = error_of(line);
        assert!(text.contains(expected), "{line}: {text}");
        assert!(text.starts_with("r.toml, line "), "{line}: {text}");
    }
}

#[test]
fn a_value_from_a_flag_names_the_flag() {
    let mut draft = small();
    draft.set("lr", -1.0, "--lr");
    assert_eq!(draft.finish().unwrap_err().to_string(), "--lr: `lr` = -1: expected a number above 0");
}

#[test]
fn names_of_networks_and_sets_tell_the_nearest() {
    let wrong = |arch: &str| {
        let mut draft = small();
        draft.set("arch", arch, "--arch");
        draft.finish().unwrap_err().to_string()
    };
    let text = wrong("resnet-20");
    assert!(text.starts_with("--arch: `arch` = \"resnet-20\"") && text.contains("did you mean `resnet20`"), "{text}");
    assert!(wrong("vgg").contains("\"resnet56-b\""));
    let mut draft = small();
    draft.set("dataset", "cifar-10", "--dataset");
    let text = draft.known_dataset().unwrap_err().to_string();
    assert!(
        text.starts_with("--dataset: `dataset` = \"cifar-10\": expected one of \"builtin\", \"builtin-upscale\","),
        "{text}"
    );
    assert!(text.ends_with("(did you mean `cifar10`?)"), "{text}");
}

#[test]
fn missing_keys_and_unknown_recipes_say_so() {
    for (text, key) in [
        ("arch = \"cnn\"\nepochs = 1", "dataset"),
        ("dataset = \"x\"\nepochs = 1", "arch"),
        ("dataset = \"x\"\narch = \"cnn\"", "epochs"),
        ("", "arch"),
    ] {
        let error = Draft::parse(text, "r.toml").and_then(Draft::finish).unwrap_err().to_string();
        assert_eq!(error, format!("r.toml: the key `{key}` is missing"));
    }
    let error = Draft::open("cifar10-resnet").unwrap_err().to_string();
    assert!(error.contains("(did you mean `cifar10-resnet20`?)") && error.contains("built in are builtin"), "{error}");
    assert!(Draft::open(env!("CARGO_MANIFEST_DIR")).unwrap_err().to_string().contains("not a regular file"));
}

const OWN_NETWORK: &str = r#"
name = "tiny"
nodes = [
  { name = "input", op = "input", height = 8, width = 8, channels = 1 },
  { name = "conv1", op = "conv", out_channels = 4, kernel = 3, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 2 },
]
"#;

#[test]
fn a_network_file_travels_inside_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), OWN_NETWORK).unwrap();
    let graph: Graph = toml::from_str(OWN_NETWORK).unwrap();
    std::fs::write(folder.path().join("tiny.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    for file in ["tiny.toml", "tiny.json"] {
        // Beside the recipe, and as a flag.
        let text = SMALL.replace("\"cnn\"", &format!("{file:?}"));
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let from_file = Recipe::open(path.to_str().unwrap()).unwrap();
        let mut draft = small();
        draft.set_arch(folder.path().join(file).to_str().unwrap(), "--arch").unwrap();
        let from_flag = draft.finish().unwrap();
        for recipe in [from_file, from_flag] {
            assert_eq!((recipe.arch.as_str(), recipe.graph.as_ref()), ("tiny", Some(&graph)));
            let config = recipe.to_toml();
            assert!(!config.contains(folder.path().to_str().unwrap()), "{config}");
            assert_eq!(Draft::parse(&config, "config.toml").unwrap().finish().unwrap(), recipe, "{config}");
            assert_eq!(recipe.network(Shape::new(8, 8, 1), 2).unwrap(), graph);
            let text = recipe.network(Shape::new(32, 32, 3), 10).unwrap_err().to_string();
            assert!(text.contains("reads 8x8x1 and gives 2 classes, the data set has 32x32x3 and 10"), "{text}");
        }
    }
}

#[test]
fn a_bad_network_file_names_file_line_and_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        small().set_arch(path.to_str().unwrap(), "--arch").unwrap_err().to_string()
    };
    let text = file("a.toml", &OWN_NETWORK.replace("batch_norm", "batchnorm"));
    assert!(text.contains("a.toml, line ") && text.contains("batchnorm"), "{text}");
    let text = file("b.toml", &OWN_NETWORK.replace("kernel = 3", "kernel = 13, stride = 20"));
    assert!(text.contains("b.toml") && text.contains("conv1"), "{text}");
    let text = file("c.json", "{ \"name\": \"x\", }");
    assert!(text.contains("c.json, line 1"), "{text}");
    let text = file("d.toml", &"#".repeat(2 << 20));
    assert!(text.contains("larger than 1 MiB"), "{text}");
    let missing = folder.path().join("none.toml");
    assert!(small().set_arch(missing.to_str().unwrap(), "--arch").is_err());
    let mut draft = small();
    draft.set_arch("resnet20", "--arch").unwrap();
    assert_eq!(draft.finish().unwrap().graph, None);
}

#[test]
fn schedules_and_names_follow_the_keys() {
    let mut draft = small();
    draft.set("epochs", 10, "--epochs");
    draft.set("warmup_epochs", 0.5, "");
    let recipe = draft.finish().unwrap();
    let s = recipe.schedule(100);
    assert_eq!((s.total_steps, s.warmup_steps, s.kind), (1000, 50, ScheduleKind::Constant));
    assert_eq!(recipe.name, "recipe");
    assert_eq!(builtin_for_dataset("cifar10"), Some("cifar10-resnet20"));
    assert_eq!(builtin_for_dataset("mine"), None);
}

#[test]
fn every_named_set_has_a_recipe_that_builds_for_it() {
    for name in DatasetName::ALL {
        let (info, recipe) = (name.info(), builtin_for_dataset(name.as_str()).expect("a recipe"));
        let mut draft = Draft::open(recipe).unwrap();
        draft.set("dataset", name.as_str(), "--dataset");
        let recipe = draft.finish().unwrap();
        let image = info.image_shape;
        let graph = recipe.network(Shape::new(image.h, image.w, image.c), info.class_names.len()).unwrap();
        recipe.plan(&graph).unwrap();
        // Digits and letters have no mirror images.
        let pictures = [DatasetName::Builtin, DatasetName::Cifar10, DatasetName::Cifar100, DatasetName::FashionMnist];
        assert_eq!(recipe.augment.flip, pictures.contains(&name), "{name}");
    }
}

#[test]
fn a_folder_has_keys_that_no_other_set_has() {
    let folder = |words: &str| {
        Draft::parse(&format!("dataset = \"folder\"\narch = \"cnn\"\nepochs = 1\n{words}"), "r.toml").unwrap().finish()
    };
    let recipe = folder("crop = [48, 64]\nresize = 72\nrandom_crop = [0.2, 1]\ntask = \"classify\"\nchannels = 1\ntest_share = 0.25\ncolor_jitter = [0.4, 0.4, 0, 0]").unwrap();
    let again = Draft::parse(&recipe.to_toml(), "again").unwrap().finish().unwrap();
    assert_eq!(again, recipe);
    let options = recipe.own_options();
    assert_eq!((options.crop, options.resize, options.random_crop), (Some([48, 64]), Some(72), Some([0.2, 1.0])));
    assert_eq!((recipe.jitter().contrast, recipe.jitter().hue), (0.4, 0.0));
    let mut flagged = Draft::open("folder").unwrap();
    for (key, text) in [("crop", "32"), ("random_crop", "0.5,1"), ("color_jitter", "0,0.1,0,0.05"), ("task", "segment")]
    {
        flagged.set_flag(Recipe::key(key).unwrap(), text.as_ref()).unwrap();
    }
    let flagged = flagged.finish().unwrap();
    assert_eq!(
        (flagged.crop, flagged.random_crop, flagged.task),
        (Some(Crop([32, 32])), Some([0.5, 1.0]), Some(Task::Segment))
    );
    for (words, part) in [
        ("crop = 0", "`crop` = 0: expected a side"),
        ("crop = [1, 2, 3]", "expected a side, or rows and columns"),
        ("crop = \"big\"", "expected a side"),
        ("resize = 0", "expected a whole number, 1 to 65536"),
        ("random_crop = [0.5, 0.2]", "the least and the largest share"),
        ("random_crop = [0, 1]", "the least and the largest share"),
        ("random_crop = [0.5]", "the least and the largest share"),
        ("channels = 4", "expected a whole number, 1 to 3"),
        ("upscale = 17", "1 to 16"),
        ("test_share = 1", "above 0 and below 1"),
        ("task = \"clasify\"", "did you mean `classify`"),
        ("color_jitter = [0.1, 0.1, 0.1]", "four numbers"),
        ("color_jitter = [0.1, 0.1, 0.1, 0.6]", "at most 0.5"),
        ("color_jitter = [0, 0, 0, 0]", "changes nothing"),
    ] {
        let error = folder(words).unwrap_err().to_string();
        assert!(error.contains(part), "{words}: {error}");
    }
    for words in [
        "crop = 32",
        "resize = 40",
        "random_crop = [0.5, 1]",
        "channels = 3",
        "upscale = 2",
        "test_share = 0.2",
        "task = \"classify\"",
    ] {
        assert!(error_of(words).contains("changes nothing: only the data set `folder` has it"), "{words}");
    }
}

#[test]
fn near_names_are_near_and_far_ones_are_not() {
    assert_eq!(nearest("Weight-Decay", Recipe::key_names()), Some("weight_decay"));
    assert_eq!(nearest("epohcs", Recipe::key_names()), Some("epochs"));
    assert_eq!(nearest("qqqq", Recipe::key_names()), None);
    assert_eq!(nearest("", Recipe::key_names()), None);
}

#[test]
fn a_calibrated_start_clips_more_at_fewer_bits() {
    let percentile = |bits: &str| match ClipInit::calibrate(bits.parse().unwrap()) {
        ClipInit::Calibrate { percentile, .. } => percentile,
        ClipInit::Fixed(_) => panic!("calibrated"),
    };
    assert_eq!(["W8A1", "W2A2", "W3A3", "W4A4", "W2A8"].map(percentile), [89.0, 97.5, 99.3, 99.9, 99.9]);
    let text = |clip: &str| format!("dataset = \"d\"\narch = \"cnn\"\nepochs = 1\nbits = \"W2A2\"\n{clip}");
    for (clip, wanted) in
        [("", (97.5, 8)), ("clip_init = { batches = 2 }", (97.5, 2)), ("clip_init = { percentile = 95.0 }", (95.0, 8))]
    {
        let recipe = Draft::parse(&text(clip), "r.toml").unwrap().finish().unwrap();
        assert_eq!(recipe.clip_init, ClipInit::Calibrate { percentile: wanted.0, batches: wanted.1 });
    }
}

#[test]
fn clip_values_have_a_learning_rate_of_their_own() {
    let scale = |text: &str| {
        let text = format!("dataset = \"d\"\narch = \"cnn\"\nepochs = 1\nlr = 0.2\n{text}");
        Draft::parse(&text, "r.toml").unwrap().finish().unwrap().optimizer_config().clip_lr_scale
    };
    assert_eq!((scale(""), scale("clip_lr = 0.05"), scale("clip_lr = 0")), (1.0, 0.25, 0.0));
}

#[test]
fn groups_are_written_in_files_and_flags_and_checked() {
    let mut draft = Draft::parse(&format!("{SMALL}lr = 0.2\n[param_groups.\"*.bias\"]\nlr = 0.1\n"), "r.toml").unwrap();
    draft.add_param_group("linear.*:lr=0.05,weight_decay=0", "--param-group").unwrap();
    let recipe = draft.clone().finish().unwrap();
    assert_eq!(Draft::parse(&recipe.to_toml(), "config.toml").unwrap().finish().unwrap(), recipe);
    let groups = recipe.optimizer_config().groups;
    let rates: Vec<_> = groups.iter().map(|g| (g.pattern.as_str(), g.lr_scale, g.weight_decay)).collect();
    assert_eq!(rates, [("*.bias", Some(0.5), None), ("linear.*", Some(0.25), Some(0.0))]);
    for bad in ["lr=0.1", "a:", "a:lr", "a:lr=x", "a:rate=1"] {
        let text = draft.add_param_group(bad, "--param-group").unwrap_err().to_string();
        assert!(
            text.starts_with(&format!("--param-group: `param_groups` = \"{bad}\": expected a form like")),
            "{text}"
        );
    }
    for (bad, wanted) in [
        ("[param_groups.x]\nlr = -1.0", "`param_groups` .\"x\" has lr = -1: expected a number of 0 or more"),
        ("[param_groups.x]\nrate = 1.0", "unknown field `rate`"),
        ("[param_groups.x]", "says nothing: expected lr, weight_decay or both"),
        ("betas = [0.9]", "`betas` = [0.9]: expected two numbers of at least 0 and below 1"),
        ("ema_decay = 1.0", "`ema_decay` = 1: expected a number of at least 0 and below 1"),
        ("label_smoothing = -0.1", "`label_smoothing` = -0.1"),
        ("sum_noise = 1.5", "`sum_noise` = 1.5"),
        ("max_grad_norm = -1", "`max_grad_norm` = -1"),
        ("bn_reestimate = -1", "`bn_reestimate` = -1: expected a whole number"),
        ("optimizer = \"adamax\"", "(did you mean `adam`?)"),
        ("optimizer = \"adam\"\nnesterov = true", "expected the optimizer \"sgd\" with it"),
    ] {
        let text = error_of(bad);
        assert!(text.contains(wanted), "{text}");
    }
    let lr = |line: &str| Draft::parse(&format!("{SMALL}{line}"), "r.toml").unwrap().finish().unwrap().lr;
    assert_eq!((lr(""), lr("optimizer = \"adamw\"")), (0.1, 1e-3));
}

#[test]
fn the_page_of_recipes_has_the_table_of_keys_and_its_examples_work() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/recipe.md");
    let page = std::fs::read_to_string(file).unwrap();
    let begin = page.find("| key | values | default | meaning |").expect("a table of keys");
    let end = begin + page[begin..].find("\n\n").unwrap() + 1;
    if page[begin..end] != Recipe::key_table() {
        if std::env::var_os("BITPACT_WRITE_DOCS").is_some() {
            std::fs::write(file, [&page[..begin], &Recipe::key_table(), &page[end..]].concat()).unwrap();
        }
        panic!("docs/recipe.md is not the list of keys; BITPACT_WRITE_DOCS=1 with this test writes it");
    }
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let text = format!("dataset = \"d\"\narch = \"resnet20\"\nepochs = 1\n{}", blocks[0]);
    let recipe = Draft::parse(&text, "r.toml").unwrap().finish().unwrap();
    recipe.plan(&recipe.network(Shape::new(32, 32, 3), 10).unwrap()).unwrap();
    let text = format!("dataset = \"d\"\narch = \"resnet20\"\nepochs = 1\n{}", blocks[1]);
    assert_eq!(Draft::parse(&text, "r.toml").unwrap().finish().unwrap().param_groups.len(), 2);
    let graph: Graph = toml::from_str(blocks[2]).unwrap();
    bitpact_graph::fuse(&graph).unwrap();
}

#[test]
fn a_value_that_changes_nothing_is_an_error_that_names_what_would() {
    for (lines, says) in [
        (
            "milestones = [0.5]",
            "r.toml, line 4: `milestones` = [0.5] changes nothing: only `schedule = \"step\"` has them",
        ),
        ("lr_decay = 0.5", "`lr_decay` = 0.5 changes nothing"),
        ("schedule = \"step\"", "`schedule` = \"step\" changes nothing: a step schedule without `milestones`"),
        ("betas = [0.8, 0.9]", "SGD has `momentum`"),
        ("eps = 1e-6", "SGD has `momentum`"),
        ("momentum = 0.5\noptimizer = \"adam\"", "`momentum` = 0.5 changes nothing: only SGD has it; Adam has `betas`"),
        ("distill_weight = 0.3", "it needs a `teacher`"),
        ("distill_temperature = 2.0", "it needs a `teacher`"),
        ("distill_weight = 0\nteacher = \"runs/a\"", "r.toml, line 5: `teacher` = \"runs/a\" changes nothing"),
        (
            "precision = \"bf16\"\ngradient_bits = 8",
            "`precision` = \"bf16\" changes nothing: `gradient_bits = 8` decides",
        ),
        ("no_weight_decay = [\"*.bias\"]\nweight_decay = 0", "so no tensor decays"),
    ] {
        let text = error_of(lines);
        assert!(text.contains(says), "{text}");
        // A run of before there was this check goes on.
        Draft::parse(&format!("{SMALL}{lines}\n"), "r.toml").unwrap().stored().finish().expect(lines);
    }
    for lines in [
        "milestones = [0.5]\nschedule = \"step\"\nlr_decay = 0.5",
        "betas = [0.8, 0.9]\noptimizer = \"adamw\"",
        "no_weight_decay = [\"*.bias\"]\nweight_decay = 0\nclip_weight_decay = 0.1",
        "momentum = 0.9\noptimizer = \"adam\"",
    ] {
        Draft::parse(&format!("{SMALL}{lines}\n"), "r.toml").unwrap().finish().expect(lines);
    }
}

#[test]
fn a_flag_that_changes_nothing_is_a_warning_and_leaves_no_trace() {
    let mut draft = small();
    draft.set("betas", vec![0.5, 0.6], "--betas");
    draft.set("distill_weight", 0.1, "--distill-weight");
    let (recipe, warnings) = draft.finish_with_warnings().unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with("--betas changes nothing") && warnings[1].starts_with("--distill-weight changes"));
    assert_eq!(recipe, small().finish().unwrap());
    // A flag over a recipe that has more to say: no word.
    let mut draft = Draft::open("cifar10-resnet20").unwrap();
    draft.set("schedule", "cosine", "--schedule");
    let (recipe, warnings) = draft.finish_with_warnings().unwrap();
    assert!(warnings.is_empty() && recipe.milestones.is_empty(), "{warnings:?}");
    recipe.check().unwrap();
}

#[test]
fn every_built_in_recipe_can_be_made_a_fine_tuning() {
    for name in BUILTIN_NAMES {
        for bits in [None, Some("float"), Some("W8A8"), Some("W2A2")] {
            let mut draft = Draft::open(name).unwrap();
            draft.fine_tune();
            if let Some(bits) = bits {
                draft.set("bits", bits, "--bits");
            }
            let (recipe, warnings) = draft.finish_with_warnings().unwrap();
            assert!(warnings.is_empty(), "{name}: {warnings:?}");
            assert_eq!((recipe.epochs, recipe.lr, recipe.compare_float), (10, 0.002, false), "{name}");
            assert!(recipe.milestones.is_empty() && recipe.clip_lr == 0.002, "{name}");
        }
    }
    let mut draft = Draft::open("builtin").unwrap();
    draft.fine_tune();
    draft.set("weight_quant", "dorefa", "--weight-quant");
    assert_eq!(draft.clone().finish().unwrap().weight_scale, None);
    draft.set("weight_scale", "channel", "--weight-scale");
    draft.set("weight_quant", "dorefa", "--weight-quant");
    let recipe = draft.finish().unwrap();
    assert_eq!(recipe.weight_scale, Some(bitpact_core::Granularity::Channel), "a flag stays");
}

#[test]
fn a_graph_and_a_meaning_of_pixels_can_be_those_of_a_file() {
    let shape = Shape::new(32, 32, 3);
    let graph = zoo::build("cnn", shape, 10).unwrap().unwrap();
    let input = InputDescription { bits: 8, zero_point: vec![1, 2, 3], scale: vec![0.5, 0.25, 0.125] };
    let mut draft = Draft::open("builtin").unwrap();
    draft.set_graph(&graph, "--init-from");
    draft.set_input(&input, "--init-from");
    let recipe = draft.clone().finish().unwrap();
    assert_eq!((recipe.arch.as_str(), &recipe.graph, recipe.input_description(3)), ("cnn", &None, input));
    // One that the zoo has under this name for other images only.
    let mut nodes = graph.nodes().to_vec();
    nodes.remove(3);
    nodes.iter_mut().flat_map(|node| &mut node.inputs).for_each(|input| *input -= usize::from(*input >= 3));
    draft.set_graph(&Graph::new("cnn", nodes).unwrap(), "--init-from");
    assert_eq!(draft.finish().unwrap().graph.unwrap().nodes().len(), graph.nodes().len() - 1);
    let flag = Recipe::key("input").unwrap();
    let mut draft = Draft::open("builtin").unwrap();
    draft.set_flag(flag, "0.5,0.4,0.3/0.25".as_ref()).unwrap();
    assert_eq!(draft.finish().unwrap().input_description(3).zero_point, [128, 102, 76]);
    assert!(flag.check_flag("mnist".into()).unwrap_err().contains("imagenet, cifar10"));
}
