//! A stand-in for a trainer: every tensor moves by an amount that depends on all pixels, the rate and the momentum.

use std::collections::BTreeMap;

use bitpact_data::Placement;
use bitpact_graph::{QuantPlan, Shape};
use bitpact_model::Tensor;

use super::Setup;
use crate::{Fill, LayerStatistics, OptimizerState, StepInput, StepOutcome, TrainBackend, TrainError};

pub(super) struct FakeBackend {
    batch_size: usize,
    shape: Shape,
    classes: usize,
    zero_point: u8,
    is_float: bool,
    levels: u32,
    tensors: BTreeMap<String, Tensor>,
    momentum: BTreeMap<String, Tensor>,
    steps: u64,
    average: Option<BTreeMap<String, Tensor>>,
    last: Option<u64>,
}

impl FakeBackend {
    pub(super) fn new(setup: &Setup) -> Self {
        let input = setup.graph.input();
        Self {
            batch_size: setup.recipe.batch_size,
            shape: input,
            classes: setup.graph.classes(),
            zero_point: setup.input.zero_bytes()[0],
            is_float: setup.plan.is_float(),
            levels: 16,
            tensors: BTreeMap::new(),
            momentum: BTreeMap::new(),
            steps: 0,
            average: (setup.recipe.ema_decay > 0.0).then(BTreeMap::new),
            last: None,
        }
    }

    /// A number that depends on every pixel and label of `images` images, their order included.
    fn digest(&self, images: usize, fill: Fill) -> (u64, u64) {
        let (mut digest, mut sum) = (0u64, 0u64);
        for i in 0..images {
            // Pixels of four bytes with one pixel of border.
            let (h, w) = (self.shape.h + 2, self.shape.w + 2);
            let place = Placement { offset: 4 * (w + 1), row_stride: 4 * w, pixel_stride: 4 };
            let mut image = vec![self.zero_point; 4 * h * w];
            let label = fill(i, &mut image, place);
            for &byte in image.iter().chain([&(label as u8)]) {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                sum += u64::from(byte);
            }
        }
        (digest, sum)
    }
}

impl TrainBackend for FakeBackend {
    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn input_shape(&self) -> Shape {
        self.shape
    }

    fn calibrate(&mut self, _: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        let (_, sum) = self.digest(self.batch_size, fill);
        // What a real calibration disturbs must be put right by the trainer.
        for tensor in self.tensors.values_mut() {
            tensor.data.fill(77.0);
        }
        Ok(BTreeMap::from([("act1.clip_val".to_owned(), (sum % 64) as f32 / 16.0 + 1.0)]))
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        let (mut digest, _) = self.digest(self.batch_size, input.fill);
        let logits = input.loss.teacher.map_or(&[][..], |teacher| teacher.logits);
        for word in logits.iter().map(|z| z.to_bits()).chain(input.loss.mixup.map(u32::from)) {
            digest = (digest ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for (name, tensor) in &mut self.tensors {
            if name.contains("running") {
                continue;
            }
            let momentum = self.momentum.entry(name.clone()).or_insert_with(|| Tensor::full(&tensor.shape, 0.0));
            for (i, (w, v)) in tensor.data.iter_mut().zip(&mut momentum.data).enumerate() {
                let g = ((digest.rotate_left(i as u32 % 64) % 1000) as f32 - 500.0) / 5000.0;
                *v = 0.9 * *v + g;
                *w -= input.lr * *v;
            }
        }
        self.steps += 1;
        for (name, average) in self.average.iter_mut().flatten() {
            let weight = 1.0 / (self.steps + 1) as f32;
            average.data.iter_mut().zip(&self.tensors[name].data).for_each(|(a, w)| *a += weight * (w - *a));
        }
        self.last = Some(digest);
        Ok(StepOutcome { loss: (digest % 977) as f64 / 310.0, correct: (digest % 8) as usize })
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        assert!(images > 0 && images <= self.batch_size);
        let (digest, _) = self.digest(images, fill);
        logits.clear();
        logits.extend((0..images * self.classes).map(|i| (digest.rotate_left(i as u32) % 100) as f32));
    }

    fn parameter_mut(&mut self, _: &str) -> Option<(&mut [f32], &[f32])> {
        None
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        all.clear();
        if self.is_float {
            return;
        }
        let digest = self.last.unwrap_or(0);
        all.push(LayerStatistics {
            name: "act1".to_owned(),
            alpha: self.tensors["act1.clip_val"].data[0],
            alpha_gradient: (digest % 13) as f32 / 7.0,
            clipped: (digest % 101) as f64 / 303.0,
            zero: (digest % 7) as f64 / 9.0,
            occupancy: (0..self.levels).map(|i| (digest.rotate_left(i) % 17) as f64 / 160.0).collect(),
            alpha_clamped: u64::from(digest.is_multiple_of(5)),
        });
    }

    fn reset_statistics(&mut self) {
        self.last = None;
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.tensors.clone()
    }

    fn optimizer_state(&self) -> OptimizerState {
        let (momentum, average) = (self.momentum.clone(), self.average.clone());
        OptimizerState { steps: self.steps, momentum, second_moment: BTreeMap::new(), average }
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        self.tensors = tensors.clone();
        let state = state.cloned().unwrap_or_default();
        (self.steps, self.momentum) = (state.steps, state.momentum);
        if self.average.is_some() {
            self.average = state.average.or_else(|| Some(tensors.clone()));
        }
        Ok(())
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        self.is_float = plan.is_float();
        self.levels = plan.activations.get("act1").map_or(0, |act| act.bits.q_max() as u32 + 1);
        (self.tensors, self.momentum, self.last) = Default::default();
        Ok(())
    }

    fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            std::mem::swap(&mut self.tensors, average);
        }
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        let (digest, _) = self.digest(self.batch_size, fill);
        for (name, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.contains("running")) {
            let fresh = (digest.rotate_left(name.len() as u32) % 1000) as f32 / 500.0;
            tensor.data.iter_mut().for_each(|v| *v += (fresh - *v) / (batch + 1) as f32);
        }
    }
}
