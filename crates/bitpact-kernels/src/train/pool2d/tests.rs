use bitpact_core::rng::Key;

use super::*;
use crate::{Pool, Scratch};
use std::sync::Mutex;

fn image(layout: Layout, seed: u64) -> Vec<u8> {
    (0..layout.len() as u64).map(|i| Key::new(seed).below(i, 7) as u8).collect()
}

#[test]
fn maxima_and_their_gradient_follow_the_definition() {
    let cases = [(2, 1, 0, 2, 20), (3, 2, 1, 7, 20), (2, 2, 0, 8, 20), (3, 1, 1, 5, 100)];
    // Miri takes a thousand times as long.
    let cases = if cfg!(miri) { &cases[..2] } else { &cases[..] };
    for &(kernel, stride, pad, size, c) in cases {
        let window = Window { kernel, stride, pad };
        let x_layout = Layout::new(size, size, c, 1);
        let out = (size + 2 * pad - kernel) / stride + 1;
        let y_layout = Layout::new(out, out, c, 2);
        let x = image(x_layout, 5);
        let mut y = vec![0u8; y_layout.len()];
        max_forward(window, &x, x_layout, &mut y, y_layout);
        for isa in crate::testing::paths() {
            let (pool, scratch) = (Pool::new(2), [0, 1].map(|_| Mutex::new(Scratch::default())));
            for workers in [Workers::One(&scratch[0]), Workers::All(&pool, &scratch)] {
                let mut codes = vec![0u8; y_layout.len()];
                max_codes(isa, workers, window, (&x, x_layout), (&mut codes, y_layout));
                assert!(codes == y, "{isa}: {window:?}");
            }
        }
        let dense = Layout { border: 0, ..x_layout };
        let dy_layout = Layout { border: 0, ..y_layout };
        let dy: Vec<f32> = (0..dy_layout.len()).map(|i| i as f32 + 1.0).collect();
        let mut dx = vec![0f32; dense.len()];
        max_backward(window, &x, x_layout, &dy, dy_layout, &mut dx, dense);
        let mut want_dx = vec![0f32; dense.len()];
        for r in 0..out {
            for q in 0..out {
                for c in 0..x_layout.cs {
                    let mut seen = Vec::new();
                    for a in 0..kernel {
                        for b in 0..kernel {
                            let (i, j) = ((r * stride + a).wrapping_sub(pad), (q * stride + b).wrapping_sub(pad));
                            if i < size && j < size {
                                seen.push((x[x_layout.offset(i, j) + c], i, j));
                            }
                        }
                    }
                    let best = seen.iter().map(|s| s.0).max().unwrap();
                    assert_eq!(y[y_layout.offset(r, q) + c], best);
                    let &(_, i, j) = seen.iter().find(|s| s.0 == best).unwrap();
                    want_dx[dense.offset(i, j) + c] += dy[dy_layout.offset(r, q) + c];
                }
            }
        }
        assert!(dx == want_dx, "kernel {kernel}, stride {stride}, padding {pad}");
    }
}

#[test]
fn means_and_their_gradient() {
    let layout = Layout::new(3, 5, 17, 1);
    let x = image(layout, 9);
    let mut y = vec![0f32; layout.cs];
    mean_forward(&x, layout, 0.5, 30.0, &mut y);
    for c in 0..layout.cs {
        let sum: u32 = (0..15).map(|p| u32::from(x[layout.offset(p / 5, p % 5) + c])).sum();
        assert_eq!(y[c], (sum as f32 - 30.0) * 0.5);
    }
    let dense = Layout { border: 0, ..layout };
    let mut dx = vec![1f32; dense.len()];
    mean_backward(&y, dense, &mut dx, true);
    assert!((dx[dense.offset(2, 4) + 3] - (1.0 + y[3] / 15.0)).abs() < 1e-6);
    mean_backward(&y, dense, &mut dx, false);
    assert!((dx[dense.offset(0, 0) + 3] - y[3] / 15.0).abs() < 1e-6);
}

