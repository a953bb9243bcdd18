//! Conversions of random networks: the executor equals the interpreter on every path, the interpreter is the formula of
//! training, and files keep them.

use bitpact_core::rng::Key;
use bitpact_engine::{VerifyOptions, check_formula, verify};
use bitpact_graph::testing::{Choices, Form, network_of};
use bitpact_model::{ConvertError, InputDescription, IntegerModel, Model, convert};
use proptest::prelude::*;

const IMAGES: usize = 3;

const TWO: Form = Form { terms: 2, is_any: false };
const ANY: Form = Form { terms: 5, is_any: true };

/// Whether a network is converted; float networks have no integer form, and some networks none that is proved.
fn check(form: Form, choices: &mut Choices) -> Result<bool, TestCaseError> {
    let (graph, plan) = network_of(form, choices);
    let (c, is_float) = (graph.input().c, plan.is_float());
    let bits: u8 = if form.is_any && choices.one_in(6) { 16 } else { 8 };
    let zero_point = (0..c).map(|_| choices.below(1 << bits) as u16).collect();
    let unit = if bits == 16 { 1.0 / 256.0 } else { 1.0 };
    let scale = (0..c).map(|_| unit * (0.005 + 0.002 * choices.below(10) as f32)).collect();
    let names = (0..graph.classes()).map(|c| c.to_string()).collect();
    let what = || format!("{} {:?}", serde_json::to_string(&graph).unwrap(), plan);
    let input = InputDescription { bits, zero_point, scale };
    let model = Model::random(graph.clone(), plan.clone(), input, names, choices.below(1 << 20) as u64).unwrap();
    let conversion = match convert(&model) {
        Ok(conversion) => conversion,
        Err(error) => {
            // Signed codes of a function whose values are far from zero have no code for padding.
            let what_fails = error.to_string();
            let cannot = ["pads with code", "padding code", "inserted elements"];
            let unsigned = form.is_any && cannot.iter().any(|words| what_fails.contains(words));
            // Signs have no code of zero.
            let signs = what_fails.contains("no code of -1 and +1 stands for zero");
            let expected = is_float || unsigned || signs || matches!(error, ConvertError::Step { .. });
            prop_assert!(expected, "{}: {}", error, what());
            return Ok(false);
        }
    };
    let integers = &conversion.model;
    let bytes = integers.to_bytes().unwrap();
    prop_assert!(IntegerModel::from_bytes(&bytes, "random").unwrap() == *integers, "{}", what());
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        for (i, image) in range.zip(pixels.chunks_exact_mut(integers.example_bytes())) {
            image.iter_mut().zip(0..).for_each(|(pixel, at)| *pixel = Key::new(8).at(i as u64).u64(at) as u8);
        }
    };
    let formula = check_formula(&model, &conversion, 1, load).unwrap();
    prop_assert!(formula.wrong == 0 && formula.values > 0, "{}: {}", formula.first.unwrap(), what());
    let verified = verify(integers, &VerifyOptions::up_to(2), IMAGES, load, |_| {}).unwrap();
    prop_assert!(verified.different == 0 && verified.codes > 0, "{:?}: {}", verified.first, what());
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: bitpact_kernels::testing::cases(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_path_gives_the_interpreters_codes(choices in prop::collection::vec(any::<u32>(), 1..200)) {
        check(TWO, &mut Choices::new(choices))?;
    }

    #[test]
    fn every_path_gives_the_interpreters_codes_of_any_operations(choices in prop::collection::vec(any::<u32>(), 1..200)) {
        check(ANY, &mut Choices::new(choices))?;
    }
}

#[test]
fn most_random_networks_are_converted() {
    for form in [TWO, ANY] {
        let converted = (0..300).filter(|&seed| check(form, &mut Choices::of_seed(seed)).unwrap()).count();
        assert!(converted >= 200, "{form:?}: {converted} of 300");
    }
}
