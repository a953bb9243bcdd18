//! `bitpact search pipeline`: a float network, fewer channels, few bits, and what each stage reaches.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bitpact::unstable::accel::Device;
use bitpact::unstable::accel::charts::{Series, SeriesLabelPosition, draw};
use bitpact::unstable::data::{DatasetName, Limits};
use bitpact::unstable::graph::{BitSpec, counts};
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::page::{Subject, render};
use bitpact::unstable::report::{Family, Run};
use bitpact::unstable::search::Budget;
use bitpact::unstable::train::run_folder::{CONFIG, LAST};
use bitpact::unstable::train::{Draft, EpochRecord};
use bitpact::{Checkpoint, Dataset, ExecOptions, Recipe};
use clap::Parser;
use serde_json::json;

use super::{bits, blocks, prune};
use crate::commands::train;
use crate::exit::Usage;
use crate::machine::{Machine, MachineArgs, load_images};
use crate::out::{print, say, table};

/// Trains a float network, takes blocks and channels off it, quantizes what is left, and draws the fronts
#[derive(clap::Args)]
#[command(after_help = "\
For each fold: the recipe in float, with --blocks after one alternative of each choice of its network was taken and
trained on; from it one pruned network for each --prune, trained on in float and then at each of
--widths; and from the first of these widths one network for each --mixed, whose bits `search bits` chooses. A stage that
is done is left alone, one that had begun goes on (a pruning begins anew), so that a pipeline can be stopped and started
again. With --distill all that follows the float network learns from it. Words after -- are flags of `bitpact train` for every run.

Written into the output folder: pipeline.json, pipeline.md and front.svg with every stage of every fold, and report.html,
the page of all runs with the front of file sizes, the measured time of an image and the modelled device.

Examples:
  bitpact search pipeline builtin --prune params=20k --widths W8A8 --mixed bytes=W3A3 -o small -- --epochs 4
  bitpact search pipeline ppg-bp --folds 0,1,2,3,4 --prune params=6.5k --mixed bytes=W4A4 --distill 1 --data DIR -o ppg")]
pub(crate) struct Args {
    /// A built-in recipe or a TOML file
    recipe: PathBuf,
    /// Budget within which one alternative of each choice of the network is taken
    #[arg(long, value_name = "BUDGET")]
    blocks: Option<String>,
    /// Budget of a pruned network, such as params=10k; may be repeated
    #[arg(long, value_name = "BUDGET", required = true)]
    prune: Vec<String>,
    /// Shorten kernels of convolutions along a row too, and widen their dilation
    #[arg(long)]
    kernels: bool,
    /// Bits at which pruned networks are trained
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "W8A8")]
    widths: Vec<BitSpec>,
    /// Budget of a network of mixed bits, such as bytes=W4A4; may be repeated
    #[arg(long, value_name = "BUDGET")]
    mixed: Vec<String>,
    /// Let what follows the float network learn from it: share of it in the loss, from 0 to 1
    #[arg(long, value_name = "W", value_parser = parse_share)]
    distill: Option<f64>,
    /// Folds, of a set that is cut into folds
    #[arg(long, value_name = "N", value_delimiter = ',')]
    folds: Vec<u16>,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Device of the modelled numbers: a built-in one or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "pact-4")]
    device: String,
    #[command(flatten)]
    machine: MachineArgs,
    /// Folder of the stages and tables
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
    /// Flags of `bitpact train`
    #[arg(last = true)]
    flags: Vec<String>,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
}

/// The flags of a command of the pipeline.
#[derive(Parser)]
#[command(name = "bitpact", no_binary_name = true)]
enum Line {
    Train(Box<train::Args>),
    Prune(Box<prune::Args>),
    Blocks(Box<blocks::Args>),
    Bits(Box<bits::Args>),
}

/// One command of the pipeline.
struct Stage {
    /// Name of the stage in tables; none for a stage whose network stands in no table.
    name: Option<String>,
    fold: Option<u16>,
    /// Folder of a run or file that the stage makes, there once it is done.
    made: PathBuf,
    words: Vec<String>,
}

