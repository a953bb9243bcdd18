//! Results of the rows of a catalogue beside those that were expected, as a page in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bitpact_train::catalogue::{Group, Row};
use bitpact_train::recipe::Precision;
use bitpact_train::run_folder::CONFIG;
use bitpact_train::{Catalogue, Recipe};

use crate::log::is_same;
use crate::{Log, ReportError};

/// The logs of a catalogue's rows.
pub struct Book<'a> {
    /// The rows.
    pub catalogue: &'a Catalogue,
    /// Folder of the logs, as the page names it.
    folder: PathBuf,
    logs: BTreeMap<(String, u64), Log>,
}

/// The folder of the log of `row` with `seed` below `logs`.
pub fn log_folder(logs: &Path, row: &Row, seed: u64) -> PathBuf {
    logs.join(&row.name).join(format!("seed{seed}"))
}

/// The command that trains a run or goes on with it.
pub fn command(row: &Row, seed: u64) -> String {
    let seed = if seed == 1 { String::new() } else { format!(" --seed {seed}") };
    format!("bitpact reproduce run {}{seed}", row.name)
}

impl<'a> Book<'a> {
    /// Reads the logs below `folder`; there may be none.
    ///
    /// # Errors
    /// A log that cannot be read, or one of another recipe than its row's.
    pub fn read(catalogue: &'a Catalogue, folder: &Path) -> Result<Self, ReportError> {
        let mut logs = BTreeMap::new();
        for (row, seed) in catalogue.queue() {
            let path = log_folder(folder, row, seed);
            if !path.join(CONFIG).exists() {
                continue;
            }
            let (log, recipe) = (Log::read(&path)?, catalogue.recipe(row, seed)?);
            if !is_same(&recipe, &log.recipe) {
                let changes = recipe.differences(&log.recipe).into_iter();
                let changes = changes.map(|(key, row, log)| format!("`{key}` is {log}, not {row}"));
                return Err(ReportError::Misfit { path, changes: changes.collect::<Vec<_>>().join("; ") });
            }
            logs.insert((row.name.clone(), seed), log);
        }
        Ok(Self { catalogue, folder: folder.to_owned(), logs })
    }

    /// The log of a run.
    pub fn log(&self, row: &Row, seed: u64) -> Option<&Log> {
        self.logs.get(&(row.name.clone(), seed))
    }

    /// The logs of a row by seed, finished or not.
    pub(crate) fn logs(&self, row: &Row) -> impl Iterator<Item = (u64, &Log)> {
        self.logs.iter().filter(|((name, _), _)| *name == row.name).map(|((_, seed), log)| (*seed, log))
    }

    /// Accuracy in percent after the last epoch of every finished seed of `row`.
    pub fn results(&self, row: &Row) -> Vec<f64> {
        let finished = self.logs(row).filter(|(_, log)| log.is_finished());
        finished.filter_map(|(_, log)| Some(100.0 * log.epochs.last()?.top1())).collect()
    }

    /// The mean of [`Book::results`], where there are any.
    pub fn mean(&self, row: &Row) -> Option<f64> {
        let results = self.results(row);
        (!results.is_empty()).then(|| results.iter().sum::<f64>() / results.len() as f64)
    }

    /// The page. `figures` is the page with the figures as a link from it; none where nothing is drawn.
    pub fn page(&self, figures: Option<&str>) -> String {
        let folder = self.folder.display();
        let mut page = format!(
            "# Results\n\n`bitpact reproduce book` writes this page from the logs in `{folder}`.\n\n\
             - *Ours* is the accuracy of the integer network (of the float network in float rows) on all test images after the last epoch, in\n  \
             percent: the mean of the seeds, and the lowest and highest of several.\n\
             - *Paper* is what the row's source says, *difference* ours less the paper's.\n\
             - `bitpact reproduce show NAME` prints a row's complete recipe, `bitpact reproduce run NAME --data DIR` trains it, and\n  \
             `bitpact reproduce queue --continue --data DIR` everything that is missing, in the order of this page.\n"
        );
        if let Some(figures) = figures {
            write!(page, "\nFigures: [{figures}]({figures}).\n").expect(STRING);
        }
        for group in &self.catalogue.groups {
            self.group(&mut page, group);
        }
        self.runs(&mut page);
        page
    }

