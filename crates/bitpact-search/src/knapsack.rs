//! The multiple-choice knapsack: one item of every group, costs within budgets, the loss as small as possible.
//!
//! [`front`] is dynamic programming over the choices that nothing dominates (Nemhauser and Ullmann 1969,
//! doi 10.1287/mnsc.15.9.494; Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, chapter 11): after each group
//! it keeps the partial choices of which no other has both costs and the loss as small. It is exact as long as these
//! are at most `most`; beyond that the costs are cut into cells, of each of which the choice with the least loss stays,
//! so that budgets still hold and the loss may be a little above the least.

use std::collections::HashMap;

/// Costs that are limited at once.
pub const COSTS: usize = 2;

/// One item of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// What it costs; numbers from 0 on.
    pub costs: [f64; COSTS],
    /// What it loses.
    pub loss: f64,
}

/// One item of every group.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// The sum of the costs.
    pub costs: [f64; COSTS],
    /// The sum of the losses.
    pub loss: f64,
    /// Number of the item in each group.
    pub items: Vec<usize>,
}

/// The choices that no other dominates.
#[derive(Debug, Clone, PartialEq)]
pub struct Front {
    /// The choices in ascending order of their costs, the first before the second.
    pub picks: Vec<Pick>,
    /// Whether nothing was left out: the front is the whole one.
    pub exact: bool,
}

impl Front {
    /// The choice with the least loss within `budgets`; the cheaper one of equal ones. `None` where none is within.
    pub fn within(&self, budgets: [f64; COSTS]) -> Option<&Pick> {
        let fits = self.picks.iter().filter(|pick| fits(pick.costs, budgets));
        fits.min_by(|a, b| a.loss.total_cmp(&b.loss))
    }
}

/// A partial choice: costs and loss so far, the partial choice before it and the item added.
#[derive(Clone, Copy)]
struct State {
    costs: [f64; COSTS],
    loss: f64,
    before: u32,
    item: u32,
}

/// The front of the choices within `budgets`, of which at most `most` are kept after each group.
///
/// # Panics
/// If a group has 2^32 items or more.
pub fn front(groups: &[Vec<Item>], budgets: [f64; COSTS], most: usize) -> Front {
    // What the groups that are still to come take at the least.
    let least = |group: &Vec<Item>, k: usize| group.iter().map(|item| item.costs[k]).fold(f64::INFINITY, f64::min);
    let mut rest = vec![[0.0; COSTS]; groups.len() + 1];
    for i in (0..groups.len()).rev() {
        rest[i] = std::array::from_fn(|k| rest[i + 1][k] + least(&groups[i], k));
    }
    let mut levels = vec![vec![State { costs: [0.0; COSTS], loss: 0.0, before: 0, item: 0 }]];
    let mut exact = true;
    for (i, group) in groups.iter().enumerate() {
        let last = levels.last().expect("begins with one");
        let mut states = Vec::with_capacity(last.len() * group.len());
        for (before, state) in last.iter().enumerate() {
            for (item, add) in group.iter().enumerate() {
                let costs: [f64; COSTS] = std::array::from_fn(|k| state.costs[k] + add.costs[k]);
                let at_least = std::array::from_fn(|k| costs[k] + rest[i + 1][k]);
                if fits(at_least, budgets) {
                    let (before, item) = (before as u32, u32::try_from(item).expect("fewer than 2^32 items"));
                    states.push(State { costs, loss: state.loss + add.loss, before, item });
                }
            }
        }
        let mut states = undominated(states);
        if states.len() > most {
            states = undominated(thinned(states, most));
            exact = false;
        }
        levels.push(states);
    }
    let whole = |mut at: usize| {
        let mut items = vec![0; groups.len()];
        for i in (0..groups.len()).rev() {
            let state = levels[i + 1][at];
            (items[i], at) = (state.item as usize, state.before as usize);
        }
        items
    };
    let last = levels.last().expect("begins with one");
    let pick = |(at, state): (usize, &State)| Pick { costs: state.costs, loss: state.loss, items: whole(at) };
    Front { picks: last.iter().enumerate().map(pick).collect(), exact }
}

/// Whether `costs` are within `budgets`, to the rounding of sums of many costs.
fn fits(costs: [f64; COSTS], budgets: [f64; COSTS]) -> bool {
    costs.iter().zip(budgets).all(|(&cost, budget)| cost <= budget * (1.0 + 1e-12))
}

/// Those of which no other has both costs and the loss as small, in ascending order of their costs.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| {
        let costs = a.costs[0].total_cmp(&b.costs[0]).then(a.costs[1].total_cmp(&b.costs[1]));
        costs.then(a.loss.total_cmp(&b.loss))
    });
    // Second costs and losses of what is kept: the former ascend, the latter descend.
    let mut stairs: Vec<(f64, f64)> = Vec::new();
    states.retain(|state| {
        let (cost, loss) = (state.costs[1], state.loss);
        let above = stairs.partition_point(|step| step.0 <= cost);
        if above > 0 && stairs[above - 1].1 <= loss {
            return false;
        }
        let end = above + stairs[above..].iter().take_while(|step| step.1 >= loss).count();
        let begin = if above > 0 && stairs[above - 1].0 == cost { above - 1 } else { above };
        stairs.splice(begin..end, [(cost, loss)]);
        true
    });
    states
}

