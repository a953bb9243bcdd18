//! `bitpact reproduce`: the rows of a catalogue trained one after the other, and the book of their results.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bitpact::Recipe;
use bitpact::unstable::data::{DatasetName, Limits, Split};
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::book::{Book, command, log_folder, precision};
use bitpact::unstable::report::log::{State, collect, find_run};
use bitpact::unstable::report::{Log, sweep};
use bitpact::unstable::train::catalogue::Row;
use bitpact::unstable::train::recipe::nearest;
use bitpact::unstable::train::{BackendKind, BackendSpec, Catalogue, Event, RunFolder, Start};

use super::train::run_one;
use crate::exit::{Interrupted, Usage, report_part};
use crate::interrupt;
use crate::machine::{Machine, MachineArgs, load_images};
use crate::out::{pasted, print, say, table};
use crate::progress::image_bar;

/// Trains the PACT paper's CIFAR-10 tables and figures, a named recipe a row, and keeps the book of the results
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact reproduce list                                           every row: expected result, source, cost, ours
  bitpact reproduce show cifar10-resnet20-pact-w4a4                its complete recipe
  bitpact reproduce run cifar10-resnet20-pact-w4a4 --data DIR      one row
  bitpact reproduce queue --continue --data DIR                    everything that is missing
  bitpact reproduce sweep cifar10-resnet20-pact-w2a2 --data DIR    loss against clip values, figure 3 of the paper
  bitpact reproduce book                                           docs/results.md from the logs

The queue's order is that of the list, first seeds first. A run is found by its recipe in any folder of --runs, so a queue that was
stopped, killed or moved to another machine with its run folders goes on where it was. Whatever is done of a run, its log lies in
--logs: metrics of every epoch, layer statistics of every tenth. Ctrl-C, SIGTERM and SIGHUP save and stop.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Every row with its expected result, where that is from, what it costs and how far it is
    List(Places),
    /// Prints the complete recipe of a row
    Show(Show),
    /// Trains one row, or goes on with it
    Run(Run),
    /// Trains everything that is missing, in order
    Queue(Queue),
    /// Writes the logs of the runs that there are, finished or not, whatever trains them
    Collect(Collect),
    /// Measures the loss of a trained row against the clip value of one activation at a time, for its log
    Sweep(SweepArgs),
    /// Writes the page of results and its figures from the logs
    Book(BookArgs),
}

/// Files and folders that every subcommand reads or writes.
#[derive(clap::Args)]
struct Places {
    /// Rows of one's own, in the form of crates/bitpact-train/recipes/reproduce.toml
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Folder of the logs
    #[arg(long, value_name = "DIR", default_value = "benchmarks/reproduce")]
    logs: PathBuf,
}

#[derive(clap::Args)]
struct Show {
    /// Name of the row
    row: String,
    /// Seed of the run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    places: Places,
}

#[derive(clap::Args)]
struct Training {
    #[command(flatten)]
    places: Places,
    /// Folder of the folders of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Go on with runs that have begun; without it they are an error
    #[arg(long = "continue")]
    goes_on: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(clap::Args)]
struct Run {
    /// Name of the row
    row: String,
    /// Seed of the run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    training: Training,
}

#[derive(clap::Args)]
struct Queue {
    /// Only say what would be trained
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    training: Training,
}

#[derive(clap::Args)]
struct SweepArgs {
    /// Test images, the first ones
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Args)]
struct Collect {
    #[command(flatten)]
    places: Places,
    /// Folder of the folders of runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
}

#[derive(clap::Args)]
struct BookArgs {
    #[command(flatten)]
    places: Places,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    output: PathBuf,
    /// Folder of the figures and their page, from the folder of the page
    #[arg(long, value_name = "DIR", default_value = "results")]
    figures: PathBuf,
}

impl Places {
    fn catalogue(&self) -> Result<Catalogue> {
        Ok(self.rows.as_deref().map_or_else(|| Ok(Catalogue::builtin().clone()), Catalogue::read)?)
    }
}

fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a Row> {
    let hint = || {
        let near = nearest(name, catalogue.rows().map(|row| &*row.name));
        near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"))
    };
    let unknown = || Usage(format!("no row is called `{name}`{}; bitpact reproduce list shows them", hint()));
    Ok(catalogue.row(name).ok_or_else(unknown)?)
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::List(places) => list(&places),
        Action::Show(show) => {
            let catalogue = show.places.catalogue()?;
            print(&catalogue.recipe(find(&catalogue, &show.row)?, show.seed)?.to_toml())
        }
        Action::Run(run) => {
            let catalogue = run.training.places.catalogue()?;
            let (row, stop) = (find(&catalogue, &run.row)?, interrupt::stop_flag());
            let recipe = catalogue.recipe(row, run.seed)?;
            let log = log_folder(&run.training.places.logs, row, run.seed);
            if is_done(&log) {
                say!("{}, seed {}: done, its log is {}", row.name, run.seed, log.display());
                return Ok(());
            }
            run.training.train(&recipe, row, run.seed, &mut None, stop)
        }
        Action::Queue(queue) => work(&queue),
        Action::Collect(Collect { places, runs }) => {
            let catalogue = places.catalogue()?;
            for (row, seed) in catalogue.queue() {
                if let Some((folder, _)) = find_run(&runs, &catalogue.recipe(row, seed)?) {
                    let log = log_folder(&places.logs, row, seed);
                    collect(&folder, &log)?;
                    say!("{} from {}", log.display(), folder.path().display());
                }
            }
            Ok(())
        }
        Action::Sweep(args) => sweep_alphas(&args),
        Action::Book(book) => write_book(&book),
    }
}

