//! `bitpact data fetch`: a set from its publisher.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bitpact::unstable::data::catalog::{Download, SetInfo};
use bitpact::unstable::data::check::md5_of;
use bitpact::unstable::data::{Limits, load};
use flate2::bufread::GzDecoder;
use serde_json::json;

use super::download::{Source, agent, download};
use super::named;
use super::unpack::unpack;
use crate::exit::Usage;
use crate::interrupt::farewell;
use crate::out::{bytes, pasted, print, say};
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
    /// Seconds in which a server that sends nothing counts as gone
    #[arg(long, value_name = "S", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=86400))]
    timeout: u32,
    /// Write one JSON object to standard output at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let name = named(&args.name, "NAME")?;
    let info = name.info();
    if name.is_drawn() {
        return Err(Usage(format!("NAME: the data set `{name}` is drawn; there is nothing to fetch")).into());
    }
    let folder = args.output.join(info.folders[0]);
    if info.downloads.is_empty() {
        bail!("{} cannot be fetched. {}", info.title, by_hand(info, &folder));
    }
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let agent = agent(args.mirror.is_none(), Duration::from_secs(args.timeout.into()));
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
        "{}: {}\n\nnext        bitpact data check {pasted}\n            bitpact train --dataset {name} --data {pasted}",
        folder.display(),
        info.title,
        pasted = pasted(&args.output)
    ))
}

/// Fetches one file, unless what it brings is there.
fn fetch(agent: &ureq::Agent, info: &SetInfo, file: &Download, mirror: Option<&str>, folder: &Path) -> Result<()> {
    let name = file.file_name();
    let brings: Vec<&str> = match file.is_archive() {
        true => info.files.iter().map(|file| file.name).collect(),
        false => vec![name],
    };
    let md5 = |name: &str| match file.is_archive() {
        true => info.files.iter().find(|file| file.name == name).and_then(|file| file.md5),
        false => Some(file.md5),
    };
    let mut is_there = true;
    for name in &brings {
        is_there &= keep(&folder.join(name), md5(name))?;
    }
    if is_there && file.is_archive() {
        // What it brings has no published checksums.
        if let Err(error) = load(info.name, Some(folder), Limits::default()) {
            say!("{error}; fetching it again");
            is_there = false;
        }
    }
    if is_there {
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

/// Says whether the file at `path` is kept: it is the published one, or another whole one. A damaged one is put aside,
/// as it may be the only one there is.
fn keep(path: &Path, published: Option<&str>) -> Result<bool> {
    let shown = path.display();
    let Ok(metadata) = fs::metadata(path) else { return Ok(false) };
    if metadata.len() == 0 {
        return Ok(false);
    }
    let Some(published) = published else { return Ok(true) };
    let md5 = md5_of(path)?;
    if md5 == published {
        return Ok(true);
    }
    if is_whole_gzip(path) {
        say!("{shown}: kept, though it is not the published file (MD5 {md5}, published {published})");
        return Ok(true);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    fs::rename(path, &aside).with_context(|| format!("{shown}: cannot rename"))?;
    say!("{shown}: damaged (MD5 {md5}, published {published}); put aside as {}", aside.display());
    Ok(false)
}

/// Whether a file can be unpacked to its end, with the checksum that stands there.
fn is_whole_gzip(path: &Path) -> bool {
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let unpack = || std::io::copy(&mut GzDecoder::new(BufReader::new(fs::File::open(path)?)), &mut std::io::sink());
    is_gzip && unpack().is_ok()
}

/// How to do it without this command.
fn by_hand(info: &SetInfo, folder: &Path) -> String {
    let (check, folder) = (pasted(folder), folder.display());
    let mut text = format!("By hand: {}, as {folder} (see {}).", info.by_hand, info.homepage);
    for file in info.downloads {
        text += &format!("\n  {}  (MD5 {})", file.url, file.md5);
    }
    text + &format!("\nThen `bitpact data check {check}` tells whether all is there.")
}
