//! `bitpact verify`: proof on real images that every path computes the same integers.

use anyhow::{Result, bail};
use bitpact::engine::{Verification, VerifyOptions, verify};
use serde_json::{Value, json};

use super::test_set::TestSetArgs;
use crate::out::{print, table};
use crate::progress::image_bar;

/// Compares every code of every layer that this machine's paths compute with the reference interpreter, on a test set
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact verify runs/builtin-W4A4-seed1
  bitpact verify model.bitpact --dataset cifar10 --data cifar-10-batches-bin --json

A path is an instruction set with a number of threads. Each one runs the network after it was written to bytes and read
again, half of the images in batches and half alone. Exit status 1 where a code differs.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Paths have 1 to N threads; all of the machine's where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = args.on.network()?;
    let model = loaded.integers()?;
    let (name, test) = args.on.images(&loaded)?;
    let (shape, reads) = (test.image_shape(), model.input_shape);
    if (shape.h, shape.w, shape.c) != (reads.h, reads.w, reads.c) {
        let file = loaded.file.display();
        bail!("{file}: reads images of {reads}, but those of {name} are {}x{}x{}", shape.h, shape.w, shape.c);
    }
    let all = || std::thread::available_parallelism().map_or(1, |n| n.get().min(1024));
    let options = VerifyOptions::up_to(args.threads.map_or_else(all, usize::from));
    let bar = image_bar("verifying", test.len());
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        for (i, image) in range.zip(pixels.chunks_exact_mut(shape.len())) {
            test.image(i, image);
        }
    };
    let found = verify(model, &options, test.len(), load, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        print(&json_object(&found, name.as_str()).to_string())?;
    } else if found.different == 0 {
        print(&report(&found, name.as_str()))?;
    }
    match &found.first {
        None => Ok(()),
        Some(first) => bail!("{} of {} codes differ; the first: {first}", found.different, found.codes),
    }
}

fn report(found: &Verification, dataset: &str) -> String {
    let mut rows = vec![["path", "threads", "codes", "different"].map(str::to_owned).to_vec()];
    for path in &found.paths {
        let numbers = [path.threads.to_string(), path.codes.to_string(), path.different.to_string()];
        rows.push([vec![path.isa.to_string()], numbers.to_vec()].concat());
    }
    let Verification { images, codes, different, .. } = found;
    format!("{}\n{different} of {codes} codes differ: {images} images of {dataset}, every layer", table(&rows, &[0]))
}

fn json_object(found: &Verification, dataset: &str) -> Value {
    let paths = found.paths.iter().map(|path| {
        json!({
            "isa": path.isa.to_string(),
            "threads": path.threads,
            "codes": path.codes,
            "different": path.different,
        })
    });
    let first = found.first.as_ref().map(|d| {
        json!({
            "isa": d.isa.to_string(),
            "threads": d.threads,
            "batch": d.batch,
            "image": d.image,
            "layer": d.layer,
            "y": d.y,
            "x": d.x,
            "channel": d.channel,
            "expected": d.expected,
            "got": d.got,
        })
    });
    json!({
        "codes": found.codes,
        "different": found.different,
        "images": found.images,
        "dataset": dataset,
        "paths": paths.collect::<Vec<_>>(),
        "first": first,
    })
}
