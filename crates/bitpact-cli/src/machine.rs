//! Flags about this machine and about the images, shared by the commands.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bitpact::Isa;
use bitpact::unstable::data::check::other_version;
use bitpact::unstable::data::own::Options;
use bitpact::unstable::data::{DatasetName, Limits, Split, load_as};
use bitpact::unstable::kernels::peak::Cpu;
use bitpact::unstable::report::Session;

use crate::exit::Usage;
use crate::own::{self, Reading};

/// How to compute. Neither changes a result.
#[derive(clap::Args)]
pub(crate) struct MachineArgs {
    /// Threads; all of the machine's where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Machine")]
    threads: Option<u16>,
    /// Instruction set: auto, amx, avx512, avxvnni, avx2 or scalar
    #[arg(long, value_name = "ISA", default_value = "auto", value_parser = parse_isa, help_heading = "Machine")]
    isa: Isa,
}

/// What the flags come to.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) threads: usize,
    pub(crate) isa: Isa,
}

impl Machine {
    /// This process, as the records of a run name who trained it from step `step` on.
    pub(crate) fn session(&self, step: u64) -> Session {
        Session {
            step,
            commit: env!("BITPACT_COMMIT").to_owned(),
            machine: Cpu::detect().model,
            threads: self.threads,
            isa: self.isa.to_string(),
        }
    }
}

impl MachineArgs {
    pub(crate) fn resolve(&self) -> Machine {
        let all = || std::thread::available_parallelism().map_or(1, |n| n.get().min(1024));
        Machine { threads: self.threads.map_or_else(all, usize::from), isa: self.isa }
    }
}

pub(crate) fn parse_isa(name: &str) -> Result<Isa, String> {
    if name == "auto" {
        return Ok(Isa::detect());
    }
    let isa: Isa = name.parse().map_err(|_| "expected auto, amx, avx512, avxvnni, avx2 or scalar".to_owned())?;
    if isa.is_available() {
        return Ok(isa);
    }
    let available = Isa::available().iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
    Err(format!("this CPU does not have it; it has {available}"))
}

/// Loads the set `name`; a missing or needless folder is the command line's fault. One's own data are read as `options`
/// say, and come with what was read besides.
pub(crate) fn load_images(
    name: DatasetName,
    data: Option<&PathBuf>,
    limits: Limits,
    options: &Options,
) -> Result<(Split, Option<Reading>)> {
    use bitpact::unstable::data::DataError;
    if let (DatasetName::Folder, Some(path)) = (name, data) {
        return own::load(path, limits, options).map(|(split, reading)| (split, Some(reading)));
    }
    let split = match load_as(name, data.map(PathBuf::as_path), limits, options) {
        Err(error @ (DataError::NeedsFolder { .. } | DataError::UnusedFolder { .. })) => {
            Err(Usage(error.to_string()).into())
        }
        Err(error @ DataError::MissingFile { .. }) => {
            let hint = data.map_or_else(String::new, |dir| other_version_hint(dir));
            Err(anyhow::anyhow!("{error}{hint}"))
        }
        other => Ok(other?),
    };
    Ok((split?, None))
}

/// End of an error message where `dir` holds an unsupported version of a data set; else empty.
pub(crate) fn other_version_hint(dir: &Path) -> String {
    let hint = |(version, set)| {
        format!("; what lies there is {version}, expected its binary version (bitpact data fetch {set})")
    };
    other_version(dir).map_or_else(String::new, hint)
}
