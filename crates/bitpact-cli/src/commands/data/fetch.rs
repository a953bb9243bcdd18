//! `bitpact data fetch`: a set from its publisher.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use bitpact::data::DatasetName;
use bitpact::data::catalog::{Download, SetInfo};
use serde_json::json;

use super::download::{Source, agent, download};
use super::named;
use super::unpack::unpack;
use crate::exit::Usage;
use crate::interrupt::farewell;
use crate::out::{bytes, print, say};
use crate::progress::download_bar;

/// Fetches an image set from its publisher, with its published checksums; goes on where it was stopped
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact data fetch fashion-mnist
  bitpact data fetch cifar10 --output ~/data")]
pub(crate) struct Args {
    /// The set; `bitpact data list` shows them
    name: String,
    /// Folder that the set's own folder is made in
    #[arg(short, long, value_name = "DIR", default_value = "data")]
    output: PathBuf,
    /// Take the publisher's files from this address instead, such as http://mirror.example/sets/
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Write one JSON object to standard output at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let name = named(&args.name, "NAME")?;
    let info = name.info();
    if name == DatasetName::Builtin {
        return Err(Usage("NAME: the data set `builtin` is drawn; there is nothing to fetch".into()).into());
    }
    let folder = args.output.join(info.folders[0]);
    if info.downloads.is_empty() {
        bail!("{} cannot be fetched. {}", info.title, by_hand(info, &folder));
    }
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let agent = agent(args.mirror.is_none());
    for file in info.downloads {
        let result = fetch(&agent, info, file, args.mirror.as_deref(), &folder);
        result.map_err(|error| anyhow!("{error:#}\n{}", by_hand(info, &folder)))?;
    }
    let output = args.output.display().to_string();
    if args.json {
        let object = json!({ "name": name.as_str(), "folder": folder.display().to_string(), "output": output });
        return print(&object.to_string());
    }
    print(&format!(
        "{}: {}\n\nnext        bitpact data check {output}\n            bitpact train --dataset {name} --data {output}",
        folder.display(),
        info.title
    ))
}

/// Fetches one file, unless what it brings is there.
fn fetch(agent: &ureq::Agent, info: &SetInfo, file: &Download, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let name = file.file_name();
    let brings: Vec<&str> = match file.is_archive() {
        true => info.files.iter().map(|file| file.name).collect(),
        false => vec![name],
    };
    if brings.iter().all(|name| folder.join(name).exists()) {
        say!("{name}: already there");
        return Ok(());
    }
    let url = match mirror {
        Some(mirror) => format!("{}/{name}", mirror.trim_end_matches('/')),
        None => file.url.to_owned(),
    };
    say!("{url} ({})", bytes(file.bytes));
    let part = folder.join(format!("{name}.part"));
    let bar = download_bar(name, file.bytes);
    let source = Source { url: &url, bytes: file.bytes, md5: file.md5 };
    let _farewell = farewell(format!("stopped fetching {name}; the same command goes on from there"));
    let _owned = download(agent, &source, &part, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    if !file.is_archive() {
        let to = folder.join(name);
        return fs::rename(&part, &to).with_context(|| format!("{}: cannot write", to.display()));
    }
    unpack(&part, folder, &brings).with_context(|| part.display().to_string())?;
    fs::remove_file(&part).with_context(|| format!("{}: cannot remove", part.display()))
}

/// How to do it without this command.
fn by_hand(info: &SetInfo, folder: &Path) -> String {
    let folder = folder.display();
    let mut text = format!("By hand: {}, as {folder} (see {}).", info.by_hand, info.homepage);
    for file in info.downloads {
        text += &format!("\n  {}  (MD5 {})", file.url, file.md5);
    }
    text + &format!("\nThen `bitpact data check {folder}` tells whether all is there.")
}
