//! Text to tokens and back.

use std::path::Path;

use bitpact_kernels::memory::read_at_most;

use crate::{LmError, ScoredPieces};

/// A tokenizer of one of the kinds that models come with.
#[derive(Debug)]
pub enum Tokenizer {
    /// The tokenizer of llama2.c, with a score for each piece.
    Scored(ScoredPieces),
    /// A tokenizer read from a `tokenizer.json`.
    #[cfg(feature = "tokenizers")]
    HuggingFace(Box<tokenizers::Tokenizer>),
}

impl Tokenizer {
    /// Bytes of the file of a tokenizer, at the most.
    pub const MOST_BYTES: u64 = 1 << 28;

    /// Reads `tokenizer.json` or a tokenizer of llama2.c (any other name).
    ///
    /// # Errors
    /// Where the file cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Tokenizer, LmError> {
        Tokenizer::from_bytes(path, read_at_most(path, Tokenizer::MOST_BYTES).map_err(LmError::read(path))?)
    }

    /// The tokenizer of the file `path` with these bytes.
    ///
    /// # Errors
    /// Where it is no tokenizer.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Tokenizer, LmError> {
        if path.extension().is_some_and(|e| e == "json") {
            return Tokenizer::from_json(path, &bytes);
        }
        ScoredPieces::parse(path, &bytes).map(Tokenizer::Scored)
    }

    #[cfg(feature = "tokenizers")]
    fn from_json(path: &Path, bytes: &[u8]) -> Result<Tokenizer, LmError> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| LmError::file(path, e.to_string()))?;
        Ok(Tokenizer::HuggingFace(Box::new(tokenizer)))
    }

    #[cfg(not(feature = "tokenizers"))]
    fn from_json(path: &Path, _: &[u8]) -> Result<Tokenizer, LmError> {
        Err(LmError::file(path, "this program was built without the feature `tokenizers`, which reads it".to_owned()))
    }

    /// The token that the tokenizer puts before every text, where it does.
    ///
    /// # Errors
    /// [`LmError::Input`] where the tokenizer fails.
    pub fn beginning(&self) -> Result<Option<u32>, LmError> {
        Ok(self.encode("", true)?.first().copied())
    }

    /// Tokens that end a text.
    pub fn ends(&self) -> Vec<u32> {
        match self {
            Tokenizer::Scored(_) => vec![1, 2],
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => {
                let names = ["</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"];
                names.iter().filter_map(|name| t.token_to_id(name)).collect()
            }
        }
    }

    /// Number of tokens it knows.
    pub fn len(&self) -> usize {
        match self {
            Tokenizer::Scored(t) => t.len(),
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => t.get_vocab_size(true),
        }
    }

    /// Tells whether there are no tokens, which is never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An error where the tokenizer has tokens that the model lacks.
    ///
    /// # Errors
    /// [`LmError::Input`] with both numbers.
    pub fn check(&self, vocab: usize) -> Result<(), LmError> {
        let tokens = self.len();
        if tokens > vocab {
            return Err(LmError::Input(format!("the tokenizer has {tokens} tokens, the model {vocab}")));
        }
        Ok(())
    }

    /// Tokens of a text, with those that the tokenizer puts around it (usually one of the beginning) where `special`.
    ///
    /// # Errors
    /// [`LmError::Input`] where the tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, LmError> {
        match self {
            Tokenizer::Scored(t) => {
                let tokens = t.encode(text);
                Ok(if special { tokens } else { tokens[1..].to_vec() })
            }
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => {
                let encoding = t.encode(text, special).map_err(|e| LmError::Input(format!("tokenizer: {e}")))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// The text of tokens, without special ones. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`LmError::Input`] where the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, LmError> {
        match self {
            Tokenizer::Scored(t) => {
                let before = std::iter::once(&1).chain(tokens);
                let real = before.zip(tokens).filter(|(_, token)| **token > 2);
                let bytes: Vec<u8> = real.flat_map(|(&b, &token)| t.bytes(b, token)).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            #[cfg(feature = "tokenizers")]
            Tokenizer::HuggingFace(t) => t.decode(tokens, true).map_err(|e| LmError::Input(format!("tokenizer: {e}"))),
        }
    }
}
