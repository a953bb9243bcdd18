//! Which module of a file is which node of a graph: by name, or by order and shape.

use std::collections::{BTreeMap, HashMap};

use bitpact_graph::{Graph, Op, QuantPlan};
use bitpact_model::{Model, Tensor};

use super::Weights;

/// The tensors of one layer of a file.
#[derive(Debug)]
struct Module<'a> {
    name: &'a str,
    /// Position in the file by the last part of the name.
    tensors: BTreeMap<&'a str, usize>,
}

/// What modules must share to be one another by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Convolutions and linear layers.
    Product,
    Norm,
    /// Slopes of a PReLU.
    Slopes,
}

/// How the tensors of a file become those of a graph.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// Names here, and positions in the file.
    pub(crate) pairs: Vec<(String, usize)>,
    /// Biases that a batch norm removes: the name of its running mean, and the position of the bias.
    pub(crate) folded: Vec<(String, usize)>,
    /// Whether modules were found by their order, with the first that has another name here.
    pub(crate) by_order: Option<(String, String)>,
    /// In the graph and not in the file.
    pub(crate) missing: Vec<String>,
    /// In the file and not in the graph.
    pub(crate) left_over: Vec<String>,
    /// Both, with different shapes, in words.
    pub(crate) shapes: Vec<String>,
}

impl Fit {
    /// Names and shapes that do not agree.
    pub(crate) fn misfits(&self) -> usize {
        self.missing.len() + self.left_over.len() + self.shapes.len()
    }

    /// The tensors of the graph.
    pub(crate) fn tensors(&self, graph: &Graph, weights: &Weights) -> BTreeMap<String, Tensor> {
        let shapes = float_shapes(graph);
        let tensor = |(name, at): &(String, usize)| {
            let tensor = &weights.tensors[*at].1;
            let shape = shapes.get(name).unwrap_or(&tensor.shape).clone();
            (name.clone(), Tensor { shape, data: tensor.data.clone() })
        };
        let mut tensors: BTreeMap<String, Tensor> = self.pairs.iter().map(tensor).collect();
        for (mean, bias) in &self.folded {
            let Some(mean) = tensors.get_mut(mean) else { continue };
            mean.data.iter_mut().zip(&weights.tensors[*bias].1.data).for_each(|(mean, bias)| *mean -= bias);
        }
        tensors
    }
}

/// Names and shapes of the tensors of a float network.
fn float_shapes(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    Model::tensor_shapes(graph, &QuantPlan { weights: BTreeMap::new(), activations: BTreeMap::new() })
}

/// How `weights` fit `graph`: by names where every layer has a module of its name, else by order where shapes agree,
/// else by names with what does not agree.
pub(crate) fn fit(graph: &Graph, weights: &Weights) -> Fit {
    let modules = modules(weights);
    let layers: Vec<usize> = (0..graph.nodes().len()).filter(|&id| role(graph.node(id).op).is_some()).collect();
    let named = by_name(graph, &layers, &modules);
    if named.iter().all(Option::is_some) {
        return assign(graph, weights, &modules, &layers, &named);
    }
    match by_order(graph, weights, &layers, &modules) {
        None => assign(graph, weights, &modules, &layers, &named),
        Some(ordered) => {
            let mut fit = assign(graph, weights, &modules, &layers, &ordered);
            let renamed = layers.iter().zip(&ordered).find_map(|(&id, module)| {
                let (own, other) = (&graph.node(id).name, modules[(*module)?].name);
                (own != other).then(|| (other.to_owned(), own.clone()))
            });
            fit.by_order = renamed;
            fit
        }
    }
}