fn sweep_alphas(args: &SweepArgs) -> Result<()> {
    let Run { row, seed, training } = &args.run;
    let catalogue = training.places.catalogue()?;
    let (row, stop) = (find(&catalogue, row)?, interrupt::stop_flag());
    let recipe = catalogue.recipe(row, *seed)?;
    let untrained = || Usage(format!("{} holds no run of {}, seed {seed}", training.runs.display(), row.name));
    let (folder, _) = find_run(&training.runs, &recipe).ok_or_else(untrained)?;
    let model = folder.checkpoint()?.ok_or_else(untrained)?.0.model;
    let limits = Limits { train: recipe.limit_train, test: Some(args.images as usize) };
    let (split, _) = load_images(dataset(&recipe)?, training.data.as_ref(), limits, &recipe.own_options())?;
    let Machine { isa, threads } = training.machine.resolve();
    let (graph, plan, input) = (&model.graph, &model.plan, &model.input);
    let spec = BackendSpec { isa, threads, ..BackendSpec::new(graph, plan, input, split.test.len().min(100)) };
    let bar = image_bar("losses", 0);
    let sweeps = sweep::sweep(&model, &*split.test, &mut *BackendKind::default().build(&spec)?, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        !stop.load(Ordering::Relaxed)
    })?;
    bar.finish_and_clear();
    let log = log_folder(&training.places.logs, row, *seed);
    collect(&folder, &log)?;
    sweep::write(&sweeps.ok_or(Interrupted)?, &log)?;
    say!("wrote {}", log.join(sweep::SWEEPS).display());
    Ok(())
}

fn dataset(recipe: &Recipe) -> Result<DatasetName> {
    Ok(recipe.dataset.parse().map_err(|_| Usage(format!("no data set is called {}", recipe.dataset)))?)
}

fn list(places: &Places) -> Result<()> {
    let catalogue = places.catalogue()?;
    let book = Book::read(&catalogue, &places.logs)?;
    let mut rows =
        vec![["row", "epochs", "precision", "hours", "seeds", "ours", "paper", "source"].map(str::to_owned).to_vec()];
    for row in catalogue.rows() {
        let (recipe, wanted) = (catalogue.recipe(row, 1)?, catalogue.seeds(row).len());
        rows.push(vec![
            row.name.clone(),
            recipe.epochs.to_string(),
            precision(&recipe).to_owned(),
            hours(&recipe).map_or(String::new(), |hours| format!("{hours:.1}")),
            format!("{} of {wanted}", book.results(row).len()),
            book.mean(row).map_or(String::new(), |mean| format!("{mean:.2}")),
            row.paper.map_or(String::new(), |paper| format!("{paper:.1}")),
            row.source.clone(),
        ]);
    }
    let text = table(&rows, &[0, 2, 7]);
    print(&format!("{text}\nhours: of one seed of ResNet-20 on two cores of a Zen 4; ours and paper: top-1 in percent"))
}

/// About how long a run of ResNet-20 takes on two cores of a Zen 4, by the images a second that were measured there.
fn hours(recipe: &Recipe) -> Option<f64> {
    if recipe.arch != "resnet20" {
        return None;
    }
    let images_per_s = match precision(recipe) {
        "8-bit gradients" => 1990.0,
        "bfloat16" if !recipe.bits.is_float() => 1220.0,
        _ => 590.0,
    };
    let images = recipe.dataset.parse().map_or(50_000, |name: DatasetName| name.info().train_images);
    let images = recipe.limit_train.map_or(images, |limit| limit.min(images));
    Some(f64::from(recipe.epochs) * images as f64 / images_per_s / 3600.0)
}

fn is_done(log: &Path) -> bool {
    Log::read(log).is_ok_and(|log| log.is_finished())
}

