//! The table of runs, what is to be warned of, and the facts of one run.

use std::collections::BTreeMap;

use bitpact_train::{EpochRecord, Metric, WarningKind};
use serde::Serialize;

use super::{Subject, Table, bytes, number};
use crate::Run;
use crate::book::precision;
use crate::family::Family;

/// Headings of the table of runs.
pub(super) const COLUMNS: [&str; 13] = [
    "Run",
    "Network",
    "Data",
    "Bits",
    "Integers",
    "Simulated",
    "Float beside",
    "Size",
    "Epochs",
    "Seed",
    "Precision",
    "Images/s",
    "Commit",
];

/// Names that tell the runs apart: of their folders, with the folder around them where two are the same.
pub(super) fn names(subjects: &[Subject]) -> Vec<String> {
    let own: Vec<String> = subjects.iter().map(|subject| subject.run.name()).collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    own.iter().for_each(|name| *seen.entry(name).or_default() += 1);
    let longer = |(subject, name): (&Subject, &String)| match seen[name.as_str()] {
        1 => name.clone(),
        _ => subject.run.path.display().to_string(),
    };
    subjects.iter().zip(&own).map(longer).collect()
}

/// The metric that counts, as people read it: that of the integers, or of the simulated view.
fn shown(record: &EpochRecord, integer: bool) -> String {
    let (top1, metrics) = match integer {
        true => (record.integer_top1, &record.integer),
        false => (record.simulated_top1, &record.simulated),
    };
    match (top1, metrics.first()) {
        (Some(top1), _) => format!("{:.2} %", 100.0 * top1),
        (None, Some(metric)) => metric.to_string(),
        (None, None) => String::new(),
    }
}

/// A number that is larger where the last epoch is better; `None` before the first one.
fn score(run: &Run) -> Option<f64> {
    let last = run.last()?;
    Some(last.metrics().first().map_or(last.top1(), Metric::score))
}

/// What the page says first.
pub(super) fn lead(subjects: &[Subject], names: &[String]) -> String {
    let scored = subjects.iter().zip(names).filter_map(|(subject, name)| Some((score(&subject.run)?, subject, name)));
    let Some((_, best, name)) = scored.max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return "No epoch is done yet.".to_owned();
    };
    let last = best.run.last().expect("it has a score");
    let is_float = shown(last, true).is_empty();
    let what = if is_float { "float network" } else { "integer network" };
    let of = if subjects.len() > 1 { format!(", of {name}") } else { String::new() };
    let epochs = best.run.recipe.as_ref().map_or(String::new(), |recipe| format!(" of {}", recipe.epochs));
    format!(
        "The {what} reaches {} on {} test images after epoch {}{epochs}{of}.",
        shown(last, !is_float),
        last.test_images,
        last.epoch
    )
}

/// The table of runs.
pub(super) fn rows(subjects: &[Subject], names: &[String]) -> Vec<Vec<String>> {
    subjects.iter().zip(names).map(|(subject, name)| row(subject, name)).collect()
}

fn row(subject: &Subject, name: &str) -> Vec<String> {
    let run = &subject.run;
    let of = |f: &dyn Fn(&bitpact_train::Recipe) -> String| run.recipe.as_ref().map_or(String::new(), f);
    let last = run.last();
    let simulated = run.records.epochs.iter().rev().find(|e| !shown(e, false).is_empty());
    let epochs = last.map_or("0".to_owned(), |last| last.epoch.to_string());
    let of_epochs = of(&|recipe| format!(" of {}", recipe.epochs));
    vec![
        name.to_owned(),
        of(&|recipe| recipe.arch.clone()),
        of(&|recipe| recipe.dataset.clone()),
        of(&|recipe| recipe.bits.to_string()),
        last.map_or(String::new(), |last| shown(last, true)),
        simulated.map_or(String::new(), |e| match last.is_some_and(|last| last.epoch == e.epoch) {
            true => shown(e, false),
            false => format!("{}, epoch {}", shown(e, false), e.epoch),
        }),
        subject.float.as_ref().and_then(Run::last).map_or(String::new(), |last| shown(last, false)),
        run.model_bytes.map_or(String::new(), bytes),
        format!("{epochs}{of_epochs}"),
        of(&|recipe| recipe.seed.to_string()),
        of(&|recipe| precision(recipe).to_owned()),
        last.map_or(String::new(), |last| number(last.images_per_s)),
        distinct(run, |session| session.commit.clone()),
    ]
}

