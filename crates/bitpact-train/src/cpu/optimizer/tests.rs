use bitpact_core::ALPHA_MIN;

use super::super::profile::Pool;
use crate::params::Params;

use crate::{OptimizerConfig, OptimizerKind, ParamGroup};

fn params(nesterov: bool) -> Params {
    let optimizer = OptimizerConfig {
        momentum: 0.5,
        nesterov,
        weight_decay: 0.25,
        no_weight_decay: vec!["bn*".to_owned(), "*.bias".to_owned()],
        clip_lr_scale: 2.0,
        clip_weight_decay: 0.5,
        ..OptimizerConfig::default()
    };
    let names = ["conv.weight", "conv.bias", "bn.weight", "bn.running_mean", "act.clip_val", "max.clip_val"];
    let shapes = names.map(|name| (name.to_owned(), vec![1])).into();
    let mut params = Params::new(shapes, optimizer, |name| name != "max.clip_val");
    for name in names {
        let p = params.get_mut(params.id(name));
        p.value[0] = 4.0;
        p.grad.fill(1.0);
    }
    params
}

/// Two steps of the definition, in numbers that float32 holds exactly.
#[test]
fn updates_follow_the_definition() {
    // Decay 0.25: d = 1 + 1 = 2, v = 2; then d = 1 + 0.25 w, v = 0.5 * 2 + d.
    for (nesterov, name, after_one, after_two) in [
        (false, "conv.weight", 3.0, 1.625),
        (false, "conv.bias", 3.5, 2.75),
        (false, "bn.weight", 3.5, 2.75),
        (false, "bn.running_mean", 4.0, 4.0),
        (false, "max.clip_val", 4.0, 4.0),
        // Twice the rate, decay 0.5: d = 1 + 2 = 3.
        (false, "act.clip_val", 1.0, ALPHA_MIN),
        (true, "conv.weight", 2.5, 1.03125),
        (true, "conv.bias", 3.25, 2.375),
    ] {
        let mut params = params(nesterov);
        let id = params.id(name);
        params.update(&Pool::new(2), 0.5);
        assert_eq!(params.value(id)[0], after_one, "{name}, Nesterov {nesterov}, one step");
        params.update(&Pool::new(2), 0.5);
        assert_eq!(params.value(id)[0], after_two, "{name}, Nesterov {nesterov}, two steps");
        assert_eq!(params.get(id).clamped, u64::from(name == "act.clip_val"));
    }
}

/// sin(0.9 seed + 0.3), as the program of the golden file has it.
fn value(seed: usize) -> f32 {
    (0.9 * seed as f64 + 0.3).sin() as f32
}

/// Six steps as PyTorch takes them (tests/golden/switches.py), with groups that have rates and decays of their own.
#[test]
fn every_rule_follows_pytorch() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../tests/golden/switches.json")).unwrap();
    let group =
        |pattern: &str, lr_scale, weight_decay| ParamGroup { pattern: pattern.to_owned(), lr_scale, weight_decay };
    let base = OptimizerConfig {
        weight_decay: 0.02,
        groups: vec![group("b.*", Some(0.2), Some(0.3)), group("*", None, Some(0.02))],
        ..OptimizerConfig::default()
    };
    let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..base.clone() };
    for (name, optimizer) in [
        ("sgd", base.clone()),
        ("sgd_nesterov_clipped", OptimizerConfig { nesterov: true, max_grad_norm: Some(1.5), ..base }),
        ("adam", adam.clone()),
        ("adam_clipped", OptimizerConfig { betas: [0.8, 0.95], eps: 1e-3, max_grad_norm: Some(1.5), ..adam.clone() }),
        ("adamw", OptimizerConfig { kind: OptimizerKind::AdamW, ..adam }),
    ] {
        let shapes = [("a.weight".to_owned(), vec![7]), ("b.weight".to_owned(), vec![3])].into();
        let mut params = Params::new(shapes, optimizer, |_| true);
        let ids = ["a.weight", "b.weight"].map(|name| params.id(name));
        let mut seed = 0;
        for id in ids {
            params.get_mut(id).value.fill_with(|| {
                seed += 1;
                value(seed - 1)
            });
        }
        for _ in 0..6 {
            for id in ids {
                params.get_mut(id).grad.fill_with(|| {
                    seed += 1;
                    2.0 * value(seed - 1)
                });
            }
            params.update(&Pool::new(2), 0.05);
        }
        for (key, id) in ["a", "b"].into_iter().zip(ids) {
            let wanted = golden["updates"][name][key].as_array().unwrap();
            assert_eq!(wanted.len(), params.value(id).len());
            for (wanted, got) in wanted.iter().zip(params.value(id)) {
                let off = (wanted.as_f64().unwrap() - f64::from(*got)).abs();
                assert!(off < 1e-6, "{name} {key}: {got} instead of {wanted}");
            }
        }
    }
}

#[test]
fn the_longest_pattern_has_the_last_word_and_what_it_leaves_open_stays() {
    let group =
        |pattern: &str, lr_scale, weight_decay| ParamGroup { pattern: pattern.to_owned(), lr_scale, weight_decay };
    let optimizer = OptimizerConfig {
        weight_decay: 0.25,
        no_weight_decay: vec!["*.bias".to_owned()],
        clip_lr_scale: 3.0,
        clip_weight_decay: 0.75,
        groups: vec![
            group("layer1.*.weight", Some(5.0), None),
            group("layer1.*", Some(7.0), Some(0.5)),
            group("*.clip_val", None, Some(0.0)),
        ],
        ..OptimizerConfig::default()
    };
    let rates = |name: &str| {
        let params = Params::new([(name.to_owned(), vec![1])].into(), optimizer.clone(), |_| true);
        let p = params.get(params.id(name));
        (p.lr_scale, p.decay)
    };
    for (name, wanted) in [
        ("conv1.weight", (1.0, 0.25)),
        ("conv1.bias", (1.0, 0.0)),
        ("act1.clip_val", (3.0, 0.0)),
        ("layer1.0.weight", (5.0, 0.5)),
        ("layer1.0.bias", (7.0, 0.5)),
        ("layer1.act.clip_val", (7.0, 0.0)),
        ("conv1.weight_step", (1.0, 0.0)),
        ("layer1.0.weight_step", (7.0, 0.5)),
    ] {
        assert_eq!(rates(name), wanted, "{name}");
    }
}

#[test]
fn the_average_follows_its_formula_and_keeps_buffers_too() {
    let optimizer = OptimizerConfig { ema_decay: Some(0.2), ..OptimizerConfig::default() };
    let shapes = ["conv.weight", "bn.running_mean"].map(|name| (name.to_owned(), vec![1])).into();
    let mut params = Params::new(shapes, optimizer, |_| true);
    let (mut wanted, id) = (0.0, params.id("bn.running_mean"));
    for (t, value) in [(1.0, 4.0f64), (2.0, -1.0), (3.0, 2.0)] {
        params.get_mut(id).value[0] = value as f32;
        params.update(&Pool::new(2), 0.1);
        params.move_average(&Pool::new(2));
        // (1 + t) / (10 + t) is 0.18 at t = 1, and above 0.2 from then on.
        let decay = f64::min(0.2, (1.0 + t) / (10.0 + t));
        wanted = decay * wanted + (1.0 - decay) * value;
    }
    params.swap_average();
    assert!((f64::from(params.value(id)[0]) - wanted).abs() < 1e-6, "{} {wanted}", params.value(id)[0]);
    params.swap_average();
    assert_eq!(params.value(id)[0], 2.0);
}
