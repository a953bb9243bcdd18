//! Attention of one token over all keys and values before it. Every path does the same float32 operations in sixteen
//! lanes, so that all give the same bits.

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::machine::isa::Proof;

/// Numbers that are computed together.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// Keys or values of one head: row `p` is `data[p * stride..][..width]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows.
    ///
    /// # Panics
    /// Where the slice is too short or rows overlap.
    pub fn new(data: &'a [f32], count: usize, stride: usize, width: usize) -> Rows<'a> {
        let fits = count == 0 || (count - 1) * stride + width <= data.len();
        assert!(fits && stride >= width, "{count} rows of {width}, {stride} apart, in {}", data.len());
        Rows { data, stride, width }
    }

    #[inline(always)]
    fn row(&self, p: usize) -> &'a [f32] {
        &self.data[p * self.stride..][..self.width]
    }
}

/// For every query `q` (rows of `keys.width` numbers in `queries`) the values weighted by `softmax(scale * q . key)`
/// over the first `seen` rows, to `out`. `scores` is room for `seen` numbers a query.
///
/// # Panics
/// Where sizes do not belong together, `seen` is 0, or the machine lacks the path.
pub fn attend(
    queries: &[f32],
    keys: Rows<'_>,
    values: Rows<'_>,
    seen: usize,
    scale: f32,
    out: &mut [f32],
    scores: &mut Vec<f32>,
    isa: Isa,
) {
    assert!(
        queries.len() == out.len() && queries.len().is_multiple_of(keys.width) && keys.width == values.width,
        "queries"
    );
    assert!(seen > 0, "no keys");
    scores.clear();
    scores.resize(queries.len() / keys.width * seen, 0.0);
    match isa.prove() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features.
        Proof::Avx512(_) => unsafe { avx512(queries, keys, values, seen, scale, out, scores) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features.
        Proof::Avx2(_) => unsafe { avx2(queries, keys, values, seen, scale, out, scores) },
        _ => body(queries, keys, values, seen, scale, out, scores),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn avx512(
    queries: &[f32],
    keys: Rows<'_>,
    values: Rows<'_>,
    seen: usize,
    scale: f32,
    out: &mut [f32],
    scores: &mut [f32],
) {
    body(queries, keys, values, seen, scale, out, scores);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(
    queries: &[f32],
    keys: Rows<'_>,
    values: Rows<'_>,
    seen: usize,
    scale: f32,
    out: &mut [f32],
    scores: &mut [f32],
) {
    body(queries, keys, values, seen, scale, out, scores);
}

#[inline(always)]
fn body(
    queries: &[f32],
    keys: Rows<'_>,
    values: Rows<'_>,
    seen: usize,
    scale: f32,
    out: &mut [f32],
    scores: &mut [f32],
) {
    let width = keys.width;
    // A row of keys serves all queries while it is in the first cache.
    for p in 0..seen {
        let key = keys.row(p);
        for (q, query) in queries.chunks_exact(width).enumerate() {
            scores[q * seen + p] = dot(query, key) * scale;
        }
    }
    scores.chunks_exact_mut(seen).for_each(softmax);
    out.fill(0.0);
    for p in 0..seen {
        let value = values.row(p);
        for (q, out) in out.chunks_exact_mut(width).enumerate() {
            let weight = scores[q * seen + p];
            out.iter_mut().zip(value).for_each(|(o, v)| *o = v.mul_add(weight, *o));
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums: Lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        (0..LANES).for_each(|i| sums[i] = a[i].mul_add(b[i], sums[i]));
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum: f32, (a, b)| a.mul_add(*b, sum));
    total(sums) + rest
}

/// The lanes' sum: halves are added until one is left.
#[inline(always)]
fn total(mut lanes: Lanes) -> f32 {
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| lanes[i] += lanes[i + half]);
    }
    lanes[0]
}

/// `exp(x - max) / sum`, in place.
#[inline(always)]
fn softmax(x: &mut [f32]) {
    let mut peaks = [f32::NEG_INFINITY; LANES];
    let (lanes, rest) = x.as_chunks::<LANES>();
    lanes.iter().for_each(|v| (0..LANES).for_each(|i| peaks[i] = if v[i] > peaks[i] { v[i] } else { peaks[i] }));
    let peak = peaks.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let mut sums = [0.0; LANES];
    let (lanes, rest) = x.as_chunks_mut::<LANES>();
    for v in lanes {
        for i in 0..LANES {
            v[i] = exp(v[i] - peak);
            sums[i] += v[i];
        }
    }
    let mut sum = total(sums);
    for v in rest {
        *v = exp(*v - peak);
        sum += *v;
    }
    let factor = 1.0 / sum;
    x.iter_mut().for_each(|v| *v *= factor);
}

/// `e^x` for x at most 0 to two units in the last place: `2^n` times the polynomial of degree 6 of what is left
/// (coefficients of Cephes' `expf`). Below
/// -87 it gives that of -87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let n = x.mul_add(std::f32::consts::LOG2_E, SHIFT) - SHIFT;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = r.mul_add(p, c);
    }
    let p = (r * r).mul_add(p, r + 1.0);
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn attention_is_the_weighted_mean_and_the_same_on_every_path() {
        for (heads, width, seen, stride) in [(1, 8, 1, 8), (3, 64, 77, 192), (2, 20, 33, 25), (8, 80, 16, 80)] {
            let (q, k, v) = (numbers(heads * width, 1), numbers(seen * stride, 2), numbers(seen * stride, 3));
            let rows = |data| Rows::new(data, seen, stride, width);
            let run = |isa| {
                let (mut out, mut scores) = (vec![f32::NAN; heads * width], Vec::new());
                attend(&q, rows(&k), rows(&v), seen, 0.3, &mut out, &mut scores, isa);
                out
            };
            let expected = run(Isa::Scalar);
            for isa in crate::testing::paths() {
                assert_eq!(run(isa), expected, "{isa}");
            }
            for h in 0..heads {
                let score =
                    |p: usize| (0..width).map(|i| f64::from(q[h * width + i] * k[p * stride + i])).sum::<f64>() * 0.3;
                let total: f64 = (0..seen).map(|p| score(p).exp()).sum();
                for i in 0..width {
                    let value: f64 = (0..seen).map(|p| score(p).exp() / total * f64::from(v[p * stride + i])).sum();
                    assert!((value - f64::from(expected[h * width + i])).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn exponentials_are_right_to_two_units() {
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let (found, right) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / right - 1.0).abs() < 2.5e-7, "{x}: {found} {right}");
        }
        assert_eq!((exp(0.0), exp(-1e30)), (1.0, exp(-87.0)));
    }

    #[test]
    #[should_panic(expected = "3 rows of 4")]
    fn short_slices_are_refused() {
        Rows::new(&[0.0; 9], 3, 4, 4);
    }
}