fn distinct(run: &Run, of: impl Fn(&crate::Session) -> String) -> String {
    let mut all: Vec<String> = run.sessions.iter().map(of).filter(|text| !text.is_empty()).collect();
    all.dedup();
    all.join(", ")
}

/// Facts about one run, a name and a value each.
pub(super) fn facts(subject: &Subject) -> Vec<(String, String)> {
    let run = &subject.run;
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push((name.to_owned(), value));
        }
    };
    if let Some(last) = run.last() {
        let is_float = shown(last, true).is_empty();
        add(if is_float { "Float" } else { "Integers" }, shown(last, !is_float));
        add("Loss", number(last.loss));
    }
    let scores = run.records.epochs.iter().map(|e| (e.metrics().first().map_or(e.top1(), Metric::score), e));
    if let Some((_, best)) = scores.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let is_float = shown(best, true).is_empty();
        add("Best epoch", format!("{} ({})", best.epoch, shown(best, !is_float)));
    }
    add("Integer file", run.model_bytes.map_or(String::new(), bytes));
    let seconds: f64 = run.records.epochs.iter().map(|epoch| epoch.seconds).sum();
    let time = match seconds {
        0.0 => String::new(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    };
    add("Training", time);
    add(
        "Machine",
        distinct(run, |session| format!("{}, {} threads, {}", session.machine, session.threads, session.isa)),
    );
    facts
}

/// A warning of a run, as the terminal says it, with those of the same kind about other layers.
#[derive(Serialize)]
pub(super) struct Told {
    run: String,
    #[serde(skip)]
    kind: WarningKind,
    epoch: u32,
    layer: String,
    message: String,
    more: Vec<String>,
}

/// The warnings of all runs, those of a kind and a run together.
pub(super) fn warnings(runs: &[(&str, &Run)]) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    for (name, run) in runs {
        for warning in &run.records.warnings {
            let same = |told: &&mut Told| told.run == *name && told.kind == warning.warning;
            match told.iter_mut().find(same) {
                Some(first) => first.more.push(format!("epoch {}: {}", warning.epoch, warning.message)),
                None => told.push(Told {
                    run: (*name).to_owned(),
                    kind: warning.warning,
                    epoch: warning.epoch,
                    layer: warning.layer.clone(),
                    message: warning.message.clone(),
                    more: Vec::new(),
                }),
            }
        }
    }
    told
}

/// What could not be read.
pub(super) fn faults(runs: &[(&str, &Run)]) -> Vec<(String, String)> {
    let of = |(name, run): &(&str, &Run)| {
        run.faults.iter().map(|fault| ((*name).to_owned(), fault.clone())).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of).collect()
}

/// What the page of a sweep says first: the smallest and the largest network on the front.
pub(super) fn family_lead(family: &Family) -> Option<String> {
    let told = |bits: &str, bytes_of: u64, mean: f64| {
        let value = if family.is_fraction() { format!("{:.2} %", 100.0 * mean) } else { format!("{mean:.4}") };
        format!("{bits} reaches {value} in {}", bytes(bytes_of))
    };
    let mut on: Vec<(u64, String)> = Vec::new();
    for member in family.members.iter().filter(|member| family.is_on_front(member)) {
        let bytes = member.bytes?;
        on.push((bytes, told(&member.bits, bytes, member.mean()?)));
    }
    on.sort();
    let metric = &family.metric;
    match &on[..] {
        [] => None,
        [(_, only)] => Some(format!("{only}, and no other is as good ({metric} of the integers).")),
        [(_, least), .., (_, most)] => Some(format!("{least}, {most} ({metric} of the integers, means over runs).")),
    }
}

/// A family of runs, a row a width.
pub(super) fn family(family: &Family) -> Table {
    let mut rows = family.table();
    let head = rows.remove(0);
    Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}
