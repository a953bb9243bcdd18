use bitpact_core::{
    ActQuant, act_backward, act_backward_channel, channel_q_max, quantize_act, quantize_act_signed, rng::Key,
};

use super::*;

struct Case {
    shape: Layout,
    bordered: Layout,
    z: Vec<i32>,
    a: Vec<f32>,
    b: Vec<f32>,
    codes: Vec<u8>,
    g: Vec<f32>,
}

const STEP: f32 = 0.37;

fn case(h: usize, w: usize, c: usize, seed: u64) -> Case {
    let key = Key::new(seed);
    let shape = Layout::new(h, w, c, 0);
    let bordered = Layout::new(h, w, c, 1);
    let channel = |label: &str| (0..shape.cs as u64).map(|i| key.with(label).normal(i)).collect::<Vec<f32>>();
    Case {
        shape,
        bordered,
        z: (0..shape.len() as u64).map(|i| key.with("z").below(i, 4001) as i32 - 2000).collect(),
        a: channel("a").iter().map(|a| a / 900.0).collect(),
        b: channel("b"),
        codes: (0..bordered.len() as u64).map(|i| key.with("codes").below(i, 16) as u8).collect(),
        g: (0..shape.len() as u64).map(|i| key.with("g").normal(i)).collect(),
    }
}

fn u_of(case: &Case, y: usize, x: usize, c: usize, fused: bool, residual: bool, zero: u8) -> f32 {
    let z = case.z[case.shape.offset(y, x) + c] as f32;
    let fma = |a: f32, b: f32, s: f32| if fused { a.mul_add(b, s) } else { a * b + s };
    let u = fma(z, case.a[c], case.b[c]);
    let code = i16::from(case.codes[case.bordered.offset(y, x) + c]) - i16::from(zero);
    if residual { fma(f32::from(code), STEP, u) } else { u }
}

fn pixels(case: &Case) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let s = case.shape;
    (0..s.h).flat_map(move |y| (0..s.w).flat_map(move |x| (0..s.cs).map(move |c| (y, x, c))))
}

#[test]
fn codes_equal_the_core_arithmetic_bit_for_bit() {
    for isa in crate::testing::paths() {
        for (seed, (h, w, c)) in [(1, 1, 3), (5, 7, 16), (4, 4, 40)].into_iter().enumerate() {
            let case = case(h, w, c, seed as u64);
            for residual in [false, true] {
                let view = if residual {
                    ResidualView::Codes { codes: &case.codes, layout: case.bordered, step: STEP, zero: 0 }
                } else {
                    ResidualView::None
                };
                let mut codes = vec![99u8; case.bordered.len()];
                let out = Output::Codes {
                    codes: &mut codes,
                    layout: case.bordered,
                    inverse_scale: 7.5,
                    q_max: 15.0,
                    limits: &[],
                };
                apply(isa, case.shape, Accumulators::Int(&case.z), &case.a, &case.b, view, out);
                let mut seen = [0usize; 16];
                for (y, x, c) in pixels(&case) {
                    let u = u_of(&case, y, x, c, isa != Isa::Scalar, residual, 0);
                    let got = codes[case.bordered.offset(y, x) + c];
                    assert_eq!(got, quantize_act(u, 7.5, 15.0), "{isa} {y} {x} {c} u {u}");
                    seen[usize::from(got)] += 1;
                }
                assert!(h * w < 9 || seen.iter().all(|&n| n > 0), "not every code occurred: {seen:?}");
                let border = codes.iter().filter(|&&q| q == 99).count();
                assert_eq!(border, case.bordered.len() - case.shape.len(), "the border was written");
            }
        }
    }
}

