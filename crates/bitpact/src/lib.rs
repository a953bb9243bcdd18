//! Low-bit neural networks that really run low-bit: train with PACT at 1 to 8 bits, turn the network into integers, and
//! run exactly those integers. The accuracy you read is the accuracy of the integers you ship.
//!
//! This crate names what is stable, about sixty items. Everything else of the workspace is under [`unstable`] and may
//! change with any version.
//!
//! # A guided tour
//!
//! | step | to begin with |
//! |---|---|
//! | what a network is, the model zoo, bits for each layer | [`Graph`], [`zoo`], [`QuantPlan`] |
//! | images and other examples, by name or one's own | [`Dataset`], [`load`], [`DatasetName`] |
//! | recipes and the training loop | [`Recipe`], [`Draft`], [`train()`] |
//! | trained and integer networks and their files | [`Checkpoint`], [`Model`], [`IntegerModel`], [`convert()`] |
//! | networks of other programs | [`import()`] |
//! | integers, and proof that every path gives the same | [`Engine`], [`Executor`], [`Interpreter`], [`verify()`] |
//! | what a network takes on a machine that is only thought of | [`Device`], [`Workload`], [`Estimate`] |
//!
//! Language models, quantized after training, are under [`unstable::lm`] and [`unstable::ptq`].
//!
//! ## A network, and its bits
//!
//! A [`Graph`] says what is computed, a [`QuantPlan`] with how many bits. Both are plain values.
//!
//! ```
//! use bitpact::{QuantPlan, Recipe, Shape, zoo};
//!
//! let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap()?;
//! assert_eq!(bitpact::unstable::graph::counts::parameters(&graph), 269_722);
//!
//! let recipe = Recipe::open("cifar10-resnet20")?;
//! let plan = QuantPlan::resolve(&graph, &recipe.quant_config())?;
//! assert_eq!(plan.activations["layer1.0.act1"].bits.get(), 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## From random weights to integers
//!
//! A [`Recipe`] is everything that decides a result. A run trains it, converts the network after every epoch and
//! measures the integers; its folder can be killed at any moment and resumed to the same bytes. Here, a few steps on a
//! few images of the built-in set:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use bitpact::{
//!     BackendKind, DatasetName, Draft, Images, IntegerModel, Isa, Limits, RunFolder, RunOptions, Start, load,
//! };
//!
//! let mut draft = Draft::open("builtin")?;
//! draft.set("epochs", 1, "epochs");
//! draft.set("batch_size", 10, "batch_size");
//! let recipe = draft.finish()?;
//! let split = load(DatasetName::Builtin, None, Limits { train: Some(20), test: Some(10) })?;
//! let images = Images { train: &*split.train, test: &*split.test };
//!
//! let home = std::env::temp_dir().join(format!("bitpact-tour-{}", std::process::id()));
//! let folder = RunFolder::create(&home)?;
//! let stop = AtomicBool::new(false);
//! let (backend, isa) = (BackendKind::default(), Isa::detect());
//! let options = RunOptions { backend, isa, threads: 1, stop: &stop, observer: &mut |_| {} };
//! let outcome = bitpact::train(&recipe, images, &folder, Start::Fresh { weights: None }, options)?;
//! assert_eq!(outcome.last.unwrap().test_images, 10);
//!
//! let integers = IntegerModel::load(home.join("model.bitpact"))?;
//! assert_eq!(integers.classes(), 10);
//! # std::fs::remove_dir_all(&home)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Running integers
//!
//! An [`Engine`] is loaded once and shared: every thread that calls it computes on its own, with the same weights. The
//! examples `classify` and `own_arrays` show it with pictures and with arrays.
//!
//! ```
//! use bitpact::{Engine, ExecOptions, IntegerModel};
//! # use bitpact::{QuantConfig, QuantPlan, Shape, zoo};
//! # let graph = zoo::build("cnn", Shape::new(8, 8, 3), 3).unwrap()?;
//! # let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W2A2".parse()?))?;
//! # let input = bitpact::InputDescription::uniform(3, 128, 1.0 / 64.0);
//! # let names = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
//! # let integers = bitpact::convert(&bitpact::Model::random(graph, plan, input, names, 1)?)?.model;
//! # let path = std::env::temp_dir().join(format!("bitpact-engine-{}.bitpact", std::process::id()));
//! # integers.save(&path)?;
//!
//! let engine = Engine::load(&path, ExecOptions { threads: 1, ..Default::default() })?;
//! let batch = vec![100; 2 * engine.image_len()];
//! let logits = engine.logits(&batch)?;
//! assert_eq!(logits.len(), 2 * engine.class_names().len());
//! std::thread::scope(|scope| {
//!     for _ in 0..4 {
//!         scope.spawn(|| assert_eq!(engine.logits(&batch).unwrap(), logits));
//!     }
//! });
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The example `own_arrays` trains on arrays of one's own through the [`Dataset`] trait.

// One statement for each crate; `tests/surface.txt` lists the names, and a test compares both.
pub use bitpact_accel::{Device, Estimate, Widths, Workload};
pub use bitpact_core::{ActQuant, Bits, Granularity, WeightQuant};
pub use bitpact_data::{
    DataError, Dataset, DatasetName, ImageShape, Limits, Placement, Split, TargetKind, load, load_picture,
};
pub use bitpact_engine::{
    Engine, EngineError, ExecOptions, Executor, Interpreter, Verification, VerifyOptions, evaluate, predict, top_k,
    verify,
};
pub use bitpact_graph::{BitSpec, Graph, GraphError, Op, PlanError, QuantConfig, QuantPlan, Shape, Window, zoo};
pub use bitpact_interop::{ImportOptions, Imported, InteropError, import};
pub use bitpact_kernels::{Isa, UnknownIsa};
pub use bitpact_model::{
    Checkpoint, Conversion, ConvertError, InputDescription, IntegerModel, Model, ModelError, Tensor, convert,
};
pub use bitpact_train::{
    BackendKind, Draft, EpochRecord, Event, Images, Metric, Outcome, Recipe, RecipeError, RunError, RunFolder,
    RunOptions, Start, train,
};

/// Everything else, crate by crate: what the `bitpact` command is made of. Names here change with any version.
pub mod unstable {
    pub use bitpact_accel as accel;
    pub use bitpact_core as core;
    pub use bitpact_data as data;
    pub use bitpact_engine as engine;
    pub use bitpact_graph as graph;
    pub use bitpact_interop as interop;
    pub use bitpact_kernels as kernels;
    pub use bitpact_lm as lm;
    pub use bitpact_model as model;
    pub use bitpact_ptq as ptq;
    pub use bitpact_report as report;
    pub use bitpact_search as search;
    pub use bitpact_train as train;
}
