//! Whole networks on chips whose cells have been drawn: accuracy, errors of every layer, and what an image takes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bitpact_core::rng::Key;
use bitpact_engine::{Interpreter, Sums, Trace};
use bitpact_kernels::Pool;
use bitpact_model::IntegerModel;

use super::cell::Cell;
use super::chip::{ChipLayer, ReadErrors};
use super::cost::LayerCost;
use super::counts::{CountLayer, CountTable};
use super::layers::{Layer, layers};
use super::patterns::CHUNK;
use crate::AccelError;

/// Images of every chip whose reads are compared with the true counts.
const ERROR_IMAGES: usize = 1;
/// Memory that the tables of one chip may take.
const MOST_BYTES: usize = 4 << 30;

/// Method that simulates reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every cell has its own current, frozen for the chip.
    Cells,
    /// Layers with inputs and weights of 1 bit follow the table of errors by count, where reads have more than eight
    /// rows; all others are simulated by cells.
    Counts,
}

/// Chips, method and layers of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Number of chips.
    pub chips: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Method that simulates reads.
    pub method: Method,
    /// Whether the layer that reads the image and the last one are on arrays too; else they are exact.
    pub ends: bool,
    /// Number of threads.
    pub threads: usize,
}

/// One layer of a study.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayerStudy {
    /// Name of the product.
    pub name: String,
    /// Its reads that were compared, of all chips; none with the table of errors by count, which has no levels.
    pub errors: ReadErrors,
    /// Share of the input bits that are 1, on the first image of the first chip.
    pub activity: f64,
    /// Sub-arrays, energy and time of the layer for one image.
    pub cost: LayerCost,
}

/// A network on chips.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Study {
    /// Number of images.
    pub images: usize,
    /// Top-1 accuracy of the exact integers.
    pub exact: f64,
    /// Top-1 accuracy of every chip.
    pub chips: Vec<f64>,
    /// Share of images whose prediction is the exact one, over all chips.
    pub agreement: f64,
    /// Share of images whose logits are the exact ones.
    pub identical: f64,
    /// Layers that are on arrays.
    pub layers: Vec<LayerStudy>,
}

impl Study {
    /// Mean accuracy of the chips.
    pub fn mean(&self) -> f64 {
        self.chips.iter().sum::<f64>() / self.chips.len() as f64
    }

    /// Standard deviation of the accuracy from chip to chip; 0 of one chip.
    pub fn deviation(&self) -> f64 {
        let squares: f64 = self.chips.iter().map(|x| (x - self.mean()).powi(2)).sum();
        (squares / (self.chips.len() as f64 - 1.0).max(1.0)).sqrt()
    }

    /// Accuracy of the worst chip.
    pub fn worst(&self) -> f64 {
        self.chips.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Errors of all layers' reads.
    pub fn errors(&self) -> ReadErrors {
        let mut all = ReadErrors::default();
        self.layers.iter().for_each(|layer| all.add(layer.errors));
        all
    }
}

/// The layers of `model` that a study puts on arrays.
///
/// # Errors
/// A layer that arrays cannot compute, or no layer at all.
pub fn array_layers(model: &IntegerModel, ends: bool) -> Result<Vec<Layer>, AccelError> {
    let mut all = layers(model)?;
    all.retain(|layer| ends || !layer.is_end);
    if all.is_empty() {
        let what = "it has no layer between its first and its last one".to_owned();
        return Err(AccelError::OnArrays { network: model.arch.clone(), what });
    }
    Ok(all)
}

/// Says whether the table of errors by count holds for the reads of `layer`. Bits of higher weight drive few rows, so
/// their reads are wrong seldom, for neighbouring pixels together and by much: no normal number with the variance of
/// the remainder has that effect. Few rows have few patterns, whose table by cells is as small and as fast.
fn counts_hold(cell: &Cell, layer: &Layer) -> bool {
    cell.array.rows_at_once > CHUNK && layer.input_bits == 1 && layer.weight_bits == 1
}

/// A layer of one chip.
enum ChipOf {
    Cells(Box<ChipLayer>),
    Counts(Box<CountLayer>),
}

/// A chip: every layer's cells, or what draws its reads.
pub struct Chip {
    layers: Vec<ChipOf>,
}

/// Errors and activity of a layer's reads.
type Found = (ReadErrors, f64);

/// A network on arrays, chip by chip.
pub struct Simulation<'a> {
    model: &'a IntegerModel,
    cell: &'a Cell,
    seed: u64,
    layers: Vec<Layer>,
    /// Which of `layers` a product is.
    places: HashMap<(usize, usize), usize>,
    table: Option<CountTable>,
}

