//! Every path against naive f64 and i64 definitions, and against the scalar path, over awkward sizes.

use super::*;
use crate::testing::paths;
use crate::{Isa, Layout};

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn reals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    g: ConvGeometry,
    h: usize,
    w: usize,
    /// Border beyond what is needed, so that offsets do not only work when borders are tight.
    slack: usize,
}

impl Case {
    fn output(&self) -> (usize, usize) {
        self.g.output(self.h, self.w)
    }

    fn x(&self) -> Layout {
        let cs = if self.g.cin <= 4 { 4 } else { self.g.cin.next_multiple_of(16) };
        Layout::with_cs(self.h, self.w, self.g.cin, cs, self.g.pad + self.slack)
    }

    fn dx(&self) -> Layout {
        Layout::new(self.h, self.w, self.g.cin, self.slack)
    }

    fn y(&self) -> Layout {
        let (h, w) = self.output();
        Layout::new(h, w, self.g.cout, ConvInputGradF32::border(self.g) + self.slack)
    }

    /// (o, r, q, i, u, v, weight index) of every product.
    fn products(&self, mut f: impl FnMut([usize; 3], [usize; 3], usize)) {
        let (g, (rows, cols)) = (self.g, self.output());
        for (r, q) in grid(rows, cols) {
            for (a, b) in grid(g.kh, g.kw) {
                let (u, v) = ((r * g.stride + a).wrapping_sub(g.pad), (q * g.stride + b).wrapping_sub(g.pad));
                if u < self.h && v < self.w {
                    for (o, i) in grid(g.cout, g.cin) {
                        f([o, r, q], [i, u, v], g.weight(o, i, a, b));
                    }
                }
            }
        }
    }
}

fn grid(rows: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |r| (0..cols).map(move |q| (r, q)))
}

fn at(layout: &Layout, [c, y, x]: [usize; 3]) -> usize {
    layout.offset(y, x) + c
}

/// Spreads dense CHW values into a layout; everything else holds `fill`.
fn place<T: Copy>(layout: &Layout, dense: &[T], fill: T) -> Vec<T> {
    let mut out = vec![fill; layout.len()];
    let mut dense = dense.iter();
    for c in 0..layout.c {
        for (y, x) in grid(layout.h, layout.w) {
            out[at(layout, [c, y, x])] = *dense.next().unwrap();
        }
    }
    out
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |k: (usize, usize), stride, pad, cin, cout, h, w, slack| {
        let g = ConvGeometry { kh: k.0, kw: k.1, stride, pad, cin, cout };
        if h + 2 * pad >= k.0 && w + 2 * pad >= k.1 {
            cases.push(Case { g, h, w, slack });
        }
    };
    for (n, &(h, w)) in [(1, 1), (7, 7), (8, 8), (13, 5), (4, 32), (1, 17)].iter().enumerate() {
        for &k in &[1, 2, 3, 5, 7] {
            for stride in 1..=3 {
                for pad in 0..=3_usize.min(k) {
                    let channels = [1, 3, 4, 16, 17, 33];
                    let pick = n * 7 + k * 5 + stride * 3 + pad;
                    add((k, k), stride, pad, channels[pick % 6], channels[(pick / 2 + stride) % 6], h, w, pick % 2);
                }
            }
        }
    }
    add((3, 3), 1, 1, 16, 16, 32, 32, 0);
    add((3, 3), 2, 1, 16, 32, 32, 32, 0);
    add((3, 3), 1, 1, 33, 64, 8, 8, 0);
    add((3, 3), 1, 1, 64, 80, 3, 3, 0);
    add((1, 3), 1, 1, 5, 20, 9, 10, 0);
    add((4, 2), 2, 0, 20, 5, 9, 10, 1);
    add((8, 8), 1, 0, 64, 10, 8, 8, 0);
    add((3, 3), 1, 1, 256, 48, 4, 4, 0);
    cases
}

