//! Runs as one HTML page that needs nothing else: no network, no other file.
//!
//! [`Subject`] is what is known of a run, [`render`] makes the page. Charts are SVG in the page; a script of its own,
//! kept beside the template, answers the pointer and the arrow keys and draws nothing.

mod accel;
mod chart;
mod curves;
mod layers;
mod picture;
mod predictions;
mod sensitivity;
mod summary;

use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use serde::Serialize;

use crate::family::Family;
use crate::microscope::Microscope;
use crate::predictions::Predictions;
use crate::text::bytes;
use crate::{ReportError, Run};
use bitpact_model::IntegerModel;

/// Largest page that is written, in bytes.
pub const LARGEST: usize = 3_000_000;

/// A run with what was computed from its checkpoint.
pub struct Subject {
    /// The run.
    pub run: Run,
    /// The float run that was trained beside it.
    pub float: Option<Run>,
    /// The network; `None` where the run has no checkpoint that can be read.
    pub network: Option<Network>,
}

/// Everything that was computed from a run's checkpoint.
pub struct Network {
    /// The integer network; `None` of a float network.
    pub integers: Option<IntegerModel>,
    /// A drawing of the graph, a line a layer.
    pub drawing: String,
    /// Weights and activations.
    pub microscope: Option<Microscope>,
    /// Shape of an image: rows, columns, channels.
    pub image: [usize; 3],
    /// Kind of the targets, where predictions were made.
    pub targets: Option<bitpact_data::TargetKind>,
    /// Predictions for the test set, where it was given.
    pub predictions: Option<Predictions>,
    /// Name of the device whose roofline is drawn.
    pub device: Option<bitpact_accel::Device>,
}

/// Lines of a chart in the page.
#[derive(Serialize)]
struct Figure {
    title: String,
    note: String,
    svg: String,
    data: String,
    legend: Vec<Key>,
    /// Whether the colours go from the image to the output, so that a legend of the ends says it all.
    is_ramp: bool,
    rows: Vec<[String; 5]>,
}

#[derive(Serialize)]
struct Key {
    name: String,
    ink: String,
}

/// What the template reads.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    version: &'a str,
    style: &'a str,
    script: &'a str,
    lead: String,
    runs: Table,
    warnings: Vec<summary::Told>,
    faults: Vec<(String, String)>,
    curves: Vec<Figure>,
    family: Option<Table>,
    family_figure: Option<Figure>,
    sections: Vec<Section>,
}

/// A table without the columns in which nothing stands.
#[derive(Serialize)]
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let shown: Vec<usize> =
            (0..head.len()).filter(|&c| c == 0 || rows.iter().any(|row| !row[c].is_empty())).collect();
        let head = shown.iter().map(|&c| head[c].to_owned()).collect();
        let rows = rows.iter().map(|row| shown.iter().map(|&c| row[c].clone()).collect()).collect();
        Self { head, rows }
    }
}

/// The part of the page about one run.
#[derive(Serialize)]
struct Section {
    id: String,
    name: String,
    facts: Vec<(String, String)>,
    recipe: String,
    figures: Vec<Figure>,
    layers: Option<layers::Layers>,
    sensitivity: Option<sensitivity::Table>,
    predictions: Option<predictions::View>,
    accel: Option<accel::View>,
    drawing: String,
}

/// The page about `subjects`, the first one first, and about `family`, where they are one.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn render(subjects: &[Subject], family: Option<&Family>) -> Result<String, ReportError> {
    // The microscope's charts take most of the room; with many runs only the first ones have them.
    let mut with_charts = subjects.len();
    loop {
        let page = rendered(subjects, family, with_charts)?;
        if page.len() <= LARGEST || with_charts == 0 {
            return Ok(page);
        }
        with_charts = (with_charts / 2).min(LARGEST * with_charts / page.len());
    }
}

fn rendered(subjects: &[Subject], family: Option<&Family>, with_charts: usize) -> Result<String, ReportError> {
    let names = summary::names(subjects);
    let sections = subjects.iter().enumerate().map(|(i, subject)| section(subject, i, &names[i], i < with_charts));
    let sections: Vec<Section> = sections.collect::<Result<_, _>>()?;
    let runs: Vec<(&str, &Run)> = names.iter().map(String::as_str).zip(subjects.iter().map(|s| &s.run)).collect();
    let title = match (&names[..], family) {
        (_, Some(family)) if family.by == "bits" => format!("{} at {} widths", family.recipe, family.members.len()),
        (_, Some(family)) => format!("{}, {} {}s", family.recipe, family.members.len(), family.by),
        ([one], None) => one.clone(),
        (all, None) => format!("{} runs", all.len()),
    };
    let page = Page {
        title,
        version: env!("CARGO_PKG_VERSION"),
        style: include_str!("page/style.css"),
        script: include_str!("page/script.js"),
        lead: family.and_then(summary::family_lead).unwrap_or_else(|| summary::lead(subjects, &names)),
        runs: Table::new(&summary::COLUMNS, summary::rows(subjects, &names)),
        warnings: summary::warnings(&runs),
        faults: summary::faults(&runs),
        curves: curves::of_runs(subjects, &names)?,
        family: family.map(summary::family),
        family_figure: family.map(curves::of_family).transpose()?,
        sections,
    };
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("report.html", include_str!("page/report.html"))?;
    Ok(environment.get_template("report.html")?.render(Value::from(Serde(page)))?)
}

fn section(subject: &Subject, i: usize, name: &str, with_charts: bool) -> Result<Section, ReportError> {
    let (run, network) = (&subject.run, subject.network.as_ref());
    Ok(Section {
        id: format!("run-{}", i + 1),
        name: name.to_owned(),
        facts: summary::facts(subject),
        recipe: run.recipe.as_ref().map_or(String::new(), |recipe| recipe.to_toml()),
        figures: curves::of_layers(run)?,
        layers: layers::layers(run, network, with_charts)?,
        sensitivity: run.sensitivity.as_ref().map(sensitivity::table),
        predictions: network.and_then(|network| predictions::view(network, with_charts)).transpose()?,
        accel: network.and_then(|network| accel::view(network).transpose()).transpose()?,
        drawing: network.map_or(String::new(), |network| network.drawing.clone()),
    })
}

/// A fraction as a percentage.
fn percent(fraction: f64) -> String {
    match fraction {
        0.0 => "0".to_owned(),
        f if f.abs() < 5e-5 => "<0.01 %".to_owned(),
        f => format!("{:.2} %", 100.0 * f),
    }
}

/// A number with as many digits as a person reads.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size < 10.0 => format!("{value:.3}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
