//! The keys of a recipe: fields, checks, defaults, flags and the table of docs/recipe.md, all from one list.

use std::collections::BTreeMap;

use bitpact_core::{ActQuant, Granularity, Grid, WeightQuant};
use bitpact_data::own::Task;
use bitpact_graph::{FirstLast, Graph, Override, ShortcutBits};
use serde::Serialize;

use super::check;
use super::check::{FACTOR, FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, UNIT, UP_TO_4};
use super::key::Default::{As, Is, Other, Required, Unset};
use super::key::Values::{Bool, Form, List, Names, Number, Whole};
use super::{Augmentation, BitSchedule, ClipInit, Crop, Draft, GroupRates, InputScale, Key, Precision, RecipeError};
use crate::schedule::ScheduleKind;
use crate::{DenseLoss, OptimizerKind};

/// A key a row: `field: type = values, default, name of the flag's value or "" for no flag, help, what the page adds to
/// it`.
macro_rules! keys {
    ($($(#[$serde:meta])* $name:ident: $type:ty = $values:expr, $default:expr, $flag:literal, $help:literal, $more:literal;)+) => {
        /// Everything that decides the result of a run. Where the data lies, threads, instruction set and output are
        /// not here: they do not change what is trained, and no file of a run holds them.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct Recipe {
            $(#[doc = concat!($help, ".")] $(#[$serde])* pub $name: $type,)+
        }

        impl Recipe {
            /// Every key of a recipe, in the order of `config.toml`.
            pub const KEYS: &[Key] = &[$(Key {
                name: stringify!($name),
                values: $values,
                default: $default,
                flag_value: $flag,
                help: $help,
                more: $more,
            }),+];
        }

        impl Draft {
            /// Every key, each checked by itself.
            pub(super) fn fields(&self) -> Result<Recipe, RecipeError> {
                Ok(Recipe { $($name: self.value(stringify!($name))?),+ })
            }
        }
    };
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_layer(scale: &Granularity) -> bool {
    *scale == Granularity::Layer
}

const SCALES: &[&str] = &["layer", "channel"];
const COUNT: i64 = i64::MAX;
const EPOCHS: i64 = 1_000_000;

keys! {
    name: String = Form("text", check::name), Other("the file's name"), "NAME",
        "Name of the recipe", "; names the output folder";
    dataset: String = Form("a name of `bitpact data list`", check::dataset), Required, "NAME",
        "Data set; `bitpact data list` shows them, folder is one of your own", " ([data.md](data.md))";
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Task> = Names(&Task::NAMES), Other("what the data tell"), "NAME",
        "Task that the data of a `folder` are for", "; `config.toml` holds the one that was found";
    #[serde(skip_serializing_if = "Option::is_none")]
    crop: Option<Crop> = List("a side, or rows and columns", check::crop), Other("the size of the pictures, where all have one"), "SIDE|ROWS,COLUMNS",
        "Size of the image that the network reads, cut out of the pictures of a `folder`", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    resize: Option<usize> = Whole(1, 65_536), Other("the least that fills `crop`"), "PIXELS",
        "Shorter side that the pictures of a `folder` are scaled to before `crop` is cut out of their middle",
        ", in evaluation, and in training without `random_crop`";
    #[serde(skip_serializing_if = "Option::is_none")]
    random_crop: Option<[f64; 2]> = List("two shares of the area", check::random_crop), Unset, "LEAST,MOST",
        "Share of a picture of a `folder` that a training image shows, at a random place with a random ratio from 3/4 to 4/3 of the image's",
        "; PyTorch's `RandomResizedCrop` has 0.08, 1";
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize> = Whole(1, 3), Other("3 where any picture has colours, else 1"), "N",
        "Channels of the images of a `folder`: 1, grey, or 3, colour", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    upscale: Option<usize> = Whole(1, 16), Other("that of the pairs"), "N",
        "How much larger the pictures of a `folder` to restore are than the images that the network reads", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    test_share: Option<f64> = Number(SHARE), Unset, "SHARE",
        "Share of a `folder` without a test half that is kept out of training to measure on, of every class the same", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    fold: Option<usize> = Whole(0, bitpact_data::ppg_bp::FOLDS as i64 - 1), Other("0"), "N",
        "Fold of the subjects of `ppg-bp` that is measured on; the others are learned from", "";
    arch: String = Form("a name of the zoo, or a TOML or JSON file", check::any), Required, "NAME|FILE",
        "Network: a name such as resnet20, or a TOML or JSON file", "";
    bits: BitSchedule = Form("`W4A4`, 1 to 8 each, or `float`; several with epochs", check::bits), Is("W4A4"), "BITS",
        "Bits of weights and activations, such as W4A4, or float; W8A8@10,W4A4: W8A8 up to epoch 10, then W4A4",
        " ([bits that change](#bits-that-change))";
    act_quant: ActQuant = Names(&["pact", "pact+", "lsq", "fixed", "relu", "sign"]), Is("pact"), "NAME",
        "Activation quantizer",
        ". `pact`: the paper's gradient of alpha (eq. 3); `pact+`: with the in-range term; `lsq`: that with LSQ's scale; `fixed`: alpha stays; `relu`: alpha follows the running maximum; `sign`: -1 and +1, at 1 bit ([quantizers.md](quantizers.md))";
    weight_quant: WeightQuant = Names(&["dorefa", "sawb", "sawb+", "lsq", "minmax"]), Is("dorefa"), "NAME",
        "Weight quantizer",
        "; formulas in [quantizers.md](quantizers.md). Layers of 8 bits use `minmax`, unless an override names a quantizer";
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_grid: Option<Grid> = Names(&["zero", "no_zero"]), Other("the quantizer's own"), "NAME",
        "Whether 0 is a weight code", "; `dorefa` has no grid with zero, 1 bit has none either";
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_scale: Option<Granularity> = Names(SCALES), Other("`channel` for `minmax`, else `layer`"), "NAME",
        "What has a weight scale of its own", ": a layer, or an output channel; `dorefa` has `layer` only";
    #[serde(skip_serializing_if = "is_layer")]
    clip_scale: Granularity = Names(SCALES), Is("layer"), "NAME",
        "What has a clip value of its own",
        ": a layer, or a channel with one step a layer ([quantizers.md](quantizers.md)). `channel` goes with `pact` and `pact+`, and with signed activations. Activations that are concatenated have one alpha in either case";
    first_last: FirstLast = Names(&["float", "8bit", "same"]), Is("8bit"), "POLICY",
        "First and last layer",
        "; `float` is trained in float32 and converted to 16-bit codes; `8bit` includes the activation into the last layer";
    shortcut: ShortcutBits = Names(&["same", "8bit"]), Is("same"), "POLICY",
        "Weights of projection shortcuts", "";
    clip_init: ClipInit = Form("a number, `calibrate`, `{ percentile, batches }`", check::any), Other("`calibrate`"), "START",
        "Start of the clip values: a number, or calibrate",
        ", which takes the 89th, 97.5th, 99.3rd and 99.9th percentile at 1, 2, 3 and more activation bits, mean of 8 batches";
    clip_lr: f64 = Number(NOT_NEGATIVE), As("lr"), "RATE",
        "Highest learning rate of the clip values", "; it takes the course of the schedule";
    clip_weight_decay: f64 = Number(NOT_NEGATIVE), As("weight_decay"), "D",
        "L2 decay of the clip values", ": the gradient of alpha gains this times alpha";
    epochs: u32 = Whole(1, EPOCHS), Required, "N", "Passes over the training set", "";
    batch_size: usize = Whole(1, 1 << 20), Is("128"), "N",
        "Images in a step", "; a last partial batch is not trained on";
    precision: Precision = Names(&["fp32", "bf16"]), Is("fp32"), "NAME",
        "Numbers of the backward products, in a float network of all of training's", "; [Precision](#precision) below";
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient_bits: Option<u32> = Whole(8, 8), Unset, "N",
        "Bits of the gradients in the backward products, if not those of `precision`", "; [Precision](#precision) below";
    lr: f64 = Number(POSITIVE), Other("0.1; 1e-3 with Adam"), "RATE", "Highest learning rate", "";
    optimizer: OptimizerKind = Names(&OptimizerKind::NAMES), Is("sgd"), "NAME",
        "Optimizer", ", as in PyTorch; `adam` has L2 decay, `adamw` decoupled decay";
    momentum: f64 = Number(FRACTION), Is("0.9"), "M", "Momentum of SGD", "";
    nesterov: bool = Bool, Is("false"), "BOOL", "Whether SGD's momentum has Nesterov's form", "";
    betas: [f64; 2] = List("two numbers", check::betas), Is("[0.9, 0.999]"), "B1,B2", "Betas of Adam", "";
    eps: f64 = Number(POSITIVE), Is("1e-8"), "E", "eps of Adam", "";
    max_grad_norm: f64 = Number(NOT_NEGATIVE), Is("0"), "N",
        "Largest norm of all gradients together; 0 for any", ". All gradients are scaled so that it is kept";
    weight_decay: f64 = Number(NOT_NEGATIVE), Is("2e-4"), "D", "Decay of weights, biases and batch norms", "";
    no_weight_decay: Vec<String> = List("list of patterns", check::any), Is("[]"), "PATTERN,..",
        "Patterns of tensor names without decay", ", such as `[\"*.bias\", \"*bn*\"]`; `*` is any run of characters";
    schedule: ScheduleKind = Names(&ScheduleKind::NAMES), Is("constant"), "NAME", "Course of the learning rate", "";
    milestones: Vec<f64> = List("fractions of the run", check::milestones), Is("[]"), "F,..",
        "Fractions of the run after which a `step` schedule multiplies by `lr_decay`", "";
    lr_decay: f64 = Number(FACTOR), Is("0.1"), "F", "Factor of a `step` schedule at each milestone", "";
    warmup_epochs: f64 = Number(NOT_NEGATIVE), Is("0"), "N", "Epochs of linear warm-up; may be a fraction", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<DenseLoss> = Names(&DenseLoss::NAMES), Other("cross-entropy of masks, l1 of images, l2 of numbers"), "NAME",
        "Loss of targets that are no classes", " ([tasks](#tasks)); classes have the cross entropy of their logits";
    label_smoothing: f64 = Number(FRACTION), Is("0"), "S", "Share of a label that is spread over all classes", "";
    sum_noise: f64 = Number(UNIT), Is("0"), "S",
        "Deviation of the cells of in-memory arrays, in counts, that the network is to stand",
        ". In every step each weight of w bits, but in layers that read the image or give the logits, is off by a random number of standard deviation `sum_noise sqrt((4^w - 1) / 3)` of its codes; batch norms keep their running statistics, as on a chip, and gradients pass as if there were no error. To train a network on (`--init-from`) that will run on an [in-memory array](in-memory.md)";
    #[serde(skip_serializing_if = "Option::is_none")]
    color_jitter: Option<[f64; 4]> = List("four numbers", check::color_jitter), Unset, "B,C,S,H",
        "How far brightness, contrast, saturation and hue of training images move",
        ": factors from 1 - b to 1 + b, a hue up to h turns either way, as in PyTorch's `ColorJitter`, in this order";
    cutout: usize = Whole(0, 1024), Is("0"), "PIXELS",
        "Side of the square that is cut out of training images, in pixels; 0 for none",
        ". It is filled with the zero point; its centre is any pixel (DeVries and Taylor, arXiv 1708.04552)";
    mixup: f64 = Number(UP_TO_4), Is("0"), "A",
        "Mix training images, their shares from the distribution Beta(A, A); 0 for none", " ([below](#what-the-loss-compares-with))";
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<String> = Form("a checkpoint or run folder", check::any), Unset, "FILE|DIR",
        "Checkpoint or run folder of a network to learn from", " ([distillation](#what-the-loss-compares-with))";
    distill_temperature: f64 = Number(POSITIVE), Is("4"), "T", "Divides the logits of network and teacher", "";
    distill_weight: f64 = Number(UNIT), Is("0.7"), "W", "Share of the teacher in the loss", "";
    ema_decay: f64 = Number(FRACTION), Is("0"), "D",
        "Decay of a moving average of all tensors, evaluated in their place; 0 for none",
        ". The average is also what is converted and saved ([below](#what-is-evaluated))";
    bn_reestimate: u32 = Whole(0, EPOCHS), Is("0"), "N",
        "Batches from which batch norm's statistics are estimated anew after every epoch; 0 for none", " ([below](#what-is-evaluated))";
    seed: u64 = Whole(0, COUNT), Is("1"), "N", "Seed of everything random", "";
    simulated_every: u32 = Whole(0, EPOCHS), Is("0"), "N",
        "Simulated accuracy every so many epochs besides the last; 0 for the last only", "";
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_train: Option<usize> = Whole(1, COUNT), Unset, "N", "Only the first N training images", "";
    #[serde(skip_serializing_if = "is_zero")]
    holdout: usize = Whole(0, COUNT), Is("0"), "N",
        "Training images that are held out to choose the best epoch by, the same for every seed; 0 for none",
        ". After every epoch the network is also evaluated on them, and `best.safetensors` follows that, not the test set. They are the last N of a permutation that depends on nothing but the number of images (after `limit_train`), so that every seed and recipe holds out the same ones";
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_test: Option<usize> = Whole(1, COUNT), Unset, "N", "Only the first N test images", "";
    compare_float: bool = Bool, Is("false"), "BOOL",
        "Whether the float network is trained too, to compare with", ", into `float/` of the run's folder";
    input: InputScale = Form("`{ zero_point, scale }` or `{ mean, std }`", check::input), Is("{ zero_point = 128, scale = 0.015625 }"), "NAME|MEAN/STD",
        "What a pixel or code p means to the network: x = scale * (p - zero_point); `bits = 16` for the codes of arrays that have so many",
        "; the flag takes a name (imagenet, cifar10, half for -1 to 1, unit for 0 to 1, raw255) or mean and deviation, such as 0.5/0.25";
    augment: Augmentation = Form("`{ pad, flip }`", check::augment), Is("{ pad = 0, flip = false }"), "",
        "Random crop of training images after padding with the zero point, random horizontal flip", "";
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    param_groups: BTreeMap<String, GroupRates> = Form("tables by tensor pattern", check::param_groups), Is("{}"), "PATTERN:RATES",
        "Learning rate and decay of the tensors that a pattern matches, such as *.bias:lr=0.01,weight_decay=0; may be repeated",
        " ([below](#learning-rates-and-decays-of-their-own))";
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    overrides: BTreeMap<String, Override> = Form("tables by layer pattern", check::any), Is("{}"), "",
        "Exceptions for single layers", ", below";
    #[serde(skip_serializing_if = "Option::is_none")]
    graph: Option<Graph> = Form("a network", check::any), Unset, "",
        "The network itself", ", where `arch` was a file: `config.toml` holds it";
}
