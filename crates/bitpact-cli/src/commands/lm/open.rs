//! Models and tokenizers from wherever they lie.

use std::path::{Path, PathBuf};

use anyhow::Result;
use bitpact::unstable::kernels::Pool;
use bitpact::unstable::kernels::memory::read_at_most;
use bitpact::unstable::lm::{Gguf, HuggingFace, Llama2c, LmError, PackedFile, Source, Tokenizer};

/// A model of any kind, not yet read.
pub(super) fn open(path: &Path) -> Result<Box<dyn Source>> {
    if path.is_dir() {
        return Ok(Box::new(HuggingFace::open(path)?));
    }
    if path.extension().is_some_and(|e| e == "safetensors") {
        return Ok(Box::new(PackedFile::open(path)?));
    }
    if Gguf::is_one(path) {
        return Ok(Box::new(Gguf::open(path)?));
    }
    Ok(Box::new(Llama2c::open(path)?))
}

/// Which model, and how many threads work on it.
#[derive(clap::Args)]
pub(super) struct ModelArgs {
    /// A Hugging Face folder, a GGUF or llama2.c file or a packed file
    pub(super) model: PathBuf,
    /// The tokenizer, a tokenizer.json or a file of llama2.c; the one that comes with the model where not given
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Threads; all cores where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ModelArgs {
    /// The threads.
    pub(super) fn pool(&self) -> Pool {
        let all = std::thread::available_parallelism().map_or(1, |n| n.get());
        Pool::new(self.threads.map_or(all, usize::from))
    }

    /// The model, not yet read.
    pub(super) fn source(&self) -> Result<Box<dyn Source>> {
        open(&self.model)
    }

    /// The tokenizer's name in packed files, and its bytes.
    pub(super) fn tokenizer_file(&self) -> Result<(&'static str, Vec<u8>)> {
        let read = |path: &Path| -> Result<(&'static str, Vec<u8>)> {
            let name = if path.extension().is_some_and(|e| e == "json") { "tokenizer.json" } else { "tokenizer.bin" };
            let bytes = read_at_most(path, Tokenizer::MOST_BYTES)
                .map_err(|source| LmError::Read { path: path.to_owned(), source })?;
            Ok((name, bytes))
        };
        if let Some(path) = &self.tokenizer {
            return read(path);
        }
        let packed = !self.model.is_dir() && self.model.extension().is_some_and(|e| e == "safetensors");
        if packed && let Some((name, bytes)) = PackedFile::open(&self.model)?.tokenizer()? {
            return Ok((if name == "tokenizer.json" { "tokenizer.json" } else { "tokenizer.bin" }, bytes));
        }
        if Gguf::is_one(&self.model) {
            return Ok(("tokenizer.json", Gguf::open(&self.model)?.tokenizer_json()?));
        }
        let folder = if self.model.is_dir() { &self.model } else { self.model.parent().unwrap_or(Path::new(".")) };
        let names = ["tokenizer.json", "tokenizer.bin", "tok512.bin"];
        match names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
            Some(path) => read(&path),
            None => Err(LmError::Input(format!(
                "no tokenizer: none of {} in {}; --tokenizer names one",
                names.join(", "),
                folder.display()
            ))
            .into()),
        }
    }

    /// The tokenizer, which suits a model of `vocab` tokens.
    pub(super) fn tokenizer(&self, vocab: usize) -> Result<Tokenizer> {
        let (name, bytes) = self.tokenizer_file()?;
        let tokenizer = Tokenizer::from_bytes(Path::new(name), bytes)?;
        tokenizer.check(vocab)?;
        Ok(tokenizer)
    }
}
