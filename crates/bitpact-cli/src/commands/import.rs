//! `bitpact import`: from a file of another program to a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use bitpact::unstable::graph::Shape;
use bitpact::unstable::interop::export::{Exported, read_back};
use bitpact::unstable::interop::{ImportOptions, Imported, InteropError, import};
use bitpact::unstable::model::Pixels;
use bitpact::{Checkpoint, unstable::graph::counts};
use serde_json::json;

use crate::exit::Usage;
use crate::out::{bytes, count, pasted, print, say};

/// Makes a checkpoint of a network that another program trained, or a .bitpact file of one that bitpact exported
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact import resnet20.th -o model.safetensors
  bitpact import resnet18.pth --arch resnet18 --classes-file names.txt -o model.safetensors
  bitpact import model.safetensors.index.json --mean 0.5 --std 0.5 -o model.safetensors
  bitpact import network.onnx --input-shape 32x32x3 -o model.safetensors
  bitpact import exported.onnx -o model.bitpact

Read are PyTorch files (.pth, .pt, .th; no code in them is run), safetensors files and ONNX files. What a file is
is told from its bytes. Files and folders that `bitpact export` wrote become the integer network that they were made of,
number for number; one that was changed since is refused.")]
pub(crate) struct Args {
    /// The file, or the folder that `export --format npy` wrote
    file: PathBuf,
    /// The checkpoint to write; of a file that bitpact exported, the .bitpact file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Network of the zoo that the weights belong to; guessed from their names and shapes where not given
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Input of an ONNX graph that has several
    #[arg(long, value_name = "NAME")]
    input_name: Option<String>,
    /// Height, width and channels of the images, where the file leaves them open
    #[arg(long, value_name = "HxWxC", value_parser = shape)]
    input_shape: Option<Shape>,
    /// Meaning of a pixel: imagenet, cifar10, half (-1 to 1), unit (0 to 1) or raw255 (0 to 255)
    #[arg(long, value_name = "NAME", value_parser = Pixels::NAMES, conflicts_with_all = ["mean", "std"])]
    input: Option<String>,
    /// Mean of the pixels divided by 255: one number, or one a channel
    #[arg(long, value_name = "M,..", value_delimiter = ',', requires = "std")]
    mean: Vec<f64>,
    /// Standard deviation of the pixels divided by 255: one number, or one a channel
    #[arg(long, value_name = "S,..", value_delimiter = ',', requires = "mean")]
    std: Vec<f64>,
    /// Read a file that bitpact exported like one of another program: a checkpoint that can be trained, whose numbers
    /// are nearly those of the integers
    #[arg(long)]
    trainable: bool,
    /// Text file with the name of a class a line
    #[arg(long, value_name = "FILE")]
    classes_file: Option<PathBuf>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<Shape, String> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|n| n.parse().ok().filter(|&n| n > 0)).collect();
    match sizes.as_deref() {
        Some(&[h, w, c]) => Ok(Shape::new(h, w, c)),
        Some(&[h, w]) => Ok(Shape::new(h, w, 3)),
        _ => Err("expected height, width and channels, such as 32x32x3".to_owned()),
    }
}

impl Args {
    fn options(&self) -> Result<ImportOptions> {
        let pixels = match &self.input {
            Some(name) => Pixels::named(name),
            None if self.mean.is_empty() => None,
            None => Some(Pixels { mean: self.mean.clone(), std: self.std.clone() }),
        };
        Ok(ImportOptions {
            arch: self.arch.clone(),
            input_name: self.input_name.clone(),
            input_shape: self.input_shape,
            pixels,
            class_names: self.classes_file.as_deref().map(class_names).transpose()?,
        })
    }
}

/// Most bytes of a file of class names.
const LONGEST_NAMES: u64 = 1 << 24;

/// The lines of a file, without those that are empty at its end.
fn class_names(path: &Path) -> Result<Vec<String>> {
    let wrong = |what: String| Usage(format!("--classes-file {}: {what}", path.display()));
    let bytes = bitpact::unstable::kernels::memory::read_at_most(path, LONGEST_NAMES)
        .map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

/// Makes the integer network of an export.
fn integers(args: &Args, Exported { model, format }: Exported) -> Result<()> {
    let flags = [
        ("--arch", args.arch.is_some()),
        ("--input-name", args.input_name.is_some()),
        ("--input-shape", args.input_shape.is_some()),
        ("--input", args.input.is_some()),
        ("--mean", !args.mean.is_empty()),
        ("--classes-file", args.classes_file.is_some()),
    ];
    let file = args.file.display();
    if let Some((flag, _)) = flags.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Usage(format!("{flag}: {file} is a network that bitpact exported, which says that itself")).into());
    }
    model.save(&args.output)?;
    let (shape, classes, size) = (model.input_shape, model.classes(), model.to_bytes()?.len() as u64);
    let output = args.output.display().to_string();
    if args.json {
        let object = json!({
            "output": output,
            "format": format.name(),
            "arch": model.arch,
            "input": [shape.h, shape.w, shape.c],
            "classes": classes,
            "bytes": size,
        });
        return print(&object.to_string());
    }
    print(&format!(
        "{output}: {}, the integers that {file} ({format}) was made of, {}; images of {shape}, {classes} classes\n\n\
         next        bitpact eval {}",
        model.arch,
        bytes(size),
        pasted(&args.output)
    ))
}

pub(crate) fn run(args: Args) -> Result<()> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&args.file, &args.output) {
        return Err(Usage(format!("--output {}: that is the file itself", args.output.display())).into());
    }
    if !args.trainable {
        let exported = read_back(&args.file).map_err(|error| match error {
            InteropError::Changed { .. } => anyhow!("{error}; --trainable reads it like a file of another program"),
            error => error.into(),
        })?;
        if let Some(exported) = exported {
            return integers(&args, exported);
        }
    }
    let Imported { model, notes } = import(&args.file, &args.options()?)?;
    let (shape, classes) = (model.graph.input(), model.graph.classes());
    let (arch, parameters) = (model.graph.name().to_owned(), counts::parameters(&model.graph));
    let checkpoint = Checkpoint { model, training: None, note: Some("imported".to_owned()) };
    checkpoint.save(&args.output)?;
    let output = args.output.display().to_string();
    if args.json {
        let object = json!({
            "output": output,
            "arch": arch,
            "input": [shape.h, shape.w, shape.c],
            "classes": classes,
            "parameters": parameters,
            "notes": notes,
        });
        return print(&object.to_string());
    }
    for note in &notes {
        say!("note: {note}");
    }
    print(&format!(
        "{output}: {arch}, {} parameters, images of {shape}, {classes} classes\n\nnext        bitpact eval {}",
        count(parameters),
        pasted(&args.output)
    ))
}
