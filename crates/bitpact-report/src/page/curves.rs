//! Charts over the epochs: of all runs together, and of the layers of one.

use bitpact_train::{EpochRecord, LayerStatistics};

use super::chart::{Chart, Ink, Line};
use super::{Figure, Key, Subject, number};
use crate::{Family, ReportError, Run};

/// Figures over the epochs with a line a run.
pub(super) fn of_runs(subjects: &[Subject], names: &[String]) -> Result<Vec<Figure>, ReportError> {
    let epochs = |of: &dyn Fn(&EpochRecord) -> Option<f64>| -> Vec<Line> {
        let line = |(i, (subject, name)): (usize, (&Subject, &String))| {
            let points = subject.run.records.epochs.iter().filter_map(|e| Some((f64::from(e.epoch), of(e)?)));
            Line { name: name.clone(), ink: Ink::Series(i as u8), points: points.collect(), dots: false }
        };
        subjects.iter().zip(names).enumerate().map(line).filter(|line| !line.points.is_empty()).collect()
    };
    let of_classes = subjects.iter().all(|s| s.run.last().is_none_or(|last| last.metrics().is_empty()));
    let mut figures = vec![figure(
        "Loss in training",
        "Mean over the batches of an epoch, each before its update.",
        Chart {
            x: epoch(),
            y: "loss".to_owned(),
            lines: epochs(&|e| Some(e.loss)),
            log_y: true,
            log_x: false,
            floor: None,
        },
        false,
    )?];
    if of_classes {
        let percent = |top1: Option<f64>| top1.map(|top1| 100.0 * top1);
        let test = epochs(&|e| percent(e.integer_top1.or(e.simulated_top1)));
        figures.push(figure(
            "Accuracy of the integers",
            "Top-1 on the test images after every epoch, of the integer network; of a float network its own.",
            Chart { x: epoch(), y: "top-1, %".to_owned(), lines: test, log_y: false, log_x: false, floor: None },
            false,
        )?);
        let mut lines = Vec::new();
        for (i, (subject, name)) in subjects.iter().zip(names).enumerate() {
            let points = subject.run.records.epochs.iter();
            let gap = points.filter_map(|e| {
                Some((f64::from(e.epoch), 100.0 * (e.train_top1 - e.integer_top1.or(e.simulated_top1)?)))
            });
            lines.push(Line { name: name.clone(), ink: Ink::Series(i as u8), points: gap.collect(), dots: false });
        }
        figures.push(figure(
            "Training less test accuracy",
            "Percentage points. Training images are augmented, and counted before each update.",
            Chart { x: epoch(), y: "points".to_owned(), lines, log_y: false, log_x: false, floor: Some(0.0) },
            false,
        )?);
    } else {
        let mut kinds: Vec<String> = Vec::new();
        for metric in subjects.iter().filter_map(|s| s.run.last()).flat_map(EpochRecord::metrics) {
            if !kinds.contains(&metric.name) {
                kinds.push(metric.name.clone());
            }
        }
        for kind in kinds {
            let lines = epochs(&|e| e.metrics().iter().find(|metric| metric.name == kind).map(|metric| metric.value));
            let title = format!("{} of the integers", kind.to_uppercase());
            let chart = Chart { x: epoch(), y: kind, lines, log_y: false, log_x: false, floor: None };
            figures.push(figure(&title, "On the test examples after every epoch.", chart, false)?);
        }
    }
    figures.push(figure(
        "Learning rate",
        "That of the last step of each epoch.",
        Chart {
            x: epoch(),
            y: "lr".to_owned(),
            lines: epochs(&|e| Some(e.lr)),
            log_y: true,
            log_x: false,
            floor: None,
        },
        false,
    )?);
    if let Some(trade) = trade(subjects, names)? {
        figures.push(trade);
    }
    Ok(figures.into_iter().filter(|figure| !figure.svg.is_empty()).collect())
}

/// Metric against size, where there are runs to compare.
fn trade(subjects: &[Subject], names: &[String]) -> Result<Option<Figure>, ReportError> {
    let mut lines = Vec::new();
    for (i, (subject, name)) in subjects.iter().zip(names).enumerate() {
        let (Some(last), Some(size)) = (subject.run.last(), subject.run.model_bytes) else { continue };
        let metric = last.metrics().first().map_or(100.0 * last.top1(), |metric| metric.value);
        let points = vec![(size as f64 / 1e3, metric)];
        lines.push(Line { name: name.clone(), ink: Ink::Series(i as u8), points, dots: true });
    }
    if lines.len() < 2 {
        return Ok(None);
    }
    let metric = subjects.iter().filter_map(|s| s.run.last()).find_map(|last| last.metrics().first());
    let y = metric.map_or("top-1, %".to_owned(), |metric| metric.name.clone());
    let chart = Chart { x: "integer file, kB".to_owned(), y, lines, log_y: false, log_x: true, floor: None };
    Ok(Some(figure(
        "What bytes buy",
        "The integer network of the last epoch against the size of its file.",
        chart,
        false,
    )?))
}

/// What the widths of a family reach against the bytes that they take, with the front that no other width beats.
pub(super) fn of_family(family: &Family) -> Result<Figure, ReportError> {
    let by = if family.is_fraction() { 100.0 } else { 1.0 };
    let scaled = |(bytes, value): (f64, f64)| (bytes / 1e3, by * value);
    let mut lines = vec![Line {
        name: "front".to_owned(),
        ink: Ink::Text,
        points: family.front().into_iter().map(scaled).collect(),
        dots: false,
    }];
    for (i, member) in family.members.iter().enumerate() {
        let Some((bytes, mean)) = member.bytes.zip(member.mean()) else { continue };
        let points = vec![scaled((bytes as f64, mean))];
        lines.push(Line { name: member.bits.clone(), ink: Ink::depth(i, family.members.len()), points, dots: true });
    }
    let y = format!("{}{}", family.metric, if by > 1.0 { ", %" } else { "" });
    let chart = Chart { x: "integer file, kB".to_owned(), y, lines, log_y: false, log_x: true, floor: None };
    let note = "Mean over the runs against the size of the file. On the line nothing is both smaller and as good.";
    let figure = figure("What bits buy", note, chart, false)?;
    Ok(figure)
}