/// The tensor of the file for the first and the last layer of `graph` that have weights, by name, or the first and last
/// of its modules with weights.
pub(crate) fn ends<'a>(graph: &Graph, weights: &'a Weights) -> Option<(&'a Tensor, &'a Tensor)> {
    let modules = modules(weights);
    let products: Vec<usize> = (0..graph.nodes().len()).filter(|&id| graph.node(id).op.is_product()).collect();
    let (first, last) = (*products.first()?, *products.last()?);
    let weight = |at: usize| modules[at].tensors.get("weight").map(|&at| &weights.tensors[at].1);
    let of_file: Vec<usize> =
        (0..modules.len()).filter(|&at| module_role(&modules[at], weights) == Some(Role::Product)).collect();
    let [by_first, by_last] = <[Option<usize>; 2]>::try_from(by_name(graph, &[first, last], &modules)).ok()?;
    Some((weight(by_first.or(of_file.first().copied())?)?, weight(by_last.or(of_file.last().copied())?)?))
}

fn modules(weights: &Weights) -> Vec<Module<'_>> {
    let mut modules: Vec<Module<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (at, (name, _)) in weights.tensors.iter().enumerate() {
        let (module, tensor) = name.rsplit_once('.').unwrap_or(("", name));
        let place = *places.entry(module).or_insert_with(|| {
            modules.push(Module { name: module, tensors: BTreeMap::new() });
            modules.len() - 1
        });
        modules[place].tensors.insert(tensor, at);
    }
    modules
}

fn role(op: Op) -> Option<Role> {
    match op {
        Op::BatchNorm(_) => Some(Role::Norm),
        Op::Function(function) if function.is_learned() => Some(Role::Slopes),
        op => op.is_product().then_some(Role::Product),
    }
}

fn module_role(module: &Module<'_>, weights: &Weights) -> Option<Role> {
    let dimensions = |tensor: &str| module.tensors.get(tensor).map(|&at| weights.tensors[at].1.shape.len());
    match (dimensions("weight"), dimensions("running_var"), dimensions("bias")) {
        (Some(1), Some(_), _) | (Some(1), None, Some(_)) => Some(Role::Norm),
        (Some(1), None, None) => Some(Role::Slopes),
        (Some(_), None, _) => Some(Role::Product),
        _ => None,
    }
}

