//! `bitpact accel in-memory`: a network on arrays of magnetic, resistive or transistor cells.

mod report;

use std::path::PathBuf;

use anyhow::{Result, bail};
use bitpact::unstable::accel::in_memory::{
    CELL_NAMES, Cell, Margins, Method, Options, ReadDisturb, Study, array_layers, charts, margins, read_disturb, study,
};
use bitpact::unstable::engine::ExecOptions;
use bitpact::{Dataset, Engine, IntegerModel};

use super::write_files;
use crate::commands::test_set::TestSetArgs;
use crate::machine::{Machine, MachineArgs};
use crate::out::print;
use crate::progress::image_bar;

/// Images where no number is asked for: every chip computes all of them.
const USUAL_IMAGES: u64 = 1000;
/// Rows that `--sweep rows` tries.
const ROWS: [usize; 4] = [8, 16, 32, 64];
const SIGMAS: [f64; 5] = [0.0, 0.02, 0.05, 0.1, 0.2];
const RATIOS: [f64; 8] = [1.2, 1.35, 1.417, 2.3, 5.0, 20.0, 150.0, 8000.0];

/// Runs a network on in-memory arrays, chip after chip: accuracy, wrongly read counts, margins, energy, time
#[derive(clap::Args)]
#[command(after_help = format!("\
Cells: {}, or a TOML file.

Examples:
  bitpact accel in-memory run/model.bitpact --data cifar-10-batches-bin --cell stride-xnor --rows 8 --chips 20 --sigma 5%
  bitpact accel in-memory run --data DIR --cell 1t1mtj --cell 2t2mtj --cell crest --exact-ends
  bitpact accel in-memory run --data DIR --cell stride-and --sweep rows,sigma,ratio --output charts

Every cell is drawn once a chip; the seed decides everything. A sweep changes one quantity at a time.", CELL_NAMES.join(", ")))]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// A built-in cell or a TOML file; more than once to compare
    #[arg(long, value_name = "NAME|FILE", default_value = "stride-xnor")]
    cell: Vec<String>,
    /// Rows that are read at once, a power of two; the converter's bits grow with them [default: the cell's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    rows: Option<u16>,
    /// Standard deviation of the current from cell to cell, such as 5% or 0.05, in place of the cell's spreads
    #[arg(long, value_name = "SHARE", value_parser = parse_share, allow_hyphen_values = true)]
    sigma: Option<f64>,
    /// High over low current, or inf, in place of what the cell's physics gives
    #[arg(long, value_name = "RATIO")]
    ratio: Option<f64>,
    /// Bits of the converter, without the sign
    #[arg(long, value_name = "N")]
    adc_bits: Option<u8>,
    /// Infinite ratio, no spread, no wires and a converter that is wide enough: the exact integers
    #[arg(long, conflicts_with_all = ["sigma", "ratio", "adc_bits"])]
    ideal: bool,
    /// Chips
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    chips: u16,
    /// Seed of the cells
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Leave the layer that reads the image and the last one exact
    #[arg(long)]
    exact_ends: bool,
    /// Layers of 1 bit by the table of errors by count, for reads of more than eight rows
    #[arg(long)]
    by_count: bool,
    /// Parameters to vary, one at a time: rows, sigma, ratio
    #[arg(long, value_name = "KEYS", value_delimiter = ',', value_parser = ["rows", "sigma", "ratio"])]
    sweep: Vec<String>,
    /// Folder for the charts: margin against rows, and accuracy against ratio where that is swept
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    match number.trim().parse::<f64>() {
        Ok(share) if share.is_finite() => Ok(share * unit),
        _ => Err("expected a share such as 5% or 0.05".to_owned()),
    }
}

/// A cell with what was found of it.
struct Found {
    cell: Cell,
    margins: Margins,
    disturb: Option<ReadDisturb>,
    study: Study,
    swept: Vec<Swept>,
}

/// One point of a sweep.
struct Swept {
    key: &'static str,
    value: f64,
    margins: Margins,
    study: Study,
}

/// The images, their classes and the exact integers' logits.
struct Images {
    pixels: Vec<u8>,
    labels: Vec<usize>,
    exact: Vec<i64>,
}

