//! Pictures without labels, from a folder and the folders in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bitpact::Model;
use bitpact::unstable::data::{ImageShape, InMemory, PICTURE_ENDINGS, epoch_order, load_picture};

use crate::exit::report_part;
use crate::out::say;

/// Folders within folders.
const DEEPEST: usize = 16;

/// At most `count` pictures below `folder`, drawn by `seed`, in the shape that the network reads. Pictures that cannot
/// be read are reported, and others are taken for them.
pub(super) fn load(folder: &Path, model: &Model, count: usize, seed: u64) -> Result<InMemory> {
    let mut files = Vec::new();
    find(folder, 0, &mut files)?;
    files.sort();
    let reads = model.graph.input();
    let shape = ImageShape { h: reads.h, w: reads.w, c: reads.c };
    let (mut pixels, mut bad, mut good) = (Vec::new(), 0, 0);
    for i in epoch_order(seed, 0, files.len()) {
        if good == count {
            break;
        }
        match load_picture(&files[i as usize], shape) {
            Ok(image) => {
                pixels.extend(image);
                good += 1;
            }
            Err(error) => {
                bad += 1;
                report_part(&error.into());
            }
        }
    }
    if good == 0 {
        bail!("{}: no picture in it can be used; expected PNG, JPEG, WebP, BMP or TIFF files", folder.display());
    }
    if bad > 0 {
        say!("warning: {bad} pictures cannot be used, {good} are");
    }
    // Labels that nobody reads.
    Ok(InMemory::new(pixels, vec![0; good], shape, vec![String::new()])?)
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let what = || format!("{}: cannot read the folder", folder.display());
    for entry in std::fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(what)?);
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if kind.is_dir() && depth < DEEPEST {
            find(&path, depth + 1, files)?;
        } else if !kind.is_dir() && ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&&*ending)) {
            files.push(path);
        }
    }
    Ok(())
}