/// The module of the same name for each of `layers`.
fn by_name(graph: &Graph, layers: &[usize], modules: &[Module<'_>]) -> Vec<Option<usize>> {
    let found = |rename: fn(&str) -> Option<String>| -> Vec<Option<usize>> {
        let renamed = |(at, module): (usize, &Module<'_>)| Some((canonical(&rename(module.name)?), at));
        let places: HashMap<String, usize> = modules.iter().enumerate().filter_map(renamed).collect();
        layers.iter().map(|&id| places.get(&canonical(&graph.node(id).name)).copied()).collect()
    };
    let count = |found: &Vec<Option<usize>>| found.iter().flatten().count();
    let (plain, timm) = (found(|name| Some(name.to_owned())), found(timm_mobilenet_v2));
    if count(&timm) > count(&plain) { timm } else { plain }
}

/// A name in the words of this crate: programs call a shortcut and the last layer by several names.
fn canonical(name: &str) -> String {
    const LAST: [&str; 9] =
        ["fc", "linear", "classifier", "classifier.1", "head", "head.fc", "last_linear", "output", "dense"];
    if LAST.contains(&name) {
        return "fc".to_owned();
    }
    let part = |part: &str| if part == "downsample" { "shortcut".to_owned() } else { part.to_owned() };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// torchvision's name of a module of timm's `mobilenetv2_100`.
fn timm_mobilenet_v2(name: &str) -> Option<String> {
    const BLOCKS: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];
    Some(match name {
        "conv_stem" => "features.0.0".to_owned(),
        "bn1" => "features.0.1".to_owned(),
        "conv_head" => "features.18.0".to_owned(),
        "bn2" => "features.18.1".to_owned(),
        "classifier" => "classifier.1".to_owned(),
        _ => {
            let mut parts = name.strip_prefix("blocks.")?.split('.');
            let (stage, block, layer): (usize, usize, _) =
                (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            BLOCKS.get(stage).filter(|&&count| block < count)?;
            let number = 1 + BLOCKS[..stage].iter().sum::<usize>() + block;
            let inner = match (stage, layer) {
                (0, "conv_dw") | (1.., "conv_pw") => "0.0",
                (_, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") | (1.., "conv_pwl") => "2",
                (1.., "conv_dw") => "1.0",
                (1.., "bn2") => "1.1",
                (1.., "bn3") => "3",
                _ => return None,
            };
            format!("features.{number}.conv.{inner}")
        }
    })
}

/// The module of the same place for each of `layers`, where both have as many of every role and the shapes of their
/// weights agree.
fn by_order(graph: &Graph, weights: &Weights, layers: &[usize], modules: &[Module<'_>]) -> Option<Vec<Option<usize>>> {
    let mut order: Vec<usize> = (0..modules.len()).collect();
    let is_sorted = modules.is_sorted_by(|a, b| a.name <= b.name);
    if is_sorted {
        // The order of the alphabet tells nothing; numbers in names do.
        order.sort_by_key(|&at| natural(modules[at].name));
    }
    let mut found = vec![None; layers.len()];
    for wanted in [Role::Product, Role::Norm, Role::Slopes] {
        let own: Vec<usize> = (0..layers.len()).filter(|&i| role(graph.node(layers[i]).op) == Some(wanted)).collect();
        let theirs: Vec<usize> =
            order.iter().copied().filter(|&at| module_role(&modules[at], weights) == Some(wanted)).collect();
        if own.len() != theirs.len() {
            return None;
        }
        for (i, at) in own.into_iter().zip(theirs) {
            let id = layers[i];
            let shape = graph.weight_shape(id).unwrap_or_else(|| vec![graph.shape(id).c]);
            let (_, tensor) = &weights.tensors[*modules[at].tensors.get("weight")?];
            if !same_shape(&tensor.shape, &shape) {
                return None;
            }
            found[i] = Some(at);
        }
    }
    Some(found)
}

/// The words of a name, each with the number after it, so that 10 comes after 9.
fn natural(name: &str) -> Vec<(&str, u64)> {
    let (mut parts, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let end = rest[word..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |digits| word + digits);
        parts.push((&rest[..word], rest[word..end].parse().unwrap_or(0)));
        rest = &rest[end..];
    }
    parts
}

/// Whether two shapes are the same but for sizes of 1 at their ends.
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let bare = |shape: &[usize]| shape.iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
    a[..bare(a)] == b[..bare(b)]
}

/// Gives the tensors of each module to its layer.
fn assign(graph: &Graph, weights: &Weights, modules: &[Module<'_>], layers: &[usize], found: &[Option<usize>]) -> Fit {
    let shapes = float_shapes(graph);
    let (mut fit, mut used) = (Fit::default(), vec![false; weights.tensors.len()]);
    for (&id, module) in layers.iter().zip(found) {
        let own = &graph.node(id).name;
        let tensors = module.map(|at| &modules[at].tensors);
        let prefix = format!("{own}.");
        for (name, shape) in shapes.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)) {
            let Some(&at) = tensors.and_then(|tensors| tensors.get(&name[prefix.len()..])) else {
                fit.missing.push(format!("{name} {shape:?}"));
                continue;
            };
            used[at] = true;
            let (theirs, tensor) = &weights.tensors[at];
            if same_shape(&tensor.shape, shape) {
                fit.pairs.push((name.clone(), at));
            } else {
                let of = if theirs == name { String::new() } else { format!(" ({theirs})") };
                fit.shapes.push(format!("{name}{of} {:?}, expected {shape:?}", tensor.shape));
            }
        }
        // A norm takes off whatever its input is moved by.
        let norm = graph.consumers(id).iter().find(|&&next| matches!(graph.node(next).op, Op::BatchNorm(_)));
        if let (Some(&bias), Some(&norm), [_]) =
            (tensors.and_then(|tensors| tensors.get("bias")), norm, graph.consumers(id))
            && !used[bias]
            && weights.tensors[bias].1.data.len() == graph.shape(id).c
        {
            used[bias] = true;
            fit.folded.push((format!("{}.running_mean", graph.node(norm).name), bias));
        }
    }
    let left = weights.tensors.iter().zip(&used).filter(|(_, used)| !**used);
    fit.left_over = left.map(|((name, tensor), _)| format!("{name} {:?}", tensor.shape)).collect();
    fit
}
