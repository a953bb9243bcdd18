//! A recipe and its images, checked against each other before anything is trained or written.

use std::collections::BTreeMap;

use bitpact_data::{Augment, Dataset, ImageShape, TargetKind};
use bitpact_graph::{Graph, Op, QuantPlan, Shape, name_matches};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model, Tensor, convert};

use super::teacher::Teacher;
use super::{Images, RunError};
use crate::memory;
use crate::recipe::{Origin, Recipe, RecipeError, text_to_path};
use crate::{BackendKind, BackendSpec, DenseLoss, TrainBackend, TrainError};

/// Everything that a run trains with, resolved from its recipe.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The recipe.
    pub recipe: Recipe,
    /// The network that is trained, for the images of the data set.
    pub graph: Graph,
    /// Bits of every layer, in the epoch under way where they change.
    pub plan: QuantPlan,
    /// Meaning of a pixel: scale and zero point by channel.
    pub input: InputDescription,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Whole batches of an epoch.
    pub steps_per_epoch: u64,
    /// The network to learn from.
    pub teacher: Option<Teacher>,
    /// The loss of targets that are no classes.
    pub loss: Option<DenseLoss>,
}

impl Setup {
    /// Resolves `recipe` for `images`.
    ///
    /// # Errors
    /// A recipe with a value it cannot have, a network or bits that do not fit, halves that differ in shape or classes,
    /// labels out of range, an empty half, fewer training images than a batch, a teacher for other images or classes,
    /// or a network that conversion refuses.
    pub fn new(recipe: &Recipe, images: &Images<'_>) -> Result<Self, RunError> {
        recipe.check()?;
        let shape = images.train.image_shape();
        let class_names = images.train.class_names().to_vec();
        check_half("training", images.train, class_names.len())?;
        check_half("test", images.test, class_names.len())?;
        if images.test.image_shape() != shape || images.test.class_names() != class_names {
            let what = "their shape or class names differ from the training images'".to_owned();
            return Err(RunError::Images { half: "test", what });
        }
        let teacher =
            recipe.teacher.as_ref().map(|path| Teacher::load(text_to_path(path), images.train)).transpose()?;
        let graph = recipe.network(Shape::new(shape.h, shape.w, shape.c), class_names.len())?;
        super::evaluate::check_output(images.train, graph.shape(graph.output()))
            .map_err(|what| RunError::Images { half: "training", what })?;
        let loss = check_task(recipe, images.train)?;
        let plans = recipe.bits.all().map(|bits| recipe.plan_of(&graph, bits)).collect::<Result<Vec<_>, _>>()?;
        for plan in &plans {
            Model::check_names(&graph, plan)?;
        }
        check_groups(recipe, &graph, &plans)?;
        check_overrides(recipe, &graph)?;
        check_sizes(recipe, shape)?;
        let input = recipe.input_description(shape.c);
        if [images.train, images.test].iter().any(|half| half.code_bits() != input.bits) {
            let bits = images.train.code_bits();
            let what = format!("codes of {bits} bits, but the recipe's input has {}: set input.bits", input.bits);
            return Err(RunError::Images { half: "training", what });
        }
        let for_pixels = [
            (recipe.mixup > 0.0, "mixup does not mix"),
            (recipe.color_jitter.is_some(), "color_jitter does not change"),
        ];
        if let Some((_, why)) = for_pixels.into_iter().find(|(is_set, _)| *is_set && input.bits != 8) {
            let what = format!("codes of 16 bits, which {why}: leave it out");
            return Err(RunError::Images { half: "training", what });
        }
        for plan in plans.iter().filter(|plan| !plan.is_float()) {
            check_integer_form(&graph, plan, &input, &class_names, recipe.seed)?;
        }
        let (batch_size, count) = (recipe.batch_size, images.train.len());
        if batch_size > count {
            return Err(RunError::Batch { batch_size, images: count });
        }
        Ok(Self {
            recipe: recipe.clone(),
            input,
            graph,
            plan: plans.into_iter().next().expect("a run has bits"),
            class_names,
            steps_per_epoch: (count / batch_size) as u64,
            teacher,
            loss,
        })
    }

    /// Bits of every layer in epoch `epoch`, from 0.
    pub(super) fn plan_at(&self, epoch: u32) -> Result<QuantPlan, RunError> {
        Ok(self.recipe.plan_of(&self.graph, self.recipe.bits.at(epoch))?)
    }

