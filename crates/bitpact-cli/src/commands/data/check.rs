//! `bitpact data check`: what lies in a folder.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bitpact::unstable::data::DatasetName;
use bitpact::unstable::data::catalog::Half;
use bitpact::unstable::data::check::{HalfReport, SetReport, check, find, other_version};
use serde_json::{Map, Value, json};

use super::named;
use super::own::{self, OwnArgs};
use crate::exit::Usage;
use crate::machine::other_version_hint;
use crate::out::{bytes, print, say, table};

/// Reads the image sets in a folder, or data of your own: files, checksums, images, labels
#[derive(clap::Args)]
#[command(after_help = "\
A checksum that is not the published one is a note, not an error: the same images may be packed anew.
What holds no file of a known set is read as data of your own (docs/data.md): what they are for, classes with counts, sizes,
files that cannot be used or are not read. Exit status 1 where training on them would fail.

Examples:
  bitpact data check data
  bitpact data check downloads --dataset kmnist --json
  bitpact data check photos --crop 224 --test-share 0.2
  bitpact data check labels.csv --strict")]
pub(crate) struct Args {
    /// The folder with the files of a set, or with folders of sets under their usual names, or data of your own
    dir: PathBuf,
    #[command(flatten)]
    own: OwnArgs,
    /// Only this set; needed where sets share their file names and nothing else tells which it is; `folder` for your
    /// own
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let dir = args.dir.display().to_string();
    let is_own = match &args.dataset {
        Some(name) => name == DatasetName::Folder.as_str(),
        None => !args.dir.is_dir() || (find(&args.dir)?.is_empty() && other_version(&args.dir).is_none()),
    };
    if is_own {
        return own::run(&args.dir, &args.own, args.json);
    }
    let names = match &args.dataset {
        Some(name) => match named(name, "--dataset")? {
            name if name.is_drawn() => {
                return Err(Usage(format!("--dataset {name}: it is drawn and has no files")).into());
            }
            name => vec![name],
        },
        None => found(&args)?,
    };
    let results = names.iter().map(|&name| (name, check(name, &args.dir)));
    let (mut shown, mut failed) = (Vec::new(), 0);
    for (name, result) in results {
        match result {
            Ok(report) => shown.push(report),
            Err(error) => {
                failed += 1;
                say!("{name}: {error}");
            }
        }
    }
    if args.json && !shown.is_empty() {
        print(&json!({ "folder": dir, "sets": shown.iter().map(object).collect::<Vec<_>>() }).to_string())?;
    } else if !shown.is_empty() {
        print(&shown.iter().map(text).collect::<Vec<_>>().join("\n"))?;
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{dir}: {failed} of {} sets cannot be read", names.len()),
    }
}

fn found(args: &Args) -> Result<Vec<DatasetName>> {
    let found = find(&args.dir)?;
    if found.is_empty() {
        let known = DatasetName::ALL.into_iter().filter(|name| !name.info().files.is_empty());
        let known = known.map(DatasetName::as_str).collect::<Vec<_>>().join(", ");
        let other = other_version_hint(&args.dir);
        bail!(
            "{}: holds no file of a known set ({known}), here or in a folder with its usual name{other}",
            args.dir.display()
        );
    }
    if let Some(several) = found.iter().find(|entry| entry.names.len() > 1) {
        let names = several.names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        let folder = several.folder.display();
        return Err(Usage(format!("{folder}: {names} have the same file names; say which with --dataset")).into());
    }
    Ok(found.into_iter().map(|entry| entry.names[0]).collect())
}

const HALVES: [(&str, Half); 2] = [("train", Half::Train), ("test", Half::Test)];

fn object(report: &SetReport) -> Value {
    let info = report.name.info();
    let file = |file: &bitpact::unstable::data::check::FileReport| {
        json!({
            "file": file.path.display().to_string(),
            "bytes": file.bytes,
            "md5": file.md5,
            "published_md5": file.published,
            "foreign": file.is_foreign(),
        })
    };
    let mut object = Map::new();
    object.insert("name".into(), json!(report.name.as_str()));
    object.insert("folder".into(), json!(report.folder.display().to_string()));
    object.insert("shape".into(), json!([info.image_shape.h, info.image_shape.w, info.image_shape.c]));
    object.insert("classes".into(), json!(info.class_names));
    object.insert("files".into(), report.files.iter().map(file).collect());
    for (key, half) in HALVES {
        let (published, found) = report.half(half);
        let value = json!({ "images": found.images, "published": published, "histogram": found.histogram });
        object.insert(key.into(), value);
    }
    Value::Object(object)
}

fn text(report: &SetReport) -> String {
    let info = report.name.info();
    let shape = info.image_shape;
    let mut text = format!(
        "{} ({}) in {}: {}x{}x{}, {} classes\n\n",
        info.title,
        report.name,
        report.folder.display(),
        shape.h,
        shape.w,
        shape.c,
        info.class_names.len()
    );
    let mut rows = vec![["file", "bytes", "MD5", "note"].map(str::to_owned).to_vec()];
    for file in &report.files {
        let note = match file.published {
            None => "no checksum published",
            Some(_) if file.is_foreign() => "not the published file",
            Some(_) => "as published",
        };
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        rows.push(vec![name, bytes(file.bytes), file.md5.clone(), note.to_owned()]);
    }
    text += &table(&rows, &[0, 2, 3]);
    let mut rows = vec![["half", "images", "published", "least of a class", "most"].map(str::to_owned).to_vec()];
    for (name, half) in HALVES {
        let (published, found) = report.half(half);
        let bound = |n: Option<&usize>| n.map_or(String::new(), usize::to_string);
        let (least, most) = (bound(found.histogram.iter().min()), bound(found.histogram.iter().max()));
        rows.push(vec![name.to_owned(), found.images.to_string(), published.to_string(), least, most]);
    }
    text.push('\n');
    text += &table(&rows, &[0]);
    text + "\n" + &histogram(info.class_names, &report.train, &report.test)
}

/// Images of every class, a line each, with a bar for the training images.
fn histogram(names: &[&str], train: &HalfReport, test: &HalfReport) -> String {
    const BAR: usize = 40;
    let most = train.histogram.iter().copied().max().unwrap_or(0).max(1);
    let mut rows = vec![["class", "train", "test", ""].map(str::to_owned).to_vec()];
    for (i, name) in names.iter().enumerate() {
        let (n, of) = (train.histogram[i], test.histogram[i]);
        let bar = "=".repeat((n * BAR).div_ceil(most));
        rows.push(vec![(*name).to_owned(), n.to_string(), of.to_string(), bar]);
    }
    table(&rows, &[0, 3])
}