fn assert_close(what: &str, case: &Case, got: f32, exact: f64, magnitude: f64, terms: usize) {
    let bound = magnitude * f64::from(f32::EPSILON) * (terms as f64 + 2.0);
    assert!((f64::from(got) - exact).abs() <= bound, "{what} of {case:?}: {got} instead of {exact} +- {bound}");
}

struct Exact {
    sum: Vec<f64>,
    magnitude: Vec<f64>,
    terms: Vec<usize>,
}

impl Exact {
    fn new(n: usize) -> Exact {
        Exact { sum: vec![0.0; n], magnitude: vec![0.0; n], terms: vec![0; n] }
    }

    fn add(&mut self, index: usize, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b);
        self.sum[index] += product;
        self.magnitude[index] += product.abs();
        self.terms[index] += 1;
    }

    fn check(&self, what: &str, case: &Case, index: usize, got: f32, old: f32) {
        let (sum, magnitude) = (self.sum[index] + f64::from(old), self.magnitude[index] + f64::from(old.abs()));
        assert_close(what, case, got, sum, magnitude, self.terms[index] + 1);
    }
}

/// Weights in the order that plans pack.
fn tap_major<T: Copy>(g: &ConvGeometry, oihw: &[T]) -> Vec<T> {
    let mut rows = oihw.to_vec();
    g.tap_major(oihw, &mut rows, |w| w);
    rows
}

#[test]
fn forward_agrees_with_the_definition() {
    for case in cases() {
        let (x, y) = (case.x(), case.y());
        let mut numbers = Numbers(1);
        let xs = place(&x, &numbers.reals(x.h * x.w * x.c), 0.0);
        let ws = numbers.reals(case.g.weights());
        let mut exact = Exact::new(y.len());
        case.products(|o, i, k| exact.add(at(&y, o), xs[at(&x, i)], ws[k]));
        for isa in paths() {
            let plan = ConvF32::new(isa, case.g, x, y);
            let mut packed = vec![f32::NAN; plan.packed_len()];
            plan.pack(&tap_major(&case.g, &ws), &mut packed);
            let mut ys = vec![7.5; y.len()];
            plan.run(&xs, &packed, &mut ys);
            check_tensor(&format!("forward on {isa}"), &case, &y, &exact, &ys, |_| 0.0);
        }
    }
}

/// Interior channels are as computed exactly, channels beyond `c` unchanged from `old` or 0, everything else 7.5.
fn check_tensor(what: &str, case: &Case, layout: &Layout, exact: &Exact, got: &[f32], old: impl Fn(usize) -> f32) {
    let mut border = vec![true; layout.len()];
    for (r, q) in grid(layout.h, layout.w) {
        for c in 0..layout.cs {
            let index = layout.offset(r, q) + c;
            border[index] = false;
            if c < layout.c {
                exact.check(what, case, index, got[index], old(index));
            } else {
                assert_eq!(got[index], old(index), "{what} of {case:?}: channel {c} beyond the last");
            }
        }
    }
    assert!(got.iter().zip(&border).all(|(&v, &border)| !border || v == 7.5), "{what} of {case:?}: border written");
}

#[test]
fn input_gradient_agrees_with_the_definition() {
    for case in cases() {
        let (dx, y) = (case.dx(), case.y());
        let mut numbers = Numbers(2);
        let dys = place(&y, &numbers.reals(y.h * y.w * y.c), 0.0);
        let ws = numbers.reals(case.g.weights());
        let mut exact = Exact::new(dx.len());
        case.products(|o, i, k| exact.add(at(&dx, i), dys[at(&y, o)], ws[k]));
        for isa in paths() {
            let plan = ConvInputGradF32::new(isa, case.g, y, dx);
            let mut packed = vec![f32::NAN; plan.packed_len()];
            plan.pack(&tap_major(&case.g, &ws), &mut packed);
            let mut dxs = vec![7.5; dx.len()];
            plan.run(&dys, &packed, &mut dxs, false);
            check_tensor(&format!("input gradient on {isa}"), &case, &dx, &exact, &dxs, |_| 0.0);
            let old = dxs.clone();
            let mut again = dxs;
            plan.run(&dys, &packed, &mut again, true);
            check_tensor(&format!("accumulated gradient on {isa}"), &case, &dx, &exact, &again, |index| old[index]);
        }
    }
}