impl<'a> Simulation<'a> {
    /// `model` on arrays of `cell`.
    ///
    /// # Errors
    /// Layers that arrays cannot compute, tables that take too much memory, or no layer that the table of errors by
    /// count holds for where it is asked for.
    pub fn new(model: &'a IntegerModel, cell: &'a Cell, options: &Options) -> Result<Self, AccelError> {
        let layers = array_layers(model, options.ends)?;
        let fail = |what| Err(AccelError::OnArrays { network: model.arch.clone(), what });
        let is_counted = |layer: &&Layer| options.method == Method::Counts && counts_hold(cell, layer);
        let (by_count, by_cell): (Vec<&Layer>, Vec<&Layer>) = layers.iter().partition(is_counted);
        if by_count.is_empty() && options.method == Method::Counts {
            return fail(format!(
                "the table of errors by count holds for inputs and weights of 1 bit and reads of more than {CHUNK} rows, which no layer has"
            ));
        }
        let bytes = by_count.iter().map(|layer| CountLayer::bytes(cell, layer)).sum::<usize>()
            + by_cell.iter().map(|layer| ChipLayer::bytes(cell, layer)).sum::<usize>();
        if bytes > MOST_BYTES {
            return fail(format!(
                "the tables of a chip take {} GiB, expected at most {}",
                bytes >> 30,
                MOST_BYTES >> 30
            ));
        }
        let places: HashMap<_, _> =
            layers.iter().enumerate().map(|(i, layer)| ((layer.layer, layer.which), i)).collect();
        let table = (!by_count.is_empty()).then(|| CountTable::new(cell));
        Ok(Self { model, cell, seed: options.seed, layers, places, table })
    }

    /// Draws chip `number`.
    pub fn chip(&self, number: usize, pool: &Pool) -> Chip {
        let key = Key::new(self.seed).with("chip").at(number as u64);
        let layers = in_parallel(pool, self.layers.len(), |i| match &self.table {
            Some(table) if counts_hold(self.cell, &self.layers[i]) => {
                ChipOf::Counts(Box::new(CountLayer::new(table, &self.layers[i], key)))
            }
            _ => ChipOf::Cells(Box::new(ChipLayer::new(self.cell, &self.layers[i], key))),
        });
        Chip { layers }
    }

    /// Every code of an image.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn trace(&self, chip: &Chip, pixels: &[u8]) -> Trace {
        self.run(chip, pixels, None).0
    }

    fn run(&self, chip: &Chip, pixels: &[u8], found: Option<Vec<Found>>) -> (Trace, Option<Vec<Found>>) {
        let mut view = View { of: self, chip, found };
        let trace = Interpreter::new(self.model).run_with(pixels, &mut view);
        (trace, view.found)
    }
}

/// A chip as the interpreter sees it, for one image.
struct View<'a> {
    of: &'a Simulation<'a>,
    chip: &'a Chip,
    /// Errors and activity of every layer, where they are wanted.
    found: Option<Vec<Found>>,
}

