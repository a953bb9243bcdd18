//! `bitpact kernels`: what this machine has, and what it can do at most.

use anyhow::Result;
use bitpact::Isa;
use bitpact::unstable::kernels::peak::{Cpu, Rate, rates, read_bandwidth};
use serde_json::json;

use crate::out::{print, table};

/// Shows what this CPU has: features, paths, cores, caches, and multiply-add rates and memory bandwidth measured in a
/// second
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact kernels
  bitpact kernels --json

Rates are of multiply-adds over registers, the best of many short runs: the peaks that `bitpact bench` compares layers with.")]
pub(crate) struct Args {
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// The buffer that is read has this many times the bytes of the largest cache, within limits.
const TIMES_CACHE: u64 = 2;
const LEAST_BUFFER: u64 = 64 << 20;
const LARGEST_BUFFER: u64 = 512 << 20;

pub(crate) fn run(args: Args) -> Result<()> {
    let cpu = Cpu::detect();
    let paths = Isa::available();
    let measured: Vec<(Rate, f64)> = paths
        .iter()
        .flat_map(|&isa| rates(isa, 1).into_iter().zip(rates(isa, cpu.cores)))
        .map(|(one, all)| (one, all.macs_per_s))
        .collect();
    let buffer = (TIMES_CACHE * cpu.last_cache_bytes()).clamp(LEAST_BUFFER, LARGEST_BUFFER) as usize;
    let bandwidth = [1, cpu.cores].map(|threads| read_bandwidth(threads, buffer));
    if args.json {
        let peaks = measured.iter().map(|(rate, all)| {
            json!({
                "isa": rate.isa.to_string(),
                "number": rate.number.to_string(),
                "instructions": rate.instructions,
                "macs_per_s_1_thread": rate.macs_per_s,
                "macs_per_s": all,
            })
        });
        let caches = cpu.caches.iter().map(|cache| {
            json!({ "level": cache.level, "kind": cache.kind, "bytes": cache.bytes, "shared_by": cache.shared_by })
        });
        let object = json!({
            "cpu": cpu.model,
            "cores": cpu.cores,
            "features": cpu.features,
            "paths": paths.iter().map(Isa::to_string).collect::<Vec<_>>(),
            "default_path": Isa::detect().to_string(),
            "caches": caches.collect::<Vec<_>>(),
            "peaks": peaks.collect::<Vec<_>>(),
            "read_bytes_per_s_1_thread": bandwidth[0],
            "read_bytes_per_s": bandwidth[1],
        });
        return print(&object.to_string());
    }
    let size = |n: u64| if n >= 1 << 20 { format!("{} MiB", n >> 20) } else { format!("{} KiB", n >> 10) };
    let caches = cpu.caches.iter().map(|cache| {
        let kind = match cache.kind.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        format!("L{}{kind} {} (CPUs {})", cache.level, size(cache.bytes), cache.shared_by)
    });
    let names: Vec<String> = paths.iter().map(Isa::to_string).collect();
    let text = format!(
        "cpu       {}\ncores     {}\nfeatures  {}\npaths     {} (auto picks {})\ncaches    {}\n\n",
        if cpu.model.is_empty() { "unknown" } else { &cpu.model },
        cpu.cores,
        cpu.features.join(" "),
        names.join(", "),
        Isa::detect(),
        caches.collect::<Vec<_>>().join(", ")
    );
    let giga = |rate: f64| format!("{:.1}", rate / 1e9);
    let all = format!("{} threads", cpu.cores);
    let mut rows = vec![["path", "", "measured", "1 thread", &all, ""].map(str::to_owned).to_vec()];
    for (rate, all) in &measured {
        let numbers = [rate.instructions.to_owned(), giga(rate.macs_per_s), giga(*all), "G MAC/s".to_owned()];
        rows.push([vec![rate.isa.to_string(), rate.number.to_string()], numbers.to_vec()].concat());
    }
    let memory = ["memory", "", "reading", &giga(bandwidth[0]), &giga(bandwidth[1]), "GB/s"];
    rows.push(memory.map(str::to_owned).to_vec());
    print(&(text + &table(&rows, &[0, 1, 2, 5])))
}
