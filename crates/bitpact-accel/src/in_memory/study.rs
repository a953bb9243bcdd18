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
/// Images that tell the table of errors by count how often each row is driven.
const SAMPLE_IMAGES: usize = 8;
/// Memory that the tables of one chip may take.
const MOST_BYTES: usize = 4 << 30;

/// Method that simulates reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every cell has its own current, frozen for the chip.
    Cells,
    /// Reads draw from the table of errors by count.
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
    /// Its reads that were compared, of all chips; none with the table of errors by count, which has no cells.
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
        let what = "the network has no layer between its first and its last one".to_owned();
        return Err(AccelError::Array { layer: model.arch.clone(), what });
    }
    Ok(all)
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
    /// The share of the reads that drive each input of the window of each of `layers`.
    driven: Vec<Vec<f32>>,
}

impl<'a> Simulation<'a> {
    /// `model` on arrays of `cell`. The table of errors by count learns from the images `sample` how often each row is
    /// driven; without any, all of them equally often.
    ///
    /// # Errors
    /// Layers that arrays cannot compute, tables that take too much memory, or a cell without a table of errors by
    /// count.
    pub fn new(model: &'a IntegerModel, cell: &'a Cell, options: &Options, sample: &[u8]) -> Result<Self, AccelError> {
        let layers = array_layers(model, options.ends)?;
        let table = (options.method == Method::Counts).then(|| CountTable::new(cell)).transpose()?;
        let bytes: usize = layers.iter().map(|layer| ChipLayer::bytes(cell, layer)).sum();
        let has_tables = table.is_none() || cell.array.rows_at_once <= CHUNK;
        if has_tables && bytes > MOST_BYTES {
            let what = format!(
                "the tables of a chip take {} GiB; reads of more than {CHUNK} rows by the table of errors by count need none",
                bytes >> 30
            );
            return Err(AccelError::Array { layer: model.arch.clone(), what });
        }
        let places: HashMap<_, _> =
            layers.iter().enumerate().map(|(i, layer)| ((layer.layer, layer.which), i)).collect();
        let mut simulation = Self { model, cell, seed: options.seed, layers, places, table, driven: Vec::new() };
        if simulation.table.is_some() {
            simulation.driven = Driven::shares(&simulation, sample);
        }
        Ok(simulation)
    }

    /// Draws chip `number`.
    pub fn chip(&self, number: usize, pool: &Pool) -> Chip {
        let key = Key::new(self.seed).with("chip").at(number as u64);
        let layers = in_parallel(pool, self.layers.len(), |i| match &self.table {
            Some(table) => ChipOf::Counts(Box::new(CountLayer::new(table, &self.layers[i], key, &self.driven[i]))),
            None => ChipOf::Cells(Box::new(ChipLayer::new(self.cell, &self.layers[i], key))),
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

/// Counts how often the bits of each layer's inputs are 1, weighted as they weigh in a sum: bit i by `2^i`.
struct Driven<'a> {
    of: &'a Simulation<'a>,
    /// `[layer][input of the window]`: sum of codes, and the windows.
    sums: Vec<(Vec<i64>, usize)>,
}

impl<'a> Driven<'a> {
    /// The shares of the reads of each input of each layer's window that drive its row, over the images `sample`.
    fn shares(of: &'a Simulation<'a>, sample: &[u8]) -> Vec<Vec<f32>> {
        let sums = of.layers.iter().map(|layer| (vec![0; layer.window], 0)).collect();
        let mut driven = Self { of, sums };
        for image in sample.chunks_exact(of.model.example_bytes()) {
            Interpreter::new(of.model).run_with(image, &mut driven);
        }
        let layers = driven.sums.into_iter().zip(&of.layers);
        let share = |(sums, windows): (Vec<i64>, usize), layer: &Layer| -> Vec<f32> {
            let most = ((1i64 << layer.input_bits) - 1) as f32 * windows as f32;
            sums.iter().map(|&sum| if windows > 0 { sum as f32 / most } else { 0.5 }).collect()
        };
        layers.map(|(sums, layer)| share(sums, layer)).collect()
    }
}

impl Sums for Driven<'_> {
    fn computes(&self, layer: usize, which: usize) -> bool {
        self.of.places.contains_key(&(layer, which))
    }

    fn sums(&mut self, layer: usize, which: usize, windows: &[i64]) -> Vec<i64> {
        let place = self.of.places[&(layer, which)];
        let (layer, (sums, count)) = (&self.of.layers[place], &mut self.sums[place]);
        let mut out = Vec::with_capacity(windows.len() / layer.window * layer.out_channels);
        for window in windows.chunks_exact(layer.window) {
            sums.iter_mut().zip(window).for_each(|(sum, code)| *sum += code);
            *count += 1;
            out.extend((0..layer.out_channels).map(|o| {
                let inputs = &window[o / layer.group_channels * layer.inputs..];
                inputs.iter().zip(layer.channel(o)).map(|(code, &q)| code * i64::from(q)).sum::<i64>()
            }));
        }
        out
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
    let sample = &pixels[..images.min(SAMPLE_IMAGES) * length];
    let simulation = Simulation::new(model, cell, options, sample)?;
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