#[test]
fn weight_gradient_agrees_with_the_definition() {
    for case in cases() {
        let (x, y) = (case.x(), case.y());
        let mut numbers = Numbers(3);
        let xs = place(&x, &numbers.reals(x.h * x.w * x.c), 0.0);
        let dys = place(&y, &numbers.reals(y.h * y.w * y.c), 0.0);
        let mut exact = Exact::new(case.g.weights());
        for _ in 0..2 {
            case.products(|o, i, k| exact.add(k, dys[at(&y, o)], xs[at(&x, i)]));
        }
        for isa in paths() {
            let plan = ConvWeightGradF32::new(isa, case.g, x, y);
            let mut partial = vec![0.0; plan.partial_len()];
            plan.run(&xs, &dys, &mut partial);
            plan.run(&xs, &dys, &mut partial);
            let mut dw = vec![f32::NAN; case.g.weights()];
            plan.unpack(&partial, &mut dw);
            for (k, &got) in dw.iter().enumerate() {
                exact.check(&format!("weight gradient on {isa}"), &case, k, got, 0.0);
            }
        }
    }
}

/// Five images at once, their inputs times powers of two, block by block of the output channels.
#[test]
fn weight_gradient_of_images_agrees_with_their_sum() {
    for case in cases() {
        let (x, y) = (case.x(), case.y());
        let mut numbers = Numbers(7);
        let one = place(&x, &numbers.reals(x.h * x.w * x.c), 0.0);
        let dys: Vec<f32> = (0..5).flat_map(|_| place(&y, &numbers.reals(y.h * y.w * y.c), 0.0).to_vec()).collect();
        let factors = [1.0, -2.0, 0.25, 4.0, 0.5];
        let xs: Vec<f32> = factors.iter().flat_map(|f| one.iter().map(move |x| f * x)).collect();
        let mut exact = Exact::new(case.g.weights());
        for (dys, factor) in dys.chunks_exact(y.len()).zip(factors) {
            case.products(|o, i, k| exact.add(k, dys[at(&y, o)], factor * one[at(&x, i)]));
        }
        for isa in paths() {
            let plan = ConvWeightGradF32::new(isa, case.g, x, y);
            let mut partial = vec![0.0; plan.partial_len()];
            let of_block = plan.partial_len() / plan.blocks();
            for (block, part) in partial.chunks_exact_mut(of_block).enumerate() {
                plan.run_blocks(5, &xs, &dys, block..block + 1, part);
            }
            let mut dw = vec![f32::NAN; case.g.weights()];
            plan.unpack(&partial, &mut dw);
            for (k, &got) in dw.iter().enumerate() {
                exact.check(&format!("weight gradient of five images on {isa}"), &case, k, got, 0.0);
            }
        }
    }
}

