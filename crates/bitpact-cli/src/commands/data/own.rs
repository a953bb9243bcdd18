//! `bitpact data check` of data of one's own: tells what they would be read as.

use std::path::Path;

use anyhow::{Result, bail};
use bitpact::unstable::data::own::{Options, Report, Skipped, Task, check};
use serde_json::{Value, json};

use crate::out::{print, say, table};
use crate::own::{listed, with_bar};

/// How data of one's own are read: the keys of a recipe that say so.
#[derive(clap::Args)]
#[command(next_help_heading = "Data of your own")]
pub(super) struct OwnArgs {
    /// Task: classify, segment, restore or regress
    #[arg(long, value_name = "NAME")]
    task: Option<Task>,
    /// Size of the image that the network reads
    #[arg(long, value_name = "SIDE|ROWS,COLUMNS", value_parser = parse_crop)]
    crop: Option<[usize; 2]>,
    /// Channels of the images: 1 or 3
    #[arg(long, value_name = "N")]
    channels: Option<usize>,
    /// How much larger the pictures to restore are than the images that the network reads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    upscale: Option<u32>,
    /// Share that is kept out of training to measure on
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    test_share: Option<f64>,
    /// Fail where a file cannot be used
    #[arg(long)]
    strict: bool,
}

fn parse_crop(text: &str) -> Result<[usize; 2], String> {
    let sides: Option<Vec<usize>> = text.split(',').map(|side| side.parse().ok()).collect();
    match sides.as_deref() {
        Some([side]) if (1..=65_536).contains(side) => Ok([*side; 2]),
        Some([h, w]) if [h, w].iter().all(|side| (1..=65_536).contains(*side)) => Ok([*h, *w]),
        _ => Err("expected a side, or rows and columns, of 1 to 65536 pixels".to_owned()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

pub(super) fn run(path: &Path, args: &OwnArgs, json: bool) -> Result<()> {
    let OwnArgs { task, crop, channels, test_share, strict, .. } = *args;
    let upscale = args.upscale.map(|n| n as usize);
    let options = Options { task, crop, channels, upscale, test_share, strict, ..Options::default() };
    let report = with_bar(|told| check(path, &options, told))?;
    if json {
        print(&object(path, &report).to_string())?;
    } else if !report.form.is_empty() {
        print(&text(path, &report))?;
    }
    if let Some(problem) = report.problem {
        bail!("training would fail: {problem}");
    }
    if !report.needed.is_empty() && !json {
        report.needed.iter().for_each(|flag| say!("training needs {flag}"));
    }
    Ok(())
}

fn object(path: &Path, report: &Report) -> Value {
    let files = |files: &[Skipped]| -> Vec<Value> {
        let file = |file: &Skipped| json!({ "file": file.path.display().to_string(), "why": file.to_string() });
        files.iter().map(file).collect()
    };
    let halves: Vec<Value> = report
        .halves
        .iter()
        .map(|half| json!({ "name": half.name, "examples": half.examples, "histogram": half.per_class }))
        .collect();
    let pixels: Vec<Value> = report.pixels.iter().map(|(kind, n)| json!({ "kind": kind, "pictures": n })).collect();
    json!({
        "path": path.display().to_string(),
        "form": report.form,
        "task": report.task,
        "classes": report.names,
        "halves": halves,
        "sizes": report.sizes.map(|[min, median, max]| json!({ "min": min, "median": median, "max": max })),
        "pixels": pixels,
        "shape": report.shape.map(|shape| [shape.h, shape.w, shape.c]),
        "needed": report.needed,
        "unusable": files(&report.skipped),
        "not_read": files(&report.odd),
        "problem": report.problem,
    })
}

fn text(path: &Path, report: &Report) -> String {
    let mut text = format!("{}: {}", path.display(), report.form);
    if let Some(task) = report.task {
        text += &format!(", to {task}");
    }
    text += "\n\n";
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    for half in &report.halves {
        let name = if half.name == "train" { "to learn from" } else { "to measure on" };
        let from = if half.name == "train" { String::new() } else { format!(" ({})", half.name) };
        row(name, format!("{} examples{from}", half.examples));
    }
    if let Some([min, median, max]) = report.sizes {
        let shown = |[h, w]: [usize; 2]| format!("{h}x{w}");
        let sizes = match min == max {
            true => format!("all {}", shown(min)),
            false => format!("{} to {}, median {}", shown(min), shown(max), shown(median)),
        };
        row("rows x columns", sizes);
    }
    if !report.pixels.is_empty() {
        let kinds: Vec<String> = report.pixels.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        row("pixels", kinds.join("; "));
    }
    if let Some(shape) = report.shape {
        row("the network reads", format!("{}x{}x{}", shape.h, shape.w, shape.c));
    }
    text += &table(&rows, &[0, 1]);
    let counts: Vec<&Vec<usize>> =
        report.halves.iter().map(|half| &half.per_class).filter(|counts| !counts.is_empty()).collect();
    if !report.names.is_empty() && !counts.is_empty() {
        let heads = report.halves.iter().map(|half| if half.name == "train" { "train" } else { "test" }.to_owned());
        let mut rows = vec![["class".to_owned()].into_iter().chain(heads).collect::<Vec<_>>()];
        for (i, name) in report.names.iter().enumerate() {
            let counts = counts.iter().map(|counts| counts[i].to_string());
            rows.push([name.clone()].into_iter().chain(counts).collect());
        }
        text += &format!("\n{}", table(&rows, &[0]));
    } else if !report.names.is_empty() {
        text += &format!("\nwhat it gives: {}\n", report.names.join(", "));
    }
    for (what, files) in [("cannot be used", &report.skipped), ("are not read", &report.odd)] {
        if !files.is_empty() {
            text += &format!("\n{} files or folders {what}:\n{}\n", files.len(), listed(files).join("\n"));
        }
    }
    text
}
