//! The network that is left.

use bitpact_graph::{ChannelGroups, Graph};
use bitpact_model::{Model, Tensor};

use crate::RunError;

/// The network without the groups that do not stay, with its weights.
///
/// # Errors
/// A layer without channels.
pub fn cut(model: &Model, groups: &ChannelGroups, stays: &[bool]) -> Result<Model, RunError> {
    let graph = groups.kept(&model.graph, stays).map_err(crate::TrainError::from)?;
    let shapes = Model::tensor_shapes(&graph, &model.plan);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let (layer, tensor) = name.rsplit_once('.').expect("tensor names have a layer");
        let id = model.graph.find(layer).expect("tensors belong to nodes");
        let whole = &model.tensors[&name].data;
        let elements = groups.elements(&model.graph, id, tensor, whole.len(), stays);
        let data: Vec<f32> = elements.into_iter().map(|at| whole[at]).collect();
        assert_eq!(data.len(), shape.iter().product::<usize>(), "{name}");
        (name, Tensor { shape, data })
    };
    Ok(Model { tensors: shapes.into_iter().map(tensor).collect(), graph, ..model.clone() })
}

/// The network with one channel in every layer, or what must stay.
pub(super) fn smallest(graph: &Graph, groups: &ChannelGroups) -> Result<Graph, RunError> {
    let mut stays = vec![false; groups.len()];
    revive(graph, groups, &vec![0.0; groups.len()], &mut stays);
    Ok(groups.kept(graph, &stays).map_err(crate::TrainError::from)?)
}

/// Lets the group with the largest alpha, the last of several, stay in every layer that would lose all of them.
pub(super) fn revive(graph: &Graph, groups: &ChannelGroups, alphas: &[f32], stays: &mut [bool]) {
    for (id, _) in graph.nodes().iter().enumerate().filter(|(_, node)| node.op.is_product()) {
        let own = groups.node(id);
        if own.iter().any(|group| group.is_none_or(|group| stays[group])) {
            continue;
        }
        let best = own.iter().flatten().copied().max_by(|&a, &b| alphas[a].total_cmp(&alphas[b]));
        if let Some(best) = best {
            stays[best] = true;
        }
    }
}

/// Removes the groups with the smallest alphas until the cost is the target or less, as far as layers keep a channel.
pub(super) fn trim(
    graph: &Graph,
    groups: &ChannelGroups,
    alphas: &[f32],
    target: f64,
    stays: &mut Vec<bool>,
    cost: &dyn Fn(&Graph) -> Result<f64, RunError>,
) -> Result<(), RunError> {
    let mut order: Vec<usize> = (0..groups.len()).filter(|&group| stays[group]).collect();
    order.sort_by(|&a, &b| alphas[a].total_cmp(&alphas[b]));
    for group in order {
        if cost(&groups.kept(graph, stays).map_err(crate::TrainError::from)?)? <= target {
            return Ok(());
        }
        let mut fewer = stays.clone();
        fewer[group] = false;
        let asked = fewer.clone();
        revive(graph, groups, alphas, &mut fewer);
        if fewer == asked {
            *stays = fewer;
        }
    }
    Ok(())
}
