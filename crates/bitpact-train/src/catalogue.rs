//! Named runs with the results that are expected of them: the rows of a results book, as TOML.
//!
//! [`Catalogue::builtin`] holds the paper's CIFAR-10 tables and figures (`recipes/reproduce.toml` says the form in its
//! head). Every row is a complete recipe: what all rows share, over it what its group sets, over it what it sets
//! itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;
use toml::{Table, Value};

use crate::recipe::{Draft, Origin, Recipe, RecipeError, read_text};

/// Groups of rows, in the order in which they are trained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    base: Table,
    /// The groups.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
    /// Name of the file in errors.
    #[serde(skip)]
    origin: String,
    /// Folder that file names in it start from.
    #[serde(skip)]
    folder: PathBuf,
}

/// Rows that are read together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// A short name, also of the files of its figures.
    pub name: String,
    /// The heading.
    pub title: String,
    /// Note about all rows of the table.
    #[serde(default)]
    pub note: String,
    /// Figures drawn from the rows.
    #[serde(default)]
    pub figures: Vec<Figure>,
    #[serde(default)]
    set: Table,
    /// The rows.
    #[serde(default)]
    pub rows: Vec<Row>,
    /// More seeds of rows of any group.
    #[serde(default)]
    repeat: Vec<Repeat>,
}

/// A picture of a group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Horizontal axis: `bits`, `epoch`, or a key of recipes that is a number, on a logarithmic axis.
    pub against: String,
    /// A row whose clip values are drawn in place of accuracy, against the `epoch`, or whose loss is, against `alpha`.
    pub alpha_of: Option<String>,
}

/// One named run, of one or more seeds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the row and of its recipe.
    pub name: String,
    /// Series of the row in figures; rows of one series make one line.
    pub series: Option<String>,
    #[serde(default)]
    set: Table,
    /// Keys that it does not have.
    #[serde(default)]
    unset: Vec<String>,
    /// Expected top-1 accuracy in percent.
    pub paper: Option<f64>,
    /// Source of the published number.
    #[serde(default)]
    pub source: String,
    /// Seeds that are wanted; [`Catalogue::seeds`] has those of `repeat` too.
    #[serde(default = "first_seed")]
    seeds: Vec<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    row: String,
    seeds: Vec<u64>,
}

fn first_seed() -> Vec<u64> {
    vec![1]
}

