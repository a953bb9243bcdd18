//! The layers of one run: a table of how each is quantized, and charts of those that can be looked at.

use bitpact_train::LayerStatistics;
use serde::Serialize;

use super::chart::{Bars, Ink};
use super::curves::entropy;
use super::{Network, Table, number, percent};
use crate::microscope::{ActivationView, WeightView};
use crate::{ReportError, Run};

/// Levels that are drawn as lines, at the most.
const DRAWN_LEVELS: usize = 33;
/// Bars of a chart of levels, at the most; more levels share a bar.
const BARS: usize = 64;

/// Columns of the table of activations.
const ACTIVATIONS: [&str; 7] =
    ["Activation", "Alpha", "Clipped", "Zeros", "Levels used", "Entropy, bits", "Signal to error"];
/// Columns of the table of weights.
const WEIGHTS: [&str; 8] = [
    "Weights of",
    "Bits",
    "Quantizer",
    "Weights",
    "Levels used",
    "Signal to error",
    "Changed in the last epoch",
    "Oscillating",
];

/// The layers of a run.
#[derive(Serialize)]
pub(super) struct Layers {
    note: String,
    activations: Option<Table>,
    weights: Option<Table>,
    cards: Vec<Card>,
    /// Cards that were left out, as the page would have become too large.
    without_charts: bool,
}

/// Charts of one layer.
#[derive(Serialize)]
struct Card {
    name: String,
    what: String,
    plots: Vec<Plot>,
}

#[derive(Serialize)]
struct Plot {
    title: String,
    svg: String,
    note: String,
}

pub(super) fn layers(run: &Run, network: Option<&Network>, with_charts: bool) -> Result<Option<Layers>, ReportError> {
    let recorded = run.records.epochs.iter().rev().map(|e| &e.layers[..]).find(|layers| !layers.is_empty());
    let recorded = recorded.unwrap_or(&[]);
    let microscope = network.and_then(|network| network.microscope.as_ref());
    let (acts, weights): (&[ActivationView], &[WeightView]) =
        microscope.map_or((&[], &[]), |m| (&m.activations[..], &m.weights[..]));
    if recorded.is_empty() && acts.is_empty() && weights.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<&str> = recorded.iter().map(|layer| layer.name.as_str()).collect();
    names.extend(acts.iter().map(|act| act.name.as_str()).filter(|name| recorded.iter().all(|l| l.name != *name)));
    let row = |name: &&str| {
        let layer = recorded.iter().find(|layer| layer.name == **name);
        let act = acts.iter().find(|act| act.name == **name);
        activation_row(name, layer, act)
    };
    let activations = names.iter().map(row).collect();
    let table = |head: &[&str], rows: Vec<Vec<String>>| (!rows.is_empty()).then(|| Table::new(head, rows));
    let activations = table(&ACTIVATIONS, activations);
    let moves =
        run.records.epochs.iter().rev().map(|e| &e.weights[..]).find(|weights| !weights.is_empty()).unwrap_or(&[]);
    let weight_rows = weights.iter().map(|view| weight_row(view, moves.iter().find(|own| own.name == view.name)));
    let note = match microscope.map_or(0, |m| m.images) {
        0 => "Activations as the last epoch recorded them. With the data set (--data DIR) the page also shows what they see before \
              they clip it."
            .to_owned(),
        n => format!(
            "Alpha, clipping and levels as the last epoch recorded them; values before rounding and their error come from the \
             integer network on {n} test images."
        ),
    };
    let cards = if with_charts { cards(network, recorded, acts, weights)? } else { Vec::new() };
    Ok(Some(Layers {
        note,
        activations,
        weights: table(&WEIGHTS, weight_rows.collect()),
        cards,
        without_charts: !with_charts,
    }))
}

fn activation_row(name: &str, layer: Option<&LayerStatistics>, act: Option<&ActivationView>) -> Vec<String> {
    let of = |f: &dyn Fn(&LayerStatistics) -> String| layer.map_or(String::new(), f);
    let dead = |occupancy: &[f64]| occupancy.iter().filter(|&&share| share == 0.0).count();
    let occupancy = layer.map(|l| &l.occupancy[..]).filter(|o| !o.is_empty()).or(act.map(|act| &act.occupancy[..]));
    vec![
        name.to_owned(),
        layer.map(|l| f64::from(l.alpha)).or(act.map(|act| act.clips[1])).map_or(String::new(), number),
        of(&|l| percent(l.clipped)),
        of(&|l| percent(l.zero)),
        occupancy.map_or(String::new(), |o| format!("{} of {}", o.len() - dead(o), o.len())),
        occupancy.map_or(String::new(), |o| format!("{:.2}", entropy(o))),
        decibels(act.and_then(|act| act.snr_db)),
    ]
}

fn weight_row(view: &WeightView, moved: Option<&bitpact_train::WeightStatistics>) -> Vec<String> {
    vec![
        view.name.clone(),
        view.bits.map_or("float".to_owned(), |bits| bits.to_string()),
        view.quantizer.clone(),
        view.count.to_string(),
        if view.levels.is_empty() {
            String::new()
        } else {
            format!("{} of {}", view.levels.len() - view.dead, view.levels.len())
        },
        decibels(view.snr_db),
        moved.and_then(|m| m.changed).map_or(String::new(), percent),
        moved.and_then(|m| m.oscillating).map_or(String::new(), percent),
    ]
}

