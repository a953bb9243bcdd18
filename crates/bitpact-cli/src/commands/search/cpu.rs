//! The table of this machine's latencies, kept in a file.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use bitpact::Isa;
use bitpact::unstable::kernels::peak::Cpu;
use bitpact::unstable::search::latency::{measure_missing, network_seconds};
use bitpact::unstable::search::{LatencyTable, Space};

use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::out::{percent, say};
use crate::progress::bar;

/// The file of this machine's table where none is named: `bitpact/latency/CPU-ISA.json` in the user's cache folder.
fn usual_path(cpu: &str, isa: Isa) -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let folder = folder.or_else(home).ok_or_else(|| Usage("--cache FILE is needed: there is no HOME".to_owned()))?;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = cpu.chars().map(plain).collect();
    let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
    Ok(folder.join("bitpact").join("latency").join(format!("{}-{isa}.json", words.join("-"))))
}

/// The table with every layer of `space` at every width; what is missing is measured and kept.
pub(super) fn table(space: &Space, isa: Isa, cache: Option<&PathBuf>) -> Result<LatencyTable> {
    let cpu = Cpu::detect().model;
    let path = cache.map_or_else(|| usual_path(&cpu, isa), |path| Ok(path.clone()))?;
    let isa_name = isa.to_string();
    let mut table = if path.exists() { LatencyTable::read(&path)? } else { LatencyTable::new(&*cpu, &*isa_name) };
    if (&*table.cpu, &*table.isa) != (&*cpu, &*isa_name) {
        let (path, cpu_of, isa_of) = (path.display(), &table.cpu, &table.isa);
        let message = format!(
            "{path}: is of {cpu_of} with {isa_of}, and this is {cpu} with {isa_name}; name another --cache, or take it as \
             it is with latency=...@FILE.json"
        );
        return Err(Usage(message).into());
    }
    let known = table.layers.len();
    let (bar, stop) = (bar("timing", 0, "layers and widths"), interrupt::stop_flag());
    let wanted = space.operands();
    let is_done = measure_missing(&mut table, &wanted, isa, &mut |done, all| {
        if done == 0 {
            say!("timing {all} layers and widths on this machine");
        }
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    // What was measured before an error or a signal stays measured.
    if table.layers.len() > known {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
        }
        table.write(&path)?;
        say!("wrote {}", path.display());
    }
    if !is_done? {
        return Err(Interrupted.into());
    }
    rest(&mut table, space, isa)?;
    if let Some(error) = table.error() {
        say!(
            "{} measured layers; one interpolated from the others is off by {} in the median, {} at the worst",
            table.layers.len(),
            percent(error.median),
            percent(error.largest)
        );
    }
    Ok(table)
}

/// Measures what is in no product: the whole network at its widest without its products.
fn rest(table: &mut LatencyTable, space: &Space, isa: Isa) -> Result<()> {
    let whole = network_seconds(&space.graph, &space.plan(&space.widest)?, isa)?;
    let mut products = 0.0;
    for product in &space.products {
        products += table.seconds(product, space.widest.operands(&space.graph, product))?;
    }
    table.rest_ns = (whole - products).max(0.0) * 1e9;
    Ok(())
}
