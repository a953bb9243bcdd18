//! Outputs of an ONNX network as it is imported: `onnx_forward NETWORK.onnx IMAGES OUTPUT [HxWxC]`.
//!
//! IMAGES holds float32 values of what the network reads, `[image][row][column][channel]`; OUTPUT gets one float32 for
//! each value of each output, in the same order. The network is computed in plain loops in float64: exact and slow.

#[path = "../tests/common/forward.rs"]
mod forward;

use std::error::Error;

use bitpact_graph::Shape;
use bitpact_interop::{ImportOptions, Pixels, import};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, images, output, shape @ ..] = &arguments[..] else {
        return Err("onnx_forward NETWORK.onnx IMAGES OUTPUT [HxWxC]".into());
    };
    let sizes: Vec<usize> = shape.iter().flat_map(|text| text.split('x')).map(str::parse).collect::<Result<_, _>>()?;
    let input_shape = if let [h, w, c] = sizes[..] { Some(Shape::new(h, w, c)) } else { None };
    let options = ImportOptions { input_shape, pixels: Pixels::named("raw255"), ..ImportOptions::default() };
    let imported = import(network, &options)?;
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    let model = imported.model;
    let (each, scale) = (model.graph.input().elements(), &model.input.scale);
    let values: Vec<f64> = std::fs::read(images)?
        .chunks_exact(4)
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes"))))
        .collect();
    let mut bytes = Vec::new();
    for image in values.chunks_exact(each) {
        // What the graph does to the image before its first layer is part of what a pixel means.
        let meant = image.iter().enumerate().map(|(i, &x)| {
            let c = i % scale.len();
            f64::from(scale[c]) * (x - f64::from(model.input.zero_point[c]))
        });
        let outputs = forward::forward(&model, &meant.collect::<Vec<_>>());
        bytes.extend(outputs.iter().flat_map(|&v| (v as f32).to_le_bytes()));
    }
    std::fs::write(output, bytes)?;
    Ok(())
}
