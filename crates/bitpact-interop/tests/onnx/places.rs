//! Operators that move pixels and channels, by the values that they give.

use std::path::Path;

use crate::build::{File, int, text};
use crate::forward::forward;
use bitpact_graph::{Move, Op, fuse};
use bitpact_interop::onnx::import_bytes;
use bitpact_interop::{ImportOptions, Pixels};
use bitpact_model::Model;

const SIDE: usize = 8;

fn imported(file: &File) -> Result<Model, String> {
    let options = ImportOptions { pixels: Pixels::named("raw255"), ..ImportOptions::default() };
    import_bytes(file.bytes(), "test", Path::new("."), Path::new("test.onnx"), &options)
        .map(|imported| imported.model)
        .map_err(|error| error.to_string())
}

/// A convolution of 3 to 4 channels with a Relu, `r`.
fn begun() -> File {
    File::new(&[1, 3, SIDE as i64, SIDE as i64]).drawn("w", &[4, 3, 1, 1]).node("Conv", &["x", "w"], "c", vec![]).node(
        "Relu",
        &["c"],
        "r",
        vec![],
    )
}

/// What `from` gives, as the output.
fn ended(file: File, from: &str) -> File {
    let one = |i: i64| if i % 5 == 0 { 1.0 } else { 0.0 };
    let identity: Vec<f32> = (0..16).map(one).collect();
    file.floats("v", &[4, 4, 1, 1], &identity).node("Conv", &[from, "v"], "y", vec![])
}

fn image() -> Vec<f64> {
    (0..SIDE * SIDE * 3).map(|i| (i * 37 % 23) as f64 / 4.0 - 2.0).collect()
}

/// Linear interpolation at the places `x` of rows and columns, the ends beyond them.
fn interpolated(values: &[f64], x: &[f64]) -> Vec<f64> {
    let weigh = |x: f64| {
        let x = x.clamp(0.0, SIDE as f64 - 1.0);
        let below = x.floor() as usize;
        [(below, 1.0 - x.fract()), ((below + 1).min(SIDE - 1), x.fract())]
    };
    let mut out = Vec::new();
    for &row in x {
        for &column in x {
            for c in 0..4 {
                let pairs = weigh(row).into_iter().flat_map(|r| weigh(column).map(|k| (r, k)));
                out.push(pairs.map(|((y, a), (x, b))| a * b * values[(y * SIDE + x) * 4 + c]).sum());
            }
        }
    }
    out
}

#[test]
fn linear_resizes_by_whole_factors_are_means_of_repeated_pixels() {
    let half = |to: usize| (0..to).map(|i| (i as f64 + 0.5) * SIDE as f64 / to as f64 - 0.5).collect::<Vec<_>>();
    let plain = forward(&imported(&ended(begun(), "r")).unwrap(), &image());
    for (mode, to, places) in [
        ("half_pixel", 16, half(16)),
        ("pytorch_half_pixel", 24, half(24)),
        ("half_pixel_symmetric", 16, half(16)),
        ("asymmetric", 32, (0..32).map(|i| f64::from(i) / 4.0).collect()),
        ("align_corners", 22, (0..22).map(|i| f64::from(i) / 3.0).collect()),
        ("half_pixel", 4, half(4)),
        ("half_pixel", 1, half(1)),
        ("asymmetric", 4, (0..4).map(|i| f64::from(i) * 2.0).collect()),
    ] {
        let file = begun().whole("sizes", 7, &[4], &[1, 4, to, to]).node(
            "Resize",
            &["r", "", "", "sizes"],
            "u",
            vec![text("mode", "linear"), text("coordinate_transformation_mode", mode)],
        );
        let model = imported(&ended(file, "u")).unwrap();
        let (got, expected) = (forward(&model, &image()), interpolated(&plain, &places));
        assert_eq!(got.len(), expected.len(), "{mode} to {to}");
        for (at, (a, b)) in got.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() < 1e-9, "{mode} to {to}, element {at}: {a} and {b}");
        }
        fuse(&model.graph).unwrap();
    }
}

#[test]
fn linear_resizes_by_other_factors_are_refused() {
    for (mode, to) in [("half_pixel", 12), ("align_corners", 16), ("half_pixel", 3)] {
        let file = begun().whole("sizes", 7, &[4], &[1, 4, to, to]).node(
            "Resize",
            &["r", "", "", "sizes"],
            "u",
            vec![text("mode", "linear"), text("coordinate_transformation_mode", mode)],
        );
        let error = imported(&ended(file, "u")).unwrap_err();
        assert!(error.contains(&format!("8 to {to} elements of axis 2, expected a whole factor")), "{error}");
    }
}

#[test]
fn channels_in_any_order_are_shuffles_or_ranges() {
    let plain = forward(&imported(&ended(begun(), "r")).unwrap(), &image());
    for (order, nodes) in [([0, 2, 1, 3], 1), ([2, 3, 0, 1], 3), ([3, 1, 0, 0], 5), ([-1, -2, -3, -4], 5)] {
        let file = begun().whole("order", 7, &[4], &order).node("Gather", &["r", "order"], "g", vec![int("axis", 1)]);
        let model = imported(&ended(file, "g")).unwrap();
        let got = forward(&model, &image());
        for (at, &value) in got.iter().enumerate() {
            let channel = order[at % 4].rem_euclid(4) as usize;
            assert_eq!(value, plain[at / 4 * 4 + channel], "{order:?}, element {at}");
        }
        let is_part = |op: &Op| matches!(op, Op::View(_) | Op::Concat);
        assert_eq!(model.graph.nodes().iter().filter(|node| is_part(&node.op)).count(), nodes, "{order:?}");
        fuse(&model.graph).unwrap();
    }
    let shuffle =
        begun().whole("order", 7, &[4], &[0, 2, 1, 3]).node("Gather", &["r", "order"], "g", vec![int("axis", 1)]);
    let model = imported(&ended(shuffle, "g")).unwrap();
    assert!(model.graph.nodes().iter().any(|node| node.op == Op::View(Move::ChannelShuffle { groups: 2 })));
    let rows = begun().whole("order", 7, &[3], &[4, 1, 2]).node("Gather", &["r", "order"], "g", vec![int("axis", 2)]);
    let error = imported(&ended(rows, "g")).unwrap_err();
    assert!(error.contains("expected some at equal distances"), "{error}");
    let beyond = begun().whole("order", 7, &[2], &[0, 4]).node("Gather", &["r", "order"], "g", vec![int("axis", 1)]);
    assert!(imported(&ended(beyond, "g")).unwrap_err().contains("indices beyond a size of 4"));
}
