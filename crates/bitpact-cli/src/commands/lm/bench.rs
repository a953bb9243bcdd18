//! `bitpact lm bench`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use bitpact::Isa;
use bitpact::unstable::kernels::{Pool, WeightArena, peak};
use bitpact::unstable::lm::{
    Cache, Config, LmError, Model, Part, RopeScaling, Source, Weights, load_packed, random_layer, random_outer,
};
use bitpact::unstable::ptq::{Grid, Group, Matrix, Width};

use super::open::open;
use crate::out::{bytes, print, table};

/// Tokens a second of prompt and decoding, and how much of the memory's speed decoding takes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A packed file, or the shape of a network with random codes: smollm2-135m or tinyllama-1.1b
    model: PathBuf,
    /// Width of random codes: 2 to 8 or ternary
    #[arg(long, value_name = "WIDTH", default_value = "4")]
    bits: Width,
    /// Groups of random codes
    #[arg(long, value_name = "N|row", default_value = "64")]
    group: Group,
    /// Random codes with zero points
    #[arg(long)]
    asymmetric: bool,
    /// Tokens of the prompt; several with commas between
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "128,512")]
    prompt: Vec<usize>,
    /// Tokens decoded
    #[arg(long, value_name = "N", default_value_t = 64)]
    decode: usize,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads; all cores where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Instruction set; the best where not given
    #[arg(long)]
    isa: Option<Isa>,
}

/// A known shape.
fn shape(name: &str) -> Option<Config> {
    let (dim, hidden, layers, heads, kv_heads, vocab, tied) = match name {
        "smollm2-135m" => (576, 1536, 30, 9, 3, 49_152, true),
        "tinyllama-1.1b" => (2048, 5632, 22, 32, 4, 32_000, false),
        _ => return None,
    };
    let (context, norm_eps, rope_theta) = (4096, 1e-5, 10_000.0);
    let (head_dim, rope_scaling) = (64, RopeScaling::None);
    Some(Config {
        vocab,
        dim,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        context,
        norm_eps,
        rope_theta,
        rope_scaling,
        tied,
    })
}

/// A network of a shape with random codes, packed layer by layer.
fn random(config: Config, grid: Grid, isa: Isa) -> Result<Model, LmError> {
    let arena = WeightArena::new();
    let layer = |i| random_layer(&config, grid, i as u64).packed(isa, &arena);
    let layers = (0..config.layers).map(layer).collect::<Result<_, _>>()?;
    let mut outer = random_outer(&config, grid);
    outer.head = Some(outer.head().packed(isa, &arena)?);
    Ok(Model { config, outer, layers })
}

/// Bytes of weights that one token reads.
fn bytes_a_token(model: &Model) -> usize {
    let size = |w: &Weights| match w {
        Weights::Packed(p) => p.bytes(),
        other => 4 * other.rows() * other.cols(),
    };
    let layers = model.layers.iter().flat_map(|l| Part::ALL.map(|p| size(&l.part(p).weights)));
    layers.sum::<usize>() + size(model.outer.head())
}

/// The processor's time of this thread where it works alone, so that other work on the machine counts less; otherwise
/// time on the wall.
struct Clock {
    wall: Instant,
    own: Option<u64>,
}

impl Clock {
    fn start(threads: usize) -> Clock {
        Clock { wall: Instant::now(), own: if threads == 1 { own_nanoseconds() } else { None } }
    }

    fn seconds(&self) -> f64 {
        match (self.own, own_nanoseconds()) {
            (Some(began), Some(now)) => (now - began) as f64 / 1e9,
            _ => self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// Nanoseconds this thread has run, where Linux tells.
fn own_nanoseconds() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

/// Bytes a second that the threads read, by the clock that decoding is measured with.
fn read_bandwidth(threads: usize) -> f64 {
    const WORDS: usize = 32 << 20;
    if threads > 1 || own_nanoseconds().is_none() {
        return peak::read_bandwidth(threads, 8 * WORDS);
    }
    let words = vec![1u64; WORDS];
    let once = |_| {
        let began = Clock::start(threads);
        std::hint::black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        began.seconds()
    };
    8.0 * WORDS as f64 / (0..5).map(once).fold(f64::INFINITY, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(super) fn run(args: Args) -> Result<()> {
    let isa = args.isa.unwrap_or_else(Isa::detect);
    if !isa.is_available() {
        return Err(LmError::Input(format!("this machine has no {isa}")).into());
    }
    let all = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = args.threads.map_or(all, usize::from);
    let pool = Pool::new(threads);
    let name = args.model.display().to_string();
    let model = match shape(&name) {
        Some(config) => {
            let symmetric = !args.asymmetric || args.bits == Width::Ternary;
            let grid = Grid::new(args.bits, args.group, symmetric).map_err(|e| LmError::Input(e.to_string()))?;
            random(config, grid, isa)?
        }
        None => {
            let source: Box<dyn Source> = open(&args.model)?;
            load_packed(&*source, isa)?
        }
    };
    let longest = args.prompt.iter().copied().max().unwrap_or(0).max(1) + args.decode;
    if args.prompt.contains(&0) || args.decode == 0 || longest > model.config.context {
        let context = model.config.context;
        return Err(LmError::Input(format!("{longest} tokens: expected 1 to {context}, and none of 0")).into());
    }
    let read = read_bandwidth(threads) / 1e9;
    let token = |i: usize| (i * 7919 % model.config.vocab) as u32;
    let mut rows = vec![["what", "tokens/s", "ms", "weights read GB/s", "of the read"].map(str::to_owned).to_vec()];
    let weights = bytes_a_token(&model);
    for &n in &args.prompt {
        let tokens: Vec<u32> = (0..n).map(token).collect();
        let mut times = Vec::new();
        for _ in 0..args.rounds {
            let began = Clock::start(threads);
            let hidden = model.hidden(&tokens, &mut Cache::new(&model.config), &pool)?;
            let last = Matrix::new(1, hidden.cols(), hidden.row(n - 1).to_vec())?;
            model.logits(&last, &pool);
            times.push(began.seconds());
        }
        let t = median(times);
        rows.push(vec![
            format!("prompt of {n}"),
            format!("{:.1}", n as f64 / t),
            format!("{:.1}", t * 1e3),
            String::new(),
            String::new(),
        ]);
    }
    let mut times = Vec::new();
    for _ in 0..args.rounds {
        let mut cache = Cache::new(&model.config);
        let began = Clock::start(threads);
        for i in 0..args.decode {
            let hidden = model.hidden(&[token(i)], &mut cache, &pool)?;
            model.logits(&hidden, &pool);
        }
        times.push(began.seconds());
    }
    let t = median(times);
    let speed = args.decode as f64 / t;
    let rate = speed * weights as f64 / 1e9;
    rows.push(vec![
        format!("decoding {}", args.decode),
        format!("{speed:.1}"),
        format!("{:.1}", t * 1e3),
        format!("{rate:.1}"),
        format!("{:.0} %", 100.0 * rate / read),
    ]);
    let size = bytes(weights as u64);
    let own = threads == 1 && own_nanoseconds().is_some();
    let clock = if own { "own processor time" } else { "time on the wall" };
    print(&format!(
        "{name}, {isa}, {threads} threads ({clock}), {size} a token, read {read:.1} GB/s\n{}",
        table(&rows, &[0])
    ))
}