/// <conv(x, w), dy> = <x, dx> = <w, dw>.
#[test]
fn forward_and_gradients_are_adjoint() {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    for case in cases() {
        let (x, y) = (case.x(), case.y());
        let wide = Layout::new(case.h, case.w, case.g.cin, case.g.pad);
        let mut numbers = Numbers(4);
        let dense = numbers.reals(x.h * x.w * x.c);
        let (xs, xs_wide) = (place(&x, &dense, 0.0), place(&wide, &dense, 0.0));
        let dys = place(&y, &numbers.reals(y.h * y.w * y.c), 0.0);
        let ws = numbers.reals(case.g.weights());
        for isa in paths() {
            let plan = ConvF32::new(isa, case.g, x, y);
            let mut packed = vec![0.0; plan.packed_len()];
            plan.pack(&tap_major(&case.g, &ws), &mut packed);
            let mut ys = vec![0.0; y.len()];
            plan.run(&xs, &packed, &mut ys);

            let plan = ConvInputGradF32::new(isa, case.g, y, wide);
            let mut packed = vec![0.0; plan.packed_len()];
            plan.pack(&tap_major(&case.g, &ws), &mut packed);
            let mut dxs = vec![0.0; wide.len()];
            plan.run(&dys, &packed, &mut dxs, false);

            let plan = ConvWeightGradF32::new(isa, case.g, x, y);
            let mut partial = vec![0.0; plan.partial_len()];
            plan.run(&xs, &dys, &mut partial);
            let mut dw = vec![0.0; case.g.weights()];
            plan.unpack(&partial, &mut dw);

            let (forward, input, weight) = (dot(&ys, &dys), dot(&xs_wide, &dxs), dot(&ws, &dw));
            let scale = 1e-5 * (dot(&ys, &ys) * dot(&dys, &dys)).sqrt().max(1.0);
            assert!((forward - input).abs() < scale, "{isa} {case:?}: {forward} and {input}");
            assert!((forward - weight).abs() < scale, "{isa} {case:?}: {forward} and {weight}");
        }
    }
}

#[test]
fn integer_convolution_is_exact_on_every_path() {
    // All codes; sums of 16 bits that hold 3, 4, 36 and 910 words.
    let limits = [(255, 128), (255, 19), (255, 15), (15, 30), (6, 3)].map(|(x, w)| CodeLimits { x, w });
    for ((n, case), limits) in cases().into_iter().enumerate().flat_map(|case| limits.map(|limits| (case, limits))) {
        let (x, y) = (case.x(), case.y());
        let mut numbers = Numbers(5);
        let (extreme, sign) = (n % 3 == 0, if n % 2 == 0 { -1 } else { 1 });
        let mut number = |low: i64, high: i64| low + (numbers.next() >> 8) as i64 % (high - low + 1);
        let (largest, heaviest) = (i64::from(limits.x), i64::from(limits.w));
        let zero_point = (n % 2) as u8 * limits.x.div_ceil(2);
        let dense: Vec<u8> =
            (0..x.h * x.w * x.c).map(|_| if extreme { limits.x } else { number(0, largest) as u8 }).collect();
        let mut xs = place(&x, &dense, zero_point);
        for pixel in xs.chunks_exact_mut(x.cs) {
            pixel[x.c..].fill(0);
        }
        let mut weight = || if extreme { sign * heaviest } else { number(-heaviest, heaviest) }.min(127) as i8;
        let ws: Vec<i8> = (0..case.g.weights()).map(|_| weight()).collect();
        let init: Vec<i32> = (0..y.cs).map(|c| c as i32 * 1001 - 7777).collect();
        let mut exact = vec![0_i64; y.len()];
        for (r, q) in grid(y.h, y.w) {
            for c in 0..y.cs {
                exact[at(&y, [c, r, q])] = i64::from(init[c]);
            }
            for (a, b) in grid(case.g.kh, case.g.kw) {
                let pixel = (r * case.g.stride + a + x.border - case.g.pad) * x.row()
                    + (q * case.g.stride + b + x.border - case.g.pad) * x.cs;
                for (o, i) in grid(case.g.cout, case.g.cin) {
                    let w = ws[case.g.weight(o, i, a, b)];
                    exact[at(&y, [o, r, q])] += i64::from(xs[pixel + i]) * i64::from(w);
                }
            }
        }
        for isa in paths() {
            let plan = ConvU8S8::new(isa, case.g, x, y, limits);
            let mut packed = vec![1; plan.packed_len()];
            plan.pack(&tap_major(&case.g, &ws), &mut packed);
            let mut ys = vec![0; y.len()];
            plan.run(&xs, &packed, &init, &mut ys);
            let wrong = ys.iter().zip(&exact).position(|(&got, &exact)| i64::from(got) != exact);
            assert_eq!(wrong, None, "{isa} {case:?} {limits:?}: first wrong element");
        }
    }
}

