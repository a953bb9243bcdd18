//! The time of every kernel that can compute a layer.

use anyhow::Result;
use bitpact::IntegerModel;
use bitpact::unstable::engine::LayerProfile;
use serde_json::{Value, json};

use super::{Args, profile};
use crate::out::table;

/// For each layer its kernels, the picked one first.
#[derive(Default)]
pub(super) struct Candidates(Vec<Vec<LayerProfile>>);

impl Candidates {
    /// Measures the kernels of every rank beside the `picked` ones.
    pub(super) fn measure(model: &IntegerModel, args: &Args, picked: &[LayerProfile]) -> Result<Self> {
        let mut layers: Vec<Vec<LayerProfile>> = picked.iter().map(|layer| vec![layer.clone()]).collect();
        for rank in 1.. {
            let mut is_new = false;
            for (known, layer) in layers.iter_mut().zip(profile(model, args, rank)?) {
                // A layer without a kernel of this rank keeps its last.
                if known.iter().all(|other| other.kernel != layer.kernel) {
                    known.push(layer);
                    is_new = true;
                }
            }
            if !is_new {
                break;
            }
        }
        Ok(Self(layers))
    }

    /// The kernels of one layer.
    pub(super) fn to_json(&self, layer: usize) -> Value {
        let kernels = self.0[layer].iter().enumerate();
        kernels
            .map(|(rank, of)| json!({ "kernel": of.kernel, "ms": of.time.as_secs_f64() * 1e3, "picked": rank == 0 }))
            .collect()
    }

    /// The kernels of the layers that have several.
    pub(super) fn table(&self) -> String {
        let mut lines = vec![["layer", "ms", "kernel"].map(str::to_owned).to_vec()];
        for kernels in self.0.iter().filter(|kernels| kernels.len() > 1) {
            for (rank, layer) in kernels.iter().enumerate() {
                let mark = if rank == 0 { " *" } else { "" };
                let ms = format!("{:.4}", layer.time.as_secs_f64() * 1e3);
                lines.push(vec![layer.name.clone(), ms, format!("{}{mark}", layer.kernel)]);
            }
        }
        table(&lines, &[0, 2])
    }
}
