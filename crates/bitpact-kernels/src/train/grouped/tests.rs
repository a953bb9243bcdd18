//! Convolutions with groups against dense ones whose weights across groups are zero.

use bitpact_core::rng::Key;

use super::*;

/// Geometries: channels, groups, window, stride, padding, image.
fn cases() -> Vec<(ConvGeometry, usize, [usize; 2])> {
    let of = |kh, kw, stride, pad, cin, cout| ConvGeometry { kh, kw, stride, pad, cin, cout };
    vec![
        (of(3, 3, 1, 1, 5, 7), 1, [6, 5]),
        // Depthwise: more and fewer than 9 taps, strides, no channel padding and some.
        (of(3, 3, 1, 1, 32, 32), 32, [7, 6]),
        (of(3, 3, 2, 1, 20, 20), 20, [7, 8]),
        (of(5, 5, 1, 2, 16, 16), 16, [6, 9]),
        (of(4, 3, 3, 1, 17, 17), 17, [8, 7]),
        (of(1, 1, 2, 0, 18, 18), 18, [5, 5]),
        (of(7, 7, 2, 3, 3, 3), 3, [9, 9]),
        // Groups.
        (of(3, 3, 1, 1, 32, 48), 2, [5, 6]),
        (of(5, 5, 1, 2, 12, 6), 3, [6, 5]),
        (of(3, 3, 2, 1, 8, 16), 8, [7, 7]),
        (of(1, 1, 1, 0, 24, 8), 4, [3, 3]),
        (of(2, 2, 3, 0, 6, 6), 2, [8, 8]),
    ]
}

/// OIHW weights of a dense convolution from those with groups.
fn dense<T: Copy + Default>(g: ConvGeometry, groups: usize, w: &[T]) -> Vec<T> {
    let (inputs, outputs, plane) = (g.cin / groups, g.cout / groups, g.kh * g.kw);
    let mut dense = vec![T::default(); g.weights()];
    for (i, &w) in w.iter().enumerate() {
        let (o, input, tap) = (i / plane / inputs, i / plane % inputs, i % plane);
        dense[(o * g.cin + o / outputs * inputs + input) * plane + tap] = w;
    }
    dense
}

/// Weights in the order that plans pack.
fn rows<T: Copy>(g: ConvGeometry, groups: usize, oihw: &[T]) -> Vec<T> {
    let mut rows = oihw.to_vec();
    ConvGeometry { cin: g.cin / groups, ..g }.tap_major(oihw, &mut rows, |w| w);
    rows
}

struct Images {
    x: Layout,
    y: Layout,
    dy: Layout,
}

fn images(g: ConvGeometry, [h, w]: [usize; 2]) -> Images {
    let (rows, columns) = g.output(h, w);
    let dy = Layout::new(rows, columns, g.cout, ConvInputGradF32::border(g));
    Images { x: Layout::new(h, w, g.cin, g.pad), y: Layout { border: 0, ..dy }, dy }
}

/// Random values in the interior pixels' channels, `rest` elsewhere.
fn fill<T: Copy>(layout: Layout, rest: T, value: impl Fn(u64) -> T) -> Vec<T> {
    let mut data = vec![rest; layout.len()];
    for (y, x) in (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| (y, x))) {
        let at = layout.offset(y, x);
        (at..at + layout.c).for_each(|i| data[i] = value(i as u64));
    }
    data
}

fn close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{what}, element {i}: {a}, expected {b}");
    }
}

