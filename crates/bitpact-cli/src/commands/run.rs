//! `bitpact run`: what a network sees in pictures.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use bitpact::Engine;
use bitpact::unstable::data::own::Task;
use bitpact::unstable::data::{DatasetName, ImageShape, PictureError, View, load_picture_as};
use bitpact::unstable::engine::{ExecOptions, predict, softmax, top_k};
use bitpact::unstable::train::Recipe;
use serde_json::{Value, json};

use crate::exit::report_part;
use crate::loaded::{Loaded, open};
use crate::machine::MachineArgs;
use crate::out::{percent, print, table};

/// Runs the integer network on pictures and shows the five most likely classes of each, of a mask the
/// largest parts
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact run runs/builtin-W4A4-seed1 photo.png
  bitpact run model.bitpact a.jpg b.jpg --json

A picture (PNG, JPEG, WebP, BMP or TIFF) is turned as its EXIF orientation says and made RGB or grey as the network reads; the
largest rectangle in its middle with the ratio of the network's input is cut out and scaled to it (bilinear, with antialiasing),
or, of a run or checkpoint whose recipe has `resize`, or with --resize, what evaluation cuts out. Pixels enter the network as
they are: their zero point and scale are part of the model. What is transparent shows the background, white
where --background names no other. A picture that cannot be used is reported, the others are shown, and the exit status is 1.
Probabilities are the softmax of the logits. Of a network that gives a class for each pixel the shares of pixels are shown, of one that
measures, the numbers.")]
pub(crate) struct Args {
    /// A .bitpact file, a checkpoint (.safetensors, converted on the fly) or the folder of a run
    model: PathBuf,
    /// Picture files
    #[arg(required = true)]
    image: Vec<PathBuf>,
    /// Shorter side that pictures are scaled to before the network's input is cut out of their middle; the one of the
    /// recipe, where a run or checkpoint has one
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=65536))]
    resize: Option<u32>,
    /// Colour behind transparent pixels: white, black or RRGGBB
    #[arg(long, value_name = "COLOUR", default_value = "white")]
    background: Background,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// Classes shown.
const SHOWN: usize = 5;

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = open(&args.model)?;
    if loaded.input().bits != 8 {
        let file = loaded.file.display();
        bail!("{file}: reads codes of 16 bits, and pictures are read in 8: `eval` measures it on arrays");
    }
    let machine = args.machine.resolve();
    // A picture is one image; threads are for several.
    let threads = machine.threads.min(args.image.len());
    let engine = Engine::new(loaded.integers()?, ExecOptions { isa: machine.isa, threads })?;
    let shown = Meaning::of(&loaded, &engine)?;
    let reads = engine.input_shape();
    let shape = ImageShape { h: reads.h, w: reads.w, c: reads.c };
    let resize = args.resize.map(|side| side as usize);
    let resize = resize.or(loaded.recipe.as_ref().and_then(|recipe| recipe.resize));
    let view = View { resize, background: args.background.0 };
    let (mut results, mut bad) = (Vec::new(), 0);
    for paths in args.image.chunks(64) {
        let mut pixels = Vec::with_capacity(paths.len() * shape.len());
        let mut good = Vec::new();
        for path in paths {
            match load_picture_as(path, shape, view) {
                Ok(image) => {
                    pixels.extend(image);
                    good.push(path);
                }
                Err(error @ PictureError::Channels { .. }) => return Err(error.into()),
                Err(error) => {
                    bad += 1;
                    report_part(&error.into());
                }
            }
        }
        if !good.is_empty() {
            let logits = engine.logits(&pixels)?;
            let rows = logits.chunks_exact(engine.output_shape().elements());
            results.extend(good.into_iter().zip(rows.map(<[i64]>::to_vec)));
        }
    }
    if !results.is_empty() {
        show(&args, &loaded, &engine, shown, &results)?;
    }
    match bad {
        0 => Ok(()),
        bad => bail!("{bad} of {} pictures cannot be used", args.image.len()),
    }
}

/// Meaning of the numbers of an output.
#[derive(Clone, Copy)]
enum Meaning {
    /// A logit for each class.
    Classes,
    /// Logits for each pixel.
    Mask,
    /// The numbers themselves.
    Numbers,
}

impl Meaning {
    /// The meaning that the data set of the recipe gives, where the set is known; else logits.
    fn of(loaded: &Loaded, engine: &Engine) -> Result<Self> {
        let task = |recipe: &Recipe| match recipe.dataset.parse::<DatasetName>() {
            Ok(DatasetName::Folder) => recipe.task,
            known => known.ok().map(|name| Task::of(name.target_kind())),
        };
        let output = engine.output_shape();
        match loaded.recipe.as_ref().and_then(task) {
            Some(Task::Regress) => Ok(Self::Numbers),
            Some(Task::Restore) => bail!(
                "{}: its output is an image of {output}, which `run` does not write; `eval` measures it, and the library gives its pixels",
                loaded.file.display()
            ),
            _ if (output.h, output.w) == (1, 1) => Ok(Self::Classes),
            _ => Ok(Self::Mask),
        }
    }