#[test]
#[should_panic(expected = "a weight of magnitude 16, of at most 15")]
fn a_weight_above_the_limit_is_refused() {
    let g = ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin: 4, cout: 1 };
    let (x, y) = (Layout::with_cs(1, 1, 4, 4, 0), Layout::new(1, 1, 1, 0));
    let plan = ConvU8S8::new(Isa::Scalar, g, x, y, CodeLimits { x: 3, w: 15 });
    plan.pack(&[15, -15, 0, -16], &mut vec![0; plan.packed_len()]);
}

#[test]
fn results_do_not_depend_on_where_buffers_lie() {
    let case = Case { g: ConvGeometry { kh: 3, kw: 3, stride: 1, pad: 1, cin: 17, cout: 33 }, h: 7, w: 9, slack: 0 };
    let (x, y) = (case.x(), case.y());
    let mut numbers = Numbers(6);
    let xs = numbers.reals(x.len() + 3);
    let ws = numbers.reals(case.g.weights());
    for isa in paths() {
        let plan = ConvF32::new(isa, case.g, x, y);
        let mut packed = vec![0.0; plan.packed_len() + 1];
        let mut shifted = xs[..x.len()].to_vec();
        shifted.insert(0, 0.0);
        let mut results = [vec![0.0; y.len()], vec![0.0; y.len() + 1]];
        plan.pack(&tap_major(&case.g, &ws), &mut packed[1..]);
        plan.run(&shifted[1..], &packed[1..], &mut results[1][1..]);
        packed.pop();
        plan.pack(&tap_major(&case.g, &ws), &mut packed);
        plan.run(&xs[..x.len()], &packed, &mut results[0]);
        assert!(results[0].iter().zip(&results[1][1..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}");
    }
}

#[test]
fn wrong_layouts_and_lengths_are_refused() {
    let g = ConvGeometry { kh: 3, kw: 3, stride: 1, pad: 1, cin: 4, cout: 16 };
    let fails = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    let (x, y) = (Layout::with_cs(8, 8, 4, 4, 1), Layout::new(8, 8, 16, 1));
    for isa in paths() {
        assert!(!fails(&|| drop(ConvF32::new(isa, g, x, y))));
        assert!(fails(&|| drop(ConvF32::new(isa, g, Layout { border: 0, ..x }, y))), "border");
        assert!(fails(&|| drop(ConvF32::new(isa, g, x, Layout { h: 7, ..y }))), "output size");
        assert!(fails(&|| drop(ConvF32::new(isa, g, x, Layout { cs: 20, ..y }))), "channel stride");
        assert!(fails(&|| drop(ConvU8S8::new(isa, g, Layout { c: 3, ..x }, y, CodeLimits::NONE))), "input channels");
        assert!(
            fails(&|| drop(ConvInputGradF32::new(isa, g, Layout { border: 0, ..y }, Layout::new(8, 8, 4, 0)))),
            "border"
        );
        let plan = ConvF32::new(isa, g, x, y);
        let packed = vec![0.0; plan.packed_len()];
        assert!(fails(&|| plan.run(&vec![0.0; x.len() - 1], &packed, &mut vec![0.0; y.len()])), "x");
        assert!(fails(&|| plan.run(&vec![0.0; x.len()], &packed[1..], &mut vec![0.0; y.len()])), "weights");
        assert!(fails(&|| plan.run(&vec![0.0; x.len()], &packed, &mut vec![0.0; y.len() + 1])), "y");
    }
}

#[test]
#[should_panic(expected = "instead of")]
fn the_comparison_can_fail() {
    let case = Case { g: ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin: 1, cout: 1 }, h: 1, w: 1, slack: 0 };
    assert_close("nothing", &case, 1.000_001, 1.0, 1.0, 1);
}
