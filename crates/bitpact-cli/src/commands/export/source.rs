//! `bitpact export --format c` and `rust`: the integer network as source, within what a small machine has.

use anyhow::{Result, bail};
use bitpact::IntegerModel;
use bitpact::unstable::accel::{Device, Estimate, Workload};
use bitpact::unstable::interop::source::{self, CODE_BYTES, Footprint, Language, LayerFootprint, SourceError};
use serde_json::{Value, json};

use super::{Args, check};
use crate::exit::Usage;
use crate::loaded::Loaded;
use crate::out::{bytes, print};

/// Machines that `--target` knows.
pub(super) const TARGETS: [&str; 4] = ["cortex-m4", "cortex-m7", "cortex-m55", "cortex-a53"];
/// Images of the self-test where --limit-test names no number.
pub(super) const IMAGES: u64 = 2;
/// Layers that a refusal names.
const NAMED: usize = 3;

/// A number of bytes, with k or M behind it for 1024 or 1024 * 1024.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1024 * 1024)),
    };
    let number: Option<u64> = digits.parse().ok().filter(|&n| n > 0);
    number
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(|| format!("`{text}`, expected a number of bytes such as 65536, 64k or 1M"))
}

/// Modelled time of one image on a machine.
struct Time {
    target: String,
    cycles: f64,
    seconds: f64,
}

fn time(model: &IntegerModel, target: &str) -> Result<Time> {
    let device = Device::open(target)?;
    let estimate = Estimate::new(&device, &Workload::integer(model)?, 1)?;
    let seconds = estimate.total_s;
    Ok(Time { target: target.to_owned(), cycles: seconds * device.frequency_ghz * 1e9, seconds })
}

pub(super) fn run(args: &Args, language: Language, loaded: &Loaded) -> Result<()> {
    let model = loaded.integers()?;
    let footprint = source::footprint(model, language);
    refuse(args, &footprint)?;
    let time = args.target.as_ref().map(|target| time(model, target)).transpose()?;
    let golden = check(args, loaded, IMAGES)?;
    let written = source::write(model, language, args.name.as_deref(), &golden, &args.output);
    let footprint = written.map_err(|error| match error {
        SourceError::Name { .. } | SourceError::Package { .. } => Usage(format!("--name: {error}")).into(),
        SourceError::Model(_) => anyhow::Error::from(error),
    })?;
    let output = args.output.display().to_string();
    if args.json {
        let time =
            time.map(|t| json!({ "target": t.target, "modelled_cycles": t.cycles.round(), "modelled_s": t.seconds }));
        let object: Value = json!({
            "output": output,
            "format": args.format,
            "name": footprint.name,
            "flash_bytes": footprint.flash_bytes(),
            "ram_bytes": footprint.ram_bytes,
            "macs": footprint.macs(),
            "time": time,
        });
        return print(&object.to_string());
    }
    let name = &footprint.name;
    let (place, next) = match language {
        Language::C => (format!("{name}_run in {name}.h"), format!("make -C {output}")),
        Language::Rust => (format!("run in src/{name}.rs"), format!("cd {output} && cargo test")),
    };
    let mut text = format!(
        "{output}: {} as {}, {place}\nflash       {} of constants, and at most {} of code\nmemory      {}\nwork        {:.3} million multiply-adds",
        model.arch,
        args.format,
        bytes(footprint.flash_bytes() as u64),
        bytes(CODE_BYTES as u64),
        bytes(footprint.ram_bytes as u64),
        footprint.macs() as f64 / 1e6,
    );
    if let Some(Time { target, cycles, seconds }) = time {
        text += &format!("\n{target:<11} {:.2} million cycles, {:.1} ms (modelled)", cycles / 1e6, seconds * 1e3);
    }
    print(&format!("{text}\n\nnext        {next}"))
}

/// Refuses a network that does not fit what was given.
fn refuse(args: &Args, footprint: &Footprint) -> Result<()> {
    let flash = (footprint.flash_bytes() + CODE_BYTES) as u64;
    if let Some(given) = args.flash.filter(|&given| given < flash) {
        let layers = largest(footprint, |layer| layer.weight_bytes + layer.constant_bytes);
        bail!(
            "flash: {flash} bytes with {CODE_BYTES} of code, but --flash gives {given}; the largest layers: {layers}"
        );
    }
    let ram = footprint.ram_bytes as u64;
    if let Some(given) = args.ram.filter(|&given| given < ram) {
        let layers = largest(footprint, |layer| layer.output_bytes);
        bail!("memory: {ram} bytes, but --ram gives {given}; the largest outputs: {layers}");
    }
    Ok(())
}

fn largest(footprint: &Footprint, of: impl Fn(&LayerFootprint) -> usize) -> String {
    let mut layers: Vec<(usize, &str)> = footprint.layers.iter().map(|l| (of(l), l.name.as_str())).collect();
    layers.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
    let words: Vec<String> = layers.iter().take(NAMED).map(|(bytes, name)| format!("{name} ({bytes} bytes)")).collect();
    words.join(", ")
}