#[test]
fn signed_codes_equal_the_core_arithmetic_bit_for_bit() {
    let case = case(5, 7, 20, 1);
    for isa in crate::testing::paths() {
        for zero in [0u8, 9] {
            let view = ResidualView::Codes { codes: &case.codes, layout: case.bordered, step: STEP, zero };
            let mut codes = vec![99u8; case.bordered.len()];
            let out = Output::SignedCodes {
                codes: &mut codes,
                layout: case.bordered,
                inverse_scale: 3.5,
                q_max: 7.0,
                limits: &[],
            };
            apply(isa, case.shape, Accumulators::Int(&case.z), &case.a, &case.b, view, out);
            let mut seen = [0usize; 15];
            for (y, x, c) in pixels(&case) {
                let u = u_of(&case, y, x, c, isa != Isa::Scalar, true, zero);
                let got = codes[case.bordered.offset(y, x) + c];
                assert_eq!(i16::from(got), i16::from(quantize_act_signed(u, 3.5, 7.0)) + 7, "{isa} {y} {x} {c} u {u}");
                seen[usize::from(got)] += 1;
            }
            assert!(seen.iter().all(|&n| n > 0), "not every code occurred: {seen:?}");
        }
        let shape = Layout::new(1, 16, 16, 0);
        let z: Vec<i32> = (0..shape.len() as i32).map(|i| i / 16 - 8).collect();
        let mut codes = vec![0u8; shape.len()];
        let out = Output::SignedCodes { codes: &mut codes, layout: shape, inverse_scale: 0.5, q_max: 3.0, limits: &[] };
        apply(isa, shape, Accumulators::Int(&z), &[1.0; 16], &[0.0; 16], ResidualView::None, out);
        let firsts: Vec<u8> = codes.iter().step_by(16).copied().collect();
        assert_eq!(firsts, [0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 6], "{isa}: ties round to even");
    }
}

#[test]
fn exact_ties_round_to_even() {
    let shape = Layout::new(1, 16, 16, 0);
    let z: Vec<i32> = (0..shape.len() as i32).map(|i| i / 16).collect();
    for isa in crate::testing::paths() {
        let mut codes = vec![0u8; shape.len()];
        let out = Output::Codes { codes: &mut codes, layout: shape, inverse_scale: 0.5, q_max: 255.0, limits: &[] };
        apply(isa, shape, Accumulators::Int(&z), &[1.0; 16], &[0.0; 16], ResidualView::None, out);
        let firsts: Vec<u8> = codes.iter().step_by(16).copied().collect();
        assert_eq!(firsts, [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8], "{isa}");
    }
}

#[test]
fn backward_reduce_masks_and_sums_like_the_core_gradient() {
    let case = case(6, 5, 20, 7);
    let (alpha, q_max) = (1.5f32, 15.0f32);
    let inverse_scale = q_max / alpha;
    let (xa, xb) = (vec![0.01f32; case.shape.cs], vec![0.3f32; case.shape.cs]);
    for isa in crate::testing::paths() {
        for quant in [ActQuant::Pact, ActQuant::PactPlus, ActQuant::PactSym, ActQuant::Sign] {
            let activation = Activation::Clip { quant, alpha, inverse_scale, q_max };
            let mut g = case.g.clone();
            let cs = case.shape.cs;
            let mut unit_sums = vec![0f32; UnitSums::PARTS * cs];
            let view = ResidualView::Codes { codes: &case.codes, layout: case.bordered, step: STEP, zero: 2 };
            let k = Coefficients { a: &case.a, b: &case.b, xa: &xa, xb: &xb };
            let z = Accumulators::Int(&case.z);
            let unit = UnitSums::new(&mut unit_sums, cs);
            let sums = backward_reduce(isa, case.shape, z, k, view, activation, &mut g, unit, &mut []);
            let (sum_g, sum_gx) = (&unit_sums[..cs], &unit_sums[cs..2 * cs]);
            let (mut dalpha, mut clipped) = (0f64, 0u64);
            let (mut want_g, mut want_gx) = (vec![0f64; case.shape.cs], vec![0f64; case.shape.cs]);
            for (y, x, c) in pixels(&case) {
                let u = u_of(&case, y, x, c, isa != Isa::Scalar, true, 2);
                let at = case.shape.offset(y, x) + c;
                let want = act_backward(quant, case.g[at], u, alpha, inverse_scale, q_max);
                assert_eq!(g[at], want.dx, "{isa} {quant} u {u}");
                dalpha += f64::from(want.dalpha);
                clipped += u64::from(u >= alpha || (quant.is_signed() && u <= -alpha));
                want_g[c] += f64::from(want.dx);
                want_gx[c] += f64::from(want.dx) * (f64::from(case.z[at]) * 0.01 + 0.3);
            }
            assert!((sums.alpha_gradient - dalpha).abs() < 1e-4 * dalpha.abs().max(1.0), "{isa} {quant}");
            assert_eq!(sums.clipped, clipped);
            assert!(clipped > 20);
            for c in 0..case.shape.cs {
                assert!((f64::from(sum_g[c]) - want_g[c]).abs() < 1e-4, "{isa} channel {c}");
                assert!((f64::from(sum_gx[c]) - want_gx[c]).abs() < 2e-3, "{isa} channel {c}");
                let largest = g.iter().skip(c).step_by(cs).fold(0f32, |m, g| m.max(g.abs()));
                let (low, high) =
                    case.z.iter().skip(c).step_by(cs).fold((i32::MAX, i32::MIN), |(l, h), &z| (l.min(z), h.max(z)));
                let extremes = [2, 3, 4].map(|part| unit_sums[part * cs + c]);
                assert_eq!(extremes, [largest, low as f32, high as f32], "{isa} channel {c}");
            }
        }
    }
}