/// Everything that stays the same from cell to cell.
struct Bench<'a> {
    model: &'a IntegerModel,
    images: Images,
    options: Options,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let cells = args.cell.iter().map(|name| cell(&args, name)).collect::<Result<Vec<_>>>()?;
    let on = args.on.usually(USUAL_IMAGES);
    let loaded = on.network()?;
    let model = loaded.integers()?;
    let layers = array_layers(model, !args.exact_ends)?;
    let (name, test) = on.images(&loaded)?;
    let (shape, reads) = (test.image_shape(), model.input_shape);
    if (shape.h, shape.w, shape.c) != (reads.h, reads.w, reads.c) {
        let file = loaded.file.display();
        bail!("{file}: reads images of {reads}, but those of {name} are {}x{}x{}", shape.h, shape.w, shape.c);
    }
    let machine = args.machine.resolve();
    let bench = Bench {
        model,
        images: images(model, &*test, machine)?,
        options: Options {
            chips: args.chips.into(),
            seed: args.seed,
            method: if args.by_count { Method::Counts } else { Method::Cells },
            ends: !args.exact_ends,
            threads: machine.threads,
        },
    };
    let found = cells.into_iter().map(|cell| bench.find(cell, &args.sweep)).collect::<Result<Vec<_>>>()?;
    if let Some(folder) = &args.output {
        write_charts(folder, &found)?;
    }
    let head = format!("{} on {name}, {} images", loaded.file.display(), bench.images.labels.len());
    print(&if args.json {
        report::json(&head, &bench, &found).to_string()
    } else {
        report::text(&head, &layers, &found)
    })
}

/// The cell called `name` as the flags change it.
fn cell(args: &Args, name: &str) -> Result<Cell> {
    let mut cell = Cell::open(name)?;
    if let Some(rows) = args.rows {
        cell = cell.with_rows(rows.into())?;
    }
    if let Some(sigma) = args.sigma {
        cell = cell.with_sigma(sigma)?;
    }
    if let Some(ratio) = args.ratio {
        cell = cell.with_ratio(ratio)?;
    }
    if let Some(bits) = args.adc_bits {
        cell = cell.with_adc_bits(bits)?;
    }
    Ok(if args.ideal { cell.ideal() } else { cell })
}

/// All images, their classes and the exact integers' logits.
fn images(model: &IntegerModel, test: &dyn Dataset, machine: Machine) -> Result<Images> {
    let length = model.example_bytes();
    let mut pixels = vec![0; test.len() * length];
    pixels.chunks_exact_mut(length).enumerate().for_each(|(i, image)| test.image(i, image));
    let engine = Engine::new(model, ExecOptions { isa: machine.isa, threads: machine.threads })?;
    let mut exact = Vec::with_capacity(test.len() * model.classes());
    for batch in pixels.chunks(100 * length) {
        exact.extend(engine.logits(batch)?);
    }
    Ok(Images { pixels, labels: (0..test.len()).map(|i| test.label(i)).collect(), exact })
}

impl Bench<'_> {
    /// Studies `cell` and its variants of the keys `sweep`.
    fn find(&self, cell: Cell, sweep: &[String]) -> Result<Found> {
        let mut swept = Vec::new();
        let study = self.study(&cell, &cell.name)?;
        for key in sweep {
            let (key, values): (&'static str, Vec<f64>) = match key.as_str() {
                "rows" => ("rows", ROWS.map(|rows| rows as f64).to_vec()),
                "sigma" => ("sigma", SIGMAS.to_vec()),
                _ => ("ratio", RATIOS.to_vec()),
            };
            for value in values {
                let changed = match key {
                    "rows" => cell.clone().with_rows(value as usize)?,
                    "sigma" => cell.clone().with_sigma(value)?,
                    _ => cell.clone().with_ratio(value)?,
                };
                let study = self.study(&changed, &format!("{}, {key} {value}", cell.name))?;
                swept.push(Swept { key, value, margins: margins(&changed), study });
            }
        }
        Ok(Found { margins: margins(&cell), disturb: read_disturb(&cell), study, swept, cell })
    }

    fn study(&self, cell: &Cell, doing: &str) -> Result<Study> {
        let Images { pixels, labels, exact } = &self.images;
        let bar = image_bar(doing, labels.len() * self.options.chips);
        let told = |done: usize| bar.set_position(done as u64);
        let study = study(self.model, cell, &self.options, pixels, exact, labels, &told)?;
        bar.finish_and_clear();
        Ok(study)
    }
}

fn write_charts(folder: &std::path::Path, found: &[Found]) -> Result<()> {
    let cells: Vec<Cell> = found.iter().map(|found| found.cell.clone()).collect();
    let mut files = vec![("margin.svg", charts::margin_against_rows(&cells)?)];
    let line = |found: &Found| {
        let points = found.swept.iter().filter(|s| s.key == "ratio").map(|s| (s.value, s.study.mean()));
        (found.cell.name.clone(), points.collect::<Vec<_>>())
    };
    let lines: Vec<_> = found.iter().map(line).filter(|(_, points)| !points.is_empty()).collect();
    if let (false, Some(first)) = (lines.is_empty(), found.first()) {
        files.push(("accuracy.svg", charts::accuracy_against_ratio(&lines, first.study.exact)?));
    }
    write_files(folder, &files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_or_refused() {
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("0.02"), Ok(0.02));
        for bad in ["", "%", "5 percent", "nan", "inf"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
