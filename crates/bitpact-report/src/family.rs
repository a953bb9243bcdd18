//! A recipe at several widths: what each costs and what it reaches.

use std::fmt::Write;
use std::time::{Duration, Instant};

use bitpact_accel::{AreaTable, Device, Estimate, Widths, Workload};
use bitpact_engine::{ExecOptions, Executor};
use bitpact_graph::BitSpec;
use bitpact_model::IntegerModel;
use bitpact_train::Metric;
use bitpact_train::run_folder::MODEL;
use serde::{Deserialize, Serialize};

use crate::{ReportError, Run};

/// Results of a recipe at several widths, or after the stages of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// Name of the recipe.
    pub recipe: String,
    /// Name of the metric: `top1` or the first one of the task.
    pub metric: String,
    /// Whether more of the metric is better.
    pub more_is_better: bool,
    /// Name of the device that the modelled numbers are of.
    pub device: String,
    /// What sets the members apart: `bits` or `stage`.
    #[serde(default = "Family::by_bits")]
    pub by: String,
    /// One entry a width or stage.
    pub members: Vec<Member>,
}

/// Results at one width or after one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Bits, such as `W4A4`, or `float`; the name of a stage.
    pub bits: String,
    /// The metric after the last epoch of every finished seed, the seeds ascending; an accuracy is a fraction of 1.
    pub results: Vec<f64>,
    /// Seeds that were asked for.
    pub seeds: usize,
    /// Bytes of the integer network's file.
    pub bytes: Option<u64>,
    /// Measured milliseconds of one image: the median.
    pub measured_ms: Option<f64>,
    /// Images a second on the modelled device.
    pub modelled_images_per_s: Option<f64>,
    /// Area of a multiply-accumulate unit of these widths over that of 8 bits.
    pub unit_area: Option<f64>,
}

impl Member {
    /// The mean of the results, where there are any.
    pub fn mean(&self) -> Option<f64> {
        (!self.results.is_empty()).then(|| self.results.iter().sum::<f64>() / self.results.len() as f64)
    }

    /// Sample standard deviation of the results; `None` of fewer than two.
    pub fn deviation(&self) -> Option<f64> {
        let (mean, n) = (self.mean()?, self.results.len());
        let squares: f64 = self.results.iter().map(|result| (result - mean).powi(2)).sum();
        (n > 1).then(|| (squares / (n - 1) as f64).sqrt())
    }
}

/// Shortest time that runs of one image are measured for, and their least number.
const MEASURED: (Duration, usize) = (Duration::from_millis(300), 21);

impl Family {
    /// The results of `runs`, members in ascending order of their bits and float last. The integer network of each
    /// width's first run is measured with `options`, one image at a time, and modelled on `device`.
    ///
    /// # Errors
    /// A network that the engine refuses.
    pub fn collect(runs: &[Run], device: &Device, options: ExecOptions) -> Result<Self, ReportError> {
        let known = || runs.iter().filter_map(|run| Some((run, run.recipe.as_ref()?)));
        let mut widths: Vec<BitSpec> = known().map(|(_, recipe)| recipe.bits.last()).collect();
        let order = |bits: &BitSpec| match bits {
            BitSpec::Bits { weights, activations } => (weights.get(), activations.get()),
            BitSpec::Float => (u8::MAX, u8::MAX),
        };
        widths.sort_by_key(order);
        widths.dedup();
        let recipe = known().next().map_or(String::new(), |(_, recipe)| recipe.name.clone());
        let of = |bits: BitSpec| {
            let mut own: Vec<(&Run, u64)> = known()
                .filter(|(_, recipe)| recipe.bits.last() == bits)
                .map(|(run, recipe)| (run, recipe.seed))
                .collect();
            own.sort_by_key(|(_, seed)| *seed);
            (bits.to_string(), own.into_iter().map(|(run, _)| run).collect())
        };
        let mut family =
            Self::of(recipe, Self::by_bits(), widths.iter().map(|&bits| of(bits)).collect(), device, options)?;
        for (member, bits) in family.members.iter_mut().zip(widths) {
            if let BitSpec::Bits { weights, activations } = bits {
                let area = |a: u8, w: u8| Some(AreaTable::committed().mac(Widths::new(a, w)?));
                member.unit_area =
                    area(activations.get(), weights.get()).zip(area(8, 8)).map(|(own, eight)| own / eight);
            }
        }
        Ok(family)
    }