#[test]
fn subsampling_and_its_gradient_are_adjoint() {
    let (x_layout, y_layout) = (Layout::new(5, 4, 3, 1), Layout::new(3, 2, 8, 0));
    let x: Vec<f32> = image(x_layout, 1).iter().map(|&q| f32::from(q)).collect();
    let mut y = vec![9f32; y_layout.len()];
    subsample(&x, x_layout, 2, 4, 7.0, &mut y, y_layout);
    assert!((0..4).chain(7..16).all(|c| y[y_layout.offset(1, 1) + c] == 7.0));
    subsample(&x, x_layout, 2, 4, 0.0, &mut y, y_layout);
    assert_eq!(y[y_layout.offset(2, 1) + 6], x[x_layout.offset(4, 2) + 2]);
    assert!((0..4).chain(7..16).all(|c| y[y_layout.offset(1, 1) + c] == 0.0));
    let dense = Layout { border: 0, ..x_layout };
    let mut dx = vec![0f32; dense.len()];
    let dy: Vec<f32> = (0..y_layout.len()).map(|i| (i % 7) as f32).collect();
    subsample_backward(&dy, y_layout, 2, 4, &mut dx, dense);
    let forward: f32 = y.iter().zip(&dy).map(|(a, b)| a * b).sum();
    let pixels = (0..5).flat_map(|r| (0..4).map(move |q| (r, q)));
    let backward: f32 = pixels
        .flat_map(|(r, q)| (0..3).map(move |c| (r, q, c)))
        .map(|(r, q, c)| x[x_layout.offset(r, q) + c] * dx[dense.offset(r, q) + c])
        .sum();
    assert!(forward > 0.0);
    assert_eq!(forward, backward);
}

/// 3x3 by 2 with padding over 3x3 pixels of two channels, by hand: every mean divides by 9, as PyTorch's does.
#[test]
fn averages_count_padding_as_zeros_and_share_their_gradient() {
    let (x_layout, y_layout) = (Layout::new(3, 3, 2, 1), Layout::new(2, 2, 2, 0));
    let window = Window { kernel: 3, stride: 2, pad: 1 };
    let mut x = vec![7u8; x_layout.len()];
    for (i, (r, q)) in (0..3).flat_map(|r| (0..3).map(move |q| (r, q))).enumerate() {
        let at = x_layout.offset(r, q);
        x[at..at + 2].copy_from_slice(&[i as u8, 5]);
    }
    let mut y = vec![0.0; y_layout.len()];
    // The code 2 stands for zero.
    avg_forward(window, &x, x_layout, 1.0 / 9.0, 2.0, &mut y, y_layout);
    let at = |r: usize, q: usize, c: usize| y[y_layout.offset(r, q) + c] * 9.0;
    let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-5, "{a}, expected {b}");
    // Corners see four pixels: 0 1 3 4, 1 2 4 5, 3 4 6 7, 4 5 7 8.
    for (r, q, sum) in [(0, 0, 8.0), (0, 1, 12.0), (1, 0, 20.0), (1, 1, 24.0)] {
        close(at(r, q, 0), sum - 8.0);
        close(at(r, q, 1), 12.0);
    }
    let (dense, mut dx) = (Layout::new(3, 3, 2, 0), vec![0.0; Layout::new(3, 3, 2, 0).len()]);
    let mut dy = vec![0.0; y_layout.len()];
    for (i, g) in [1.0, 10.0, 100.0, 1000.0].into_iter().enumerate() {
        dy[y_layout.offset(i / 2, i % 2)] = 9.0 * g;
    }
    avg_backward(window, &dy, y_layout, &mut dx, dense);
    let expected = [1.0, 11.0, 10.0, 101.0, 1111.0, 1010.0, 100.0, 1100.0, 1000.0];
    for (i, expected) in expected.into_iter().enumerate() {
        close(dx[dense.offset(i / 3, i % 3)], expected);
    }
}