fn decibels(snr: Option<f64>) -> String {
    snr.map_or(String::new(), |db| format!("{db:.1} dB"))
}

/// A card a layer: its weights, what its activation sees, and the levels that come out.
fn cards(
    network: Option<&Network>,
    recorded: &[LayerStatistics],
    acts: &[ActivationView],
    weights: &[WeightView],
) -> Result<Vec<Card>, ReportError> {
    let mut cards = Vec::new();
    let integers = network.and_then(|network| network.integers.as_ref());
    let Some(model) = integers else {
        for (i, view) in weights.iter().enumerate() {
            let plots = vec![weight_plot(view, Ink::depth(i, weights.len()))?];
            cards.push(Card { name: view.name.clone(), what: String::new(), plots });
        }
        if weights.is_empty() {
            for (i, layer) in recorded.iter().enumerate() {
                let plots = vec![level_plot(&layer.occupancy, Ink::depth(i, recorded.len()), "in training")?];
                cards.push(Card { name: layer.name.clone(), what: String::new(), plots });
            }
        }
        return Ok(cards);
    };
    for (i, layer) in model.layers.iter().enumerate() {
        let ink = Ink::depth(i, model.layers.len());
        let mut plots = Vec::new();
        for view in layer.op.products().filter_map(|product| weights.iter().find(|view| view.name == product.name)) {
            plots.push(weight_plot(view, ink)?);
        }
        if let Some(act) = acts.iter().find(|act| act.name == layer.name) {
            plots.push(activation_plot(act, ink)?);
            plots.push(level_plot(&act.occupancy, ink, "on test images")?);
        } else if let Some(own) = recorded.iter().find(|own| own.name == layer.name) {
            plots.push(level_plot(&own.occupancy, ink, "in training")?);
        }
        if !plots.is_empty() {
            cards.push(Card { name: layer.name.clone(), what: layer.shape.to_string(), plots });
        }
    }
    Ok(cards)
}

fn weight_plot(view: &WeightView, ink: Ink) -> Result<Plot, ReportError> {
    let heights: Vec<f64> = view.histogram.counts.iter().map(|&n| n as f64).collect();
    let all: Vec<f64> = view.levels.iter().map(|&(level, _)| f64::from(level)).collect();
    let levels = if all.len() <= DRAWN_LEVELS { &all[..] } else { &[] };
    let ends: Vec<f64> = [all.first(), all.last()].into_iter().flatten().copied().collect();
    let x = if view.bits.is_some() { "weight, in steps of its code" } else { "weight" };
    let svg = Bars { x, range: view.histogram.range, heights: &heights, ink, levels, clips: &ends }.draw()?;
    let note = match view.bits {
        None => format!("{} weights, {}.", view.count, view.quantizer),
        Some(bits) => {
            let dead = if view.dead == 0 {
                String::new()
            } else {
                format!(" {} of {} levels are dead.", view.dead, view.levels.len())
            };
            let snr = view.snr_db.map_or(String::new(), |db| format!(", {db:.1} dB above the rounding error"));
            format!("{} weights of {bits} bits, {}{snr}.{dead}", view.count, view.quantizer)
        }
    };
    Ok(Plot { title: format!("Weights of {}", view.name), svg, note })
}

fn activation_plot(act: &ActivationView, ink: Ink) -> Result<Plot, ReportError> {
    let heights: Vec<f64> = act.histogram.counts.iter().map(|&n| n as f64).collect();
    let all: Vec<f64> = (0..act.occupancy.len()).map(|code| act.clips[0] + act.step * code as f64).collect();
    let levels = if all.len() <= DRAWN_LEVELS { &all[..] } else { &[] };
    let clips = if act.clips[0] < 0.0 { act.clips.to_vec() } else { vec![act.clips[1]] };
    let svg =
        Bars { x: "value before the clip", range: act.histogram.range, heights: &heights, ink, levels, clips: &clips }
            .draw()?;
    let beyond = act.histogram.outside[1] as f64 / act.histogram.total().max(1) as f64;
    let beyond = if beyond > 0.0 { format!(" {} lie beyond the axis.", percent(beyond)) } else { String::new() };
    let snr = act
        .snr_db
        .map_or(String::new(), |db| format!(" The signal is {db:.1} dB above the error of clipping and rounding."));
    let note = format!("Clip value {}; {} are clipped.{snr}{beyond}", number(act.clips[1]), percent(act.clipped));
    Ok(Plot { title: "Before the clip".to_owned(), svg, note })
}

fn level_plot(occupancy: &[f64], ink: Ink, of: &str) -> Result<Plot, ReportError> {
    let n = occupancy.len().max(1);
    let share = n.div_ceil(BARS);
    let heights: Vec<f64> = occupancy.chunks(share).map(|part| part.iter().sum()).collect();
    let range = (-0.5, (heights.len() * share) as f64 - 0.5);
    let svg = Bars { x: "level", range, heights: &heights, ink, levels: &[], clips: &[] }.draw()?;
    let dead = occupancy.iter().filter(|&&share| share == 0.0).count();
    let zero = occupancy.first().copied().unwrap_or(0.0);
    let dead = if dead == 0 { "every level occurs".to_owned() } else { format!("{dead} of {n} levels are dead") };
    let note =
        format!("{} of the codes are on level 0; {dead}; entropy {:.2} bits.", percent(zero), entropy(occupancy));
    Ok(Plot { title: format!("Levels {of}"), svg, note })
}
