//! The choice of widths: exact where costs are sums over layers, greedy for any cost.

use std::collections::BTreeMap;

use bitpact_graph::NodeId;
use serde::Serialize;

use crate::knapsack::{COSTS, Front, Item, front};
use crate::{Bitwidths, Budget, Cost, Limit, Part, Product, SearchError, Space};

/// Choices that the exact method keeps after each group of tensors.
const MOST: usize = 8_000;
/// Rounds of exchanges after the greedy choice.
const ROUNDS: usize = 50;

/// The widths of a network that were chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Bits of every tensor.
    pub bits: Bitwidths,
    /// What they cost, in the order of the budgets.
    pub costs: Vec<f64>,
    /// The sum of the changes of the loss: what the network is predicted to lose against 8 bits.
    pub loss_change: f64,
    /// Whether no other choice of these widths has a smaller sum within the budgets.
    pub exact: bool,
}

/// A budget with its cost and how much it comes to.
#[derive(Debug, Clone)]
pub struct Limited {
    /// As it was written.
    pub budget: Budget,
    /// The cost it limits.
    pub cost: Cost,
    /// How much there may be.
    pub limit: f64,
    /// What the widths take at the least, layer by layer; of a cost that is no sum, at the narrowest or widest.
    pub least: f64,
    /// What they take at the most.
    pub most: f64,
}

impl Limited {
    /// Checks that `budget` can be met in `space` and that it limits something there.
    ///
    /// # Errors
    /// A layer without a figure at one of its widths, a budget below the least cost, or a cost that is the same at
    /// every width.
    pub fn new(budget: Budget, cost: Cost, space: &Space) -> Result<Self, SearchError> {
        let (mut least, mut most) = (cost.fixed(), cost.fixed());
        let mut is_sum = true;
        // Every width must have its figure.
        let operands = space.operands();
        for of_product in operands.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
            let (mut low, mut high) = (f64::INFINITY, 0.0f64);
            for &(product, widths) in of_product {
                let Some(cost) = cost.product(product, widths)? else {
                    is_sum = false;
                    break;
                };
                (low, high) = (low.min(cost), high.max(cost));
            }
            (least, most) = (least + low, most + high);
        }
        if !is_sum {
            let end = |is_widest: bool| {
                let at = |count: usize| if is_widest { count - 1 } else { 0 };
                let choice: Vec<usize> = space.variables.iter().map(|variable| at(variable.bits.len())).collect();
                cost.network(&space.graph, &space.products, &space.bits(&choice))
            };
            let (narrow, wide) = (end(false)?, end(true)?);
            (least, most) = (narrow.min(wide), narrow.max(wide));
        }
        let shown = |value: f64| budget.quantity.show(value);
        if most <= least * (1.0 + 1e-12) {
            return Err(SearchError::Indifferent { budget: budget.to_string(), cost: shown(least) });
        }
        let limit = match budget.limit {
            Limit::Value(value) => value,
            Limit::Like(bits) => cost.network(&space.graph, &space.products, &space.uniform(bits)?)?,
        };
        if limit * (1.0 + 1e-9) < least {
            return Err(SearchError::NotMet { budget: budget.to_string(), least: shown(least) });
        }
        Ok(Self { budget, cost, limit, least, most })
    }
}

/// An activation with the products that read it, or a product that reads nothing with a width to choose.
struct Group {
    /// Numbers of its variables.
    variables: Vec<usize>,
    items: Vec<Item>,
    /// Number of the width of each variable, for each item.
    widths: Vec<Vec<usize>>,
}

/// What becomes a group.
#[derive(Default)]
struct Members<'a> {
    /// Numbers of the variables of activations.
    acts: Vec<usize>,
    /// The products that read them, with the number of the variable of their weights.
    products: Vec<(&'a Product, Option<usize>)>,
}

struct Groups {
    items: Vec<Group>,
    /// What no choice changes.
    fixed: [f64; COSTS],
    /// Whether no item that could be best was left out.
    exact: bool,
}

