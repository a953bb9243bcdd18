//! Training steps without a run: to measure what a recipe costs on this machine.

use bitpact_core::rng::Key;
use bitpact_data::{DataError, Dataset, ImageShape, InMemory};
use bitpact_kernels::Isa;

use crate::recipe::ClipInit;
use crate::trainer::{Batches, Setup};
use crate::{
    BackendKind, Images, LossInput, Recipe, RunError, StepInput, StepOutcome, Targets, TrainBackend, TrainError,
    initial_tensors,
};

/// Of the recipe's learning rate: labels at random teach nothing, and weights should stay about what they are.
const RATE_SCALE: f64 = 1.0 / 64.0;

/// The steps of a recipe over the same first images again and again, augmented anew in each, with the weights that a
/// run starts from. Where the bits change in the course of the run, the last ones; without a teacher. Nothing is
/// evaluated or written.
pub struct Rehearsal<'a> {
    setup: Setup,
    batches: Batches<'a>,
    backend: Box<dyn TrainBackend>,
    indices: Vec<u32>,
    /// Dense targets of the batch.
    targets: Vec<f32>,
    steps: u64,
}

impl<'a> Rehearsal<'a> {
    /// Plans and initializes the network of `recipe` for `images`, of which there must be a batch.
    ///
    /// # Errors
    /// See [`Setup::new`] and [`BackendKind::build`].
    pub fn new(
        recipe: &Recipe,
        images: &'a dyn Dataset,
        kind: BackendKind,
        isa: Isa,
        threads: usize,
    ) -> Result<Self, RunError> {
        let recipe = &Recipe { bits: recipe.bits.last().into(), teacher: None, ..recipe.clone() };
        let setup = Setup::new(recipe, &Images { train: images, test: images })?;
        let mut backend = setup.backend(kind, isa, threads)?;
        let clip = match recipe.clip_init {
            ClipInit::Fixed(value) => value as f32,
            ClipInit::Calibrate { .. } => 1.0,
        };
        backend.load(&initial_tensors(&setup.graph, &setup.plan, recipe.seed, clip), None)?;
        let batches = Batches::new(&setup, images);
        if let ClipInit::Calibrate { percentile, .. } = recipe.clip_init {
            backend.calibrate(percentile, &|i, out, place| batches.fill(0, i, out, place))?;
        }
        let indices = (0..recipe.batch_size as u32).collect();
        let of_target = setup.loss.map_or(0, |_| images.target_kind().len());
        let targets = vec![0.0; recipe.batch_size * of_target];
        Ok(Self { setup, batches, backend, indices, targets, steps: 0 })
    }

    /// The resolved setup of the run that is rehearsed.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The machine that trains it.
    pub fn backend(&self) -> &dyn TrainBackend {
        &*self.backend
    }

    /// The machine that trains it.
    pub fn backend_mut(&mut self) -> &mut dyn TrainBackend {
        &mut *self.backend
    }

    /// The next step.
    ///
    /// # Errors
    /// See [`TrainBackend::step`].
    pub fn step(&mut self) -> Result<StepOutcome, TrainError> {
        let (batches, indices, epoch) = (&self.batches, &self.indices, self.steps);
        let mixup = batches.mixup(self.steps);
        let fill = |i: usize, out: &mut [u8], place| batches.fill_step(epoch, indices, i, mixup, &|_| None, out, place);
        let label_smoothing = self.setup.recipe.label_smoothing as f32;
        let key = Key::new(self.setup.recipe.seed).with("step").at(self.steps);
        let lr = (self.setup.recipe.lr * RATE_SCALE) as f32;
        self.steps += 1;
        if self.setup.loss.is_some() {
            batches.targets(epoch, indices, &|_| None, &mut self.targets);
        }
        let targets = self.setup.loss.map(|loss| Targets { loss, values: &self.targets });
        let loss = LossInput { label_smoothing, mixup, teacher: None, targets };
        let sum_noise = self.setup.recipe.sum_noise as f32;
        self.backend.step(&StepInput { lr, fill: &fill, key, sum_noise, loss })
    }
}

/// `images` images of random pixels and labels, the same every time.
///
/// # Errors
/// Sizes or numbers of zero.
pub fn random_images(shape: ImageShape, classes: usize, images: usize) -> Result<InMemory, DataError> {
    let (pixels, labels) = (Key::new(1).with("pixels"), Key::new(1).with("labels"));
    let pixels = (0..images * shape.len()).map(|i| pixels.u64(i as u64) as u8).collect();
    let labels = (0..images).map(|i| (labels.u64(i as u64) % classes.max(1) as u64) as u16).collect();
    InMemory::new(pixels, labels, shape, (0..classes).map(|class| class.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Pass};

    #[test]
    fn steps_are_those_of_the_recipe_and_can_be_measured() {
        let mut draft = Draft::open("builtin").unwrap();
        draft.set("arch", "cnn", "arch");
        draft.set("batch_size", 6, "batch_size");
        let recipe = draft.finish().unwrap();
        let shape = ImageShape { h: 12, w: 8, c: 3 };
        let images = random_images(shape, 4, 6).unwrap();
        let run = |threads, profile| {
            let mut rehearsal = Rehearsal::new(&recipe, &images, BackendKind::Cpu, Isa::detect(), threads).unwrap();
            rehearsal.backend_mut().set_profile(profile);
            let losses: Vec<f64> = (0..3).map(|_| rehearsal.step().unwrap().loss).collect();
            (losses, rehearsal.backend().profile(), rehearsal.backend().work())
        };
        let (losses, times, work) = run(2, true);
        assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.1));
        let (again, none, _) = run(1, false);
        assert_eq!((again, none), (losses, None));
        let times = times.unwrap();
        assert_eq!((times.steps, times.busy.len()), (3, 2));
        for work in &work {
            assert!(work.pass.is_product() && work.macs > 0 && work.macs % 6 == 0, "{work:?}");
            assert!(times.passes.contains_key(&(work.layer.clone(), work.pass)), "{work:?}");
        }
        for pass in [Pass::Images, Pass::Weights, Pass::Loss, Pass::Optimizer] {
            assert!(times.passes.contains_key(&(String::new(), pass)), "{pass}");
        }
        // The network's own count, once forward, once for the weights, and once but for the first layer for the input.
        let graph = recipe.network(bitpact_graph::Shape::new(12, 8, 3), 4).unwrap();
        let counts = bitpact_graph::counts::layers(&graph, &recipe.plan(&graph).unwrap());
        let macs = 6 * counts.iter().map(|layer| layer.macs).sum::<u64>();
        let of = |pass| work.iter().filter(|work| work.pass == pass).map(|work| work.macs).sum::<u64>();
        assert_eq!((of(Pass::Product), of(Pass::WeightGradient)), (macs, macs));
        assert_eq!(of(Pass::InputGradient), macs - work[0].macs);
    }
}
