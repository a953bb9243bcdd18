//! The loss of a trained network against the clip value of one activation at a time (PACT paper, figure 3).

use std::path::Path;

use bitpact_data::Dataset;
use bitpact_model::{Model, write_atomically};
use bitpact_train::{TrainBackend, simulated_loss};
use serde::{Deserialize, Serialize};

use crate::ReportError;
use crate::log::{io, lines};

/// The sweeps of a log.
pub const SWEEPS: &str = "alpha.jsonl";

/// Clip values that are tried; the trained one is too.
pub const ALPHAS: [f32; 16] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0];

/// Loss against the clip value of one activation, every other tensor as trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Name of the activation.
    pub layer: String,
    /// The trained clip value; of channels that have their own, the largest.
    pub alpha: f32,
    /// Mean cross entropy with it.
    pub loss: f64,
    /// Other clip values, the same for every channel, and the mean cross entropy with each, ascending.
    pub others: Vec<(f32, f64)>,
}

/// Sweeps the clip value of every activation of `model` over [`ALPHAS`], in the simulated view of `backend` on all of
/// `images`. `told` hears of losses that are measured and of all, and says whether to go on.
///
/// # Errors
/// Images of another shape or with other classes than the network, or tensors that `backend` does not take.
pub fn sweep(
    model: &Model,
    images: &dyn Dataset,
    backend: &mut dyn TrainBackend,
    told: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<Sweep>>, ReportError> {
    const CLIP: &str = ".clip_val";
    let names: Vec<&String> = model.tensors.keys().filter(|name| name.ends_with(CLIP)).collect();
    let all = names.len() * ALPHAS.len() + 1;
    backend.load(&model.tensors, None).map_err(bitpact_train::RunError::from)?;
    let loss = simulated_loss(backend, images)?;
    let (mut sweeps, mut done) = (Vec::new(), 1);
    for name in names {
        let mut tensors = model.tensors.clone();
        let mut others = Vec::new();
        for alpha in ALPHAS {
            if !told(done, all) {
                return Ok(None);
            }
            tensors.get_mut(name).expect("it is there").data.fill(alpha);
            backend.load(&tensors, None).map_err(bitpact_train::RunError::from)?;
            others.push((alpha, simulated_loss(backend, images)?));
            done += 1;
        }
        let alpha = model.tensors[name].data.iter().fold(0.0, |most: f32, &alpha| most.max(alpha));
        sweeps.push(Sweep { layer: name.trim_end_matches(CLIP).to_owned(), alpha, loss, others });
    }
    Ok(Some(sweeps))
}

/// Writes sweeps into the folder of a log.
///
/// # Errors
/// A file that cannot be written.
pub fn write(sweeps: &[Sweep], log: &Path) -> Result<(), ReportError> {
    let line = |sweep| serde_json::to_string(sweep).expect("plain values are JSON") + "\n";
    let path = log.join(SWEEPS);
    let text: String = sweeps.iter().map(line).collect();
    write_atomically(&path, text.as_bytes()).map_err(|error| io("write", &path)(std::io::Error::other(error)))
}

/// The sweeps in the folder of a log; none where there is no such file.
///
/// # Errors
/// A file that cannot be read.
pub fn read(log: &Path) -> Result<Vec<Sweep>, ReportError> {
    lines(&log.join(SWEEPS))
}