/// The choices of groups of tensors whose costs add up; `None` where a cost is no sum.
fn groups(space: &Space, costs: &[&Cost]) -> Result<Option<Groups>, SearchError> {
    let mut of_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (i, variable) in space.variables.iter().enumerate() {
        of_node.insert(variable.node, i);
    }
    // Activations that one product reads belong together.
    let mut root: Vec<usize> = (0..space.variables.len()).collect();
    fn find(root: &[usize], mut i: usize) -> usize {
        while root[i] != i {
            i = root[i];
        }
        i
    }
    let sources = |product: &Product| -> Vec<usize> {
        product.sources.iter().filter_map(|source| of_node.get(source).copied()).collect()
    };
    for product in &space.products {
        for pair in sources(product).windows(2) {
            let (a, b) = (find(&root, pair[0]), find(&root, pair[1]));
            root[a.max(b)] = a.min(b);
        }
    }
    let mut fixed = [0.0; COSTS];
    for (sum, cost) in fixed.iter_mut().zip(costs) {
        *sum = cost.fixed();
    }
    // Activations of each group, and the products that read them with their own variable.
    let mut members: BTreeMap<usize, Members> = BTreeMap::new();
    let mut alone = space.variables.len();
    for (i, variable) in space.variables.iter().enumerate() {
        if variable.part == Part::Activations {
            members.entry(find(&root, i)).or_default().acts.push(i);
        }
    }
    for product in &space.products {
        let own = space.variables.iter().position(|v| v.part == Part::Weights && v.name == product.name);
        let group = sources(product).first().map_or_else(
            || {
                alone += 1;
                alone
            },
            |&source| find(&root, source),
        );
        members.entry(group).or_default().products.push((product, own));
    }
    let cost_of = |product: &Product, bits: &Bitwidths| -> Result<Option<[f64; COSTS]>, SearchError> {
        let mut all = [0.0; COSTS];
        for (sum, cost) in all.iter_mut().zip(costs) {
            let Some(cost) = cost.product(product, bits.operands(&space.graph, product))? else { return Ok(None) };
            *sum = cost;
        }
        Ok(Some(all))
    };
    let (mut items, mut exact) = (Vec::new(), true);
    for Members { acts, products } in members.into_values() {
        let weights: Vec<usize> = products.iter().filter_map(|(_, own)| *own).collect();
        let mut group = Group { variables: [&acts[..], &weights].concat(), items: Vec::new(), widths: Vec::new() };
        let mut widths = vec![0; acts.len()];
        loop {
            let mut bits = space.widest.clone();
            let mut change = 0.0;
            for (&act, &width) in acts.iter().zip(&widths) {
                let variable = &space.variables[act];
                variable.put(&mut bits, variable.bits[width]);
                change += variable.changes[width];
            }
            let (mut within, mut settled) = (Vec::new(), [0.0; COSTS]);
            for (product, own) in &products {
                let Some(own) = own else {
                    let Some(cost) = cost_of(product, &bits)? else { return Ok(None) };
                    settled.iter_mut().zip(cost).for_each(|(sum, cost)| *sum += cost);
                    continue;
                };
                let variable = &space.variables[*own];
                let mut of_product = Vec::new();
                for (&width, &loss) in variable.bits.iter().zip(&variable.changes) {
                    variable.put(&mut bits, width);
                    let Some(costs) = cost_of(product, &bits)? else { return Ok(None) };
                    of_product.push(Item { costs, loss });
                }
                within.push(of_product);
            }
            let within = front(&within, [f64::INFINITY; COSTS], MOST);
            exact &= within.exact;
            for pick in within.picks {
                let costs = std::array::from_fn(|k| pick.costs[k] + settled[k]);
                group.items.push(Item { costs, loss: pick.loss + change });
                group.widths.push([&widths[..], &pick.items].concat());
            }
            // The next widths of the activations.
            let Some(next) = (0..acts.len()).find(|&i| widths[i] + 1 < space.variables[acts[i]].bits.len()) else {
                break;
            };
            widths[next] += 1;
            widths[..next].fill(0);
        }
        items.push(group);
    }
    Ok(Some(Groups { items, fixed, exact }))
}

