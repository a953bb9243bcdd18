//! The network that a run learns from.

use std::path::Path;

use bitpact_data::Dataset;
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use bitpact_model::{Checkpoint, Model, are_numbers};

use super::RunError;
use crate::run_folder::LAST;
use crate::{BackendKind, BackendSpec, Fill, TeacherInput, TrainBackend};

/// A trained network whose logits are learned.
#[derive(Debug, Clone)]
pub struct Teacher {
    /// The network.
    pub model: Model,
    /// [`Model::checksum`], by which a resumed run knows its teacher.
    pub checksum: u32,
}

impl Teacher {
    /// The network of the checkpoint `path`, or of the run in that folder, for images like these.
    pub(super) fn load(path: impl AsRef<Path>, images: &dyn Dataset) -> Result<Self, RunError> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join(LAST) } else { path.to_owned() };
        let model = Checkpoint::load(&path)?.model;
        let misfit = |what: String| Err(RunError::Teacher { path: path.clone(), what });
        let shape = images.image_shape();
        let (reads, shape) = (model.graph.input(), Shape::new(shape.h, shape.w, shape.c));
        if reads != shape {
            return misfit(format!("it reads images of {reads}, the training images are {shape}"));
        }
        let (own, others) = (model.class_names.len(), images.class_names().len());
        if own != others || (model.class_names != images.class_names() && !are_numbers(&model.class_names)) {
            return misfit(match own == others {
                true => "its classes have other names than those of the training images".to_owned(),
                false => format!("it knows {own} classes, the training images have {others}"),
            });
        }
        let checksum = model.checksum()?;
        Ok(Self { model, checksum })
    }
}

/// A teacher at work: its simulated view of every batch.
pub(super) struct Teaching {
    backend: Box<dyn TrainBackend>,
    logits: Vec<f32>,
    temperature: f32,
    weight: f32,
}

impl Teaching {
    pub(super) fn new(
        teacher: &Teacher,
        (temperature, weight): (f64, f64),
        batch_size: usize,
        kind: BackendKind,
        isa: Isa,
        threads: usize,
    ) -> Result<Self, RunError> {
        let Model { graph, plan, input, tensors, .. } = &teacher.model;
        let mut backend =
            kind.build(&BackendSpec { isa, threads, ..BackendSpec::new(graph, plan, input, batch_size) })?;
        backend.load(tensors, None)?;
        Ok(Self { backend, logits: Vec::new(), temperature: temperature as f32, weight: weight as f32 })
    }

    /// What the teacher says about a batch.
    pub(super) fn look(&mut self, fill: Fill) -> TeacherInput<'_> {
        self.backend.simulate(self.backend.batch_size(), fill, &mut self.logits);
        TeacherInput { logits: &self.logits, temperature: self.temperature, weight: self.weight }
    }
}
