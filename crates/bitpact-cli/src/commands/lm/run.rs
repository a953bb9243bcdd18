//! `bitpact lm run`.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use bitpact::Isa;
use bitpact::unstable::lm::{Cache, LmError, Sampler, Sampling, load_packed};

use super::open::ModelArgs;
use crate::interrupt;
use crate::out::say;

/// Continue a text
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to go on from
    prompt: String,
    /// Most tokens to add
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// 0 takes the most likely token, higher values draw more freely
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// Draw from the most likely N only; 0 from all
    #[arg(long, value_name = "N", default_value_t = 40)]
    top_k: usize,
    /// Draw from the fewest tokens that have this probability together
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Draw from tokens with at least this share of the largest probability
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Divides the logits of tokens that were there
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: Args) -> Result<()> {
    let pool = args.model.pool();
    let source = args.model.source()?;
    let tokenizer = args.model.tokenizer(source.config().vocab)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
    };
    let mut sampler = Sampler::new(sampling, args.seed)?;
    let prompt = tokenizer.encode(&args.prompt, true)?;
    let context = source.config().context;
    if prompt.is_empty() || prompt.len() >= context {
        return Err(
            LmError::Input(format!("a prompt of {} tokens: expected 1 to {}", prompt.len(), context - 1)).into()
        );
    }
    // Matrices of codes run on the kernels, with activations of 8 bits; others in float32.
    let model = load_packed(&*source, Isa::detect())?;
    interrupt::stop_flag();
    let mut cache = Cache::new(&model.config);
    let mut tokens = prompt.clone();
    let mut shown = String::new();
    let mut out = std::io::stdout().lock();
    let mut emit = |text: &str| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    };
    let began = Instant::now();
    let mut hidden = model.hidden(&prompt, &mut cache, &pool)?;
    let after_prompt = Instant::now();
    let ends = tokenizer.ends();
    let mut made = 0;
    while made < args.tokens && tokens.len() < context && !interrupt::stop_flag().load(Ordering::Relaxed) {
        let last = bitpact::unstable::ptq::Matrix::new(1, hidden.cols(), hidden.row(hidden.rows() - 1).to_vec())?;
        let mut logits = model.logits(&last, &pool).into_data();
        let token = sampler.draw(&mut logits, &tokens);
        if ends.contains(&token) {
            break;
        }
        tokens.push(token);
        made += 1;
        // Decoding all of it again keeps characters of several tokens whole.
        let text = tokenizer.decode(&tokens)?;
        if !text.ends_with('\u{fffd}') && text.is_char_boundary(shown.len()) {
            if !emit(&text[shown.len()..])? {
                return Ok(());
            }
            shown = text;
        }
        hidden = model.hidden(&[token], &mut cache, &pool)?;
    }
    emit("\n")?;
    let speed = |n: usize, from: Instant, to: Instant| n as f64 / (to - from).as_secs_f64().max(1e-9);
    let (p, d) = (speed(prompt.len(), began, after_prompt), speed(made, after_prompt, Instant::now()));
    say!("prompt {} tokens, {p:.1}/s; {made} more, {d:.1}/s", prompt.len());
    Ok(())
}