    fn group(&self, page: &mut String, group: &Group) {
        if group.rows.is_empty() {
            return;
        }
        write!(page, "\n## {}\n\n", group.title).expect(STRING);
        if !group.note.is_empty() {
            write!(page, "{}\n\n", group.note).expect(STRING);
        }
        page.push_str(
            "| row | ours | seeds | paper | difference | source | precision |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &group.rows {
            let (results, mean) = (self.results(row), self.mean(row));
            let ours = match (mean, &results[..]) {
                (None, _) => "not reached".to_owned(),
                (Some(mean), [_]) => format!("{mean:.2}"),
                (Some(mean), all) => {
                    let (low, high) = all.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
                    format!("{mean:.2} ({low:.2} to {high:.2})")
                }
            };
            let wanted = self.catalogue.seeds(row).len();
            let paper = row.paper.map_or(String::new(), |paper| format!("{paper:.1}"));
            let difference = mean.zip(row.paper).map_or(String::new(), |(ours, paper)| format!("{:+.2}", ours - paper));
            let precision = self.catalogue.recipe(row, 1).map_or(String::new(), |recipe| precision(&recipe).to_owned());
            let (name, done, source) = (&row.name, results.len(), &row.source);
            writeln!(
                page,
                "| `{name}` | {ours} | {done} of {wanted} | {paper} | {difference} | {source} | {precision} |"
            )
            .expect(STRING);
        }
        let missing: Vec<(&Row, u64)> = self.catalogue.queue();
        let missing = missing.into_iter().filter(|(row, seed)| {
            group.rows.iter().any(|own| own.name == row.name) && !self.log(row, *seed).is_some_and(Log::is_finished)
        });
        let lines: Vec<String> = missing.map(|(row, seed)| self.missing(row, seed)).collect();
        if !lines.is_empty() {
            write!(page, "\nNot reached, with the command that trains it or goes on:\n\n{}", lines.concat())
                .expect(STRING);
        }
    }

    fn missing(&self, row: &Row, seed: u64) -> String {
        let partial = self.log(row, seed).and_then(|log| Some((log.epochs.last()?, log.recipe.epochs)));
        let (so_far, goes_on) = partial.map_or((String::new(), ""), |(epoch, epochs)| {
            (format!(": epoch {} of {epochs}, {:.2} %", epoch.epoch, 100.0 * epoch.top1()), " --continue")
        });
        format!("- `{} --data DIR{goes_on}`{so_far}\n", command(row, seed))
    }

    /// Every run that has a log.
    fn runs(&self, page: &mut String) {
        page.push_str("\n## Runs\n\n");
        if self.logs.is_empty() {
            page.push_str("There is no log yet.\n");
            return;
        }
        page.push_str("Time is that of training alone, without evaluation.\n\n");
        page.push_str("| row | seed | epochs | top-1, % | simulated, % | hours | machine | commit |\n|---|---|---|---|---|---|---|---|\n");
        for (row, seed) in self.catalogue.queue() {
            let Some(log) = self.log(row, seed) else { continue };
            let Some(last) = log.epochs.last() else { continue };
            let simulated = last.simulated_top1.map_or(String::new(), |top1| format!("{:.2}", 100.0 * top1));
            let distinct = |of: fn(&crate::Session) -> String| {
                let mut all: Vec<String> = log.sessions.iter().map(of).filter(|text| !text.is_empty()).collect();
                all.dedup();
                if all.is_empty() { "not recorded".to_owned() } else { all.join(", ") }
            };
            writeln!(
                page,
                "| `{}` | {seed} | {} of {} | {:.2} | {simulated} | {:.2} | {} | {} |",
                row.name,
                last.epoch,
                log.recipe.epochs,
                100.0 * last.top1(),
                log.seconds() / 3600.0,
                distinct(|session| format!("{}, {} threads, {}", session.machine, session.threads, session.isa)),
                distinct(|session| session.commit.clone()),
            )
            .expect(STRING);
        }
    }
}

const STRING: &str = "a string takes every text";

/// The numbers that a run of `recipe` computes gradients in.
pub fn precision(recipe: &Recipe) -> &'static str {
    match (recipe.bits.is_float(), recipe.gradient_bits, recipe.precision) {
        (false, Some(_), _) => "8-bit gradients",
        (_, _, Precision::Bf16) => "bfloat16",
        _ => "float32",
    }
}
