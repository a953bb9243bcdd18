//! One row: a number of threads and a batch size, measured in this process.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use bitpact::unstable::core::rng::Key;
use bitpact::unstable::engine::ExecOptions;
use bitpact::unstable::kernels::memory::release_freed;
use bitpact::{Executor, IntegerModel, Isa};
use serde_json::{Value, json};

use super::memory::Memory;
use crate::out::bytes;

/// The argument that means standard input.
pub(super) const STDIN: &str = "-";

/// Runs of a row at least, however long they take, and at most.
const LEAST_RUNS: usize = 3;
const MOST_RUNS: usize = 100_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    threads: usize,
    batch: usize,
    runs: usize,
    /// Milliseconds of a batch.
    median_ms: f64,
    p10_ms: f64,
    p90_ms: f64,
    load_ms: f64,
    memory: Memory,
}

impl Row {
    /// Loads the file and runs batches of random pixels, as long as the process `waiting` waits for it.
    pub(super) fn measure(
        file: &Path,
        isa: Isa,
        threads: usize,
        batch: usize,
        seconds: f64,
        waiting: u32,
    ) -> Result<Self> {
        let begin = Instant::now();
        let options = ExecOptions { isa, threads };
        let mut executor = match file.as_os_str() == STDIN {
            false => Executor::load(file, options)?,
            true => from_stdin(options)?,
        };
        let load_ms = begin.elapsed().as_secs_f64() * 1e3;
        let pixels = pixels(batch * executor.image_len());
        let mut logits = vec![0; batch * executor.output_len()];
        executor.run(&pixels, &mut logits);
        let mut times = Vec::with_capacity(MOST_RUNS);
        let begin = Instant::now();
        while times.len() < LEAST_RUNS || (begin.elapsed().as_secs_f64() < seconds && times.len() < MOST_RUNS) {
            if is_orphan(waiting) {
                bail!("nobody waits for this row");
            }
            let begin = Instant::now();
            executor.run(&pixels, &mut logits);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let memory = Memory::now();
        times.sort_by(f64::total_cmp);
        let percentile = |p: usize| times[(times.len() - 1) * p / 100];
        let [p10_ms, median_ms, p90_ms] = [10, 50, 90].map(percentile);
        Ok(Self { threads, batch, runs: times.len(), median_ms, p10_ms, p90_ms, load_ms, memory })
    }

    fn images_per_s(&self) -> f64 {
        self.batch as f64 / (self.median_ms / 1e3)
    }

    /// Distance of the outer deciles as a share of the median.
    fn spread(&self) -> f64 {
        (self.p90_ms - self.p10_ms) / self.median_ms
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "threads": self.threads,
            "batch": self.batch,
            "median_ms": self.median_ms,
            "p10_ms": self.p10_ms,
            "p90_ms": self.p90_ms,
            "spread": self.spread(),
            "runs": self.runs,
            "images_per_s": self.images_per_s(),
            "load_ms": self.load_ms,
            "resident_bytes": self.memory.resident_bytes,
            "peak_resident_bytes": self.memory.peak_bytes,
        })
    }

    pub(super) fn from_json(row: &Value) -> Option<Self> {
        let whole = |key: &str| row[key].as_u64();
        Some(Self {
            threads: whole("threads")? as usize,
            batch: whole("batch")? as usize,
            runs: whole("runs")? as usize,
            median_ms: row["median_ms"].as_f64()?,
            p10_ms: row["p10_ms"].as_f64()?,
            p90_ms: row["p90_ms"].as_f64()?,
            load_ms: row["load_ms"].as_f64()?,
            memory: Memory { resident_bytes: whole("resident_bytes"), peak_bytes: whole("peak_resident_bytes") },
        })
    }

    /// The row for people.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.threads.to_string(),
            self.batch.to_string(),
            format!("{:.3}", self.median_ms),
            format!("{:.1} %", 100.0 * self.spread()),
            format!("{:.0}", self.images_per_s()),
            self.memory.resident_bytes.map_or("unknown".to_owned(), bytes),
        ]
    }
}

/// The network on standard input.
fn from_stdin(options: ExecOptions) -> Result<Executor> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let model = IntegerModel::from_bytes(&bytes, "standard input")?;
    drop(bytes);
    let executor = Executor::new(&model, options)?;
    drop(model);
    release_freed();
    Ok(executor)
}

/// Whether the process `waiting`, which began this one, has ended.
fn is_orphan(waiting: u32) -> bool {
    #[cfg(unix)]
    return std::os::unix::process::parent_id() != waiting;
    #[cfg(not(unix))]
    {
        let _ = waiting;
        false
    }
}

/// Random pixels, the same every time.
pub(super) fn pixels(n: usize) -> Vec<u8> {
    let key = Key::new(1).with("pixels");
    (0..n).map(|i| key.u64(i as u64) as u8).collect()
}
