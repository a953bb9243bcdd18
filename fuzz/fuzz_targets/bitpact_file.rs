//! Any bytes as a `.bitpact` file, their length and checksum made right so that mutations reach what lies behind them.
//! What is accepted is written again byte by byte, and a small network computes the interpreter's integers on every
//! path.
//!
//! Seeds: any `.bitpact` files, such as those of crates/bitpact-engine/tests/independent/.

#![no_main]

use bitpact_engine::{ExecOptions, Executor, Interpreter};
use bitpact_graph::Window;
use bitpact_kernels::Isa;
use bitpact_model::{IntegerLayer, IntegerModel, IntegerOp, IntegerTerm};
use libfuzzer_sys::fuzz_target;

/// Multiply-adds and moves of the largest network that is run.
const MOST_MACS: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() >= 24 {
        let length = bytes.len() as u64;
        bytes[12..20].copy_from_slice(&length.to_le_bytes());
        let body = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(model) = IntegerModel::from_bytes(&bytes, "fuzz") else { return };
    assert_eq!(model.to_bytes().expect("what was read can be written"), bytes);
    // What the interpreter does for one pixel, times the pixels.
    let taps = |window: &Window| window.kernel[0].saturating_mul(window.kernel[1]);
    let work = |layer: &IntegerLayer| {
        let c = layer.shape.c;
        let term = |term: &IntegerTerm| match term.product() {
            Some(p) => p.in_channels.saturating_mul(taps(&p.window)).saturating_add(p.codes.len()),
            None => c,
        };
        let pixel = match &layer.op {
            IntegerOp::Sum(sum) => sum.terms.iter().map(term).fold(sum.base.len() * c, usize::saturating_add),
            IntegerOp::MaxPool { window, .. } | IntegerOp::WindowSum { window, .. } => taps(window).saturating_mul(c),
            IntegerOp::Concat { .. } | IntegerOp::View(_) => c,
        };
        pixel.saturating_mul(layer.shape.h * layer.shape.w)
    };
    let macs = model.layers.iter().map(work).fold(model.input_shape.elements(), usize::saturating_add);
    if macs > MOST_MACS {
        return;
    }
    let pixels: Vec<u8> = (0..model.input_shape.elements()).map(|i| (i * 37 + 11) as u8).collect();
    let expected = Interpreter::new(&model).run(&pixels);
    for isa in Isa::available() {
        let mut executor = Executor::new(&model, ExecOptions { isa, threads: 1 }).expect("a valid network runs");
        assert_eq!(executor.trace(&pixels), expected, "{isa}");
    }
});
