//! Writes the .bitpact file of a random network: `random_model ARCH BITS FIRST_LAST SEED OUT [HxWxC] [channel]`.
//!
//! ARCH is a network of the zoo or a JSON file with one, whose shape then counts, converted from random weights, or [`corners`], a small network of integers that holds what
//! conversion never makes and for which BITS, FIRST_LAST and the shape count for nothing. FIRST_LAST is `float`, `8bit`
//! or `same`; with `channel`, channels have clip values of their own.

use bitpact_core::rng::Key;
use bitpact_core::{Granularity, Grid, IntegerStep};
use bitpact_graph::{Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_model::{
    InputDescription, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, Model, TensorId, convert,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [arch, bits, first_last, seed, out, rest @ ..] = args.as_slice() else {
        return Err("usage: random_model ARCH BITS FIRST_LAST SEED OUT [HxWxC] [channel]".into());
    };
    let seed = seed.parse()?;
    let (clips, shape): (Vec<&String>, Vec<&String>) = rest.iter().partition(|arg| *arg == "channel");
    let clip_scale = if clips.is_empty() { Granularity::Layer } else { Granularity::Channel };
    let sides = shape.first().map_or("12x10x3", |shape| shape.as_str()).split('x');
    let &[h, w, c] = sides.map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?.as_slice() else {
        return Err("expected a shape like 12x10x3".into());
    };
    let model = match arch.as_str() {
        "corners" => corners(seed),
        _ => of_the_zoo(arch, (bits, first_last, clip_scale), seed, Shape::new(h, w, c))?,
    };
    Ok(model.save(out)?)
}

/// A network of the zoo for ten classes, or of a file.
fn of_the_zoo(
    arch: &str,
    (bits, first_last, clip_scale): (&str, &str, Granularity),
    seed: u64,
    input: Shape,
) -> Result<IntegerModel> {
    let graph: Graph = match arch.ends_with(".json") {
        true => serde_json::from_str(&std::fs::read_to_string(arch)?)?,
        false => zoo::build(arch, input, 10).ok_or("unknown architecture")??,
    };
    let input = graph.input();
    let first_last = serde_json::from_value(first_last.into())?;
    let config = QuantConfig { first_last, clip_scale, ..QuantConfig::new(bits.parse()?) };
    let plan = QuantPlan::resolve(&graph, &config)?;
    let pixels = InputDescription {
        zero_point: (0..input.c).map(|c| 120 + 5 * c as u8).collect(),
        scale: (0..input.c).map(|c| (1.0 + c as f32) / 96.0).collect(),
    };
    let names = (0..graph.classes()).map(|c| format!("class {c}")).collect();
    Ok(convert(&Model::random(graph, plan, pixels, names, seed)?)?.model)
}

/// Sides, strides and padding that differ, zero points far from the middle, 1 bit, 16 bits and both grids, a padded max
/// pool, a layer with second product and shortcut, codes that do not start at 0, a shift of 62, sums and logits that are
/// read through windows, negative factors, groups, padding codes, and two classes that always tie.
fn corners(seed: u64) -> IntegerModel {
    let key = Key::new(seed).with("corners");
    let step = |shift, mul: &[i32], add: &[i64], [lo, hi]: [i32; 2]| IntegerStep {
        shift,
        mul: mul.to_vec(),
        mul2: vec![],
        res_mul: vec![],
        add: add.to_vec(),
        lo,
        hi,
        bounds: vec![],
    };
    let layer = |name: &str, op, [h, w, c]: [usize; 3], [lo, hi]: [i32; 2]| IntegerLayer {
        name: name.to_owned(),
        op,
        shape: Shape::new(h, w, c),
        lo,
        hi,
        scale: 0.25,
    };
    let plain = |main, step| IntegerOp::Product { main, second: None, residual: None, step };

    let image = product(key, "image", 0, [5, 3, 2, 2], [2, 5], 1, Grid::WithoutZero);
    let image_step = step(4, &[3, -2, 4, 1, -1], &[700, 3000, -40, 1234, 5], [0, 255]);
    let main = product(key, "main", 2, [2, 2, 1, 1], [5, 8], 7, Grid::WithZero);
    let second = product(key, "second", 1, [1, 1, 1, 0], [5, 8], 8, Grid::WithoutZero);
    let both = IntegerStep {
        mul2: vec![-70_000; 8],
        res_mul: vec![9, 7_000_000, 0, -6_000_000, 2, 3_000_000, 9, 1],
        ..step(22, &[-5000, 9000, 12, 6000, -7000, 0, 30_000, 8000], &[1 << 28; 8], [3, 77])
    };
    let residual = Some(IntegerResidual { input: 1, stride: 1, pad_before: 1, pad_after: 2 });
    let wide = product(key, "wide", 3, [3, 3, 2, 1], [2, 4], 5, Grid::WithoutZero);
    let wide = IntegerProduct { in_channels: 8, groups: 4, padding_code: 40, ..wide };
    let wide_step = step(62, &[i32::MAX, i32::MIN, 1 << 30, -1], &[1 << 62, (1 << 62) - 1, -7, 1 << 62], [0, 1]);
    let sums = product(key, "sums", 5, [2, 2, 1, 1], [4, 3], 16, Grid::WithZero);
    let sums = IntegerProduct { padding_code: 5, ..sums };
    let sums_step = step(11, &[1, -1, 2], &[1 << 18, 200_000, 300_000], [0, 250]);
    let mut last = product(key, "last", 6, [2, 2, 1, 0], [3, 3], 6, Grid::WithoutZero);
    last.codes.copy_within(12..24, 24);

    let residual_layer = IntegerOp::Product { main, second: Some(second), residual, step: both };
    let last_layer = IntegerOp::Logits { main: last, mul: vec![-3, 70_000, 70_000], add: vec![-9_000_000, -9, -9] };
    IntegerModel {
        arch: "corners".to_owned(),
        input: InputDescription { zero_point: vec![3, 250], scale: vec![0.5, 0.125] },
        input_shape: Shape::new(9, 7, 2),
        class_names: ["böse", "", "tie"].map(str::to_owned).to_vec(),
        layers: vec![
            layer("a", plain(image, image_step), [5, 5, 5], [0, 255]),
            layer("b", IntegerOp::MaxPool { input: 1, kernel: 3, stride: 2, padding: 2 }, [4, 4, 5], [0, 255]),
            layer("c", residual_layer, [5, 5, 8], [3, 77]),
            layer("d", plain(wide, wide_step), [3, 3, 4], [0, 1]),
            layer("e", IntegerOp::SumPool { input: 4 }, [1, 1, 4], [0, 9]),
            layer("f", plain(sums, sums_step), [2, 2, 3], [0, 250]),
            layer("g", last_layer, [1, 1, 3], [0, 0]),
        ],
    }
}

/// A product with random weights that reads a tensor of `i` channels.
fn product(
    key: Key,
    name: &str,
    input: TensorId,
    [rows, columns, stride, padding]: [usize; 4],
    [i, o]: [usize; 2],
    weight_bits: u8,
    grid: Grid,
) -> IntegerProduct {
    let key = key.with(name);
    let code = |n: usize| {
        let f = (key.u64(n as u64) >> 48) as i16 >> (16 - weight_bits);
        match grid {
            Grid::WithoutZero => 2 * f + 1,
            Grid::WithZero if weight_bits == 16 => f.clamp(-32639, 32639),
            Grid::WithZero => f.max(1 - (1 << (weight_bits - 1))),
        }
    };
    IntegerProduct {
        name: name.to_owned(),
        input,
        kernel: [rows, columns],
        stride,
        padding,
        padding_code: 0,
        out_channels: o,
        in_channels: i,
        groups: 1,
        weight_bits,
        grid,
        codes: (0..o * i * rows * columns).map(code).collect(),
    }
}