/// The front of all choices within `limits`.
fn whole_front(space: &Space, limited: &[Limited], limits: [f64; COSTS]) -> Result<(Groups, Front), SearchError> {
    let no_sum = |limited: &Limited| SearchError::NoSum { budget: limited.budget.to_string() };
    let costs: Vec<&Cost> = limited.iter().map(|limited| &limited.cost).collect();
    if costs.len() > COSTS {
        return Err(SearchError::Budget {
            text: limited[COSTS].budget.to_string(),
            message: format!("the exact method takes at most {COSTS} budgets"),
        });
    }
    let Some(groups) = groups(space, &costs)? else {
        let is_sum = |limited: &&Limited| matches!(limited.cost, Cost::DeviceLatency(_) | Cost::DeviceEnergy(_));
        return Err(no_sum(limited.iter().find(is_sum).unwrap_or(&limited[0])));
    };
    let items: Vec<Vec<Item>> = groups.items.iter().map(|group| group.items.clone()).collect();
    let rest = std::array::from_fn(|k| limits[k] - groups.fixed[k]);
    let mut front = front(&items, rest, MOST);
    front.exact &= groups.exact;
    Ok((groups, front))
}

fn limits(limited: &[Limited]) -> [f64; COSTS] {
    std::array::from_fn(|k| limited.get(k).map_or(f64::INFINITY, |limited| limited.limit * (1.0 + 1e-9)))
}

/// The choice with the smallest sum of changes within the budgets.
///
/// # Errors
/// A cost that is no sum over layers, more than two budgets, a layer without a figure, or budgets that cannot be met
/// together.
pub fn exact(space: &Space, limited: &[Limited]) -> Result<Choice, SearchError> {
    let limits = limits(limited);
    let (groups, front) = whole_front(space, limited, limits)?;
    let rest = std::array::from_fn(|k| limits[k] - groups.fixed[k]);
    let pick = front.within(rest).ok_or_else(|| not_met(limited))?;
    choice(space, limited, &groups, &pick.items, front.exact)
}

/// The exact choices at `count` limits of the first budget, from its least cost to its limit, evenly in their
/// logarithm; equal choices once, in ascending order of cost.
///
/// # Errors
/// Those of [`exact`].
pub fn exact_front(space: &Space, limited: &[Limited], count: usize) -> Result<Vec<Choice>, SearchError> {
    let limits = limits(limited);
    let (groups, front) = whole_front(space, limited, limits)?;
    let first = &limited[0];
    let least = front.picks.first().ok_or_else(|| not_met(limited))?.costs[0] + groups.fixed[0];
    let most = first.limit.min(first.most);
    let mut choices: Vec<Choice> = Vec::new();
    for i in 0..count.max(1) {
        let share = if count > 1 { i as f64 / (count - 1) as f64 } else { 1.0 };
        let mut rest: [f64; COSTS] = std::array::from_fn(|k| limits[k] - groups.fixed[k]);
        rest[0] = least * (most / least).powf(share) * (1.0 + 1e-9) - groups.fixed[0];
        let Some(pick) = front.within(rest) else { continue };
        let found = choice(space, limited, &groups, &pick.items, front.exact)?;
        if choices.last().is_none_or(|last| last.bits != found.bits) {
            choices.push(found);
        }
    }
    Ok(choices)
}

fn choice(
    space: &Space,
    limited: &[Limited],
    groups: &Groups,
    items: &[usize],
    exact: bool,
) -> Result<Choice, SearchError> {
    let mut widths = vec![0; space.variables.len()];
    for (group, &item) in groups.items.iter().zip(items) {
        for (&variable, &width) in group.variables.iter().zip(&group.widths[item]) {
            widths[variable] = width;
        }
    }
    finished(space, limited, &widths, exact)
}

fn finished(space: &Space, limited: &[Limited], widths: &[usize], exact: bool) -> Result<Choice, SearchError> {
    let bits = space.bits(widths);
    let costs = costs(space, limited, &bits)?;
    let loss_change = space.variables.iter().zip(widths).map(|(variable, &i)| variable.changes[i]).sum();
    Ok(Choice { bits, costs, loss_change, exact })
}