    /// A backend of this kind, ready to train the network.
    ///
    /// # Errors
    /// Batches that need more memory than can be had; see also [`BackendKind::build`].
    pub fn backend(&self, kind: BackendKind, isa: Isa, threads: usize) -> Result<Box<dyn TrainBackend>, RunError> {
        if kind == BackendKind::Reference && self.recipe.sum_noise > 0.0 {
            let what = "sum_noise has no meaning in the specification of a step; train with `--backend cpu`".to_owned();
            return Err(TrainError::Unsupported { node: self.graph.node(0).name.clone(), what }.into());
        }
        let (optimizer, gradients) = (self.recipe.optimizer_config(), self.recipe.gradients());
        let (graph, plan, batch_size) = (&self.graph, &self.plan, self.recipe.batch_size);
        let teacher = self.teacher.as_ref().map(|teacher| (&teacher.model.graph, &teacher.model.plan));
        let networks: Vec<_> = [(graph, plan)].into_iter().chain(teacher).collect();
        memory::check(&networks, batch_size, memory::free())
            .map_err(|too_much| RunError::Memory { batch_size, too_much })?;
        let spec = BackendSpec::new(graph, plan, &self.input, batch_size);
        Ok(kind.build(&BackendSpec { optimizer, gradients, isa, threads, ..spec })?)
    }

    /// The network without tensors.
    pub(crate) fn empty_model(&self) -> Model {
        self.model(BTreeMap::new())
    }

    /// The network with these tensors.
    pub(super) fn model(&self, tensors: BTreeMap<String, Tensor>) -> Model {
        Model {
            graph: self.graph.clone(),
            plan: self.plan.clone(),
            input: self.input.clone(),
            class_names: self.class_names.clone(),
            tensors,
        }
    }
}

/// The loss of a recipe for targets that are no classes, and whether its switches have a meaning for them.
fn check_task(recipe: &Recipe, images: &dyn Dataset) -> Result<Option<DenseLoss>, RunError> {
    let kind = images.target_kind();
    let wrong = |what: &str| Err(RunError::Images { half: "training", what: what.to_owned() });
    let Some(usual) = DenseLoss::usual(kind) else {
        return match recipe.loss {
            None => Ok(None),
            Some(_) => {
                wrong("their targets are classes, whose loss is the cross entropy of their logits: leave out loss")
            }
        };
    };
    let loss = recipe.loss.unwrap_or(usual);
    if loss.is_of_classes() != usual.is_of_classes() {
        return wrong(&format!("`loss = \"{}\"` does not go with their targets; `{}` does", loss.name(), usual.name()));
    }
    let augment = Augment { pad: recipe.augment.pad, flip: recipe.augment.flip, fill: Vec::new() };
    if let Some(what) = kind.refuses(&augment, images.image_shape()) {
        return wrong(what);
    }
    if recipe.color_jitter.is_some() && matches!(kind, TargetKind::Image(_)) {
        return wrong("color_jitter changes the colours that are to be restored: leave it out");
    }
    if recipe.mixup > 0.0 || recipe.label_smoothing > 0.0 {
        return wrong("mixup and label_smoothing are for classes, and the targets are not: leave them out");
    }
    Ok(Some(loss))
}

/// Converts random tensors as trained ones will be, so that what conversion refuses is refused before the first step.
fn check_integer_form(
    graph: &Graph,
    plan: &QuantPlan,
    input: &InputDescription,
    class_names: &[String],
    seed: u64,
) -> Result<(), RunError> {
    let model = Model::random(graph.clone(), plan.clone(), input.clone(), class_names.to_vec(), seed)?;
    convert(&model)?;
    Ok(())
}

/// Every pattern of tensors must match something that is trained at some bits.
fn check_groups(recipe: &Recipe, graph: &Graph, plans: &[QuantPlan]) -> Result<(), RecipeError> {
    let mut shapes: BTreeMap<_, _> = plans.iter().flat_map(|plan| Model::tensor_shapes(graph, plan)).collect();
    if plans.iter().all(QuantPlan::is_float) {
        // The float network beside a run has the patterns of the run.
        let quantized = recipe.plan_of(graph, "W4A4".parse().expect("a form like W4A4"));
        shapes.extend(quantized.iter().flat_map(|plan| Model::tensor_shapes(graph, plan)));
    }
    let names: Vec<&str> = shapes.keys().map(String::as_str).filter(|name| is_trained(name)).collect();
    let is_empty = |pattern: &&String| !names.iter().any(|name| name_matches(pattern, name));
    let empty = |key: &'static str, pattern: &String| {
        Err(RecipeError::EmptyGroup { key, pattern: pattern.clone(), tensors: names.join(", ") })
    };
    match (recipe.param_groups.keys().find(is_empty), recipe.no_weight_decay.iter().find(is_empty)) {
        (Some(pattern), _) => empty("param_groups", pattern),
        (None, Some(pattern)) => empty("no_weight_decay", pattern),
        (None, None) => Ok(()),
    }
}