/// Clip values of 20 channels and their largest codes, the layer's first; the channels beyond them have the largest.
fn clips(shape: Layout, inverse_scale: f32, q_max: f32) -> (Vec<f32>, Vec<f32>) {
    let alphas: Vec<f32> =
        (0..shape.cs).map(|c| if c < shape.c { 1.5 / (1.0 + c as f32 / 4.0) } else { 1.5 }).collect();
    let limits = alphas.iter().map(|&alpha| channel_q_max(alpha, inverse_scale, q_max)).collect();
    (alphas, limits)
}

#[test]
fn channels_that_clip_apart_have_codes_and_gradients_of_the_core() {
    let case = case(6, 5, 20, 11);
    let q_max = 7.0f32;
    let inverse_scale = q_max / 1.5;
    let (alphas, limits) = clips(case.shape, inverse_scale, q_max);
    let ones = vec![1f32; case.shape.cs];
    for isa in crate::testing::paths() {
        for quant in [ActQuant::Pact, ActQuant::PactPlus, ActQuant::PactSym] {
            let view = ResidualView::Codes { codes: &case.codes, layout: case.bordered, step: STEP, zero: 2 };
            let z = Accumulators::Int(&case.z);
            let mut codes = vec![99u8; case.bordered.len()];
            let (layout, limits) = (case.bordered, &limits[..]);
            let out = match quant.is_signed() {
                true => Output::SignedCodes { codes: &mut codes, layout, inverse_scale, q_max, limits },
                false => Output::Codes { codes: &mut codes, layout, inverse_scale, q_max, limits },
            };
            apply(isa, case.shape, z, &case.a, &case.b, view, out);
            let mut g = case.g.clone();
            let mut unit_sums = vec![0f32; UnitSums::PARTS * case.shape.cs];
            let mut alpha_gradients = vec![9.0; case.shape.cs];
            let k = Coefficients { a: &case.a, b: &case.b, xa: &ones, xb: &ones };
            let (plus, signed) = (quant == ActQuant::PactPlus, quant.is_signed());
            let activation = Activation::Channels { quant, alphas: &alphas, inverse_scale, q_max };
            let unit = UnitSums::new(&mut unit_sums, case.shape.cs);
            let sums = backward_reduce(isa, case.shape, z, k, view, activation, &mut g, unit, &mut alpha_gradients);
            let (mut step, mut clipped, mut limited) = (0f64, 0u64, 0);
            let mut wanted = vec![0f64; case.shape.cs];
            for (y, x, c) in pixels(&case) {
                let u = u_of(&case, y, x, c, isa != Isa::Scalar, true, 2);
                let got = i32::from(codes[case.bordered.offset(y, x) + c]);
                let limit = limits[c] as i32;
                let code = match signed {
                    true => i32::from(quantize_act_signed(u, inverse_scale, q_max)).clamp(-limit, limit) + 7,
                    false => i32::from(quantize_act(u, inverse_scale, q_max)).min(limit),
                };
                assert_eq!(got, code, "{isa} {quant} channel {c}, u {u}");
                let at = case.shape.offset(y, x) + c;
                let want = act_backward_channel(quant, case.g[at], u, alphas[c], inverse_scale, q_max);
                assert_eq!(g[at], want.dx, "{isa} {quant} u {u}");
                step += f64::from(want.dlargest);
                wanted[c] += f64::from(want.dalpha);
                clipped += u64::from(u >= alphas[c] || (signed && u <= -alphas[c]));
                limited += usize::from(limit < 7 && u >= alphas[c]);
            }
            assert!((sums.alpha_gradient - step).abs() < 1e-4, "{isa} {quant}: {} {step}", sums.alpha_gradient);
            assert!(plus == (step != 0.0) && limited > 100, "{isa} {quant}: {step} {limited}");
            assert_eq!(sums.clipped, clipped);
            for (got, want) in alpha_gradients.iter().zip(&wanted) {
                assert!((got - want).abs() < 1e-4, "{isa} {quant}: {got} {want}");
            }
        }
    }
}

