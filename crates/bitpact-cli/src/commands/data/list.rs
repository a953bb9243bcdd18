//! `bitpact data list`: every set with a name.

use anyhow::Result;
use bitpact::unstable::data::DatasetName;
use bitpact::unstable::data::catalog::SetInfo;
use bitpact::unstable::train::recipe::builtin_for_dataset;
use serde_json::{Value, json};

use crate::out::{bytes, print, table};

/// Lists the image sets: sizes, classes, shapes, where the files come from, licences
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let sets = DatasetName::ALL.map(DatasetName::info);
    if args.json {
        return print(&json!({ "sets": sets.map(object) }).to_string());
    }
    let mut rows = vec![["name", "train", "test", "classes", "shape", "fetches", "recipe"].map(str::to_owned).to_vec()];
    let mut sources = vec![["name", "licence", "page"].map(str::to_owned).to_vec()];
    for info in sets {
        let fetches = match (info.files, size(info)) {
            ([], _) => "drawn".to_owned(),
            (_, 0) => "by hand".to_owned(),
            (_, size) => bytes(size),
        };
        rows.push(vec![
            info.name.to_string(),
            info.train_images.to_string(),
            info.test_images.to_string(),
            info.class_names.len().to_string(),
            shape(info),
            fetches,
            builtin_for_dataset(info.name.as_str()).unwrap_or_default().to_owned(),
        ]);
        if !info.files.is_empty() {
            sources.push([info.name.as_str(), info.licence, info.homepage].map(str::to_owned).to_vec());
        }
    }
    print(&format!(
        "{}\n{}\nfetch one with: bitpact data fetch NAME\nyour own: --dataset folder --data DIR; bitpact data check DIR tells what it would be read as",
        table(&rows, &[0, 6]),
        table(&sources, &[0, 1, 2])
    ))
}

/// Bytes of everything that is fetched.
fn size(info: &SetInfo) -> u64 {
    info.downloads.iter().map(|download| download.bytes).sum()
}

fn shape(info: &SetInfo) -> String {
    let shape = info.image_shape;
    format!("{}x{}x{}", shape.h, shape.w, shape.c)
}

fn object(info: &SetInfo) -> Value {
    let download =
        |d: &bitpact::unstable::data::catalog::Download| json!({ "url": d.url, "bytes": d.bytes, "md5": d.md5 });
    json!({
        "name": info.name.as_str(),
        "title": info.title,
        "train_images": info.train_images,
        "test_images": info.test_images,
        "classes": info.class_names,
        "shape": [info.image_shape.h, info.image_shape.w, info.image_shape.c],
        "folders": info.folders,
        "files": info.files.iter().map(|file| file.name).collect::<Vec<_>>(),
        "downloads": info.downloads.iter().map(download).collect::<Vec<_>>(),
        "homepage": info.homepage,
        "licence": info.licence,
        "recipe": builtin_for_dataset(info.name.as_str()),
    })
}
