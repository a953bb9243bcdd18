//! The figures of a book: accuracy against bits, epochs or a key of the recipe, and the course of clip values, in SVG.

use std::fmt::Write;

use bitpact_accel::charts::{Series, SeriesLabelPosition, draw};
use bitpact_train::catalogue::{Figure, Group, Row};
use plotters::prelude::IntoLogRange;

use crate::{Book, ReportError};

/// A figure as a file.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Name of the file.
    pub file: String,
    /// Sentence that says what the figure shows.
    pub caption: String,
    /// The file.
    pub svg: String,
}

/// A line of a figure: points of ours, and those of the paper.
#[derive(Default)]
struct Line {
    name: String,
    ours: Vec<(f64, f64)>,
    paper: Vec<(f64, f64)>,
}

impl Book<'_> {
    /// Every figure of which there is something to see.
    ///
    /// # Errors
    /// The drawing library fails.
    pub fn plots(&self) -> Result<Vec<Plot>, ReportError> {
        let mut plots = Vec::new();
        for group in &self.catalogue.groups {
            for (i, figure) in group.figures.iter().enumerate() {
                plots.extend(self.plot(group, figure, format!("{}-{}.svg", group.name, i + 1))?);
            }
        }
        Ok(plots)
    }

    /// The page of the figures, each beside the page in its own file.
    pub fn plots_page(&self, plots: &[Plot], book: &str) -> String {
        let mut page = format!(
            "# Figures\n\n`bitpact reproduce book` draws them from the logs of [the results]({book}). Crosses are the paper's values where nothing else is said, lines \
             ours.\n"
        );
        if plots.is_empty() {
            page.push_str("\nThere is no log to draw yet.\n");
        }
        for plot in plots {
            write!(page, "\n![{0}]({1})\n\n{0}\n", plot.caption, plot.file).expect("a string takes every text");
        }
        page
    }

    fn plot(&self, group: &Group, figure: &Figure, file: String) -> Result<Option<Plot>, ReportError> {
        let title = &group.title;
        let (caption, [x, y], lines) = match (&figure.alpha_of, &*figure.against) {
            (Some(name), "alpha") => {
                let row = self.catalogue.row(name);
                let caption = format!("Loss of {name} against the clip value of one activation at a time");
                (caption, ["alpha; crosses: as trained", "cross entropy"], self.losses(row))
            }
            (Some(name), _) => {
                let row = self.catalogue.row(name);
                (format!("{title}: clip values of {name}, a colour a stage"), ["epoch", "alpha"], self.alphas(row))
            }
            (None, "epoch") => {
                let caption = format!("{title}: accuracy after every epoch, first seed");
                (caption, ["epoch", "top-1, %"], self.courses(group))
            }
            (None, "bits") => {
                let caption = format!("{title}: accuracy after the last epoch");
                (caption, ["bits of weights and activations", "top-1, %"], self.against(group, |row| self.bits(row)))
            }
            (None, key) => {
                let caption = format!("{title}: accuracy after the last epoch");
                (caption, [key, "top-1, %"], self.against(group, |row| self.number(row, key)))
            }
        };
        let ours = || lines.iter().flat_map(|line| &line.ours);
        if ours().next().is_none() {
            return Ok(None);
        }
        let all: Vec<(f64, f64)> = ours().chain(lines.iter().flat_map(|line| &line.paper)).copied().collect();
        let range = |of: fn(&(f64, f64)) -> f64| {
            all.iter().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
        let margin = 0.05 * (high - low).max(0.1);
        let y_range = (low - margin).max(0.0)..high + margin;
        let mut series = Vec::new();
        for line in lines {
            series.push(Series { name: line.name.clone(), points: line.ours, line: true });
            if !line.paper.is_empty() {
                let name = if figure.against == "alpha" { String::new() } else { format!("{}, paper", line.name) };
                series.push(Series { name, points: line.paper, line: false });
            }
        }
        let labels = [&*caption, x, y];
        let (count, legend) = (10, SeriesLabelPosition::LowerRight);
        let svg = if figure.alpha_of.is_none() && !["bits", "epoch"].contains(&&*figure.against) {
            // Half a step of a factor of ten on either side.
            draw("results", labels, (left / 3.0..right * 3.0).log_scale(), y_range, &series, (5, legend))?
        } else {
            let legend = if figure.alpha_of.is_some() { SeriesLabelPosition::UpperRight } else { legend };
            let side = 0.03 * (right - left).max(1.0);
            draw("results", labels, left - side..right + side, y_range, &series, (count, legend))?
        };
        Ok(Some(Plot { file, caption, svg }))
    }

    /// A line for every word by which rows are called, over what `x` makes of a row; rows without such a number lie
    /// level.
    fn against(&self, group: &Group, x: impl Fn(&Row) -> Option<f64>) -> Vec<Line> {
        let places: Vec<f64> = group.rows.iter().filter_map(&x).collect();
        let (left, right) = places.iter().fold((f64::MAX, f64::MIN), |(l, r), &v| (l.min(v), r.max(v)));
        let mut lines: Vec<Line> = Vec::new();
        for row in &group.rows {
            let name = row.series.clone().unwrap_or_else(|| row.name.clone());
            let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
                lines.push(Line { name, ..Line::default() });
                lines.len() - 1
            });
            let places = x(row).map_or_else(|| vec![left, right], |x| vec![x]);
            lines[at].ours.extend(places.iter().filter_map(|&x| Some((x, self.mean(row)?))));
            lines[at].paper.extend(places.iter().filter_map(|&x| Some((x, row.paper?))));
        }
        for line in &mut lines {
            line.ours.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        lines
    }

    /// Accuracy against epochs of every row that has a log; the paper's value at the end.
    fn courses(&self, group: &Group) -> Vec<Line> {
        let mut lines = Vec::new();
        for row in &group.rows {
            let Some((_, log)) = self.logs(row).next() else { continue };
            let measured = log.epochs.iter().filter(|e| e.integer_top1.or(e.simulated_top1).is_some());
            let ours = measured.map(|e| (f64::from(e.epoch), 100.0 * e.top1())).collect();
            let name = row.name.strip_prefix("cifar10-resnet20-").unwrap_or(&row.name).to_owned();
            let paper = row.paper.map(|paper| (f64::from(log.recipe.epochs), paper)).into_iter().collect();
            lines.push(Line { name, ours, paper });
        }
        lines
    }

    /// Losses against clip values, up to that of guessing among ten or twice the trained one, and the trained one in
    /// place of the paper's.
    fn losses(&self, row: Option<&Row>) -> Vec<Line> {
        let sweeps = row.and_then(|row| self.logs(row).next()).map_or(&[][..], |(_, log)| &log.sweeps);
        let mut stages: Vec<&str> = Vec::new();
        let line = |sweep: &'_ crate::Sweep| {
            let seen = sweep.others.iter().filter(|(_, loss)| *loss < 10f64.ln().max(2.0 * sweep.loss));
            let ours = seen.map(|&(alpha, loss)| (f64::from(alpha), loss)).collect();
            Line { name: String::new(), ours, paper: vec![(f64::from(sweep.alpha), sweep.loss)] }
        };
        let mut lines: Vec<Line> = sweeps.iter().map(line).collect();
        for (line, sweep) in lines.iter_mut().zip(sweeps) {
            let stage = sweep.layer.split('.').next().unwrap_or(&sweep.layer);
            if !stages.contains(&stage) {
                line.name = stage.to_owned();
                stages.push(stage);
            }
        }
        lines
    }

    /// The clip value of every layer against epochs; layers of one stage have one colour.
    fn alphas(&self, row: Option<&Row>) -> Vec<Line> {
        let Some((_, log)) = row.and_then(|row| self.logs(row).next()) else { return Vec::new() };
        let (mut lines, mut stages): (Vec<Line>, Vec<String>) = (Vec::new(), Vec::new());
        let layers = log.epochs.iter().find(|epoch| !epoch.layers.is_empty()).map(|epoch| &epoch.layers);
        for layer in layers.into_iter().flatten() {
            let stage = layer.name.split('.').next().unwrap_or(&layer.name).to_owned();
            let of = |e: &bitpact_train::EpochRecord| {
                let found = e.layers.iter().find(|other| other.name == layer.name)?;
                Some((f64::from(e.epoch), f64::from(found.alpha)))
            };
            let ours = log.epochs.iter().filter_map(of).collect();
            let name = if stages.contains(&stage) { String::new() } else { stage.clone() };
            stages.push(stage);
            lines.push(Line { name, ours, paper: Vec::new() });
        }
        lines
    }

    fn bits(&self, row: &Row) -> Option<f64> {
        match self.catalogue.recipe(row, 1).ok()?.bits.last() {
            bitpact_graph::BitSpec::Bits { weights, .. } => Some(f64::from(weights.get())),
            bitpact_graph::BitSpec::Float => None,
        }
    }

    fn number(&self, row: &Row, key: &str) -> Option<f64> {
        let recipe = serde_json::to_value(self.catalogue.recipe(row, 1).ok()?).ok()?;
        recipe.get(key)?.as_f64()
    }
}