#[test]
fn signs_are_codes_of_0_and_2() {
    let case = case(5, 4, 20, 3);
    for isa in crate::testing::paths() {
        let view = ResidualView::Codes { codes: &case.codes, layout: case.bordered, step: STEP, zero: 2 };
        let mut codes = vec![99u8; case.bordered.len()];
        let out = Output::Signs { codes: &mut codes, layout: case.bordered };
        apply(isa, case.shape, Accumulators::Int(&case.z), &case.a, &case.b, view, out);
        let mut seen = [0; 3];
        for (y, x, c) in pixels(&case) {
            let u = u_of(&case, y, x, c, isa != Isa::Scalar, true, 2);
            let got = codes[case.bordered.offset(y, x) + c];
            assert_eq!(got, if u >= 0.0 { 2 } else { 0 }, "{isa} u {u}");
            seen[usize::from(got)] += 1;
        }
        assert!(seen[0] > 20 && seen[1] == 0 && seen[2] > 20, "{seen:?}");
        assert!(codes.contains(&99), "the border is left alone");
    }
}

#[test]
fn relu_and_keep() {
    let shape = Layout::new(1, 3, 16, 0);
    let z: Vec<f32> = (0..48).map(|i| i as f32 - 24.0).collect();
    for isa in crate::testing::paths() {
        let mut y = vec![0f32; 48];
        let out = Output::Relu { values: &mut y, layout: shape };
        apply(isa, shape, Accumulators::Real(&z), &[1.0; 16], &[0.0; 16], ResidualView::None, out);
        assert!(y.iter().zip(&z).all(|(y, z)| *y == z.max(0.0)));
        let out = Output::Keep { values: &mut y, layout: shape };
        let residual = ResidualView::Real { values: &z, layout: shape };
        apply(isa, shape, Accumulators::Real(&z), &[1.0; 16], &[0.5; 16], residual, out);
        assert!(y.iter().zip(&z).all(|(y, z)| *y == 2.0 * z + 0.5));
        let (mut g, ones, zeros) = (vec![1f32; 48], [1f32; 16], [0f32; 16]);
        let k = Coefficients { a: &ones, b: &zeros, xa: &ones, xb: &zeros };
        let mut sums = [0f32; UnitSums::PARTS * 16];
        let z = Accumulators::Real(&z);
        let unit = UnitSums::new(&mut sums, 16);
        backward_reduce(isa, shape, z, k, ResidualView::None, Activation::Relu, &mut g, unit, &mut []);
        assert_eq!(g.iter().sum::<f32>(), 23.0, "u = 0 passes nothing");
        assert_eq!(sums[16..32].iter().sum::<f32>(), (1..24).sum::<i32>() as f32);
    }
}

#[test]
fn backward_apply_and_statistics_match_their_formulas() {
    let case = case(3, 4, 32, 3);
    let real: Vec<f32> = case.z.iter().map(|&z| z as f32).collect();
    for isa in crate::testing::paths() {
        let mut dz = vec![7f32; case.bordered.len()];
        let (k1, k2, k3) = (vec![2.0f32; 32], vec![0.25f32; 32], vec![-1.0f32; 32]);
        let z = Accumulators::Int(&case.z);
        backward_apply(isa, case.shape, z, [&k1, &k2, &k3], &case.g, GradientOutput::Real(&mut dz), case.bordered);
        for (y, x, c) in pixels(&case) {
            let at = case.shape.offset(y, x) + c;
            let want = 2.0 * f64::from(case.g[at]) + 0.25 * f64::from(case.z[at]) - 1.0;
            assert!((f64::from(dz[case.bordered.offset(y, x) + c]) - want).abs() < 1e-3);
        }
        let (mut sum, mut square) = (vec![0i64; 32], vec![0i64; 32]);
        statistics_int(isa, &case.z, &mut sum, &mut square);
        let (mut sum_r, mut square_r) = (vec![0f64; 32], vec![0f64; 32]);
        statistics_real(isa, &real, &mut sum_r, &mut square_r);
        for c in 0..32 {
            let column = || case.z.iter().skip(c).step_by(32).map(|&z| i64::from(z));
            assert_eq!((sum[c], square[c]), (column().sum(), column().map(|z| z * z).sum()), "{isa} channel {c}");
            assert_eq!((sum_r[c], square_r[c]), (sum[c] as f64, square[c] as f64), "{isa} channel {c}");
        }
    }
}

