//! Outputs of a float network: `logits CHECKPOINT IMAGES OUTPUT`.
//!
//! IMAGES holds pixels, one byte each, of images one after the other, `[image][row][column][channel]`; OUTPUT gets one
//! float32 for each value of each output, in the same order.

use std::error::Error;

use bitpact::Checkpoint;
use bitpact::unstable::data::Placement;
use bitpact::unstable::train::{BackendKind, BackendSpec};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoint, images, output] = &arguments[..] else { return Err("logits CHECKPOINT IMAGES OUTPUT".into()) };
    let model = Checkpoint::load(checkpoint)?.model;
    let pixels = std::fs::read(images)?;
    let each = model.graph.input().elements();
    let spec = BackendSpec::new(&model.graph, &model.plan, &model.input, 1);
    let mut backend = BackendKind::Cpu.build(&spec)?;
    backend.load(&model.tensors, None)?;
    let (mut logits, mut bytes) = (Vec::new(), Vec::new());
    for image in pixels.chunks_exact(each) {
        let fill = |_: usize, to: &mut [u8], place: Placement| {
            let row = model.graph.input().w * model.graph.input().c;
            for (y, pixels) in image.chunks_exact(row).enumerate() {
                for (x, pixel) in pixels.chunks_exact(model.graph.input().c).enumerate() {
                    let at = place.offset + y * place.row_stride + x * place.pixel_stride;
                    to[at..at + pixel.len()].copy_from_slice(pixel);
                }
            }
            0
        };
        backend.simulate(1, &fill, &mut logits);
        bytes.extend(logits.iter().flat_map(|v| v.to_le_bytes()));
    }
    std::fs::write(output, bytes)?;
    Ok(())
}
