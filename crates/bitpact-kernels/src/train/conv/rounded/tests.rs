//! Every path and format against the definition, exactly: values small enough for float32 to sum without rounding.

use proptest::prelude::*;

use super::*;
use crate::machine::ConvGeometry;
use crate::machine::layout::Layout;

#[derive(Clone, Copy, Debug)]
struct Case {
    g: ConvGeometry,
    h: usize,
    w: usize,
    /// Border of x beyond the padding.
    slack: usize,
    zero: u8,
    /// Whether the zero codes of channels differ.
    uneven: bool,
    /// Largest code; codes are below 16 where it is more, so that float32 sums stay exact.
    largest: u8,
    seed: u64,
}

/// Numbers below `n`, a function of (seed, place).
fn number(seed: u64, place: usize, n: u64) -> i32 {
    let z = (seed ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as i32 % n as i32
}

impl Case {
    fn x(&self) -> Layout {
        let cs = if self.g.cin <= 4 { 4 } else { self.g.cin.next_multiple_of(16) };
        Layout::with_cs(self.h, self.w, self.g.cin, cs, self.g.pad + self.slack)
    }

    fn dz(&self) -> Layout {
        let (h, w) = self.g.output(self.h, self.w);
        Layout::new(h, w, self.g.cout, RoundedInputGrad::border(self.g).max(RoundedWeightGrad::border(self.g)))
    }

    fn code(&self, i: usize, u: usize, v: usize) -> i32 {
        number(self.seed, (i * self.h + u) * self.w + v, 16)
    }

    fn gradient(&self, o: usize, r: usize, q: usize) -> i32 {
        let dz = self.dz();
        number(!self.seed, (o * dz.h + r) * dz.w + q, 63) - 31
    }

    /// The zero code of channel `i`.
    fn zero(&self, i: usize) -> u8 {
        if self.uneven { (self.zero + i as u8 * 5) % 8 } else { self.zero }
    }

    /// The zero codes of all channels, those that are not there included, or of 16 where all have the same.
    fn zeros(&self) -> Vec<u8> {
        let cs = if self.uneven { self.x().cs.next_multiple_of(16) } else { 16 };
        (0..cs).map(|i| self.zero(i)).collect()
    }

    fn weight(&self, index: usize) -> i8 {
        (number(self.seed.rotate_left(17), index, 15) - 7) as i8
    }

    /// Codes as they are stored: zero codes in the border and in channels that are not there.
    fn codes(&self) -> Vec<u8> {
        let layout = self.x();
        let mut codes: Vec<u8> = (0..layout.len()).map(|i| self.zero(i % layout.cs)).collect();
        for (u, v) in (0..self.h).flat_map(|u| (0..self.w).map(move |v| (u, v))) {
            for i in 0..self.g.cin {
                codes[layout.offset(u, v) + i] = self.code(i, u, v) as u8;
            }
        }
        codes
    }

    /// The gradient as it is stored.
    fn gradients(&self, format: Format) -> Vec<u8> {
        let layout = self.dz();
        let mut out = vec![format.zero(); layout.len() * format.bytes()];
        for (r, q) in (0..layout.h).flat_map(|r| (0..layout.w).map(move |q| (r, q))) {
            for o in 0..self.g.cout {
                let (at, n) = (layout.offset(r, q) + o, self.gradient(o, r, q) as i16);
                match format {
                    Format::Bf16 => out[2 * at..2 * at + 2].copy_from_slice(&bf16(n).to_ne_bytes()),
                    Format::S8 => out[at] = (128 + n) as u8,
                }
            }
        }
        out
    }

    /// dq as `[i][u][v]` and dk in OIHW, by the definition.
    fn expected(&self) -> (Vec<i64>, Vec<i64>) {
        let (g, dz) = (self.g, self.dz());
        let mut dq = vec![0; g.cin * self.h * self.w];
        let mut dk = vec![0; g.weights()];
        for (r, q) in (0..dz.h).flat_map(|r| (0..dz.w).map(move |q| (r, q))) {
            for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
                let (u, v) = ((r * g.stride + a).wrapping_sub(g.pad), (q * g.stride + b).wrapping_sub(g.pad));
                if u >= self.h || v >= self.w {
                    continue;
                }
                for (o, i) in (0..g.cout).flat_map(|o| (0..g.cin).map(move |i| (o, i))) {
                    let (index, d) = (g.weight(o, i, a, b), i64::from(self.gradient(o, r, q)));
                    dq[(i * self.h + u) * self.w + v] += i64::from(self.weight(index)) * d;
                    dk[index] += d * i64::from(self.code(i, u, v) - i32::from(self.zero(i)));
                }
            }
        }
        (dq, dk)
    }

    fn check(&self, isa: Isa, format: Format) {
        let (g, x, dz) = (self.g, self.x(), self.dz());
        let (dq_expected, dk_expected) = self.expected();
        let gradients = self.gradients(format);
        let weights: Vec<i8> = (0..g.weights()).map(|i| self.weight(i)).collect();
        let mut rows = weights.clone();
        g.tap_major(&weights, &mut rows, |w| w);
        let mut scratch = RoundedScratch::default();

        let dx = Layout::new(self.h, self.w, g.cin, 0);
        // Sums of 16 bits, where the path has them, and sums of 32.
        for largest in [7, 128] {
            let plan = RoundedInputGrad::new(isa, format, g, dz, dx, largest);
            plan.reserve(&mut scratch);
            let mut packed = Aligned::zeroed(plan.packed_len());
            plan.pack(&rows, &mut packed);
            let scale = if format == Format::S8 { 0.5 } else { 1.0 };
            let mut dq = vec![f32::NAN; dx.len()];
            plan.run(isa, &gradients, &packed, scale, &mut dq, false, &mut scratch);
            for times in 1..=2i64 {
                for (u, v) in (0..self.h).flat_map(|u| (0..self.w).map(move |v| (u, v))) {
                    for i in 0..dx.cs {
                        let expected = if i < g.cin { dq_expected[(i * self.h + u) * self.w + v] } else { 0 };
                        let got = dq[dx.offset(u, v) + i];
                        let expected = (times * expected) as f32 * scale;
                        assert_eq!(
                            got, expected,
                            "dq[{i}, {u}, {v}], {isa} {format:?}, weights up to {largest}, {self:?}"
                        );
                    }
                }
                plan.run(isa, &gradients, &packed, scale, &mut dq, true, &mut scratch);
            }
        }

        let plan = RoundedWeightGrad::new(isa, format, g, x, self.largest, dz);
        plan.reserve(&mut scratch);
        let mut partial = vec![0.0; plan.partial_len()];
        let mut times = 0;
        for images in [1, plan.group()] {
            (0..images).for_each(|i| plan.rearrange(i, &self.codes(), &self.zeros(), &gradients, &mut scratch));
            plan.run(images, &self.zeros(), &mut partial, &mut scratch);
            times += images as i64;
            let mut dk = vec![f32::NAN; g.weights()];
            plan.unpack(&partial, &mut dk);
            for (index, (&got, &expected)) in dk.iter().zip(&dk_expected).enumerate() {
                assert_eq!(got, (times * expected) as f32, "dk[{index}], {images} images, {isa} {format:?} {self:?}");
            }
        }
        self.check_blocks(isa, format, &plan, &dk_expected);
    }

    /// Twenty-one images at once, block by block of the output channels; every second one has no gradient, and other
    /// codes.
    fn check_blocks(&self, isa: Isa, format: Format, plan: &RoundedWeightGrad, dk_expected: &[i64]) {
        let zero = self.zeros();
        let (codes, gradients) = (self.codes(), self.gradients(format));
        let (other, none) = (vec![self.largest; codes.len()], vec![format.zero(); gradients.len()]);
        let [x_len, dz_len] = plan.rearranged_len();
        const IMAGES: usize = 21;
        let (mut xs, mut dzs) = (vec![7; IMAGES * x_len], vec![7; IMAGES * dz_len]);
        for (i, (x, dz)) in xs.chunks_exact_mut(x_len).zip(dzs.chunks_exact_mut(dz_len)).enumerate() {
            match i % 2 {
                0 => plan.rearrange_image(&codes, &zero, &gradients, [x, dz]),
                _ => plan.rearrange_image(&other, &zero, &none, [x, dz]),
            }
        }
        let mut scratch = RoundedScratch::default();
        plan.reserve_sums(&mut scratch);
        let mut partial = vec![0.0; plan.partial_len()];
        for (block, part) in partial.chunks_exact_mut(plan.partial_len() / plan.blocks()).enumerate() {
            plan.run_blocks(IMAGES, &zero, [&xs, &dzs], block..block + 1, part, &mut scratch);
        }
        let mut dk = vec![f32::NAN; self.g.weights()];
        plan.unpack(&partial, &mut dk);
        let times = IMAGES.div_ceil(2) as i64;
        for (index, (&got, &expected)) in dk.iter().zip(dk_expected).enumerate() {
            assert_eq!(got, (times * expected) as f32, "dk[{index}] of blocks, {isa} {format:?} {self:?}");
        }
    }

    /// The same of real numbers, which differ from the integers by less than bfloat16 shows, and the forward
    /// convolution.
    fn check_real(&self, isa: Isa) {
        let near = |n: i32| n as f32 * (1.0 + 1.0 / 4096.0);
        let (g, dz) = (self.g, self.dz());
        let x = Layout::with_cs(self.h, self.w, g.cin, g.cin.next_multiple_of(16), g.pad + self.slack);
        let mut image = vec![0.0; x.len()];
        let mut rows = vec![0.0; g.weights()];
        g.tap_major(&(0..g.weights()).map(|i| self.weight(i)).collect::<Vec<_>>(), &mut rows, |w| near(w.into()));
        for (u, v) in (0..self.h).flat_map(|u| (0..self.w).map(move |v| (u, v))) {
            for i in 0..g.cin {
                image[x.offset(u, v) + i] = near(self.code(i, u, v));
            }
        }
        let (dq_expected, dk_expected) = Case { zero: 0, uneven: false, ..*self }.expected();
        let gradients = self.gradients(Format::Bf16);
        let mut scratch = RoundedScratch::default();

        let dx = Layout::new(self.h, self.w, g.cin, 0);
        let plan = RoundedInputGrad::new(isa, Format::Bf16, g, dz, dx, 0);
        let mut packed = Aligned::zeroed(plan.packed_len());
        plan.pack_real(&rows, &mut packed);
        let mut dq = vec![f32::NAN; dx.len()];
        plan.run(isa, &gradients, &packed, 1.0, &mut dq, false, &mut scratch);
        for (place, &expected) in dq_expected.iter().enumerate() {
            let (i, u, v) = (place / (self.h * self.w), place / self.w % self.h, place % self.w);
            assert_eq!(dq[dx.offset(u, v) + i], expected as f32, "dq[{i}, {u}, {v}], {isa} {self:?}");
        }

        let plan = RoundedWeightGrad::new(isa, Format::Bf16, g, x, 0, dz);
        plan.reserve(&mut scratch);
        let mut partial = vec![0.0; plan.partial_len()];
        let images = plan.group();
        (0..images).for_each(|i| plan.rearrange_real(i, &image, &gradients, &mut scratch));
        plan.run(images, &[0; 16], &mut partial, &mut scratch);
        let mut dk = vec![f32::NAN; g.weights()];
        plan.unpack(&partial, &mut dk);
        for (index, (&got, &expected)) in dk.iter().zip(&dk_expected).enumerate() {
            assert_eq!(got, (images as i64 * expected) as f32, "dk[{index}], {isa} {self:?}");
        }

        let y = Layout::new(dz.h, dz.w, g.cout, 0);
        let plan = ConvBf16::new(isa, g, x, y);
        let mut packed = Aligned::zeroed(plan.packed_len());
        plan.pack(&rows, &mut packed);
        let (mut out, mut bytes) = (vec![f32::NAN; y.len()], vec![7; plan.scratch_len()]);
        plan.run(&image, &packed, &mut out, &mut bytes);
        for (r, q) in (0..y.h).flat_map(|r| (0..y.w).map(move |q| (r, q))) {
            for o in 0..g.cout {
                let mut expected = 0;
                for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
                    let (u, v) = ((r * g.stride + a).wrapping_sub(g.pad), (q * g.stride + b).wrapping_sub(g.pad));
                    if u < self.h && v < self.w {
                        let products =
                            (0..g.cin).map(|i| self.code(i, u, v) * i32::from(self.weight(g.weight(o, i, a, b))));
                        expected += products.sum::<i32>();
                    }
                }
                assert_eq!(out[y.offset(r, q) + o], expected as f32, "y[{o}, {r}, {q}], {isa} {self:?}");
            }
        }
    }

    fn check_everywhere(&self) {
        for isa in crate::testing::paths() {
            if Format::Bf16.is_available(isa) {
                self.check_real(isa);
            }
            for format in [Format::Bf16, Format::S8].into_iter().filter(|f| f.is_available(isa)) {
                self.check(isa, format);
            }
        }
    }
}