    fn by_bits() -> String {
        "bits".to_owned()
    }

    /// The results of groups of runs, each under its name, set apart by `by`; measured and modelled as
    /// [`Family::collect`] does.
    ///
    /// # Errors
    /// A network that the engine refuses.
    pub fn of(
        recipe: String,
        by: String,
        groups: Vec<(String, Vec<&Run>)>,
        device: &Device,
        options: ExecOptions,
    ) -> Result<Self, ReportError> {
        let first = groups.iter().flat_map(|(_, runs)| runs).filter_map(|run| run.last()?.metrics().first()).next();
        let metric = first.map_or("top1".to_owned(), |metric| metric.name.clone());
        let more_is_better = first.is_none_or(Metric::more_is_better);
        let member = |(bits, own): (String, Vec<&Run>)| {
            let finished = own.iter().filter_map(|run| {
                let last = run.last().filter(|last| run.recipe.as_ref().is_some_and(|r| last.epoch >= r.epochs))?;
                Some(last.metrics().first().map_or(last.top1(), |metric| metric.value))
            });
            let model = own.iter().find_map(|run| IntegerModel::load(run.path.join(MODEL)).ok());
            let estimate = |model: &IntegerModel| {
                let estimate = Workload::integer(model).and_then(|workload| Estimate::new(device, &workload, 1));
                estimate.ok().map(|estimate| estimate.images_per_s())
            };
            Ok(Member {
                results: finished.collect(),
                seeds: own.len(),
                bytes: own.iter().find_map(|run| run.model_bytes),
                measured_ms: model.as_ref().map(|model| measured_ms(model, options)).transpose()?,
                modelled_images_per_s: model.as_ref().and_then(estimate),
                unit_area: None,
                bits,
            })
        };
        let members = groups.into_iter().map(member).collect::<Result<_, ReportError>>()?;
        Ok(Self { recipe, metric, more_is_better, device: device.name.clone(), by, members })
    }