impl Sums for View<'_> {
    fn computes(&self, layer: usize, which: usize) -> bool {
        self.of.places.contains_key(&(layer, which))
    }

    fn sums(&mut self, layer: usize, which: usize, windows: &[i64]) -> Vec<i64> {
        let place = self.of.places[&(layer, which)];
        let found = self.found.as_mut().map(|found| &mut found[place]);
        match (&self.chip.layers[place], &self.of.table) {
            (ChipOf::Counts(layer), Some(table)) => {
                if let Some(found) = found {
                    found.1 = layer.activity(windows);
                }
                layer.sums(table, windows)
            }
            (ChipOf::Cells(layer), _) => {
                if let Some(found) = found {
                    *found = layer.errors(windows);
                }
                layer.sums(windows)
            }
            (ChipOf::Counts(_), None) => unreachable!("layers by count are drawn where there is a table"),
        }
    }
}

/// Runs `model` on `options.chips` chips of `cell`'s arrays: `pixels` are images one after the other, `exact` the
/// logits of the exact integers, `labels` the right classes. `progress` is told how many images of all chips are done.
/// The seed alone decides the result, for any number of threads.
///
/// # Errors
/// Those of [`Simulation::new`].
///
/// # Panics
/// If there are not as many labels and logits as images, or none.
pub fn study(
    model: &IntegerModel,
    cell: &Cell,
    options: &Options,
    pixels: &[u8],
    exact: &[i64],
    labels: &[usize],
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Study, AccelError> {
    let (images, length) = (labels.len(), model.example_bytes());
    let classes = model.classes();
    assert!(images > 0 && exact.len() == images * classes, "logits and a label for each image");
    assert_eq!(pixels.len(), images * length, "pixels of whole images");
    let simulation = Simulation::new(model, cell, options)?;
    let pool = Pool::new(options.threads);
    let exact: Vec<(usize, &[i64])> =
        exact.chunks(classes).map(|logits| (bitpact_engine::predict(logits), logits)).collect();
    let (done, mut agree, mut identical) = (AtomicUsize::new(0), 0, 0);
    let mut chips = Vec::new();
    let mut found = vec![(ReadErrors::default(), 0.0); simulation.layers.len()];
    for number in 0..options.chips {
        let chip = simulation.chip(number, &pool);
        let results = in_parallel(&pool, images, |image| {
            let wanted = (image < ERROR_IMAGES).then(|| vec![(ReadErrors::default(), 0.0); simulation.layers.len()]);
            let (trace, found) = simulation.run(&chip, &pixels[image * length..][..length], wanted);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            (bitpact_engine::predict(trace.logits()), trace.logits() == exact[image].1, found)
        });
        let right = results.iter().zip(labels).filter(|((class, ..), label)| class == *label).count();
        chips.push(right as f64 / images as f64);
        agree += results.iter().zip(&exact).filter(|((class, ..), exact)| *class == exact.0).count();
        identical += results.iter().filter(|(_, same, _)| *same).count();
        for (image, (.., one)) in results.into_iter().enumerate() {
            for (sum, (errors, activity)) in found.iter_mut().zip(one.unwrap_or_default()) {
                sum.0.add(errors);
                if number == 0 && image == 0 {
                    sum.1 = activity;
                }
            }
        }
    }
    let layers = simulation.layers.iter().zip(found).map(|(layer, (errors, activity))| LayerStudy {
        name: layer.name.clone(),
        errors,
        activity,
        cost: LayerCost::new(cell, layer, activity),
    });
    Ok(Study {
        images,
        exact: exact.iter().zip(labels).filter(|(exact, label)| exact.0 == **label).count() as f64 / images as f64,
        agreement: agree as f64 / (images * options.chips) as f64,
        identical: identical as f64 / (images * options.chips) as f64,
        chips,
        layers: layers.collect(),
    })
}

/// `f` of `0..n`, in order, computed by all threads.
fn in_parallel<T: Send>(pool: &Pool, n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<Mutex<Option<T>>> = (0..n).map(|_| Mutex::new(None)).collect();
    pool.run(n, &|i, _| *slots[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(f(i)));
    let value = |slot: Mutex<Option<T>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner).expect("computed");
    slots.into_iter().map(value).collect()
}