fn costs(space: &Space, limited: &[Limited], bits: &Bitwidths) -> Result<Vec<f64>, SearchError> {
    limited.iter().map(|limited| limited.cost.network(&space.graph, &space.products, bits)).collect()
}

fn not_met(limited: &[Limited]) -> SearchError {
    let budgets: Vec<String> = limited.iter().map(|limited| limited.budget.to_string()).collect();
    SearchError::NotMetTogether { budgets: budgets.join(" and ") }
}

/// A choice for any costs: from the widest on, the tensor is narrowed that adds least to the loss for what it takes off
/// the costs above their budgets; then tensors are widened, alone or in exchange for another, while that lowers the sum
/// of changes within the budgets.
///
/// # Errors
/// A layer without a figure, or budgets that were not met.
pub fn greedy(space: &Space, limited: &[Limited]) -> Result<Choice, SearchError> {
    let variables = &space.variables;
    let over = |costs: &[f64]| -> f64 {
        let above = |(cost, limited): (&f64, &Limited)| (cost / (limited.limit * (1.0 + 1e-9)) - 1.0).max(0.0);
        costs.iter().zip(limited).map(above).sum()
    };
    let cost_of = |widths: &[usize]| costs(space, limited, &space.bits(widths));
    let mut widths: Vec<usize> = variables.iter().map(|variable| variable.bits.len() - 1).collect();
    let mut excess = over(&cost_of(&widths)?);
    while excess > 0.0 {
        // Of what takes something off, the least change for it; where nothing does, the least change.
        let mut best: Option<(bool, f64, usize, usize, f64)> = None;
        for i in 0..widths.len() {
            for narrower in 0..widths[i] {
                let before = std::mem::replace(&mut widths[i], narrower);
                let left = over(&cost_of(&widths)?);
                widths[i] = before;
                let change = variables[i].changes[narrower] - variables[i].changes[before];
                let gain = excess - left;
                let (is_idle, price) = if gain > 1e-15 { (false, change / gain) } else { (true, change) };
                if best.is_none_or(|best| (is_idle, price) < (best.0, best.1)) {
                    best = Some((is_idle, price, i, narrower, left));
                }
            }
        }
        let Some((_, _, i, narrower, left)) = best else { return Err(not_met(limited)) };
        (widths[i], excess) = (narrower, left);
    }
    for _ in 0..ROUNDS {
        let Some(better) = exchange(space, &widths, &|widths| Ok(over(&cost_of(widths)?) <= 0.0))? else { break };
        widths = better;
    }
    finished(space, limited, &widths, false)
}

/// The widths with the smallest sum of changes among those that differ in one or two tensors and are within the
/// budgets; `None` where none has a smaller one.
fn exchange(
    space: &Space,
    widths: &[usize],
    is_within: &dyn Fn(&[usize]) -> Result<bool, SearchError>,
) -> Result<Option<Vec<usize>>, SearchError> {
    let variables = &space.variables;
    // Changes and what is changed, the best first, so that costs are computed for few.
    let mut moves: Vec<(f64, [(usize, usize); 2])> = Vec::new();
    for (i, wide) in variables.iter().enumerate() {
        for wider in widths[i] + 1..wide.bits.len() {
            let gain = wide.changes[wider] - wide.changes[widths[i]];
            if gain < 0.0 {
                moves.push((gain, [(i, wider); 2]));
            }
            for (j, narrow) in variables.iter().enumerate().filter(|(j, _)| *j != i) {
                for narrower in 0..widths[j] {
                    let change = gain + narrow.changes[narrower] - narrow.changes[widths[j]];
                    if change < -1e-12 {
                        moves.push((change, [(i, wider), (j, narrower)]));
                    }
                }
            }
        }
    }
    moves.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (_, changed) in moves {
        let mut widths = widths.to_vec();
        changed.iter().for_each(|&(i, width)| widths[i] = width);
        if is_within(&widths)? {
            return Ok(Some(widths));
        }
    }
    Ok(None)
}
