//! Tests of the activation quantizers: closed forms, and gradients against finite differences of their surrogates.

use super::*;
use crate::rng::Key;
use proptest::prelude::*;

fn setup(alpha: f32, bits: u8) -> (Bits, f32, f32) {
    let bits = Bits::new(bits).unwrap();
    (bits, act_inverse_scale(alpha, bits), bits.q_max() as f32)
}

#[test]
fn names_are_those_of_recipes() {
    for (quant, name) in ActQuant::ALL.into_iter().zip(["pact", "pact+", "lsq", "fixed", "relu", "pact-sym", "sign"]) {
        assert_eq!(quant.to_string(), name);
        assert_eq!(name.parse(), Ok(quant));
        assert_eq!(serde_json::to_string(&quant).unwrap(), format!("{name:?}"));
        assert_eq!(serde_json::from_str::<ActQuant>(&format!("{name:?}")).unwrap(), quant);
    }
    let error = "PACT".parse::<ActQuant>().unwrap_err().to_string();
    let known = "pact, pact+, lsq, fixed, relu, pact-sym, sign";
    assert_eq!(error, format!("unknown activation quantizer \"PACT\", expected one of {known}"));
}

#[test]
fn two_bit_codes_by_hand() {
    let (bits, inverse, q_max) = setup(6.0, 2);
    assert_eq!((inverse, q_max, act_scale(6.0, bits)), (0.5, 3.0, 2.0));
    let table = [
        (-9.0, 0),
        (-0.0, 0),
        (0.0, 0),
        (0.9, 0),
        (1.0, 0),
        (1.1, 1),
        (3.0, 2),
        (4.9, 2),
        (5.0, 2),
        (5.1, 3),
        (6.0, 3),
    ];
    for (x, q) in table {
        assert_eq!(quantize_act(x, inverse, q_max), q, "{x}");
    }
    let extremes = [(f32::INFINITY, 3), (f32::NEG_INFINITY, 0), (f32::NAN, 0), (f32::MAX, 3), (f32::MIN, 0)];
    for (x, q) in extremes {
        assert_eq!(quantize_act(x, inverse, q_max), q, "{x}");
    }
}

#[test]
fn zero_and_the_clip_value_are_codes_at_every_width() {
    for bits in Bits::all() {
        for alpha in [ALPHA_MIN, 0.3, 1.0, 6.123_456, 10.0, 1e4] {
            let (inverse, q_max) = (act_inverse_scale(alpha, bits), bits.q_max() as f32);
            assert_eq!(quantize_act(0.0, inverse, q_max), 0);
            assert_eq!(i32::from(quantize_act(alpha, inverse, q_max)), bits.q_max());
            assert!((act_scale(alpha, bits) * q_max - alpha).abs() <= alpha * f32::EPSILON);
        }
    }
}

#[test]
fn signed_codes_by_hand() {
    let bits = Bits::new(3).unwrap();
    let sym = ActQuant::PactSym;
    assert_eq!((sym.q_max(bits), sym.zero_code(bits)), (3, 3));
    let (inverse, q_max) = (sym.inverse_scale(6.0, bits), sym.q_max(bits) as f32);
    assert_eq!((inverse, sym.scale(6.0, bits)), (0.5, 2.0));
    // Ties go to the even code, on both sides of zero.
    let table = [(-9.0, -3), (-6.0, -3), (-5.1, -3), (-5.0, -2), (-3.0, -2), (-1.1, -1), (-1.0, 0), (0.0, 0)];
    for (x, q) in table {
        assert_eq!(quantize_act_signed(x, inverse, q_max), q, "{x}");
        assert_eq!(quantize_act_signed(-x, inverse, q_max), -q, "{}", -x);
    }
    for (x, q) in [(f32::INFINITY, 3), (f32::NEG_INFINITY, -3), (f32::MAX, 3), (f32::MIN, -3), (f32::NAN, -3)] {
        assert_eq!(quantize_act_signed(x, inverse, q_max), q, "{x}");
    }
    for bits in Bits::all().skip(1) {
        let q_max = sym.q_max(bits);
        assert_eq!(q_max, (1 << (bits.get() - 1)) - 1);
        for alpha in [ALPHA_MIN, 0.3, 6.123_456, 1e4] {
            let code = |x: f32| i32::from(quantize_act_signed(x, sym.inverse_scale(alpha, bits), q_max as f32));
            assert_eq!((code(alpha), code(0.0), code(-alpha)), (q_max, 0, -q_max));
        }
    }
}