/// A network that a stage reached.
struct Row {
    stage: String,
    fold: Option<u16>,
    parameters: u64,
    /// Bytes of weight codes; of a float network of float32.
    bytes: u64,
    run: Run,
}

impl Row {
    /// Measures of its last epoch.
    fn measures(&self) -> Vec<(String, f64)> {
        self.run.last().map(measures).unwrap_or_default()
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    Device::open(&args.device)?;
    for text in args.prune.iter().chain(&args.mixed).chain(&args.blocks) {
        text.parse::<Budget>()?;
    }
    let clashes =
        ["--arch", "--bits", "--fold", "--output", "--resume", "--init-from", "--json", "--data", "--teacher"];
    let clash = |flag: &&String| clashes.iter().any(|own| *flag == own || flag.starts_with(&format!("{own}=")));
    if let Some(flag) = args.flags.iter().find(clash) {
        return Err(Usage(format!("{flag}: a pipeline sets this flag of its runs itself")).into());
    }
    let recipe = Draft::open(&args.recipe)?.finish()?;
    let stages = stages(&args)?;
    // All lines are checked before the first one is trained.
    let lines = stages.iter().map(parsed).collect::<Result<Vec<Line>>>()?;
    for (i, (stage, line)) in stages.iter().zip(lines).enumerate() {
        let place = format!("{} of {}: {}", i + 1, stages.len(), stage.made.display());
        if is_done(stage) {
            say!("{place} is done");
            continue;
        }
        say!("{place}");
        match (line, begun(stage)) {
            (Line::Train(_), true) => {
                let data = args.data.iter().flat_map(|data| ["--data".to_owned(), data.display().to_string()]);
                let words = ["train".to_owned(), "--resume".to_owned(), stage.made.display().to_string()];
                let words = words.into_iter().chain(data).collect();
                let Line::Train(line) = parse(words)? else { unreachable!("a line of train") };
                train::trained(*line)?;
            }
            (Line::Train(line), false) => drop(train::trained(*line)?),
            (Line::Prune(line), has_begun) => {
                if has_begun {
                    begin_anew(&stage.made)?;
                }
                say!("{}", prune::pruned(*line)?);
            }
            (Line::Blocks(line), has_begun) => {
                if has_begun {
                    begin_anew(&stage.made)?;
                }
                say!("{}", blocks::chosen(*line)?);
            }
            (Line::Bits(line), _) => say!("{}", bits::chosen(*line)?),
        }
    }
    let rows = stages.iter().filter_map(|stage| row(stage).transpose()).collect::<Result<Vec<Row>>>()?;
    let means = means(&args, &recipe)?;
    finish(&args, &recipe, &rows, &means)
}

/// Removes the folder of a search that had begun: its numbers are not kept, and nothing else is in this folder.
fn begin_anew(made: &Path) -> Result<()> {
    let folder = made.parent().unwrap_or(Path::new(""));
    std::fs::remove_dir_all(folder).with_context(|| format!("{}: cannot be removed", folder.display()))
}

/// The commands in their order.
fn stages(args: &Args) -> Result<Vec<Stage>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{}: not UTF-8", path.display()));
    let folds: Vec<Option<u16>> = match args.folds.is_empty() {
        true => vec![None],
        false => args.folds.iter().copied().map(Some).collect(),
    };
    let mut stages = Vec::new();
    for fold in folds {
        let home = fold.map_or(args.output.clone(), |fold| args.output.join(format!("fold{fold}")));
        let mut add = |name: Option<String>, made: PathBuf, words: Vec<String>| -> Result<()> {
            let mut words = words;
            if let Some(data) = &args.data {
                words.extend(["--data".to_owned(), text(data)?]);
            }
            stages.push(Stage { name, fold, made, words });
            Ok(())
        };
        let run = |from: &Path, bits: Option<&str>, start: Option<&Path>, to: &Path| -> Result<Vec<String>> {
            let mut words = vec!["train".to_owned(), text(from)?, "--output".to_owned(), text(to)?];
            words.extend(bits.into_iter().flat_map(|bits| ["--bits".to_owned(), bits.to_owned()]));
            if let Some(start) = start {
                words.extend(["--init-from".to_owned(), text(start)?]);
            }
            words.extend(args.flags.iter().cloned());
            Ok(words)
        };
        let in_fold = || fold.iter().flat_map(|fold| ["--fold".to_owned(), fold.to_string()]);
        let seed = home.join("seed");
        match &args.blocks {
            None => {
                let words = run(&args.recipe, Some("float"), None, &seed)?;
                add(Some("seed, float".to_owned()), seed.clone(), words.into_iter().chain(in_fold()).collect())?;
            }
            Some(budget) => {
                let (own, recipe) = (home.join("blocks"), home.join("blocks/chosen.toml"));
                let words = ["blocks", &text(&args.recipe)?, "--bits", "float", "--budget", budget, "-o", &text(&own)?];
                let words = words.map(str::to_owned).into_iter().chain(in_fold());
                add(None, recipe.clone(), words.chain(args.flags.iter().cloned()).collect())?;
                let words = run(&recipe, None, Some(&own.join("chosen.safetensors")), &seed)?;
                add(Some(format!("blocks, {budget}, float")), seed.clone(), words)?;
            }
        }
        for budget in &args.prune {
            let own = home.join(plain(budget));
            let (masks, recipe) = (own.join("masks"), own.join("masks/pruned.toml"));
            let words = ["prune", &text(&seed)?, "--budget", budget, "-o", &text(&masks)?].map(str::to_owned);
            let mut words: Vec<String> = words.into_iter().chain(args.flags.iter().cloned()).collect();
            words.extend(args.kernels.then(|| "--kernels".to_owned()));
            if let Some(weight) = args.distill {
                // The recipe that is written holds the teacher, so that what follows learns from it too.
                let teacher = ["--teacher", &text(&seed)?, "--distill-weight"].map(str::to_owned);
                words.extend(teacher.into_iter().chain([weight.to_string()]));
            }
            add(None, recipe.clone(), words)?;
            let float = own.join("float");
            let words = run(&recipe, None, Some(&masks.join("pruned.safetensors")), &float)?;
            add(Some(format!("{budget}, float")), float.clone(), words)?;
            for bits in args.widths.iter().map(BitSpec::to_string) {
                let made = own.join(&bits);
                let words = run(&recipe, Some(&bits), Some(&float.join(LAST)), &made)?;
                add(Some(format!("{budget}, {bits}")), made, words)?;
            }
            let first = args.widths.first().map(|bits| own.join(bits.to_string())).context("--widths has none")?;
            for mixed in &args.mixed {
                let file = own.join(format!("{}.toml", plain(mixed)));
                let words = ["bits", &text(&first)?, "--budget", mixed, "-o", &text(&file)?].map(str::to_owned);
                let measured = ["--sensitivity".to_owned(), text(&own.join("layers.json"))?];
                add(None, file.clone(), words.into_iter().chain(measured).collect())?;
                let made = own.join(plain(mixed));
                let words = run(&file, None, Some(&first.join(LAST)), &made)?;
                add(Some(format!("{budget}, {mixed}")), made, words)?;
            }
        }
    }
    Ok(stages)
}

