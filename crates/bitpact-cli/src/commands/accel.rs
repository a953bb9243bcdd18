//! `bitpact accel`: what low bits buy in hardware.

mod area;
mod compare;
mod in_memory;
mod model;
mod paper;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bitpact::Graph;
use bitpact::unstable::accel::{AccelError, DEVICE_NAMES, Device, Widths, Workload};
use bitpact::unstable::graph::{FirstLast, Shape, zoo};
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::train::recipe::read_network;

use crate::exit::Usage;
use crate::loaded::{Network, open};
use crate::out::say;

/// What low bits buy in hardware: time, traffic, energy and area of a network on an accelerator
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact accel paper                                    figure 6 of the PACT paper, rebuilt
  bitpact accel model resnet50 --bits W4A4 --device pact-4 --bandwidth 32
  bitpact accel model run/model.bitpact --device this-cpu --measured bench.json
  bitpact accel compare resnet18 --bits W8A8 --bits W2A2 --device pact-8 --device my.toml
  bitpact accel area                                     gates of every pair of widths (needs yosys)
  bitpact accel in-memory run/model.bitpact --data DIR --cell stride-xnor --sigma 5%")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Paper(paper::Args),
    Model(model::Args),
    Compare(compare::Args),
    Area(area::Args),
    InMemory(in_memory::Args),
}

pub(crate) fn run(args: Args) -> Result<()> {
    let result = match args.command {
        Command::Paper(args) => paper::run(args),
        Command::Model(args) => model::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Area(args) => area::run(args),
        Command::InMemory(args) => in_memory::run(args),
    };
    // A device or width that cannot be is the command line's fault; files and programs are not.
    result.map_err(|error| match error.downcast::<AccelError>() {
        Ok(error) if is_usage(&error) => Usage(error.to_string()).into(),
        Ok(error) => error.into(),
        Err(error) => error,
    })
}

fn is_usage(error: &AccelError) -> bool {
    !matches!(
        error,
        AccelError::Read { .. }
            | AccelError::Write(_)
            | AccelError::Tool { .. }
            | AccelError::Measured { .. }
            | AccelError::Chart { .. }
    )
}

/// Which network.
#[derive(clap::Args)]
struct NetworkArgs {
    /// A network of the zoo, a TOML or JSON file with a network, a .bitpact file, a checkpoint or the folder of a run
    #[arg(value_name = "MODEL|ARCH")]
    network: PathBuf,
    /// Size of the image of a network of the zoo, as HxWxC; the usual one where not given
    #[arg(long, value_name = "HxWxC", value_parser = parse_shape)]
    input: Option<Shape>,
    /// Classes of a network of the zoo; the usual number where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    classes: Option<u16>,
    /// First and last layer of a network of the zoo: 8bit (at least 8 bits), same or float (16-bit weights)
    #[arg(long, value_name = "POLICY", default_value = "8bit", value_parser = parse_first_last)]
    first_last: FirstLast,
}

/// The bits a network of the zoo has where nothing else is asked.
const USUAL_BITS: &str = "W4A4";

impl NetworkArgs {
    /// The network at each of `bits`. A file has its own, and no other can be asked for.
    fn workloads(&self, bits: &[Widths]) -> Result<Vec<Workload>> {
        let usual = || USUAL_BITS.parse().map_err(Usage);
        if self.has_no_bits() {
            let bits = if bits.is_empty() { vec![usual()?] } else { bits.to_vec() };
            return bits.into_iter().map(|bits| self.at(bits)).collect();
        }
        if !self.network.as_path().exists() {
            let known = zoo::NAMES.join(", ");
            let name = self.network.display();
            let message = format!("`{name}` is neither a network of the zoo nor a file; the zoo has {known}");
            return Err(Usage(message).into());
        }
        if !bits.is_empty() || self.input.is_some() || self.classes.is_some() {
            let message = format!("{}: a file has its own bits, input and classes", self.network.display());
            return Err(Usage(message).into());
        }
        match open(self.network.as_path())?.network {
            Network::Integer { model, .. } => Ok(vec![Workload::integer(&model)?]),
            Network::Float(checkpoint) => {
                Err(AccelError::Float { network: checkpoint.model.graph.name().to_owned() }.into())
            }
        }
    }

