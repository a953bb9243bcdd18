//! Training steps of a recipe on random pixels: speed, memory, and what the time of a step consists of.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bitpact::unstable::data::{DatasetName, ImageShape};
use bitpact::unstable::kernels::peak::{Number, rates};
use bitpact::unstable::train::{Draft, Pass, Rehearsal, StepTimes, Work, random_images};
use serde_json::{Value, json};

use super::Args;
use super::memory::Memory;
use crate::exit::Usage;
use crate::out::{bytes, count, print, say, table};

/// Side and classes of random images in the place of one's own data, where the recipe does not tell.
const OWN_SIDE: usize = 64;
const OWN_CLASSES: usize = 10;

/// Steps before the measured ones.
const WARM_UP: usize = 2;

/// Steps at least, however long they take, and at most.
const LEAST_STEPS: usize = 5;
const MOST_STEPS: usize = 100_000;

pub(super) fn run(args: &Args, recipe: &Path) -> Result<()> {
    let &[threads] = &args.threads()[..] else {
        return Err(Usage("--threads: with --train it takes one number".to_owned()).into());
    };
    let mut draft = Draft::open(recipe)?;
    args.flags.apply(&mut draft)?;
    let dataset = draft.known_dataset()?;
    let recipe = draft.finish()?;
    let side = |own: usize| args.image_size.map_or(own, |side| side as usize);
    let (ImageShape { h, w, c }, classes) = match dataset {
        // Their own size and classes are not known without the data.
        DatasetName::Folder => {
            let [h, w] = recipe.own_options().crop.unwrap_or([OWN_SIDE; 2]);
            (ImageShape { h, w, c: recipe.channels.unwrap_or(3) }, OWN_CLASSES)
        }
        known => (known.info().image_shape, known.info().class_names.len()),
    };
    let shape = ImageShape { h: side(h), w: side(w), c };
    let images = random_images(shape, classes, recipe.batch_size)?;
    let mut rehearsal = Rehearsal::new(&recipe, &images, args.backend, args.isa, threads.into())?;
    let recipe = rehearsal.setup().recipe.clone();
    let network = rehearsal.setup().graph.name().to_owned();
    say!("training {network} at {} in batches of {} on {threads} threads", recipe.bits, recipe.batch_size);
    for _ in 0..WARM_UP {
        rehearsal.step()?;
    }
    let times = steps(&mut rehearsal, args.seconds)?;
    let memory = Memory::now();
    rehearsal.backend_mut().set_profile(true);
    steps(&mut rehearsal, args.seconds)?;
    let profile = rehearsal.backend().profile().unwrap_or_default();
    let breakdown = Breakdown::new(&profile, rehearsal.backend().work(), &peaks(args, threads.into()));

    let percentile = |p: usize| times[(times.len() - 1) * p / 100];
    let [p10, median, p90] = [10, 50, 90].map(percentile);
    let images_per_s = recipe.batch_size as f64 / median;
    let spread = (p90 - p10) / median;
    if args.json {
        // Keys of the recipe that decide what a step computes, as far as it has them.
        let keys = ["arch", "bits", "act_quant", "weight_quant", "first_last", "precision", "gradient_bits"];
        let written = serde_json::to_value(&recipe)?;
        let mut object = json!({
            "recipe": recipe.name,
            "input": format!("{}x{}x{}", shape.h, shape.w, shape.c),
            "batch_size": recipe.batch_size,
            "threads": threads,
            "isa": args.isa.to_string(),
            "steps": times.len(),
            "images_per_s": images_per_s,
            "median_ms": median * 1e3,
            "p10_ms": p10 * 1e3,
            "p90_ms": p90 * 1e3,
            "spread": spread,
            "resident_bytes": memory.resident_bytes,
            "peak_bytes": memory.peak_bytes,
        });
        for key in keys {
            if let Some(value) = written.get(key) {
                object[key] = value.clone();
            }
        }
        breakdown.write(&mut object);
        return print(&object.to_string());
    }
    let memory = memory.peak_bytes.map_or("unknown".to_owned(), bytes);
    let text = format!(
        "{network} at {}, images of {}x{}x{}, batches of {}, {threads} threads, {}\n\n\
         {images_per_s:.1} images/s: median {:.2} ms of {} steps, spread {:.1} %; peak memory {memory}\n\n{}",
        recipe.bits,
        shape.h,
        shape.w,
        shape.c,
        recipe.batch_size,
        args.isa,
        median * 1e3,
        times.len(),
        100.0 * spread,
        breakdown.text(args.layers)
    );
    print(&text)
}