    fn json(self, engine: &Engine, path: &Path, outputs: &[i64]) -> Value {
        let file = path.display().to_string();
        match self {
            Self::Classes => json!({ "file": file, "top": top_json(engine, outputs) }),
            Self::Mask => {
                let parts = parts(engine, outputs);
                let part = |(name, share)| json!({ "class": name, "pixels": share });
                json!({ "file": file, "parts": parts.into_iter().map(part).collect::<Vec<_>>() })
            }
            Self::Numbers => {
                let number = |(name, value)| json!({ "name": name, "value": value });
                json!({ "file": file, "numbers": numbers(engine, outputs).map(number).collect::<Vec<_>>() })
            }
        }
    }

    fn text(self, engine: &Engine, outputs: &[i64]) -> String {
        let rows: Vec<Vec<String>> = match self {
            Self::Classes => return top_text(engine, outputs),
            Self::Mask => {
                let row = |(name, share): (String, f64)| vec![format!("  {}", percent(share)), name];
                parts(engine, outputs).into_iter().map(row).collect()
            }
            Self::Numbers => {
                let row = |(name, value): (String, f64)| vec![format!("  {value:.4}"), name];
                numbers(engine, outputs).map(row).collect()
            }
        };
        table(&rows, &[1])
    }
}

/// The share of pixels of each class, the largest first.
fn parts(engine: &Engine, logits: &[i64]) -> Vec<(String, f64)> {
    let names = engine.class_names();
    let mut pixels = vec![0usize; names.len()];
    logits.chunks_exact(names.len()).for_each(|logits| pixels[predict(logits)] += 1);
    let all: usize = pixels.iter().sum();
    let mut shares: Vec<(String, f64)> =
        names.iter().cloned().zip(pixels.iter().map(|&n| n as f64 / all as f64)).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares.truncate(SHOWN);
    shares
}

/// Names and real values of an output.
fn numbers<'a>(engine: &'a Engine, outputs: &'a [i64]) -> impl Iterator<Item = (String, f64)> + 'a {
    engine.class_names().iter().cloned().zip(outputs.iter().map(|&q| q as f64 * engine.logit_scale()))
}

fn show(args: &Args, loaded: &Loaded, engine: &Engine, shown: Meaning, results: &[(&PathBuf, Vec<i64>)]) -> Result<()> {
    if args.json {
        let images: Vec<Value> = results.iter().map(|(path, outputs)| shown.json(engine, path, outputs)).collect();
        let model = loaded.file.display().to_string();
        return print(&json!({ "model": model, "images": images }).to_string());
    }
    let text: Vec<String> =
        results.iter().map(|(path, logits)| format!("{}\n{}", path.display(), shown.text(engine, logits))).collect();
    print(&text.join("\n"))
}

/// Colour behind transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Background([u8; 3]);

impl FromStr for Background {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = match text {
            "white" => "ffffff",
            "black" => "000000",
            other => other.strip_prefix('#').unwrap_or(other),
        };
        let is_hex = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let byte = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).expect("two hexadecimal digits");
        if is_hex { Ok(Self([byte(0), byte(2), byte(4)])) } else { Err("expected white, black or RRGGBB".to_owned()) }
    }
}

fn top_json(engine: &Engine, logits: &[i64]) -> Vec<Value> {
    let shares = softmax(logits, engine.logit_scale());
    let entry = |class: usize| {
        json!({
            "class": class,
            "name": engine.class_names()[class],
            "logit": logits[class],
            "probability": shares[class],
        })
    };
    top_k(logits, SHOWN).into_iter().map(entry).collect()
}

fn top_text(engine: &Engine, logits: &[i64]) -> String {
    let shares = softmax(logits, engine.logit_scale());
    let row = |class: usize| {
        let name = match engine.class_names()[class].as_str() {
            "" => format!("class {class}"),
            name => name.to_owned(),
        };
        vec![format!("  {:>8}", percent(shares[class])), name]
    };
    table(&top_k(logits, SHOWN).into_iter().map(row).collect::<Vec<_>>(), &[1])
}

#[cfg(test)]
mod tests {
    use super::{Background, softmax};

    #[test]
    fn probabilities_sum_to_one_and_follow_the_logits() {
        let shares = softmax(&[0, 100, 100, i64::MIN], 0.01);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12 && shares[3] == 0.0);
        assert!(shares[1] == shares[2] && (shares[1] / shares[0] - std::f64::consts::E).abs() < 1e-9);
    }

    #[test]
    fn backgrounds_are_names_or_hexadecimal() {
        let parsed = |text: &str| text.parse::<Background>().map(|background| background.0);
        assert_eq!(parsed("black"), Ok([0; 3]));
        assert_eq!([parsed("#01fF80"), parsed("01ff80")], [Ok([1, 255, 128]), Ok([1, 255, 128])]);
        assert!(["", "grey", "12345", "#1234567", "+1+2+3", "äöü"].iter().all(|text| parsed(text).is_err()));
    }
}
