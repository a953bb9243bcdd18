//! How much of what quantization takes from a network's convolutions low-rank adapters bring back: the figures of CoRa
//! (arXiv 2408.00923) on weights of one's own.
//!
//! ```text
//! cargo run --release -p bitpact-train --example cora_residuals -- resnet20.safetensors
//! ```
//!
//! Every convolution has the rank `max(1, ceil(R c))`, R being its output channels. `err` is the norm of all residuals
//! over that of all weights, `captured` the share of their squared norm in the kept ranks.

use std::error::Error;

use bitpact_model::Checkpoint;
use bitpact_ptq::{Matrix, Residual, cora_weights};

type Quantizer = fn(&Matrix, u32) -> Matrix;

fn per_channel(weights: &Matrix, bits: u32) -> Matrix {
    let mut all = Vec::new();
    for r in 0..weights.rows() {
        let row = Matrix::new(1, weights.cols(), weights.row(r).to_vec()).expect("one row");
        all.extend(cora_weights(&row, bits, None).into_data());
    }
    Matrix::new(weights.rows(), weights.cols(), all).expect("all rows")
}

const QUANTIZERS: [(&str, Quantizer); 4] = [
    ("per tensor, k = 3", |w, bits| cora_weights(w, bits, Some(3.0))),
    ("per tensor, k = 5", |w, bits| cora_weights(w, bits, Some(5.0))),
    ("per tensor, min-max", |w, bits| cora_weights(w, bits, None)),
    ("per channel, min-max", per_channel),
];

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("expected a checkpoint, such as `bitpact import` makes")?;
    let is_convolution = |shape: &[usize]| shape.len() == 4;
    let tensors = Checkpoint::load(&file)?.model.tensors.into_values().filter(|tensor| is_convolution(&tensor.shape));
    let layers = tensors
        .map(|tensor| Matrix::new(tensor.shape[0], tensor.shape[1..].iter().product(), tensor.data))
        .collect::<Result<Vec<_>, _>>()?;
    let weights: usize = layers.iter().map(|w| w.data().len()).sum();
    println!("{} convolutions, {weights} weights", layers.len());
    for (cutoff, bits) in [(0.031, 4), (0.031, 3), (0.078, 4), (0.218, 4)] {
        let rank = |w: &Matrix| ((w.rows().min(w.cols()) as f64 * cutoff).ceil() as usize).max(1);
        let parameters: usize = layers.iter().map(|w| rank(w) * (w.rows() + w.cols())).sum();
        println!("c = {cutoff}, {bits} bits: adapters of {:.2} %", 100.0 * parameters as f64 / weights as f64);
        for (name, quantize) in QUANTIZERS {
            let (mut kept, mut all, mut energy) = (0.0, 0.0, 0.0);
            for w in &layers {
                let quantized = quantize(w, bits);
                let residual = Matrix::from_fn(w.rows(), w.cols(), |r, c| w.row(r)[c] - quantized.row(r)[c]);
                let residual = Residual::new(residual, None)?;
                kept += residual.energies()[..rank(w)].iter().sum::<f64>();
                all += residual.energies().iter().sum::<f64>();
                energy += w.data().iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
            }
            println!("  {name:<20}  err {:.4}  captured {:.3}", (all / energy).sqrt(), kept / all);
        }
    }
    Ok(())
}