    /// The network of the zoo, or of a file that says no bits, at `bits`.
    fn at(&self, bits: Widths) -> Result<Workload> {
        Ok(Workload::uniform(&self.graph()?, bits, self.first_last)?)
    }

    fn graph(&self) -> Result<Graph> {
        let Some(name) = self.zoo_name() else {
            if self.input.is_some() || self.classes.is_some() {
                let message = format!("{}: a file has its own input and classes", self.network.display());
                return Err(Usage(message).into());
            }
            return Ok(read_network(&self.network)?);
        };
        let (usual, usual_classes) = usual_sizes(name);
        let input = self.input.unwrap_or(usual);
        let classes = self.classes.map_or(usual_classes, usize::from);
        Ok(zoo::build(name, input, classes).expect("checked").map_err(|e| Usage(e.to_string()))?)
    }

    fn zoo_name(&self) -> Option<&str> {
        self.network.to_str().filter(|name| zoo::NAMES.contains(name))
    }

    /// Whether any bits can be asked for.
    fn has_no_bits(&self) -> bool {
        let is_description = |extension: &std::ffi::OsStr| extension == "toml" || extension == "json";
        self.zoo_name().is_some() || self.network.is_file() && self.network.extension().is_some_and(is_description)
    }
}

/// Image and classes that the network of the zoo called `name` is usually given: CIFAR-10's or ImageNet's.
fn usual_sizes(name: &str) -> (Shape, usize) {
    match name.trim_end_matches("-b") {
        "cnn" | "resnet20" | "resnet32" | "resnet44" | "resnet56" => (Shape::new(32, 32, 3), 10),
        _ => (Shape::new(224, 224, 3), 1000),
    }
}

/// `--bandwidth`: a number of GB/s or `unlimited`.
#[derive(Debug, Clone, Copy)]
struct Bandwidth(Option<f64>);

fn parse_bandwidth(text: &str) -> Result<Bandwidth, String> {
    if text == "unlimited" {
        return Ok(Bandwidth(None));
    }
    let number: f64 = text.parse().map_err(|_| "expected a number of GB/s or `unlimited`".to_owned())?;
    Ok(Bandwidth(Some(number)))
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let sides: Vec<usize> = text.split('x').map_while(|side| side.parse().ok()).collect();
    match sides[..] {
        [h, w, c] if text.split('x').count() == 3 => Ok(Shape::new(h, w, c)),
        _ => Err("expected height x width x channels, such as 224x224x3".to_owned()),
    }
}

fn parse_first_last(text: &str) -> Result<FirstLast, String> {
    match text {
        "8bit" => Ok(FirstLast::Bits8),
        "same" => Ok(FirstLast::Same),
        "float" => Ok(FirstLast::Float),
        _ => Err("expected 8bit, same or float".to_owned()),
    }
}

fn device(name: &str, bandwidth: Option<Bandwidth>) -> Result<Device> {
    let device = Device::open(name)?;
    Ok(match bandwidth {
        Some(Bandwidth(gbps)) => device.with_bandwidth(gbps)?,
        None => device,
    })
}

/// Writes the charts and tables of `files` into `folder`, which is made where it is not there.
fn write_files(folder: &Path, files: &[(&str, String)]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes())?;
        say!("wrote {}", path.display());
    }
    Ok(())
}

/// A bandwidth as people read it.
fn bandwidth_name(gbps: Option<f64>) -> String {
    gbps.map_or("unlimited".to_owned(), |gbps| format!("{gbps} GB/s"))
}

fn known_devices() -> String {
    DEVICE_NAMES.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(parse_shape("224x200x3"), Ok(Shape::new(224, 200, 3)));
        for bad in ["", "224", "224x224", "224x224x3x1", "ax2x3", "1x2x"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
        assert!(matches!(parse_bandwidth("unlimited"), Ok(Bandwidth(None))));
        assert!(matches!(parse_bandwidth("32"), Ok(Bandwidth(Some(gbps))) if gbps == 32.0));
        assert!(parse_bandwidth("fast").is_err());
        assert!(parse_first_last("9bit").is_err());
    }
}