/// A budget as part of a file's name.
fn plain(budget: &str) -> String {
    budget.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

fn parse(words: Vec<String>) -> Result<Line> {
    let shown = words.join(" ");
    let told = |error: clap::Error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        Usage(format!("bitpact {shown}: {}", first.trim_start_matches("error: ")))
    };
    Ok(Line::try_parse_from(words).map_err(told)?)
}

fn parsed(stage: &Stage) -> Result<Line> {
    parse(stage.words.clone())
}

fn is_done(stage: &Stage) -> bool {
    if stage.name.is_none() {
        return stage.made.is_file();
    }
    Run::read(&stage.made).is_ok_and(|run| {
        let epochs = run.recipe.as_ref().map(|recipe| recipe.epochs);
        run.last().zip(epochs).is_some_and(|(last, epochs)| last.epoch >= epochs) && stage.made.join(LAST).exists()
    })
}

/// Tells whether the folder of a stage holds a run that had begun and can go on.
fn begun(stage: &Stage) -> bool {
    let folder = if stage.name.is_some() { Some(&*stage.made) } else { stage.made.parent() };
    folder.is_some_and(|folder| folder.join(CONFIG).exists())
}

/// The row of the tables for a stage that is done; none for a stage without a name.
fn row(stage: &Stage) -> Result<Option<Row>> {
    let Some(name) = &stage.name else { return Ok(None) };
    let file = stage.made.join(LAST);
    let model = Checkpoint::load(&file)?.model;
    let run = Run::read(&stage.made)?;
    run.last().with_context(|| format!("{}: no epoch", file.display()))?;
    let layers = counts::layers(&model.graph, &model.plan);
    let is_float = model.plan.is_float();
    let bytes = layers.iter().map(|layer| if is_float { layer.float_bytes } else { layer.packed_bytes }).sum();
    let parameters = counts::parameters(&model.graph);
    Ok(Some(Row { stage: name.clone(), fold: stage.fold, parameters, bytes, run }))
}