#[test]
fn the_signed_gradient_matches_finite_differences_and_its_ends() {
    let alpha = 1.7f64;
    for bits in Bits::all().skip(1) {
        let quant = ActQuant::PactSym;
        let (inverse, q_max) = (quant.inverse_scale(alpha as f32, bits), quant.q_max(bits) as f32);
        let back = |g: f32, x: f32| act_backward(quant, g, x, alpha as f32, inverse, q_max);
        // The surrogate: the clip alone, the rounding residual frozen.
        let y = |x: f64, a: f64| x.clamp(-a, a);
        let h = 1e-5;
        let (mut above, mut below) = (0, 0);
        for (x, g) in layer(alpha).into_iter().filter(|(x, _)| (f64::from(x.abs()) - alpha).abs() > 1e-3) {
            let (got, xd) = (back(g, x), f64::from(x));
            let slope = |up: f64, down: f64| f64::from(g) * (up - down) / (2.0 * h);
            assert!((slope(y(xd + h, alpha), y(xd - h, alpha)) - f64::from(got.dx)).abs() < 1e-5);
            assert!((slope(y(xd, alpha + h), y(xd, alpha - h)) - f64::from(got.dalpha)).abs() < 1e-5);
            above += usize::from(xd > alpha);
            below += usize::from(xd < -alpha);
        }
        assert!(above > 10 && below > 10);
        let a = alpha as f32;
        assert_eq!(back(3.0, a), ActGrad { dx: 0.0, dalpha: 3.0 }, "alpha is clipped");
        assert_eq!(back(3.0, -a), ActGrad { dx: 0.0, dalpha: -3.0 }, "-alpha is clipped");
        assert_eq!(back(3.0, 0.0), ActGrad { dx: 3.0, dalpha: 0.0 });
        assert_eq!(back(3.0, f32::NEG_INFINITY), ActGrad { dx: 0.0, dalpha: -3.0 });
    }
}

#[test]
fn signs_by_hand() {
    let (sign, bits) = (ActQuant::Sign, Bits::new(1).unwrap());
    assert_eq!((sign.q_max(bits), sign.zero_code(bits), sign.padding_code(bits)), (1, 1, 0));
    assert_eq!((sign.scale(1.5, bits), sign.inverse_scale(1.5, bits)), (1.5, 1.0 / 1.5));
    assert!(sign.is_signed() && sign.is_learned() && !sign.has_channel_clips());
    for (x, q) in [(0.0, 1), (-0.0, 1), (1e-30, 1), (-1e-30, -1), (9.0, 1), (-9.0, -1), (f32::INFINITY, 1)] {
        assert_eq!((quantize_act_sign(x), act_code(sign, x, 1.0 / 1.5, 1.0)), (q, q.into()), "{x}");
    }
    assert_eq!((quantize_act_sign(f32::NEG_INFINITY), quantize_act_sign(f32::NAN)), (-1, -1));
    // In integers a sign is an ordinary code of 1 bit: u = round(x / (2 alpha) + 1/2), halves up, and x = 2 alpha (u -
    // 1/2).
    let (multiple, zero, largest) = sign.integer_codes(bits);
    let scale = multiple * f64::from(sign.scale(1.5, bits));
    for x in [-4.0f32, -1.5, -0.1, 0.0, 0.1, 1.5, 4.0] {
        let u = (f64::from(x) / scale + zero + 0.5).floor().clamp(0.0, largest.into());
        assert_eq!((u - zero) * scale, 1.5 * f64::from(quantize_act_sign(x)), "{x}");
    }
    for quant in ActQuant::ALL.into_iter().filter(|quant| *quant != ActQuant::Sign) {
        for bits in Bits::all().skip(1) {
            assert_eq!(quant.padding_code(bits), quant.zero_code(bits));
            let zero = quant.zero_code(bits);
            assert_eq!(quant.integer_codes(bits), (1.0, zero.into(), quant.q_max(bits) + i32::from(zero)));
        }
    }
}