#[test]
fn integers_are_those_of_the_dense_convolution() {
    for isa in crate::testing::paths() {
        for (g, groups, size) in cases() {
            let Images { x, y, .. } = images(g, size);
            let key = Key::new(3);
            // Extremes of both: products of 16 bits.
            let extreme = |i: u64| [255, 0, 254, key.u64(i) as u8][(key.u64(i) >> 8) as usize % 4];
            let codes = fill(x, 7u8, extreme);
            let weight = |i: u64| [-128, 127, 1, key.with("w").u64(i) as i8][(key.with("w").u64(i) >> 8) as usize % 4];
            let w: Vec<i8> = (0..weights(g, groups) as u64).map(weight).collect();
            let init: Vec<i32> = (0..y.cs as i32).map(|c| if c < g.cout as i32 { 1000 * c - 7 } else { 0 }).collect();
            let plan = GroupConvU8S8::new(isa, g, groups, x, y, CodeLimits::NONE);
            let reference = ConvU8S8::new(Isa::Scalar, g, x, y, CodeLimits::NONE);
            let (mut packed, mut whole) = (vec![0; plan.packed_len()], vec![0; reference.packed_len()]);
            plan.pack(&rows(g, groups, &w), &mut packed);
            reference.pack(&rows(g, 1, &dense(g, groups, &w)), &mut whole);
            let (mut got, mut want) = (vec![0; y.len()], vec![0; y.len()]);
            let mut scratch = GroupScratch::default();
            plan.reserve(&mut scratch);
            for _ in 0..2 {
                plan.run(&codes, &packed, &init, &mut got, &mut scratch);
            }
            reference.run(&codes, &whole, &init, &mut want);
            assert_eq!(got, want, "{isa} {g:?} {groups} groups");
        }
    }
}

#[test]
fn floats_are_those_of_the_dense_convolution() {
    for isa in crate::testing::paths() {
        for (g, groups, size) in cases() {
            let Images { x, y, dy } = images(g, size);
            let what = format!("{isa} {g:?} {groups} groups");
            let key = Key::new(4);
            let w: Vec<f32> = (0..weights(g, groups) as u64).map(|i| key.with("w").normal(i)).collect();
            let dense_w = dense(g, groups, &w);
            let (xs, dys) = (fill(x, 0.0, |i| key.with("x").normal(i)), fill(dy, 0.0, |i| key.with("dy").normal(i)));
            let dx = Layout { border: 0, ..x };
            let mut scratch = GroupScratch::default();

            let plan = GroupConvF32::new(isa, g, groups, x, y);
            let reference = ConvF32::new(Isa::Scalar, g, x, y);
            let (mut packed, mut whole) = (vec![0.0; plan.packed_len()], vec![0.0; reference.packed_len()]);
            plan.pack(&rows(g, groups, &w), &mut packed);
            reference.pack(&rows(g, 1, &dense_w), &mut whole);
            let (mut got, mut want) = (vec![0.0; y.len()], vec![0.0; y.len()]);
            plan.reserve(&mut scratch);
            plan.run(&xs, &packed, &mut got, &mut scratch);
            reference.run(&xs, &whole, &mut want);
            close(&format!("forward, {what}"), &got, &want);

            let plan = GroupInputGradF32::new(isa, g, groups, dy, dx);
            let reference = ConvInputGradF32::new(Isa::Scalar, g, dy, dx);
            let (mut packed, mut whole) = (vec![0.0; plan.packed_len()], vec![0.0; reference.packed_len()]);
            plan.pack(&rows(g, groups, &w), &mut packed);
            reference.pack(&rows(g, 1, &dense_w), &mut whole);
            // What stood there before is overwritten, also beyond the channels.
            let (mut got, mut want) = (vec![9.0; dx.len()], vec![5.0; dx.len()]);
            plan.reserve(&mut scratch);
            for accumulate in [false, true] {
                plan.run(&dys, &packed, &mut got, accumulate, &mut scratch);
                reference.run(&dys, &whole, &mut want, accumulate);
                close(&format!("input gradient, {what}"), &got, &want);
            }

            let plan = GroupWeightGradF32::new(isa, g, groups, x, dy);
            let reference = ConvWeightGradF32::new(Isa::Scalar, g, x, dy);
            let (mut partial, mut whole) = (vec![0.0; plan.partial_len()], vec![0.0; reference.partial_len()]);
            plan.reserve(&mut scratch);
            for _ in 0..2 {
                plan.run(&xs, &dys, &mut partial, &mut scratch);
                reference.run(&xs, &dys, &mut whole);
            }
            let (mut got, mut want) = (vec![0.0; w.len()], vec![0.0; g.weights()]);
            plan.unpack(&partial, &mut got);
            reference.unpack(&whole, &mut want);
            let selected: Vec<f32> = dense(g, groups, &vec![1.0; w.len()])
                .iter()
                .zip(&want)
                .filter(|(is_weight, _)| **is_weight != 0.0)
                .map(|(_, w)| *w)
                .collect();
            close(&format!("weight gradient, {what}"), &got, &selected);
        }
    }
}
