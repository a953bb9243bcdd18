use bitpact_graph::{FirstLast, Graph, Override, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_search::{
    Bitwidths, Budget, Change, Choice, Cost, Limited, Part, SearchError, Space, exact, exact_front, greedy,
};
use proptest::prelude::*;

use super::{bits, separable};

const WIDTHS: [u8; 3] = [2, 4, 8];

/// The space of a network with changes of the loss drawn from `seeds`.
fn space(graph: &Graph, first_last: FirstLast, widths: &[u8], seeds: &[u16]) -> Space {
    let config = QuantConfig { first_last, ..QuantConfig::new("W4A4".parse().unwrap()) };
    let mut space = Space::new(graph, &config, &bits(widths)).unwrap();
    let mut seeds = seeds.iter().cycle();
    let mut changes = Vec::new();
    for variable in &space.variables {
        for &bits in variable.bits.iter().filter(|&&bits| bits < 8) {
            let loss = f64::from(*seeds.next().unwrap()) / 1000.0 / f64::from(bits * bits);
            changes.push(Change { layer: variable.name.clone(), part: variable.part, bits, loss });
        }
    }
    space.set_changes(&changes).unwrap();
    space
}

fn limited(space: &Space, text: &str) -> Result<Limited, SearchError> {
    let budget: Budget = text.parse()?;
    let cost = Cost::of(&budget, None)?;
    Limited::new(budget, cost, space)
}

/// The smallest sum of changes within the budgets, of all choices.
fn by_trying(space: &Space, limited: &[Limited]) -> Option<f64> {
    let mut widths = vec![0; space.variables.len()];
    let mut best: Option<f64> = None;
    loop {
        let bits = space.bits(&widths);
        let is_within = limited.iter().all(|limited| {
            limited.cost.network(&space.graph, &space.products, &bits).unwrap() <= limited.limit * (1.0 + 1e-9)
        });
        if is_within {
            let change = space.change(&bits).unwrap();
            best = Some(best.map_or(change, |best| best.min(change)));
        }
        let Some(next) = (0..widths.len()).find(|&i| widths[i] + 1 < space.variables[i].bits.len()) else { break best };
        widths[next] += 1;
        widths[..next].fill(0);
    }
}

fn check(space: &Space, limited: &[Limited], choice: &Choice) {
    let costs =
        limited.iter().map(|limited| limited.cost.network(&space.graph, &space.products, &choice.bits).unwrap());
    assert_eq!(costs.collect::<Vec<_>>(), choice.costs);
    assert!(choice.costs.iter().zip(limited).all(|(cost, limited)| *cost <= limited.limit * (1.0 + 1e-9)));
    assert!((space.change(&choice.bits).unwrap() - choice.loss_change).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Bit-operations and energies couple the widths of weights with those of what they read.
    #[test]
    fn the_exact_choice_is_that_of_trying_all(
        seeds in prop::collection::vec(1u16..1000, 16),
        share in 0.05f64..1.0,
        other in 0.05f64..1.0,
        pair in 0usize..3,
    ) {
        let space = space(&separable(), FirstLast::Same, &WIDTHS, &seeds);
        let (first, second) = [("bytes", "bitops"), ("bitops", "bytes"), ("energy", "bytes")][pair];
        let budget = |name: &str, share: f64| {
            let (unit, device) = if name == "energy" { ("J", "@mpic") } else { ("", "") };
            let all = limited(&space, &format!("{name}=1e9{unit}{device}")).unwrap();
            Limited { limit: all.least + share * (all.most - all.least), ..all }
        };
        let limits = [budget(first, share), budget(second, other)];
        for limits in [&limits[..1], &limits] {
            let best = by_trying(&space, limits);
            match exact(&space, limits) {
                Ok(choice) => {
                    check(&space, limits, &choice);
                    prop_assert!(choice.exact && (choice.loss_change - best.unwrap()).abs() < 1e-9);
                }
                Err(error) => prop_assert!(best.is_none(), "{error}"),
            }
            match greedy(&space, limits) {
                Ok(choice) => {
                    check(&space, limits, &choice);
                    prop_assert!(choice.loss_change >= best.unwrap() - 1e-9);
                }
                Err(error) => prop_assert!(best.is_none(), "{error}"),
            }
        }
    }
}

#[test]
fn a_resnet_is_chosen_exactly_and_greed_comes_near() {
    let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let seeds: Vec<u16> = (0..97u32).map(|i| ((i * 7919 + 13) % 997 + 1) as u16).collect();
    let space = space(&graph, FirstLast::Bits8, &[2, 3, 4, 5, 6, 8], &seeds);
    // Every layer but the first and the last, and every activation but the one into the last.
    let count = |part: Part| space.variables.iter().filter(|variable| variable.part == part).count();
    assert_eq!((count(Part::Weights), count(Part::Activations)), (18, 18));
    for texts in [&["bytes=W3A3"][..], &["bytes=W3A3", "bitops=W3A3"]] {
        let limits: Vec<Limited> = texts.iter().map(|text| limited(&space, text).unwrap()).collect();
        let (best, near) = (exact(&space, &limits).unwrap(), greedy(&space, &limits).unwrap());
        check(&space, &limits, &best);
        check(&space, &limits, &near);
        let uniform = space.change(&space.uniform("W3A3".parse().unwrap()).unwrap()).unwrap();
        assert!(best.loss_change < 0.9 * uniform, "{} {uniform}", best.loss_change);
        assert!(near.loss_change < 1.05 * best.loss_change + 1e-9, "{} {}", near.loss_change, best.loss_change);
        assert_eq!(exact(&space, &limits).unwrap(), best, "the same choice every time");
    }
    let limits = [limited(&space, "bytes=W8A8").unwrap()];
    let front = exact_front(&space, &limits, 7).unwrap();
    assert_eq!(front.len(), 7);
    for pair in front.windows(2) {
        assert!(pair[0].costs[0] < pair[1].costs[0] && pair[0].loss_change > pair[1].loss_change);
    }
    assert_eq!(front[6].loss_change, 0.0);
}

#[test]
fn costs_that_are_no_sum_are_for_greed_alone() {
    let space = space(&separable(), FirstLast::Same, &WIDTHS, &[500, 300, 900]);
    let all = limited(&space, "latency=1s@pact-2").unwrap();
    let limits = [Limited { limit: 0.5 * (all.least + all.most), ..all }];
    let message = exact(&space, &limits).unwrap_err().to_string();
    assert!(message.contains("no sum over layers"), "{message}");
    check(&space, &limits, &greedy(&space, &limits).unwrap());
}

#[test]
fn policies_and_overrides_keep_what_they_fix_and_what_is_chosen_becomes_overrides() {
    let graph = separable();
    let mut config = QuantConfig::new("W4A4".parse().unwrap());
    let own = Override { weight_bits: Some(6), ..Override::default() };
    config.overrides.insert("dep*".to_owned(), own);
    let space = Space::new(&graph, &config, &bits(&WIDTHS)).unwrap();
    let names: Vec<(&str, Part)> = space.variables.iter().map(|variable| (&*variable.name, variable.part)).collect();
    assert_eq!(names, [("act1", Part::Activations), ("act2", Part::Activations), ("point", Part::Weights)]);
    let chosen = space.bits(&[0, 1, 2]);
    let again = QuantConfig { bits: "W3A3".parse().unwrap(), overrides: space.overrides(&chosen), ..config.clone() };
    assert_eq!(Bitwidths::of(&QuantPlan::resolve(&graph, &again).unwrap()), chosen);
    assert_eq!(Bitwidths::of(&space.plan(&chosen).unwrap()), chosen);
    assert_eq!((chosen.weights["depth"], chosen.activations["act1"], chosen.activations["act2"]), (6, 2, 4));
    for (pattern, says) in [("*", "leave no layer"), ("conv1", "")] {
        let mut config = config.clone();
        let all = Override { weight_bits: Some(3), activation_bits: Some(3), ..Override::default() };
        config.overrides.insert(pattern.to_owned(), all);
        match Space::new(&graph, &config, &bits(&WIDTHS)) {
            Err(error) => assert!(!says.is_empty() && error.to_string().contains(says), "{error}"),
            Ok(_) => assert!(says.is_empty()),
        }
    }
    let message = Space::new(&graph, &config, &bits(&[4])).unwrap_err().to_string();
    assert!(message.contains("one width, 4"), "{message}");
}

#[test]
fn noise_makes_no_width_better_than_a_wider_one() {
    let mut space = Space::new(&separable(), &QuantConfig::new("W4A4".parse().unwrap()), &bits(&WIDTHS)).unwrap();
    let change = |layer: &str, part, bits, loss| Change { layer: layer.to_owned(), part, bits, loss };
    let mut changes = vec![change("depth", Part::Weights, 2, 0.1), change("depth", Part::Weights, 4, 0.3)];
    changes.extend([change("point", Part::Weights, 2, f64::NAN), change("point", Part::Weights, 4, -0.2)]);
    for act in ["act1", "act2"] {
        changes.extend([2, 4].map(|bits| change(act, Part::Activations, bits, 0.5)));
    }
    space.set_changes(&changes).unwrap();
    let of = |name: &str| space.variables.iter().find(|variable| variable.name == name).unwrap().changes.clone();
    assert_eq!(of("depth"), [0.3, 0.3, 0.0]);
    assert_eq!(of("point")[1..], [0.0, 0.0]);
    assert!(of("point")[0] > 1e100);
    changes.pop();
    let message = space.set_changes(&changes).unwrap_err().to_string();
    assert!(message.contains("activation of `act2` at 4 bits"), "{message}");
}