impl Catalogue {
    /// The rows of the PACT paper (arXiv 1805.06085v2): its CIFAR-10 tables and figures.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            let text = include_str!("../recipes/reproduce.toml");
            Catalogue::parse(text, "the built-in rows", Path::new("")).expect("the built-in rows are whole")
        })
    }

    /// The catalogue in the TOML file `path`.
    ///
    /// # Errors
    /// A file that cannot be read, or those of [`Catalogue::parse`].
    pub fn read(path: &Path) -> Result<Catalogue, RecipeError> {
        Catalogue::parse(&read_text(path)?, &path.display().to_string(), path.parent().unwrap_or(Path::new("")))
    }

    /// A catalogue from TOML text; `origin` names it in errors, and names of network files start from `folder`.
    ///
    /// # Errors
    /// Text of another form, two rows of one name, a name that no row has, or a row whose recipe is none.
    pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Catalogue, RecipeError> {
        let at = |line: usize, message: String| RecipeError::Syntax {
            origin: Origin::Line { file: origin.to_owned(), line },
            message,
        };
        let mut catalogue: Catalogue = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            at(before.matches('\n').count() + 1, error.message().to_owned())
        })?;
        (catalogue.origin, catalogue.folder) = (origin.to_owned(), folder.to_owned());
        let mut names = BTreeSet::new();
        for row in catalogue.rows() {
            if !names.insert(&*row.name) {
                return Err(at(0, format!("two rows are called `{}`", row.name)));
            }
            if row.seeds.is_empty() {
                return Err(at(0, format!("row `{}`: expected one seed at least", row.name)));
            }
            catalogue.draft(row)?.finish()?;
        }
        let repeated = catalogue.groups.iter().flat_map(|group| &group.repeat).map(|repeat| &repeat.row);
        let drawn =
            catalogue.groups.iter().flat_map(|group| &group.figures).filter_map(|figure| figure.alpha_of.as_ref());
        match repeated.chain(drawn).find(|name| !names.contains(&***name)) {
            Some(name) => Err(at(0, format!("no row is called `{name}`"))),
            None => Ok(catalogue),
        }
    }

    /// Every row of the catalogue.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }

    /// The row called `name`.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows().find(|row| row.name == name)
    }

    /// The seeds of `row` that are wanted, ascending.
    pub fn seeds(&self, row: &Row) -> BTreeSet<u64> {
        let repeats = self.groups.iter().flat_map(|group| &group.repeat).filter(|repeat| repeat.row == row.name);
        repeats.flat_map(|repeat| &repeat.seeds).chain(&row.seeds).copied().collect()
    }

    /// Every wanted run in the order of training: group by group, and in a group the first seed of every row, then the
    /// second ones.
    pub fn queue(&self) -> Vec<(&Row, u64)> {
        let mut queue: Vec<(&Row, u64)> = Vec::new();
        for group in &self.groups {
            let own = group.rows.iter().map(|row| (row, &row.seeds));
            let repeated = group.repeat.iter().filter_map(|repeat| Some((self.row(&repeat.row)?, &repeat.seeds)));
            let wanted: Vec<_> = own.chain(repeated).collect();
            for turn in 0..wanted.iter().map(|(_, seeds)| seeds.len()).max().unwrap_or(0) {
                queue.extend(wanted.iter().filter_map(|(row, seeds)| Some((*row, *seeds.get(turn)?))));
            }
        }
        queue
    }

    /// The recipe of `row` as it may still be changed.
    ///
    /// # Errors
    /// A key that no recipe has.
    pub fn draft(&self, row: &Row) -> Result<Draft, RecipeError> {
        let group = self.groups.iter().find(|group| group.rows.iter().any(|other| other.name == row.name));
        let mut table = self.base.clone();
        table.extend(group.map(|group| group.set.clone()).unwrap_or_default());
        table.extend(row.set.clone());
        table.retain(|key, _| !row.unset.iter().any(|unset| unset == key));
        table.insert("name".to_owned(), Value::from(&*row.name));
        Draft::from_table(table, &format!("{}, row `{}`", self.origin, row.name), &self.folder)
    }

    /// The complete recipe of `row` with `seed`.
    ///
    /// # Errors
    /// A seed above 2^63.
    pub fn recipe(&self, row: &Row, seed: u64) -> Result<Recipe, RecipeError> {
        let mut draft = self.draft(row)?;
        draft.set("seed", i64::try_from(seed).unwrap_or(-1), "--seed");
        draft.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_the_paper_have_the_papers_settings() {
        let catalogue = Catalogue::builtin();
        let recipe = |name: &str| catalogue.recipe(catalogue.row(name).unwrap(), 2).unwrap();
        let pact = recipe("cifar10-resnet20-pact-w4a4");
        assert_eq!((pact.epochs, pact.batch_size, pact.seed, pact.gradient_bits), (200, 128, 2, Some(8)));
        let dorefa = recipe("cifar10-resnet20-dorefa-w4a4");
        let differing: Vec<String> = pact.differences(&dorefa).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(differing, ["act_quant", "clip_init", "name"]);
        assert_eq!(recipe("cifar10-resnet20-float").gradient_bits, None);
        for row in catalogue.rows() {
            let recipe = catalogue.recipe(row, 1).unwrap();
            assert_eq!(recipe.name, row.name);
            let graph = recipe.network(bitpact_graph::Shape::new(32, 32, 3), 10).unwrap();
            recipe.plan(&graph).unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!(Recipe::open(&row.name).unwrap(), recipe, "a built-in recipe of its own");
        }
    }

    #[test]
    fn the_queue_has_every_wanted_run_once_the_claim_first() {
        let catalogue = Catalogue::builtin();
        let queue: Vec<(&str, u64)> = catalogue.queue().iter().map(|(row, seed)| (&*row.name, *seed)).collect();
        let name = |end: &str| format!("cifar10-resnet20-{end}");
        assert_eq!(queue[..3], [(&*name("pact-w4a4"), 1), (&name("pact-w2a2"), 1), (&name("float"), 1)]);
        let once: BTreeSet<_> = queue.iter().collect();
        assert_eq!(once.len(), queue.len());
        let wanted: usize = catalogue.rows().map(|row| catalogue.seeds(row).len()).sum();
        assert_eq!(wanted, queue.len());
        let place = |end: &str, seed: u64| queue.iter().position(|run| *run == (&*name(end), seed)).unwrap();
        assert!(place("pact-w2a2", 2) > place("pact-sawb-w5a5", 1));
        assert!(place("pact-w2a2-60ep", 2) > place("float-60ep", 1), "first seeds come first");
    }

    #[test]
    fn a_catalogue_that_is_wrong_says_where() {
        let base =
            "[base]\ndataset = \"builtin\"\narch = \"cnn\"\nepochs = 1\n[[group]]\nname = \"g\"\ntitle = \"G\"\n";
        for (lines, says) in [
            ("rows = [{ name = \"a\" }, { name = \"a\" }]", "two rows are called `a`"),
            ("rows = [{ name = \"a\", seeds = [] }]", "row `a`: expected one seed at least"),
            ("rows = [{ name = \"a\", sed = 1 }]", "r.toml, line 8: unknown field `sed`"),
            ("rows = [{ name = \"a\", set = { epoch = 1 } }]", "row `a`: unknown key `epoch`"),
            ("rows = [{ name = \"a\", set = { lr = -1 } }]", "row `a`: `lr` = -1"),
            ("rows = [{ name = \"../a\" }]", "expected up to 64 letters"),
            ("repeat = [{ row = \"b\", seeds = [2] }]", "no row is called `b`"),
            (
                "rows = [{ name = \"a\" }]\nfigures = [{ against = \"epoch\", alpha_of = \"c\" }]",
                "no row is called `c`",
            ),
        ] {
            let text =
                Catalogue::parse(&format!("{base}{lines}\n"), "r.toml", Path::new("")).expect_err(lines).to_string();
            assert!(text.starts_with("r.toml") && text.contains(says), "{lines}: {text}");
        }
    }
}