#[test]
fn widen_subtracts_the_zero_point_by_channel() {
    let codes: Vec<u8> = (0..=255).chain(0..36).collect();
    for (isa, channels) in
        crate::testing::paths().into_iter().flat_map(|isa| [4, 16, 48].map(|channels| (isa, channels)))
    {
        for uniform in [false, true] {
            let zero: Vec<f32> = (0..channels).map(|i| if uniform { 7.0 } else { (i * 37 % 256) as f32 }).collect();
            let mut values = vec![0f32; codes.len()];
            widen(isa, &codes, &zero, 0.3, &mut values);
            for (i, (&q, &v)) in codes.iter().zip(&values).enumerate() {
                assert_eq!(v, (f32::from(q) - zero[i % channels]) * 0.3);
            }
        }
    }
}

/// dz = g with one pixel a row, so that the output of pass two is known.
fn gradient_of(isa: Isa, g: &[f32], output: GradientOutput) {
    let shape = Layout::new(g.len() / 16, 1, 16, 0);
    let (z, ones, zeros) = (vec![0i32; g.len()], [1f32; 16], [0f32; 16]);
    backward_apply(isa, shape, Accumulators::Int(&z), [&ones, &zeros, &zeros], g, output, shape);
}

#[test]
fn gradients_round_to_the_nearest_bfloat16_and_ties_to_even() {
    let key = Key::new(11);
    let mut g: Vec<f32> = (0..1600).map(|i| key.normal(i) * 10f32.powi(i as i32 % 60 - 30)).collect();
    // Exactly between two neighbours, the even one below and above; the largest finite numbers; zeros.
    let special =
        [0x3f80_8000u32, 0x3f81_8000, 0xbf80_8001, 0x7f7f_0000, 0x7f7f_ffff, 0x0000_0000, 0x0000_0001, 0x7f80_0000];
    g.extend(special.iter().chain(&special).map(|&bits| f32::from_bits(bits)));
    for isa in crate::testing::paths() {
        let (mut real, mut bytes) = (vec![0f32; g.len()], vec![0u8; 2 * g.len()]);
        gradient_of(isa, &g, GradientOutput::Rounded(&mut real));
        gradient_of(isa, &g, GradientOutput::Bf16(&mut bytes));
        for (i, &g) in g.iter().enumerate() {
            // The two bfloat16 around g; the nearer, or of two that are as near the even one.
            let down = g.to_bits() & 0xffff_0000;
            let rest = g.to_bits() & 0xffff;
            let up = rest > 0x8000 || (rest == 0x8000 && down & 0x0001_0000 != 0);
            let want = if up { down + 0x0001_0000 } else { down };
            assert_eq!(real[i].to_bits(), want, "{isa} {g}");
            assert_eq!(u32::from(u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])) << 16, want, "{isa} {g}");
        }
        let mut real = [0f32; 16];
        gradient_of(isa, &[f32::NAN; 16], GradientOutput::Rounded(&mut real));
        assert!(real.iter().all(|v| v.is_nan()), "{isa}");
    }
}

#[test]
fn random_rounding_is_unbiased_bounded_and_the_same_on_every_path() {
    const N: usize = 1 << 16;
    for value in [0.0f32, 0.25, -0.7, 3.5, 126.9, -126.9, 127.0, -127.0] {
        let g = vec![value; N];
        let mut first = None;
        for isa in crate::testing::paths() {
            let mut bytes = vec![0u8; N];
            gradient_of(isa, &g, GradientOutput::S8 { bytes: &mut bytes, random: 77 });
            let codes: Vec<i32> = bytes.iter().map(|&b| i32::from(b) - 128).collect();
            let (low, high) = (value.floor() as i32, value.ceil() as i32);
            assert!(codes.iter().all(|&n| n == low || n == high), "{isa} {value}");
            // Five standard deviations of a mean of N draws.
            let mean = codes.iter().sum::<i32>() as f32 / N as f32;
            assert!((mean - value).abs() < 5.0 * 0.5 / (N as f32).sqrt(), "{isa} {value}: mean {mean}");
            assert_eq!(first.get_or_insert(bytes.clone()), &bytes, "{isa} {value}");
        }
    }
    let (mut a, mut b) = (vec![0u8; N], vec![0u8; N]);
    gradient_of(Isa::Scalar, &vec![0.5; N], GradientOutput::S8 { bytes: &mut a, random: 1 });
    gradient_of(Isa::Scalar, &vec![0.5; N], GradientOutput::S8 { bytes: &mut b, random: 2 });
    let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    assert!((same as i64 - N as i64 / 2).abs() < 5 * 128, "two images share {same} of {N} draws");
    for outside in [1000.0f32, -1000.0] {
        gradient_of(Isa::Scalar, &[outside; 16], GradientOutput::S8 { bytes: &mut a[..16], random: 1 });
        assert!(a[..16].iter().all(|&v| v == if outside > 0.0 { 255 } else { 1 }));
    }
}