    /// The members on the front as points, bytes and the metric, from the smallest on.
    pub fn front(&self) -> Vec<(f64, f64)> {
        let on = self.members.iter().filter(|member| self.is_on_front(member));
        let mut points: Vec<(f64, f64)> =
            on.filter_map(|member| Some((member.bytes? as f64, member.mean()?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    /// Tells whether no other member is as good with a smaller file, or better with one as small.
    pub fn is_on_front(&self, member: &Member) -> bool {
        let place = |of: &Member| {
            let score = of.mean()? * if self.more_is_better { 1.0 } else { -1.0 };
            Some((score, of.bytes?))
        };
        let Some((score, bytes)) = place(member) else { return false };
        let beats = |(other, size): (f64, u64)| other >= score && size <= bytes && (other > score || size < bytes);
        !self.members.iter().filter_map(place).any(beats)
    }

    /// Tells whether the metric is a fraction that people read in percent.
    pub fn is_fraction(&self) -> bool {
        ["top1", "miou", "pixels"].contains(&self.metric.as_str())
    }

    /// The table for people, its heading first.
    pub fn table(&self) -> Vec<Vec<String>> {
        let unit = if self.is_fraction() { ", %" } else { "" };
        let head = [
            &*self.by,
            if self.by == "bits" { "seeds" } else { "runs" },
            &format!("{}{unit}", self.metric),
            "spread",
            "size, kB",
            "measured, ms",
            "modelled images/s",
            "unit area",
            "front",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let by = if self.is_fraction() { 100.0 } else { 1.0 };
        let shown =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        let row = |member: &Member| {
            vec![
                member.bits.clone(),
                format!("{} of {}", member.results.len(), member.seeds),
                shown(member.mean().map(|mean| by * mean), if by > 1.0 { 2 } else { 4 }),
                shown(member.deviation().map(|deviation| by * deviation), if by > 1.0 { 2 } else { 4 }),
                shown(member.bytes.map(|bytes| bytes as f64 / 1e3), 1),
                shown(member.measured_ms, 3),
                shown(member.modelled_images_per_s, 0),
                shown(member.unit_area, 3),
                if self.is_on_front(member) { "yes".to_owned() } else { String::new() },
            ]
        };
        rows.extend(self.members.iter().map(row));
        rows
    }

    /// The table in Markdown.
    pub fn to_markdown(&self) -> String {
        let rows = self.table();
        let mut text = format!(
            "# {}\n\nMean and sample standard deviation of the seeds; front: no other width is as good with a smaller file. Modelled on \
             {}, one image at a time; area of a multiply-accumulate unit over that of 8 bits.\n\n",
            self.recipe, self.device
        );
        for (i, row) in rows.iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).expect("a string takes every text");
            if i == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        text
    }

    /// The numbers as CSV, a line a width.
    pub fn to_csv(&self) -> String {
        let mut text = format!(
            "bits,seeds,{0}_mean,{0}_deviation,bytes,measured_ms,modelled_images_per_s,unit_area,on_front\n",
            self.metric
        );
        for member in &self.members {
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let columns = [
                member.bits.clone(),
                member.results.len().to_string(),
                number(member.mean()),
                number(member.deviation()),
                member.bytes.map_or(String::new(), |bytes| bytes.to_string()),
                number(member.measured_ms),
                number(member.modelled_images_per_s),
                number(member.unit_area),
                self.is_on_front(member).to_string(),
            ];
            text += &(columns.join(",") + "\n");
        }
        text
    }
}

/// Milliseconds of one image: the median of some runs on a fixed pattern.
fn measured_ms(model: &IntegerModel, options: ExecOptions) -> Result<f64, ReportError> {
    let mut executor = Executor::new(model, options)?;
    // A fixed pattern will do: no kernel's time depends on the values.
    let pixels: Vec<u8> = (0..executor.image_len()).map(|i| (i * 37 % 251) as u8).collect();
    let mut outputs = vec![0; executor.output_len()];
    let mut times = Vec::new();
    executor.run(&pixels, &mut outputs);
    let began = Instant::now();
    while times.len() < MEASURED.1 || began.elapsed() < MEASURED.0 {
        let before = Instant::now();
        executor.run(&pixels, &mut outputs);
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(1e3 * times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(bits: &str, results: &[f64], bytes: u64) -> Member {
        let (results, bytes) = (results.to_vec(), Some(bytes));
        Member {
            bits: bits.to_owned(),
            results,
            seeds: 2,
            bytes,
            measured_ms: Some(0.5),
            modelled_images_per_s: None,
            unit_area: Some(0.25),
        }
    }

    fn family(more_is_better: bool) -> Family {
        let members = vec![
            member("W8A8", &[0.9, 0.92], 800),
            member("W4A4", &[0.91, 0.91], 400),
            member("W3A3", &[0.7], 300),
            member("W2A2", &[0.8, 0.6], 200),
            member("float", &[], 100),
        ];
        Family {
            by: Family::by_bits(),
            recipe: "small".to_owned(),
            metric: "top1".to_owned(),
            more_is_better,
            device: "pact-4".to_owned(),
            members,
        }
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let front = |more: bool| {
            let family = family(more);
            family.members.iter().filter(|m| family.is_on_front(m)).map(|m| m.bits.clone()).collect::<Vec<_>>()
        };
        // W8A8 is as good as W4A4 and larger; W3A3 is as good as W2A2 and larger.
        assert_eq!(front(true), ["W4A4", "W2A2"]);
        assert_eq!(front(false), ["W2A2"]);
    }

    #[test]
    fn tables_say_what_the_numbers_are() {
        let family = family(true);
        let text = family.to_markdown();
        assert!(text.contains("| W4A4 | 2 of 2 | 91.00 | 0.00 | 0.4 | 0.500 |  | 0.250 | yes |"), "{text}");
        assert!(text.contains("| W2A2 | 2 of 2 | 70.00 | 14.14 |"), "{text}");
        let csv = family.to_csv();
        assert_eq!(csv.lines().nth(2).unwrap(), "W4A4,2,0.91,0,400,0.5,,0.25,true");
        assert_eq!(csv.lines().nth(5).unwrap(), "float,0,,,100,0.5,,0.25,false");
    }
}