/// Every key of an override must mean something to a node that the override's pattern matches.
fn check_overrides(recipe: &Recipe, graph: &Graph) -> Result<(), RecipeError> {
    let (has_weights, is_act) = (Op::is_product, Op::is_act);
    for (pattern, keys) in &recipe.overrides {
        let of_weights = [
            ("weight_bits", keys.weight_bits.is_some()),
            ("weight_quant", keys.weight_quant.is_some()),
            ("weight_grid", keys.weight_grid.is_some()),
            ("weight_scale", keys.weight_scale.is_some()),
        ];
        let of_acts = [
            ("activation_bits", keys.activation_bits.is_some()),
            ("act_quant", keys.act_quant.is_some()),
            ("clip_scale", keys.clip_scale.is_some()),
        ];
        let given = |keys: &[(&'static str, bool)]| keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
        let matched = |id: &usize| name_matches(pattern, &graph.nodes()[*id].name);
        let ids = || 0..graph.nodes().len();
        for (key, takes) in [(given(&of_weights), &has_weights as &dyn Fn(&Op) -> bool), (given(&of_acts), &is_act)] {
            let (Some(key), Some(first)) = (key, ids().find(matched)) else { continue };
            if ids().filter(matched).any(|id| takes(&graph.nodes()[id].op)) {
                continue;
            }
            let near = ids().skip(first).chain(ids()).find(|&id| takes(&graph.nodes()[id].op));
            let near = near.map_or_else(String::new, |id| format!("; `{}` would take it", graph.nodes()[id].name));
            return Err(RecipeError::Value {
                origin: Origin::Default,
                key: "overrides".to_owned(),
                message: format!(".\"{pattern}\": `{key}` changes nothing in `{}`{near}", graph.nodes()[first].name),
            });
        }
    }
    Ok(())
}

fn is_trained(name: &str) -> bool {
    !name.ends_with(".running_mean") && !name.ends_with(".running_var")
}

/// Channels that the images do not have, and a square or a crop that may leave nothing of an image.
fn check_sizes(recipe: &Recipe, shape: ImageShape) -> Result<(), RecipeError> {
    let (h, w) = (shape.h, shape.w);
    let wrong =
        |key: &str, message: String| Err(RecipeError::Value { origin: Origin::Default, key: key.to_owned(), message });
    if let Some(told) = recipe.input.channels().filter(|&told| told != shape.c) {
        return wrong("input", format!("tells {told} channels apart, and the images have {}", shape.c));
    }
    if shape.c != 3 && recipe.color_jitter.is_some_and(|[.., saturation, hue]| saturation > 0.0 || hue > 0.0) {
        let what = "has saturation or hue, and images without colours have none";
        return wrong("color_jitter", what.to_owned());
    }
    if recipe.cutout > h.max(w) {
        let most = h.max(w);
        return wrong("cutout", format!("= {}: expected at most {most}, the side of images of {h}x{w}", recipe.cutout));
    }
    if recipe.augment.pad >= h.min(w) {
        let pad = recipe.augment.pad;
        return wrong("augment", format!("has pad = {pad}: expected less than the side of images of {h}x{w}"));
    }
    Ok(())
}

/// A trait anyone can implement deserves a look before an index goes out of range deep in a step.
fn check_half(half: &'static str, images: &dyn Dataset, classes: usize) -> Result<(), RunError> {
    let wrong = |what: String| Err(RunError::Images { half, what });
    if images.is_empty() {
        return wrong("there are none".to_owned());
    }
    if images.len() > u32::MAX as usize {
        return wrong(format!("there are {}, more than 2^32", images.len()));
    }
    match (0..images.len()).find(|&i| images.label(i) >= classes) {
        Some(i) => wrong(format!("image {i} has label {}, but there are {classes} classes", images.label(i))),
        None => Ok(()),
    }
}