/// Seconds of each of the steps that fit `seconds`, sorted.
fn steps(rehearsal: &mut Rehearsal, seconds: f64) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1000);
    let began = Instant::now();
    while times.len() < LEAST_STEPS || (began.elapsed().as_secs_f64() < seconds && times.len() < MOST_STEPS) {
        let begin = Instant::now();
        rehearsal.step()?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The highest rate of each kind of number on `threads` threads, in multiply-adds per second.
fn peaks(args: &Args, threads: usize) -> BTreeMap<String, f64> {
    let mut peaks = BTreeMap::new();
    for rate in rates(args.isa, threads) {
        let highest: &mut f64 = peaks.entry(rate.number.to_string()).or_default();
        *highest = highest.max(rate.macs_per_s);
    }
    peaks
}

/// A part of the step.
#[derive(Clone, Default)]
struct Part {
    /// Of one step: the time of all workers divided by their number.
    ms: f64,
    /// Likewise the time in which they waited for each other.
    waiting_ms: f64,
    macs: u64,
    /// Time that the multiply-adds take at the machine's peak.
    least_ms: f64,
    numbers: Vec<Number>,
}

impl Part {
    fn add(&mut self, other: &Part) {
        self.ms += other.ms;
        self.waiting_ms += other.waiting_ms;
        self.macs += other.macs;
        self.least_ms += other.least_ms;
        for number in &other.numbers {
            if !self.numbers.contains(number) {
                self.numbers.push(*number);
            }
        }
    }

    fn percent_of_peak(&self) -> Option<f64> {
        (self.macs > 0).then_some(100.0 * self.least_ms / self.ms.max(1e-9))
    }

    fn number(&self) -> Option<String> {
        (!self.numbers.is_empty()).then(|| self.numbers.iter().map(Number::to_string).collect::<Vec<_>>().join(", "))
    }

    fn to_json(&self, step_ms: f64) -> Value {
        json!({
            "ms": self.ms,
            "share": self.ms / step_ms,
            "waiting_ms": self.waiting_ms,
            "macs": self.macs,
            "number": self.number(),
            "percent_of_peak": self.percent_of_peak(),
        })
    }

    fn cells(&self, step_ms: f64) -> Vec<String> {
        vec![
            format!("{:.3}", self.ms),
            format!("{:.1} %", 100.0 * self.ms / step_ms),
            format!("{:.3}", self.waiting_ms),
            if self.macs > 0 { count(self.macs) } else { String::new() },
            self.percent_of_peak().map_or(String::new(), |percent| format!("{percent:.0} %")),
            self.number().unwrap_or_default(),
        ]
    }
}

/// Where the time of a step goes.
struct Breakdown {
    steps: u64,
    step_ms: f64,
    /// Time in which nothing is done, as the parts'.
    waiting_ms: f64,
    /// Share of the step in which each worker does something.
    busy: Vec<f64>,
    /// Layers in the order of computation, those without a name last.
    layers: Vec<(String, Pass, Part)>,
    passes: BTreeMap<Pass, Part>,
    peaks: BTreeMap<String, f64>,
}

impl Breakdown {
    fn new(times: &StepTimes, work: Vec<Work>, peaks: &BTreeMap<String, f64>) -> Self {
        let (steps, threads) = (times.steps.max(1) as f64, times.busy.len().max(1) as f64);
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / steps;
        let step_ms = ms(times.wall);
        let mut layers: Vec<(String, Pass, Part)> = times
            .passes
            .iter()
            .map(|((layer, pass), &time)| {
                let waiting = times.waits.get(&(layer.clone(), *pass)).copied().unwrap_or_default();
                let mut part = Part { ms: ms(time) / threads, waiting_ms: ms(waiting) / threads, ..Part::default() };
                if let Some(work) = work.iter().find(|work| work.layer == *layer && work.pass == *pass) {
                    let peak = peaks.get(&work.number.to_string()).copied().unwrap_or(f64::INFINITY);
                    part.least_ms = work.macs as f64 / peak * 1e3;
                    (part.macs, part.numbers) = (work.macs, vec![work.number]);
                }
                (layer.clone(), *pass, part)
            })
            .collect();
        let place = |layer: &str| work.iter().position(|work| work.layer == layer).unwrap_or(work.len());
        layers.sort_by_key(|(layer, pass, _)| (place(layer), layer.clone(), *pass));
        let mut passes: BTreeMap<Pass, Part> = BTreeMap::new();
        for (_, pass, part) in &layers {
            passes.entry(*pass).or_default().add(part);
        }
        let busy_ms: f64 = layers.iter().map(|(.., part)| part.ms).sum();
        Self {
            steps: times.steps,
            step_ms,
            waiting_ms: (step_ms - busy_ms).max(0.0),
            busy: times.busy.iter().map(|&busy| ms(busy) / step_ms).collect(),
            layers,
            passes,
            peaks: peaks.clone(),
        }
    }

    fn mean_busy(&self) -> f64 {
        self.busy.iter().sum::<f64>() / self.busy.len().max(1) as f64
    }

    fn write(&self, object: &mut Value) {
        let with = |names: &[(&str, &str)], part: &Part| {
            let mut row = part.to_json(self.step_ms);
            names.iter().for_each(|(key, name)| row[key] = (*name).into());
            row
        };
        let passes = self.passes.iter().map(|(pass, part)| with(&[("pass", pass.name())], part));
        let layers =
            self.layers.iter().map(|(layer, pass, part)| with(&[("layer", layer), ("pass", pass.name())], part));
        object["busy"] = self.mean_busy().into();
        object["busy_of_workers"] = self.busy.clone().into();
        object["peak_macs_per_s"] = json!(self.peaks);
        object["profiled_steps"] = self.steps.into();
        object["profiled_ms"] = self.step_ms.into();
        object["waiting_ms"] = self.waiting_ms.into();
        object["passes"] = passes.collect();
        object["layers"] = layers.collect();
    }

    fn text(&self, with_layers: bool) -> String {
        let heading = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let busy = self.busy.iter().map(|busy| format!("{:.1} %", 100.0 * busy)).collect::<Vec<_>>().join(", ");
        let peaks = self.peaks.iter().map(|(number, peak)| format!("{number} {:.0}", peak / 1e9));
        let mut text = format!(
            "a step with the profile on takes {:.2} ms; busy: {busy}; peaks in G multiply-adds/s: {}\n",
            self.step_ms,
            peaks.collect::<Vec<_>>().join(", ")
        );
        let mut lines = vec![heading(&["pass", "ms", "share", "waits", "macs", "of peak", "numbers"])];
        for (pass, part) in &self.passes {
            lines.push([vec![pass.name().to_owned()], part.cells(self.step_ms)].concat());
        }
        let [ms, waiting] = [self.step_ms - self.waiting_ms, self.waiting_ms].map(|ms| format!("{ms:.3}"));
        lines.push(vec!["all".to_owned(), ms, format!("{:.1} %", 100.0 * self.mean_busy()), waiting]);
        text += &table(&lines, &[0, 6]);
        if with_layers {
            let mut lines = vec![heading(&["layer", "pass", "ms", "share", "waits", "macs", "of peak", "numbers"])];
            for (layer, pass, part) in &self.layers {
                lines.push([vec![layer.clone(), pass.to_string()], part.cells(self.step_ms)].concat());
            }
            text += &format!("\n{}", table(&lines, &[0, 1, 7]));
        }
        text
    }
}