fn work(queue: &Queue) -> Result<()> {
    let training = &queue.training;
    let catalogue = training.places.catalogue()?;
    let logs = &training.places.logs;
    let missing = catalogue.queue().into_iter().filter(|(row, seed)| !is_done(&log_folder(logs, row, *seed)));
    let missing: Vec<(&Row, u64)> = missing.collect();
    let mut total = 0.0;
    for (row, seed) in &missing {
        total += hours(&catalogue.recipe(row, *seed)?).unwrap_or(0.0);
    }
    match total {
        0.0 => say!("{} runs are missing", missing.len()),
        _ => say!("{} runs are missing, about {total:.1} hours on two cores of a Zen 4", missing.len()),
    }
    if queue.dry_run {
        let lines = missing.iter().map(|(row, seed)| format!("{}\n", command(row, *seed)));
        return print(&lines.collect::<String>());
    }
    let (stop, mut images, mut failed) = (interrupt::stop_flag(), None, Vec::new());
    for (i, (row, seed)) in missing.iter().enumerate() {
        say!("\n{} of {}: {}, seed {seed}", i + 1, missing.len(), row.name);
        let trained = training.train(&catalogue.recipe(row, *seed)?, row, *seed, &mut images, stop);
        match trained {
            Err(error) if error.is::<Interrupted>() || error.is::<Usage>() => return Err(error),
            // A run that fails, or that another process trains, is no reason to leave the others.
            Err(error) => {
                report_part(&error);
                failed.push(command(row, *seed));
            }
            Ok(()) => {}
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
    }
    if failed.is_empty() { Ok(()) } else { anyhow::bail!("these runs are still missing:\n{}", failed.join("\n")) }
}

/// A data set that is loaded, with what it was loaded for.
type Loaded = Option<((DatasetName, Limits), Split)>;

impl Training {
    /// Trains a run from wherever it is, and writes its log however far it came.
    fn train(&self, recipe: &Recipe, row: &Row, seed: u64, images: &mut Loaded, stop: &AtomicBool) -> Result<()> {
        let log = log_folder(&self.places.logs, row, seed);
        let (folder, start) = match find_run(&self.runs, recipe) {
            Some((folder, State::Finished)) => {
                collect(&folder, &log)?;
                say!("it was trained in {}; its log is {}", folder.path().display(), log.display());
                return Ok(());
            }
            Some((folder, State::Begun(epochs))) if !self.goes_on => {
                let run = folder.path().display();
                let told = format!("{run}: this run has begun and done {epochs} epochs; --continue goes on with it");
                return Err(Usage(told).into());
            }
            Some((folder, State::Begun(_))) => {
                let folder = RunFolder::resume(folder.path())?;
                let checkpoint = folder.checkpoint()?.map(|(checkpoint, _)| Box::new(checkpoint));
                (folder, checkpoint.map_or(Start::Fresh { weights: None }, Start::Resume))
            }
            None => {
                (RunFolder::create(self.runs.join(format!("{}-seed{seed}", row.name)))?, Start::Fresh { weights: None })
            }
        };
        let dataset = dataset(recipe)?;
        let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
        if !images.as_ref().is_some_and(|(of, _)| *of == (dataset, limits)) {
            let (split, _) = load_images(dataset, self.data.as_ref(), limits, &recipe.own_options())?;
            *images = Some(((dataset, limits), split));
        }
        let split = &images.as_ref().expect("just loaded").1;
        let machine = self.machine.resolve();
        let path = folder.path().to_owned();
        // A run that was begun in a folder of another name keeps the name it has there.
        let stored = folder.config().unwrap_or_else(|_| recipe.clone());
        let trained = run_one(
            "training",
            false,
            &stored,
            &folder,
            start,
            split,
            (BackendKind::default(), machine),
            stop,
            &mut |event| {
                if let Event::Start { step, .. } = event
                    && let Err(error) = machine.session(*step).append(&path)
                {
                    report_part(&error.into());
                }
            },
        );
        if folder.config().is_ok() {
            collect(&folder, &log)?;
        }
        let outcome = trained?;
        if !outcome.finished {
            say!("saved after step {} in {}", outcome.step, pasted(folder.path()));
            return Err(Interrupted.into());
        }
        let last = outcome.last.context("records.jsonl has no epoch")?;
        let paper = row.paper.map_or(String::new(), |paper| format!(", the paper has {paper:.1} %"));
        say!("{}, seed {seed}: {:.2} %{paper}; log in {}", row.name, 100.0 * last.top1(), log.display());
        Ok(())
    }
}

fn write_book(args: &BookArgs) -> Result<()> {
    let catalogue = args.places.catalogue()?;
    let book = Book::read(&catalogue, &args.places.logs)?;
    let plots = book.plots()?;
    let home = args.output.parent().unwrap_or(Path::new(""));
    let figures = home.join(&args.figures);
    std::fs::create_dir_all(&figures).with_context(|| format!("cannot make {}", figures.display()))?;
    let name = args.output.file_name().context("--output: expected the name of a file")?.to_string_lossy();
    let up = "../".repeat(args.figures.components().count());
    for plot in &plots {
        write_atomically(figures.join(&plot.file), plot.svg.as_bytes())?;
    }
    let link = format!("{}/README.md", args.figures.display());
    write_atomically(figures.join("README.md"), book.plots_page(&plots, &format!("{up}{name}")).as_bytes())?;
    write_atomically(&args.output, book.page(Some(&link)).as_bytes())?;
    say!("wrote {} and {} figures in {}", args.output.display(), plots.len(), figures.display());
    Ok(())
}