/// Names of the measures of a record, and their values: errors in units where there are some, else what counts first.
fn measures(record: &EpochRecord) -> Vec<(String, f64)> {
    let all = record.metrics();
    let in_units = all.iter().filter(|metric| metric.name.starts_with("mae of "));
    let found: Vec<_> = in_units.map(|metric| (metric.name.clone(), metric.value)).collect();
    match (found.is_empty(), all.first()) {
        (false, _) => found,
        (true, Some(first)) => vec![(first.name.clone(), first.value)],
        (true, None) => vec![("top1".to_owned(), record.top1())],
    }
}

/// Errors of the mean of the training targets for each fold, of targets with units.
fn means(args: &Args, recipe: &Recipe) -> Result<Vec<(Option<u16>, Vec<f64>)>> {
    let dataset: DatasetName = recipe.dataset.parse()?;
    let mut found = Vec::new();
    let folds = args.folds.iter().copied().map(Some).chain(args.folds.is_empty().then_some(None));
    for fold in folds {
        let mut options = recipe.own_options();
        options.fold = fold.map_or(options.fold, usize::from);
        let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
        let (split, _reading) = load_images(dataset, args.data.as_ref(), limits, &options)?;
        let n = split.train.units().len();
        if n == 0 {
            return Ok(Vec::new());
        }
        let targets = |set: &dyn Dataset| -> Vec<Vec<f32>> {
            let one = |index: usize| {
                let mut target = vec![0.0; n];
                set.target(index, &mut target);
                target
            };
            (0..set.len()).map(one).collect()
        };
        let (train, test) = (targets(&*split.train), targets(&*split.test));
        let mean = |all: &mut dyn Iterator<Item = f64>, count: usize| all.sum::<f64>() / count as f64;
        let error = |k: usize| {
            let center = mean(&mut train.iter().map(|target| f64::from(target[k])), train.len());
            let far = mean(&mut test.iter().map(|target| (f64::from(target[k]) - center).abs()), test.len());
            far * split.train.units()[k].scale
        };
        found.push((fold, (0..n).map(error).collect()));
    }
    Ok(found)
}

