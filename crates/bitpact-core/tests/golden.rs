//! Every quantizer against PyTorch's automatic differentiation of the papers' formulas; `golden/quantizers.py` made the
//! numbers.

use bitpact_core::{
    ActQuant, Bits, Granularity, Grid, WeightQuant, WeightSpec, act_backward, act_backward_channel, act_code,
    channel_q_max, largest_clip, lsq_gradient_scale, quantize_weights, sawb_coefficients, weights_backward,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

const N: usize = 64;
const CHANNELS: usize = 4;

fn uniform(multiplier: u64) -> Vec<f32> {
    let draw = |i: u64| ((i + 1) * multiplier % (1 << 32)) >> 8;
    (0..N as u64).map(|i| (draw(i) as f64 / f64::from(1 << 23) - 1.0) as f32).collect()
}

fn cases(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("golden/quantizers.json")).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn field<T: DeserializeOwned>(case: &Value, key: &str) -> T {
    serde_json::from_value(case[key].clone()).unwrap()
}

fn assert_close(case: &Value, key: &str, got: &[f64], tolerance: f64) {
    let wanted: Vec<f64> = field(case, key);
    assert_eq!(wanted.len(), got.len());
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        let what = format!("{} {} {} {}", case["quant"], case["bits"], case["alphas"], case["grid"]);
        assert!(
            (got - wanted).abs() <= tolerance * (1.0 + wanted.abs()),
            "{what}: {key}[{i}] = {got}, PyTorch {wanted}"
        );
    }
}

#[test]
fn activations() {
    let (x, g) = (uniform(2_654_435_761), uniform(2_246_822_519));
    for case in cases("acts") {
        let (quant, bits): (ActQuant, Bits) = (field(&case, "quant"), field(&case, "bits"));
        let alphas: Vec<f32> = field(&case, "alphas");
        let largest = largest_clip(&alphas);
        let (inverse, step) = (quant.inverse_scale(largest, bits), quant.scale(largest, bits));
        let q_max = quant.q_max(bits) as f32;
        let (mut y, mut dx, mut dalpha) = (Vec::new(), Vec::new(), vec![0.0; alphas.len()]);
        for (i, (&x, &g)) in x.iter().zip(&g).enumerate() {
            let c = i / (N / CHANNELS) % alphas.len();
            let limit = channel_q_max(alphas[c], inverse, q_max);
            let least = if quant.is_signed() { -limit } else { 0.0 };
            let code = (act_code(quant, x, inverse, q_max) as f32).clamp(least, limit);
            y.push(f64::from(step * code));
            if alphas.len() == 1 {
                let grad = act_backward(quant, g, x, largest, inverse, q_max);
                dx.push(f64::from(grad.dx));
                dalpha[0] += f64::from(grad.dalpha);
            } else {
                let grad = act_backward_channel(quant, g, x, alphas[c], inverse, q_max);
                dx.push(f64::from(grad.dx));
                dalpha[c] += f64::from(grad.dalpha);
                dalpha[0] += f64::from(grad.dlargest);
            }
        }
        assert_close(&case, "y", &y, 1e-6);
        assert_close(&case, "dx", &dx, 1e-6);
        assert_close(&case, "dalpha", &dalpha, 1e-5);
    }
}

#[test]
fn weights() {
    let u = uniform(3_266_489_917);
    let w: Vec<f32> = u.iter().map(|&u| f64::from(u)).map(|u| (u * u * u) as f32).collect();
    let dwq = uniform(2_246_822_519);
    for case in cases("weights") {
        let (bits, quant): (Bits, WeightQuant) = (field(&case, "bits"), field(&case, "quant"));
        let (grid, scale): (Grid, Granularity) = (field(&case, "grid"), field(&case, "scale"));
        let spec = WeightSpec::with_scale(bits, quant, Some(grid), Some(scale)).unwrap();
        if let Some(coefficients) = case.get("coefficients") {
            assert_eq!(
                serde_json::from_value::<(f64, f64)>(coefficients.clone()).unwrap(),
                sawb_coefficients(bits, grid)
            );
        }
        let parts = spec.scales_len(CHANNELS);
        let steps: Vec<f32> = if quant == WeightQuant::Lsq { field(&case, "steps") } else { Vec::new() };
        let (mut codes, mut scales) = (vec![0; N], vec![0.0; parts]);
        quantize_weights(&spec, &w, CHANNELS, &steps, &mut codes, &mut scales);
        let y: Vec<f64> =
            codes.iter().enumerate().map(|(i, &q)| f64::from(scales[i / (N / parts)]) * f64::from(q)).collect();
        assert_close(&case, "y", &y, 1e-6);
        let (mut dw, mut dsteps) = (vec![0.0; N], vec![0.0; steps.len()]);
        weights_backward(&spec, &w, CHANNELS, &steps, &dwq, &mut dw, &mut dsteps);
        assert_close(&case, "dw", &dw.iter().map(|&d| f64::from(d)).collect::<Vec<_>>(), 1e-5);
        if quant == WeightQuant::Lsq {
            let largest = spec.code_limit() as f32 / if grid == Grid::WithZero { 1.0 } else { 2.0 };
            let unscaled = f64::from(lsq_gradient_scale(N / parts, largest));
            assert_close(&case, "dsteps", &dsteps.iter().map(|&d| f64::from(d) / unscaled).collect::<Vec<_>>(), 1e-5);
        }
    }
}

#[test]
fn the_comparison_can_fail() {
    let case = &cases("acts")[0];
    let mut y: Vec<f64> = field(case, "y");
    assert_close(case, "y", &y, 1e-9);
    y[3] += 1e-3;
    assert!(std::panic::catch_unwind(|| assert_close(case, "y", &y, 1e-6)).is_err());
}