/// alpha's gradient against finite differences of `alpha sign(x)`, x's against those of its surrogate, the clip.
#[test]
fn the_gradient_of_signs_matches_finite_differences_and_its_ends() {
    let (alpha, h) = (1.7f64, 1e-5);
    let back = |g: f32, x: f32| act_backward(ActQuant::Sign, g, x, alpha as f32, 1.0 / alpha as f32, 1.0);
    let (mut inside, mut outside) = (0, 0);
    for (x, g) in layer(alpha).into_iter().filter(|(x, _)| (f64::from(x.abs()) - alpha).abs() > 1e-3) {
        let (got, xd, sign) = (back(g, x), f64::from(x), f64::from(quantize_act_sign(x)));
        let slope = |up: f64, down: f64| f64::from(g) * (up - down) / (2.0 * h);
        let clip = |x: f64| x.clamp(-alpha, alpha);
        assert!((slope(clip(xd + h), clip(xd - h)) - f64::from(got.dx)).abs() < 1e-5);
        assert!((slope((alpha + h) * sign, (alpha - h) * sign) - f64::from(got.dalpha)).abs() < 1e-5);
        inside += usize::from(got.dx != 0.0);
        outside += usize::from(got.dx == 0.0);
    }
    assert!(inside > 10 && outside > 10);
    let a = alpha as f32;
    assert_eq!(back(3.0, a), ActGrad { dx: 0.0, dalpha: 3.0 }, "alpha is clipped");
    assert_eq!(back(3.0, -a), ActGrad { dx: 0.0, dalpha: -3.0 }, "-alpha is clipped");
    assert_eq!(back(3.0, 0.0), ActGrad { dx: 3.0, dalpha: 3.0 });
    assert_eq!(back(3.0, -1e-3), ActGrad { dx: 3.0, dalpha: -3.0 });
}

/// A random layer: values, upstream gradients; no value near a kink of the clip.
fn layer(alpha: f64) -> Vec<(f32, f32)> {
    let key = Key::new(5);
    (0..400)
        .map(|i| (key.with("x").normal(i) * 0.8 * alpha as f32, key.with("g").normal(i)))
        .filter(|(x, _)| f64::from(x.abs()) > 1e-3 && (f64::from(*x) - alpha).abs() > 1e-3)
        .collect()
}

/// Compares the backward with central differences of `surrogate(x, alpha, frozen)` in f64, where `frozen` is the
/// rounding residual `q - x * inverse_scale` at the unmoved point, in code steps.
fn check_gradient(quant: ActQuant, bits: u8, surrogate: impl Fn(f64, f64, f64) -> f64) -> bool {
    let alpha = 1.7f64;
    let (_, inverse, q_max) = setup(alpha as f32, bits);
    let layer = layer(alpha);
    let h = 1e-5;
    let (mut dalpha, mut expected_dalpha, mut ok) = (0.0, 0.0, true);
    for &(x, g) in &layer {
        let got = act_backward(quant, g, x, alpha as f32, inverse, q_max);
        let clipped = f64::from(x).clamp(0.0, alpha) * f64::from(q_max) / alpha;
        let frozen = f64::from(quantize_act(x, inverse, q_max)) - clipped;
        let y = |dx: f64, da: f64| surrogate(f64::from(x) + dx, alpha + da, frozen);
        let dx = f64::from(g) * (y(h, 0.0) - y(-h, 0.0)) / (2.0 * h);
        ok &= (dx - f64::from(got.dx)).abs() < 1e-5;
        dalpha += f64::from(got.dalpha);
        expected_dalpha += f64::from(g) * (y(0.0, h) - y(0.0, -h)) / (2.0 * h);
    }
    ok && (dalpha - expected_dalpha).abs() < 1e-3
}

#[test]
fn gradients_match_finite_differences_with_the_residual_frozen() {
    for bits in 1..=8 {
        let n = f64::from(Bits::new(bits).unwrap().q_max());
        let pact = |x: f64, alpha: f64, r: f64| x.clamp(0.0, alpha) + r;
        let plus = |x: f64, alpha: f64, r: f64| alpha * (x.clamp(0.0, alpha) / alpha * n + r) / n;
        let relu = |x: f64, _: f64, r: f64| x.clamp(0.0, 1.7) + r;
        assert!(check_gradient(ActQuant::Pact, bits, pact), "pact, {bits} bits");
        assert!(check_gradient(ActQuant::PactPlus, bits, plus), "pact+, {bits} bits");
        assert!(check_gradient(ActQuant::Lsq, bits, plus), "lsq, {bits} bits");
        assert!(check_gradient(ActQuant::Relu, bits, relu), "relu, {bits} bits");
        assert!(check_gradient(ActQuant::Fixed, bits, relu), "fixed, {bits} bits");
        if bits < 6 {
            assert!(!check_gradient(ActQuant::Pact, bits, plus), "the two modes differ, {bits} bits");
            assert!(!check_gradient(ActQuant::PactPlus, bits, pact), "the two modes differ, {bits} bits");
        }
        assert!(!check_gradient(ActQuant::Relu, bits, pact), "relu does not learn its clip");
    }
}

