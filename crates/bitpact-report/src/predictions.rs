//! What an integer network makes of a test set: which classes it takes for which, the mistakes it is surest of, and of
//! dense targets the examples it does best and worst.

use bitpact_data::{Dataset, TargetKind};
use bitpact_engine::{Engine, predict, softmax};
use bitpact_train::{Metric, example_metrics};

use crate::ReportError;

/// Images computed at once.
const CHUNK: usize = 100;

/// Predictions for a test set.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Examples looked at.
    pub images: usize,
    /// Names of the classes, or of the channels of the output.
    pub names: Vec<String>,
    /// Confusion matrix, `[label][predicted]`; empty where targets are no classes.
    pub confusion: Vec<u64>,
    /// The wrong predictions with the largest probability, that one first.
    pub mistakes: Vec<Mistake>,
    /// The best examples, the best one first; empty where targets are classes.
    pub best: Vec<Example>,
    /// The worst examples, the worst one first.
    pub worst: Vec<Example>,
}

/// An image of a class that the network takes for another.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Number of the image in its set.
    pub index: usize,
    /// Class of the image.
    pub label: usize,
    /// The class that the network gives it.
    pub predicted: usize,
    /// Probability of that class: softmax of the logits in real units.
    pub probability: f64,
    /// Probability of its own class.
    pub own: f64,
    /// Pixels, HWC.
    pub pixels: Vec<u8>,
}

/// An example with targets that are no classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Number of the example in its set.
    pub index: usize,
    /// Metrics of this example, the one that counts first.
    pub metrics: Vec<Metric>,
    /// Pixels of the input, HWC.
    pub pixels: Vec<u8>,
    /// The output in real units, HWC.
    pub output: Vec<f32>,
    /// The target.
    pub target: Vec<f32>,
}