/// Figures over the epochs with a line a layer.
pub(super) fn of_layers(run: &Run) -> Result<Vec<Figure>, ReportError> {
    let Some(layers) = run.records.epochs.iter().rev().map(|e| &e.layers).find(|layers| !layers.is_empty()) else {
        return Ok(Vec::new());
    };
    let lines = |of: &dyn Fn(&LayerStatistics) -> f64| -> Vec<Line> {
        let line = |(i, layer): (usize, &LayerStatistics)| {
            let points = run.records.epochs.iter().filter_map(|e| {
                let own = e.layers.iter().find(|own| own.name == layer.name)?;
                Some((f64::from(e.epoch), of(own)))
            });
            Line { name: layer.name.clone(), ink: Ink::depth(i, layers.len()), points: points.collect(), dots: false }
        };
        layers.iter().enumerate().map(line).collect()
    };
    let chart = |y: &str, lines: Vec<Line>, log_y: bool, floor: Option<f64>| Chart {
        x: epoch(),
        y: y.to_owned(),
        lines,
        log_y,
        log_x: false,
        floor,
    };
    let mut figures = vec![
        figure(
            "Clip values",
            "alpha of every activation at the end of each epoch: what PACT learns.",
            chart("alpha", lines(&|l| f64::from(l.alpha)), false, Some(0.0)),
            true,
        )?,
        figure(
            "Clipped values",
            "Share of the values at or above alpha, mean over the epoch.",
            chart("clipped, %", lines(&|l| 100.0 * l.clipped), false, Some(0.0)),
            true,
        )?,
        figure(
            "Gradient of the clip values",
            "Size of the gradient of the loss by alpha in the last step of each epoch, decay excluded. A layer that clips nothing has none.",
            chart(
                "|gradient|",
                lines(&|l| if l.alpha_gradient == 0.0 { f64::NAN } else { f64::from(l.alpha_gradient.abs()) }),
                true,
                None,
            ),
            true,
        )?,
        figure(
            "Information in the codes",
            "Shannon entropy of the levels of each activation: bits of the codes that are used.",
            chart("bits", lines(&|l| entropy(&l.occupancy)), false, Some(0.0)),
            true,
        )?,
    ];
    figures.extend(of_weights(run)?);
    Ok(figures.into_iter().filter(|figure| !figure.svg.is_empty()).collect())
}

/// How weight codes move from epoch to epoch, where that was recorded.
fn of_weights(run: &Run) -> Result<Vec<Figure>, ReportError> {
    let Some(weights) = run.records.epochs.iter().rev().map(|e| &e.weights).find(|weights| !weights.is_empty()) else {
        return Ok(Vec::new());
    };
    let lines = |of: &dyn Fn(&bitpact_train::WeightStatistics) -> Option<f64>| -> Vec<Line> {
        let line = |(i, layer): (usize, &bitpact_train::WeightStatistics)| {
            let points = run.records.epochs.iter().filter_map(|e| {
                let own = e.weights.iter().find(|own| own.name == layer.name)?;
                Some((f64::from(e.epoch), 100.0 * of(own)?))
            });
            Line { name: layer.name.clone(), ink: Ink::depth(i, weights.len()), points: points.collect(), dots: false }
        };
        weights.iter().enumerate().map(line).collect()
    };
    let chart =
        |lines| Chart { x: epoch(), y: "weights, %".to_owned(), lines, log_y: false, log_x: false, floor: Some(0.0) };
    Ok(vec![
        figure(
            "Weights with another code",
            "Share of the weight codes that differ from those of the epoch before.",
            chart(lines(&|w| w.changed)),
            true,
        )?,
        figure(
            "Oscillating weights",
            "Share of the weight codes that moved in each of the last two epochs, in opposite directions.",
            chart(lines(&|w| w.oscillating)),
            true,
        )?,
    ])
}

fn epoch() -> String {
    "epoch".to_owned()
}

/// Shannon entropy in bits.
pub(super) fn entropy(parts: &[f64]) -> f64 {
    parts.iter().filter(|&&p| p > 0.0).map(|&p| -p * p.log2()).sum::<f64>().max(0.0)
}

/// A chart with its title, legend and numbers; an empty SVG where there is nothing to draw.
pub(super) fn figure(title: &str, note: &str, chart: Chart, is_ramp: bool) -> Result<Figure, ReportError> {
    let drawn = chart.draw()?;
    let (svg, data) = drawn.map_or((String::new(), String::new()), |drawn| (drawn.svg, drawn.data));
    let there = || chart.lines.iter().filter(|line| line.points.iter().any(|p| p.1.is_finite()));
    let key = |line: &Line| Key { name: line.name.clone(), ink: line.ink.css() };
    let row = |line: &Line| {
        let values = || line.points.iter().map(|p| p.1).filter(|v| v.is_finite());
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        let (first, last) = (values().next().unwrap_or(0.0), values().next_back().unwrap_or(0.0));
        [line.name.clone(), number(first), number(last), number(least), number(most)]
    };
    let legend = there().map(key).collect();
    Ok(Figure {
        title: title.to_owned(),
        note: note.to_owned(),
        svg,
        data,
        legend,
        is_ramp,
        rows: there().map(row).collect(),
    })
}
