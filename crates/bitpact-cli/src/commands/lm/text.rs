//! Text as windows of tokens.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use bitpact::unstable::kernels::memory::read_at_most;
use bitpact::unstable::lm::{LmError, Tokenizer, Window, ascii_blocks, windows};

/// SIZE:FROM:COUNT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    size: usize,
    from: usize,
    count: usize,
}

impl FromStr for Blocks {
    type Err = String;

    fn from_str(text: &str) -> Result<Blocks, String> {
        let numbers: Vec<usize> = text.split(':').filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [size, from, count] if size > 0 && count > 0 && text.split(':').count() == 3 => {
                Ok(Blocks { size, from, count })
            }
            _ => Err("expected SIZE:FROM:COUNT, as 800:30:30".to_owned()),
        }
    }
}

/// What is predicted.
#[derive(clap::Args)]
pub(super) struct TextArgs {
    /// The text; given several times, one is measured after the other
    #[arg(long = "text", value_name = "FILE", required = true)]
    texts: Vec<PathBuf>,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 512)]
    context: usize,
    /// Tokens from the beginning of a window to that of the next; the context where not given
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Only so many tokens of the text
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// In place of windows: blocks of SIZE characters, each on its own, those with other than ASCII left out, COUNT
    /// after the first FROM
    #[arg(long, value_name = "SIZE:FROM:COUNT", conflicts_with_all = ["context", "stride", "tokens"])]
    blocks: Option<Blocks>,
}

/// A text cut into windows.
pub(super) struct Text {
    /// The name of its file.
    pub(super) name: String,
    pub(super) windows: Vec<Window>,
    /// In words how they were cut.
    pub(super) how: String,
}

impl TextArgs {
    /// The texts.
    pub(super) fn cut(&self, tokenizer: &Tokenizer) -> Result<Vec<Text>> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let one = |path: &PathBuf| {
            let (windows, how) = self.windows(path, tokenizer)?;
            Ok(Text { name: name(path), windows, how })
        };
        self.texts.iter().map(one).collect()
    }

    fn windows(&self, path: &Path, tokenizer: &Tokenizer) -> Result<(Vec<Window>, String)> {
        if let Some(blocks) = self.blocks {
            let cut = sequences_of(path, blocks, tokenizer)?;
            let how = format!("blocks of {} characters, {} after the first {}", blocks.size, cut.len(), blocks.from);
            return Ok((cut.into_iter().map(|tokens| Window { tokens, from: 1 }).collect(), how));
        }
        let mut tokens = tokenizer.encode(&read_text(path)?, true)?;
        let first = tokenizer.beginning()?;
        if first.is_some_and(|f| tokens.first() == Some(&f)) {
            tokens.remove(0);
        }
        tokens.truncate(self.tokens.unwrap_or(usize::MAX));
        let stride = self.stride.unwrap_or(self.context - usize::from(first.is_some()).min(self.context));
        let cut = windows(&tokens, self.context, stride, first)?;
        Ok((cut, format!("context {}, stride {stride}", self.context)))
    }
}

/// What quantization looks at.
#[derive(clap::Args)]
pub(super) struct CalibrationArgs {
    /// Text for calibration
    #[arg(long, value_name = "FILE")]
    pub(super) calibrate: Option<PathBuf>,
    /// Tokens of a calibration sequence
    #[arg(long, value_name = "N", default_value_t = 512)]
    length: usize,
    /// Number of calibration sequences
    #[arg(long, value_name = "N", default_value_t = 32)]
    sequences: usize,
    /// In place of sequences: blocks of SIZE characters as in `lm perplexity`
    #[arg(long, value_name = "SIZE:FROM:COUNT", conflicts_with_all = ["length", "sequences"])]
    calibrate_blocks: Option<Blocks>,
}

impl CalibrationArgs {
    /// The sequences; none without a text.
    pub(super) fn sequences(&self, tokenizer: &Tokenizer) -> Result<Option<Vec<Vec<u32>>>> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        if let Some(blocks) = self.calibrate_blocks {
            return sequences_of(path, blocks, tokenizer).map(Some);
        }
        if self.length == 0 || self.sequences == 0 {
            return Err(LmError::Input("--length and --sequences must not be 0".to_owned()).into());
        }
        let tokens = tokenizer.encode(&read_text(path)?, true)?;
        let found: Vec<Vec<u32>> = tokens.chunks_exact(self.length).take(self.sequences).map(<[u32]>::to_vec).collect();
        if found.is_empty() {
            let what =
                format!("{} has {} tokens, fewer than one sequence of {}", path.display(), tokens.len(), self.length);
            return Err(LmError::Input(what).into());
        }
        Ok(Some(found))
    }
}

/// Bytes of a text, at the most.
const TEXT_BYTES: u64 = 1 << 32;

fn read_text(path: &Path) -> Result<String> {
    let bytes = read_at_most(path, TEXT_BYTES).map_err(|source| LmError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn sequences_of(path: &Path, blocks: Blocks, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    let cut = ascii_blocks(&read_text(path)?, blocks.size, blocks.from, blocks.count);
    if cut.is_empty() {
        let what = format!("{} has no block of {} ASCII characters there", path.display(), blocks.size);
        return Err(LmError::Input(what).into());
    }
    Ok(cut.iter().map(|block| tokenizer.encode(block, true)).collect::<Result<_, _>>()?)
}