/// The state of the least loss in each of about `most` cells of the costs.
fn thinned(states: Vec<State>, most: usize) -> Vec<State> {
    let range = |k: usize| {
        let costs = || states.iter().map(|state| state.costs[k]);
        (costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max))
    };
    let ranges: [(f64, f64); COSTS] = std::array::from_fn(range);
    let spread = ranges.iter().filter(|(low, high)| high > low).count().max(1);
    let cells = (most as f64).powf(1.0 / spread as f64).floor().max(1.0);
    let cell = |state: &State| -> [u32; COSTS] {
        std::array::from_fn(|k| {
            let (low, high) = ranges[k];
            if high > low { ((state.costs[k] - low) / (high - low) * cells).min(cells - 1.0) as u32 } else { 0 }
        })
    };
    let mut best: HashMap<[u32; COSTS], usize> = HashMap::new();
    for (i, state) in states.iter().enumerate() {
        let at = best.entry(cell(state)).or_insert(i);
        if state.loss < states[*at].loss {
            *at = i;
        }
    }
    // The cheapest by each cost stays, so that what can be met is met.
    let cheapest = |k: usize| (0..states.len()).min_by(|&a, &b| states[a].costs[k].total_cmp(&states[b].costs[k]));
    let mut kept: Vec<usize> = best.into_values().chain((0..COSTS).filter_map(cheapest)).collect();
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|i| states[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANY: usize = 1 << 20;

    /// Every choice, one after the other.
    fn all(groups: &[Vec<Item>]) -> Vec<Pick> {
        let mut picks = vec![Pick { costs: [0.0; COSTS], loss: 0.0, items: Vec::new() }];
        for group in groups {
            let longer = |pick: &Pick| {
                let pick = pick.clone();
                group.iter().enumerate().map(move |(i, item)| Pick {
                    costs: [pick.costs[0] + item.costs[0], pick.costs[1] + item.costs[1]],
                    loss: pick.loss + item.loss,
                    items: [&pick.items[..], &[i]].concat(),
                })
            };
            picks = picks.iter().flat_map(longer).collect();
        }
        picks
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Item>>> {
        // Whole numbers add up without rounding, and few of them give many equal ones.
        let number = || (0u8..12).prop_map(f64::from);
        let item = (number(), number(), number()).prop_map(|(a, b, loss)| Item { costs: [a, b], loss });
        prop::collection::vec(prop::collection::vec(item, 1..5), 1..6)
    }

    proptest! {
        #[test]
        fn the_best_choice_is_that_of_trying_all(groups in groups(), a in 0u8..40, b in 0u8..40) {
            let budgets = [f64::from(a), f64::from(b)];
            let within = |pick: &&Pick| pick.costs[0] <= budgets[0] && pick.costs[1] <= budgets[1];
            let all = all(&groups);
            let best = all.iter().filter(within).map(|pick| pick.loss).min_by(f64::total_cmp);
            let front = front(&groups, budgets, MANY);
            prop_assert!(front.exact);
            let found = front.within(budgets);
            prop_assert_eq!(found.map(|pick| pick.loss), best);
            if let Some(pick) = found {
                let item = |(group, &i): (&Vec<Item>, &usize)| group[i];
                let items: Vec<Item> = groups.iter().zip(&pick.items).map(item).collect();
                prop_assert_eq!(items.iter().map(|item| item.loss).sum::<f64>(), pick.loss);
                prop_assert_eq!(items.iter().map(|item| item.costs[0]).sum::<f64>(), pick.costs[0]);
            }
        }

        #[test]
        fn the_front_holds_what_nothing_dominates_and_nothing_else(groups in groups()) {
            let front = front(&groups, [f64::INFINITY; COSTS], MANY);
            let key = |pick: &Pick| (pick.costs[0] as i64, pick.costs[1] as i64, pick.loss as i64);
            let all: Vec<_> = all(&groups).iter().map(key).collect();
            let as_small = |a: &(i64, i64, i64), b: &(i64, i64, i64)| a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2;
            let mut expected: Vec<_> =
                all.iter().filter(|one| !all.iter().any(|other| other != *one && as_small(other, one))).copied().collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(front.picks.iter().map(key).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn thinned_fronts_keep_budgets_and_lose_little(groups in groups(), a in 0u8..40, b in 0u8..40) {
            let budgets = [f64::from(a), f64::from(b)];
            let (whole, thin) = (front(&groups, budgets, MANY), front(&groups, budgets, 4));
            for pick in &thin.picks {
                prop_assert!(pick.costs[0] <= budgets[0] && pick.costs[1] <= budgets[1]);
            }
            if let (Some(best), Some(found)) = (whole.within(budgets), thin.within(budgets)) {
                prop_assert!(found.loss >= best.loss);
            }
        }
    }

    #[test]
    fn many_groups_are_thinned_and_stay_near_the_best() {
        // Losses that halve with each width, costs that grow by one: 5^40 choices.
        let item = |g: usize, bits: usize| Item {
            costs: [(bits * (g % 7 + 1)) as f64 + 0.1 * g as f64, (bits * (g % 5 + 1)) as f64],
            loss: (1.0 + g as f64 * 0.37) * 0.5f64.powi(bits as i32),
        };
        let groups: Vec<Vec<Item>> = (0..40).map(|g| (0..5).map(|bits| item(g, bits)).collect()).collect();
        let budgets = [400.0, 300.0];
        let best = |most| {
            let front = front(&groups, budgets, most);
            (front.within(budgets).unwrap().loss, front.exact)
        };
        let ((coarse, _), (fine, exact)) = (best(500), best(5000));
        assert!(!exact && fine <= coarse && coarse < 1.1 * fine, "{coarse} {fine}");
    }
}