/// Channels of random values with clip values of their own, the largest of which is one channel's alone.
fn channels() -> Vec<(f64, Vec<(f32, f32)>)> {
    let key = Key::new(9);
    [1.7f64, 0.31, 1.1, 1.699, 0.05]
        .into_iter()
        .enumerate()
        .map(|(c, alpha)| {
            let (x, g) = (key.with("x").at(c as u64), key.with("g").at(c as u64));
            let kink = |v: f64| (v.abs() - alpha).abs() < 1e-3 || v.abs() < 1e-3;
            let values = (0..300).map(|i| (x.normal(i), g.normal(i))).filter(|(x, _)| !kink(f64::from(*x)));
            (alpha, values.collect())
        })
        .collect()
}

#[test]
fn channels_that_clip_apart_are_clipped_and_then_rounded_with_one_step() {
    let alphas: Vec<f32> = channels().iter().map(|(alpha, _)| *alpha as f32).collect();
    assert_eq!((largest_clip(&alphas), largest_clip(&[])), (1.7, 0.0));
    for bits in 1..=8 {
        let (_, inverse, q_max) = setup(1.7, bits);
        for (alpha, values) in channels() {
            let limit = channel_q_max(alpha as f32, inverse, q_max);
            for (x, _) in values {
                let code = f32::from(quantize_act(x, inverse, q_max)).min(limit);
                assert_eq!(code, f32::from(quantize_act(x.min(alpha as f32), inverse, q_max)), "{bits} {alpha} {x}");
            }
        }
        assert_eq!(channel_q_max(1.7, inverse, q_max), q_max);
    }
    let (_, inverse, q_max) = setup(6.0, 2);
    assert_eq!(
        [0.9, 1.0, 1.1, 3.0, 6.0, 7.0].map(|a| channel_q_max(a, inverse, q_max)),
        [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
    );
}

/// `s (clip(x, 0, alpha) / s + r)` with `s` the largest clip value over `q_max`, the residual `r` frozen.
#[test]
fn gradients_of_channels_match_finite_differences_with_the_residual_frozen() {
    let h = 1e-5;
    for (quant, bits) in [ActQuant::Pact, ActQuant::PactPlus, ActQuant::PactSym].into_iter().flat_map(|quant| {
        let least = if quant.is_signed() { 2 } else { 1 };
        (least..=8).map(move |bits| (quant, bits))
    }) {
        let width = Bits::new(bits).unwrap();
        let all = channels();
        let (inverse, q_max) = (quant.inverse_scale(1.7, width), quant.q_max(width) as f32);
        let n = f64::from(q_max);
        // dL/dalpha of every channel, the step's share with that of channel 0, the largest.
        let mut got = vec![0.0; all.len()];
        for (c, (alpha, values)) in all.iter().enumerate() {
            for &(x, g) in values {
                let grad = act_backward_channel(quant, g, x, *alpha as f32, inverse, q_max);
                got[c] += f64::from(grad.dalpha);
                got[0] += f64::from(grad.dlargest);
                let clip = |x: f64| if quant.is_signed() { x.clamp(-alpha, *alpha) } else { x.clamp(0.0, *alpha) };
                let slope = (clip(f64::from(x) + h) - clip(f64::from(x) - h)) / (2.0 * h);
                assert!((f64::from(g) * slope - f64::from(grad.dx)).abs() < 1e-5);
            }
        }
        let loss = |moved: usize, by: f64| -> f64 {
            let of = |c: usize| all[c].0 + if c == moved { by } else { 0.0 };
            let step = |largest: f64| if quant == ActQuant::PactPlus { largest / n } else { 1.7 / n };
            let sum = |c: usize, &(x, g): &(f32, f32)| {
                let clip =
                    |a: f64| if quant.is_signed() { f64::from(x).clamp(-a, a) } else { f64::from(x).clamp(0.0, a) };
                let at = clip(all[c].0) / (1.7 / n);
                let residual = at.round_ties_even() - at;
                f64::from(g) * step(of(0)) * (clip(of(c)) / step(of(0)) + residual)
            };
            all.iter().enumerate().map(|(c, (_, values))| values.iter().map(|v| sum(c, v)).sum::<f64>()).sum()
        };
        for (c, got) in got.into_iter().enumerate() {
            let expected = (loss(c, h) - loss(c, -h)) / (2.0 * h);
            assert!((got - expected).abs() < 1e-3, "{quant}, {bits} bits, channel {c}: {got} {expected}");
        }
    }
}

#[test]
fn channels_with_one_clip_value_have_the_layers_gradient() {
    for quant in [ActQuant::Pact, ActQuant::PactPlus] {
        for bits in 1..=8 {
            let (_, inverse, q_max) = setup(1.7, bits);
            for (x, g) in layer(1.7) {
                let layer = act_backward(quant, g, x, 1.7, inverse, q_max);
                let channel = act_backward_channel(quant, g, x, 1.7, inverse, q_max);
                assert_eq!(channel.dx, layer.dx);
                assert!((channel.dalpha + channel.dlargest - layer.dalpha).abs() < 1e-6, "{quant} {bits} {x}");
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_follow_equation_3() {
    let (_, inverse, q_max) = setup(2.0, 4);
    for quant in ActQuant::ALL.into_iter().filter(|q| !q.is_signed()) {
        let at = |x: f32| act_backward(quant, 3.0, x, 2.0, inverse, q_max);
        let clipped = if quant.is_learned() { 3.0 } else { 0.0 };
        assert_eq!(at(0.0), ActGrad { dx: 3.0, dalpha: 0.0 }, "zero is inside");
        assert_eq!(at(2.0), ActGrad { dx: 0.0, dalpha: clipped }, "alpha is clipped");
        assert_eq!(at(f32::INFINITY), ActGrad { dx: 0.0, dalpha: clipped });
        assert_eq!(at(-1e-30), ActGrad { dx: 0.0, dalpha: 0.0 });
        assert_eq!(at(f32::NEG_INFINITY), ActGrad { dx: 0.0, dalpha: 0.0 });
    }
}

#[test]
fn the_calibrated_term_by_hand() {
    let (_, inverse, q_max) = setup(6.0, 2);
    let grad = act_backward(ActQuant::PactPlus, 2.0, 3.5, 6.0, inverse, q_max);
    assert_eq!(grad, ActGrad { dx: 2.0, dalpha: 2.0 * (2.0 - 1.75) / 3.0 });
}

/// One step of plain descent on the step of arXiv 1902.08153 beside one on alpha.
#[test]
fn lsq_moves_alpha_as_the_paper_moves_the_step() {
    for bits in 1..=8 {
        let (alpha, lr) = (1.7f64, 0.01);
        let (_, inverse, q_max) = setup(alpha as f32, bits);
        let (n, layer) = (400, layer(alpha));
        let q = f64::from(q_max);
        let (mut by_step, mut by_alpha) = (0.0, 0.0);
        for &(x, g) in &layer {
            let (v, code) = (f64::from(x) * q / alpha, f64::from(quantize_act(x, inverse, q_max)));
            // Equation 3, with Q_N = 0 and Q_P = q_max.
            let slope = if v >= q {
                q
            } else if v > 0.0 {
                code - v
            } else {
                0.0
            };
            by_step += f64::from(g) * slope;
            by_alpha += f64::from(act_backward(ActQuant::Lsq, g, x, alpha as f32, inverse, q_max).dalpha);
        }
        let step = alpha / q - lr * by_step / (f64::from(n) * q).sqrt();
        let moved = alpha - lr * by_alpha * f64::from(lsq_alpha_scale(n as usize, q_max));
        assert!((step * q - moved).abs() < 1e-4 * (moved - alpha).abs() + 1e-7, "{bits} bits: {} {moved}", step * q);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(2), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn codes_are_nearest_in_range_and_monotone(bits in 1u8..=8, alpha in 0.008f32..100.0, part in -1.5f32..2.5, more in 0.0f32..1.0) {
        let (bits, inverse, q_max) = setup(alpha, bits);
        let x = part * alpha;
        let q = quantize_act(x, inverse, q_max);
        prop_assert!(i32::from(q) <= bits.q_max());
        let step = f64::from(alpha) / f64::from(bits.q_max());
        let clipped = f64::from(x).clamp(0.0, f64::from(alpha));
        prop_assert!((clipped - f64::from(q) * step).abs() <= step * (0.5 + 1e-4));
        prop_assert!(quantize_act(x + more, inverse, q_max) >= q);
    }

    #[test]
    fn the_code_is_spelled_as_specified(bits in 1u8..=8, alpha in 0.008f32..100.0, x in any::<f32>()) {
        let (_, inverse, q_max) = setup(alpha, bits);
        let spelled = (x * inverse).round_ties_even().clamp(0.0, q_max) as u8;
        prop_assert_eq!(quantize_act(x, inverse, q_max), spelled);
    }
}