impl Predictions {
    /// Runs `engine` on all of `images` and keeps `shown` mistakes, or so many best and worst examples. `told` hears
    /// how many are done and says whether to go on; where it says no, the result is `None`.
    ///
    /// # Errors
    /// Images of another shape or with other targets than the network's.
    pub fn new(
        engine: &Engine,
        images: &dyn Dataset,
        shown: usize,
        told: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Self>, ReportError> {
        let (shape, reads, kind) = (images.image_shape(), engine.input_shape(), images.target_kind());
        let outputs = engine.output_shape().elements();
        let wanted = match kind {
            TargetKind::Mask { h, w } => h * w * images.class_names().len(),
            TargetKind::Class => images.class_names().len(),
            TargetKind::Image(_) | TargetKind::Numbers(_) => kind.len(),
        };
        if (shape.h, shape.w, shape.c) != (reads.h, reads.w, reads.c) || wanted != outputs {
            let what = format!(
                "{}x{}x{} with targets that need {wanted} outputs, but the network reads {reads} and gives {outputs}",
                shape.h, shape.w, shape.c
            );
            return Err(ReportError::Images { what });
        }
        let names = engine.class_names().to_vec();
        let mut found = Self {
            images: images.len(),
            names,
            confusion: Vec::new(),
            mistakes: Vec::new(),
            best: Vec::new(),
            worst: Vec::new(),
        };
        let classes = images.class_names().len();
        if kind == TargetKind::Class {
            found.confusion = vec![0; classes * classes];
        }
        let (image, channels) = (engine.image_len(), engine.output_shape().c);
        let mut target = vec![0.0; kind.len()];
        for from in (0..images.len()).step_by(CHUNK) {
            let count = CHUNK.min(images.len() - from);
            let mut pixels = vec![0; count * image];
            pixels.chunks_exact_mut(image).enumerate().for_each(|(i, pixels)| images.image(from + i, pixels));
            let logits = engine.logits(&pixels)?;
            for (i, (logits, pixels)) in logits.chunks_exact(outputs).zip(pixels.chunks_exact(image)).enumerate() {
                let index = from + i;
                if kind == TargetKind::Class {
                    found.class(engine, logits, (index, images.label(index)), pixels, shown);
                    continue;
                }
                images.target(index, &mut target);
                let output: Vec<f32> = logits.iter().map(|&q| (q as f64 * engine.logit_scale()) as f32).collect();
                let metrics = example_metrics(kind, channels, &output, &target);
                found.example(
                    Example { index, metrics, pixels: pixels.to_vec(), output, target: target.clone() },
                    shown,
                );
            }
            if !told(from + count) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    fn class(&mut self, engine: &Engine, logits: &[i64], (index, label): (usize, usize), pixels: &[u8], shown: usize) {
        let predicted = predict(logits);
        self.confusion[label * logits.len() + predicted] += 1;
        if predicted == label {
            return;
        }
        let shares = softmax(logits, engine.logit_scale());
        let probability = shares[predicted];
        let at = self.mistakes.partition_point(|other| other.probability >= probability);
        if at < shown {
            let own = shares[label];
            self.mistakes.insert(at, Mistake { index, label, predicted, probability, own, pixels: pixels.to_vec() });
            self.mistakes.truncate(shown);
        }
    }

    fn example(&mut self, example: Example, shown: usize) {
        let score = |example: &Example| example.metrics.first().map_or(0.0, Metric::score);
        let own = score(&example);
        let best = self.best.partition_point(|other| score(other) >= own);
        if best < shown {
            self.best.insert(best, example.clone());
            self.best.truncate(shown);
        }
        let worst = self.worst.partition_point(|other| score(other) <= own);
        if worst < shown {
            self.worst.insert(worst, example);
            self.worst.truncate(shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_data::{DatasetName, Limits, load};
    use bitpact_engine::ExecOptions;
    use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
    use bitpact_model::{InputDescription, Model, convert};

    fn engine(name: DatasetName) -> (Engine, Box<dyn Dataset>) {
        let images = load(name, None, Limits { train: Some(1), test: Some(130) }).unwrap().test;
        let shape = images.image_shape();
        let graph =
            zoo::build("cnn", Shape::new(shape.h, shape.w, shape.c), images.class_names().len()).unwrap().unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
        let input = InputDescription::uniform(shape.c, 128, 1.0 / 64.0);
        let model = Model::random(graph, plan, input, images.class_names().to_vec(), 3).unwrap();
        let options = ExecOptions { threads: 1, ..Default::default() };
        (Engine::new(&convert(&model).unwrap().model, options).unwrap(), images)
    }

    #[test]
    fn the_matrix_counts_every_image_and_the_surest_mistakes_come_first() {
        let (engine, images) = engine(DatasetName::Builtin);
        let found = Predictions::new(&engine, &*images, 5, &mut |_| true).unwrap().unwrap();
        assert_eq!(found.confusion.iter().sum::<u64>(), 130);
        for label in 0..10 {
            let wanted = (0..130).filter(|&i| images.label(i) == label).count() as u64;
            assert_eq!(found.confusion[label * 10..][..10].iter().sum::<u64>(), wanted);
        }
        assert_eq!(found.mistakes.len(), 5);
        assert!(found.mistakes.is_sorted_by(|a, b| a.probability >= b.probability));
        for mistake in &found.mistakes {
            assert!(mistake.label == images.label(mistake.index) && mistake.predicted != mistake.label);
            assert!(mistake.own <= mistake.probability);
        }
        assert_eq!(Predictions::new(&engine, &*images, 5, &mut |_| false).unwrap(), None);
    }

    #[test]
    fn images_of_another_task_are_refused() {
        let (engine, _) = engine(DatasetName::Builtin);
        let masks = load(DatasetName::Segments, None, Limits { train: Some(1), test: Some(2) }).unwrap().test;
        let error = Predictions::new(&engine, &*masks, 5, &mut |_| true).unwrap_err();
        assert!(error.to_string().contains("the network reads"), "{error}");
    }
}