fn average(values: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = values.collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// Writes the tables and the chart.
fn finish(args: &Args, recipe: &Recipe, rows: &[Row], means: &[(Option<u16>, Vec<f64>)]) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&&*row.stage) {
            names.push(&row.stage);
        }
    }
    let labels: Vec<String> = rows.first().map_or(Vec::new(), |row| row.measures().into_iter().map(|m| m.0).collect());
    let mut head = vec!["stage".to_owned(), "parameters".to_owned(), "bytes of weights".to_owned()];
    head.extend(labels.iter().cloned());
    let folds = args.folds.len();
    let mut shown = vec![head];
    let mut points = Vec::new();
    let value = |number: f64| {
        if labels.first().is_some_and(|name| name.starts_with("mae of ")) {
            format!("{number:.2}")
        } else {
            format!("{number:.4}")
        }
    };
    let cell = |values: &[f64]| {
        let mean = value(average(values.iter().copied()));
        if values.len() > 1 {
            format!("{mean} ({})", values.iter().map(|&v| value(v)).collect::<Vec<_>>().join(", "))
        } else {
            mean
        }
    };
    if !means.is_empty() {
        let of = |k: usize| cell(&means.iter().map(|(_, errors)| errors[k]).collect::<Vec<_>>());
        let cells = (0..labels.len()).map(of);
        shown.push(["mean of the targets", "0", "0"].map(str::to_owned).into_iter().chain(cells).collect());
    }
    for name in &names {
        let own: Vec<&Row> = rows.iter().filter(|row| row.stage == *name).collect();
        let mean = |of: fn(&Row) -> u64| average(own.iter().map(|row| of(row) as f64));
        let (parameters, bytes) = (mean(|row| row.parameters), mean(|row| row.bytes));
        let all: Vec<Vec<f64>> =
            (0..labels.len()).map(|k| own.iter().map(|row| row.measures()[k].1).collect()).collect();
        let mut line = vec![(*name).to_owned(), format!("{parameters:.0}"), format!("{bytes:.0}")];
        line.extend(all.iter().map(|values| cell(values)));
        shown.push(line);
        points.push((bytes, average(all[0].iter().copied())));
    }
    let object = json!({
        "recipe": recipe.name,
        "folds": args.folds,
        "mean_of_targets": means.iter().map(|(fold, errors)| json!({ "fold": fold, "errors": errors })).collect::<Vec<_>>(),
        "rows": rows.iter().map(|row| json!({
            "stage": row.stage,
            "fold": row.fold,
            "parameters": row.parameters,
            "bytes": row.bytes,
            "measures": row.measures().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        })).collect::<Vec<_>>(),
    });
    let markdown = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(shown[0].len()));
    let text = shown[..1].iter().map(markdown).collect::<String>()
        + &rule
        + &shown[1..].iter().map(markdown).collect::<String>();
    let (right, high) = points.iter().fold((0.0f64, 0.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    let series = [Series { name: "stages".to_owned(), points, line: false }];
    let measure = labels.first().map_or("", String::as_str);
    let chart = draw(
        "front",
        [&recipe.name, "bytes of weights", measure],
        0.0..1.05 * right,
        0.0..1.05 * high,
        &series,
        (8, SeriesLabelPosition::UpperRight),
    )?;
    let groups = names.iter().map(|name| {
        let own = rows.iter().filter(|row| row.stage == *name);
        ((*name).to_owned(), own.map(|row| &row.run).collect())
    });
    let (device, Machine { isa, threads }) = (Device::open(&args.device)?, args.machine.resolve());
    let options = ExecOptions { isa, threads };
    let family = Family::of(recipe.name.clone(), "stage".to_owned(), groups.collect(), &device, options)?;
    let subject = |row: &Row| Subject { run: row.run.clone(), float: None, network: None };
    let page = render(&rows.iter().map(subject).collect::<Vec<_>>(), Some(&family))?;
    let files =
        [("pipeline.json", format!("{object}\n")), ("pipeline.md", text), ("front.svg", chart), ("report.html", page)];
    for (name, text) in files {
        write_atomically(args.output.join(name), text.as_bytes())?;
    }
    say!(
        "wrote pipeline.json, pipeline.md, front.svg and report.html in {}{}",
        args.output.display(),
        if folds > 1 { "; means of the folds, each in brackets" } else { "" }
    );
    print(&if args.json { object.to_string() } else { table(&shown, &[0]) })
}