fn geometry(k: usize, stride: usize, pad: usize, cin: usize, cout: usize) -> ConvGeometry {
    ConvGeometry { kh: k, kw: k, stride, pad, cin, cout }
}

#[test]
fn layers_of_real_networks_are_exact() {
    for (g, size) in [
        (geometry(3, 1, 1, 3, 16), 32),
        (geometry(3, 1, 1, 16, 16), 32),
        (geometry(3, 2, 1, 16, 32), 32),
        (geometry(1, 2, 0, 16, 32), 16),
        (geometry(3, 1, 1, 64, 64), 8),
        (geometry(7, 2, 3, 3, 64), 28),
        (geometry(1, 1, 0, 64, 10), 1),
    ] {
        Case { g, h: size, w: size, slack: 0, zero: 0, uneven: false, largest: 15, seed: 5 }.check_everywhere();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: crate::testing::cases(60),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_layer_is_exact(
        k in 1usize..=5, stride in 1usize..=3, pad in 0usize..=2, cin in 1usize..=40, cout in 1usize..=40,
        h in 5usize..=19, w in 5usize..=19, slack in 0usize..=1, zero in 0u8..=7, uneven: bool, largest in prop::sample::select(vec![15u8, 127, 255]), seed: u64,
    ) {
        Case { g: geometry(k, stride, pad, cin, cout), h, w, slack, zero, uneven, largest, seed }.check_everywhere();
    }
}

#[test]
fn the_largest_gradients_and_codes_do_not_overflow() {
    // The sum is beyond i32 as a whole; blocks of it are not.
    let g = geometry(1, 1, 0, 1, 1);
    let (x, dz) = (Layout::with_cs(512, 256, 1, 4, 0), Layout::new(512, 256, 1, 0));
    for (isa, largest) in
        crate::testing::paths().into_iter().flat_map(|isa| [(isa, 255u8), (isa, 127), (isa, 15), (isa, 3)])
    {
        if isa == Isa::Scalar && largest != 255 {
            continue;
        }
        let plan = RoundedWeightGrad::new(isa, Format::S8, g, x, largest, dz);
        let mut scratch = RoundedScratch::default();
        plan.reserve(&mut scratch);
        let mut partial = vec![0.0; plan.partial_len()];
        plan.rearrange(0, &vec![largest; x.len()], &[0; 16], &vec![1; dz.len()], &mut scratch);
        plan.run(1, &[0; 16], &mut partial, &mut scratch);
        let expected = -127.0 * f64::from(largest) * 512.0 * 256.0;
        // Blocks are exact, their sum has float32's roundings.
        assert!((f64::from(partial[0]) / expected - 1.0).abs() < 1e-5, "{isa} {largest}: {} of {expected}", partial[0]);
    }
}
