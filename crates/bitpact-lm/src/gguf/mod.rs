//! Models in GGUF files.

mod blocks;
mod header;
mod tokenizer;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::shard::finite;
use crate::tensors::{self, Tensors, split_halves};
use crate::{Config, Layer, LmError, Outer, RopeScaling, Source};

use header::Header;
pub use header::check_gguf;

/// A GGUF file. Tensors are read when they are asked for.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    header: Header,
    config: Config,
    /// Whether rows of queries and keys stand in the order in which an element turns with its neighbour.
    interleaved: bool,
}

/// Architectures that are this network, and whether their queries and keys are interleaved.
const ARCHITECTURES: [(&str, bool); 3] = [("llama", true), ("qwen2", false), ("qwen3", false)];

impl Gguf {
    /// Tells whether the file begins as a GGUF file does; false also where it cannot be read.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; 4];
        File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && &magic == b"GGUF"
    }

    /// Reads the header.
    ///
    /// # Errors
    /// Where the file cannot be read, is damaged, or holds another kind of network.
    pub fn open(path: &Path) -> Result<Gguf, LmError> {
        let file = File::open(path).map_err(LmError::read(path))?;
        let size = file.metadata().map_err(LmError::read(path))?.len();
        let header = header::parse(BufReader::new(file), size).map_err(|what| LmError::file(path, what))?;
        let fail = |what: String| LmError::file(path, what);
        let arch = header.text("general.architecture").ok_or_else(|| fail("general.architecture is missing".into()))?;
        let known = ARCHITECTURES.iter().find(|(name, _)| *name == arch);
        let &(arch, interleaved) = known.ok_or_else(|| {
            let names: Vec<&str> = ARCHITECTURES.iter().map(|a| a.0).collect();
            fail(format!("architecture \"{arch}\": expected one of {}", names.join(", ")))
        })?;
        let number = |key: &str| header.number(&format!("{arch}.{key}"));
        let needed = |key: &str| {
            let value = number(key).filter(|v| *v >= 0.0 && v.fract() == 0.0 && *v < 1e9);
            value.map(|v| v as usize).ok_or_else(|| fail(format!("{arch}.{key} is missing or no count")))
        };
        if header.tensor("rope_freqs.weight").is_some() {
            return Err(fail("a table of rotary frequencies (rope_freqs) is not supported".into()));
        }
        let heads = needed("attention.head_count")?;
        let scaling = match header.text(&format!("{arch}.rope.scaling.type")) {
            None | Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: number("rope.scaling.factor").unwrap_or(1.0) },
            Some(other) => return Err(fail(format!("rope scaling \"{other}\": expected none or linear"))),
        };
        let dim = needed("embedding_length")?;
        let embedding = header.tensor("token_embd.weight").ok_or_else(|| fail("no token_embd.weight".into()))?;
        let config = Config {
            vocab: embedding.dims.get(1).map_or(0, |&n| n as usize),
            dim,
            hidden: needed("feed_forward_length")?,
            layers: needed("block_count")?,
            heads,
            kv_heads: number("attention.head_count_kv").map_or(heads, |v| v as usize),
            head_dim: number("attention.key_length").map_or(dim / heads.max(1), |v| v as usize),
            context: needed("context_length")?,
            norm_eps: number("attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
            rope_theta: number("rope.freq_base").unwrap_or(10_000.0),
            rope_scaling: scaling,
            tied: header.tensor("output.weight").is_none(),
        };
        config.check().map_err(|e| fail(e.to_string()))?;
        Ok(Gguf { path: path.to_owned(), header, config, interleaved })
    }

    /// The tokenizer inside as the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// Where there is none of a kind that is known.
    pub fn tokenizer_json(&self) -> Result<Vec<u8>, LmError> {
        tokenizer::json(&self.header).map_err(|what| LmError::file(&self.path, what))
    }
}

/// The GGUF name of a tensor with a Hugging Face name.
fn gguf_name(name: &str) -> Option<String> {
    let outer = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    if let Some((_, found)) = outer.iter().find(|(from, _)| *from == name) {
        return Some((*found).to_owned());
    }
    let (index, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (stem, suffix) = rest.rsplit_once('.')?;
    let part = match stem {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{index}.{part}.{suffix}"))
}

impl Tensors for Gguf {
    fn has(&self, name: &str) -> bool {
        gguf_name(name).is_some_and(|name| self.header.tensor(&name).is_some())
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        let path = &self.path;
        let own = gguf_name(name).unwrap_or_else(|| name.to_owned());
        let info = self.header.tensor(&own).ok_or_else(|| LmError::file(path, format!("tensor {own} is missing")))?;
        // Dimensions stand with the innermost first.
        if !info.dims.iter().rev().map(|&d| d as usize).eq(shape.iter().copied()) {
            let what = format!("tensor {own} has dimensions {:?}, expected {shape:?} from the last", info.dims);
            return Err(LmError::file(path, what));
        }
        let mut file = File::open(path).map_err(LmError::read(path))?;
        file.seek(SeekFrom::Start(info.start)).map_err(LmError::read(path))?;
        let mut bytes = vec![0; info.bytes as usize];
        file.read_exact(&mut bytes).map_err(LmError::read(path))?;
        let values = info.kind.decode(&bytes);
        finite(path, &own, &values)?;
        let turned = self.interleaved && (own.contains(".attn_q.") || own.contains(".attn_k."));
        let cols = if shape.len() == 2 { shape[1] } else { 1 };
        Ok(if turned { split_halves(&values, self.config.head_dim, cols) } else { values })
    }
}

impl Source for Gguf {
    fn config(&self) -> &Config {
        &self.config
    }

    fn outer(&self) -> Result<Outer, LmError> {
        tensors::outer(self, &self.config)
    }

    fn layer(&self, index: usize) -> Result<Layer, LmError> {
        tensors::layer(self, &self.config, index)
    }
}

#[cfg(test)]
mod tests {
    use super::header::tests::file;
    use super::*;
    use crate::testing::{config, interleaved, model, tensors};
    use crate::{Model, Tokenizer};

    fn text(s: &str) -> Vec<u8> {
        [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
    }

    fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    }

    /// Keys of a model with a tokenizer of the pieces a, b, ab and a control token.
    fn keys(model: &Model, arch: &str) -> Vec<(String, u32, Vec<u8>)> {
        let c = &model.config;
        let count = |key: &str, n: usize| (format!("{arch}.{key}"), 4, (n as u32).to_le_bytes().to_vec());
        let own = |key: &str, kind: u32, bytes: Vec<u8>| (key.to_owned(), kind, bytes);
        vec![
            own("general.architecture", 8, text(arch)),
            count("embedding_length", c.dim),
            count("feed_forward_length", c.hidden),
            count("block_count", c.layers),
            count("attention.head_count", c.heads),
            count("attention.head_count_kv", c.kv_heads),
            count("attention.key_length", c.head_dim),
            count("context_length", c.context),
            (format!("{arch}.attention.layer_norm_rms_epsilon"), 6, 1e-5f32.to_le_bytes().to_vec()),
            own("tokenizer.ggml.model", 8, text("gpt2")),
            own("tokenizer.ggml.tokens", 9, list(8, &["a", "b", "ab", "<s>"].map(text))),
            own("tokenizer.ggml.merges", 9, list(8, &[text("a b")])),
            own("tokenizer.ggml.token_type", 9, list(5, &[1i32, 1, 1, 3].map(|n| n.to_le_bytes().to_vec()))),
            own("tokenizer.ggml.add_bos_token", 7, vec![1]),
            own("tokenizer.ggml.bos_token_id", 4, 3u32.to_le_bytes().to_vec()),
        ]
    }

    fn bytes(model: &Model, arch: &str) -> Vec<u8> {
        let keys = keys(model, arch);
        let keys: Vec<(&str, u32, Vec<u8>)> = keys.iter().map(|(k, t, b)| (k.as_str(), *t, b.clone())).collect();
        let stored: Vec<(String, Vec<u64>, Vec<f32>)> = tensors(model)
            .into_iter()
            .map(|(name, shape, data)| {
                let own = gguf_name(&name).unwrap();
                let turned = arch == "llama" && (own.contains("attn_q.") || own.contains("attn_k."));
                let cols = if shape.len() == 2 { shape[1] } else { 1 };
                let data = if turned { interleaved(&data, model.config.head_dim, cols) } else { data };
                (own, shape.iter().rev().map(|&n| n as u64).collect(), data)
            })
            .collect();
        let stored: Vec<(&str, Vec<u64>, u32, Vec<u8>)> = stored
            .iter()
            .map(|(n, d, v)| (n.as_str(), d.clone(), 0, v.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        file(&keys, &stored)
    }

    #[test]
    fn networks_and_tokenizers_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.gguf");
        let model = model(config(), true);
        for arch in ["llama", "qwen3"] {
            std::fs::write(&path, bytes(&model, arch)).unwrap();
            assert!(Gguf::is_one(&path));
            let file = Gguf::open(&path).unwrap();
            assert_eq!(file.load().unwrap(), model, "{arch}");
            let tokenizer = Tokenizer::from_bytes(Path::new("t.json"), file.tokenizer_json().unwrap()).unwrap();
            assert_eq!(tokenizer.encode("abba<s>", true).unwrap(), [3, 2, 1, 0, 3]);
            assert_eq!(tokenizer.decode(&[3, 2, 1]).unwrap(), "abb");
            assert_eq!(tokenizer.beginning().unwrap(), Some(3));
            assert!(tokenizer.check(3).is_err());
        }
    }

    #[test]
    fn other_networks_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.gguf");
        let model = model(config(), false);
        let error = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Gguf::open(&path).and_then(|f| f.load()).unwrap_err().to_string()
        };
        let good = bytes(&model, "llama");
        let place = |what: &[u8]| good.windows(what.len()).position(|w| w == what).unwrap();
        let mut bad = good.clone();
        bad[place(b"llama")] = b'x';
        assert!(error(&bad).contains("architecture \"xlama\""));
        let mut bad = good.clone();
        bad[place(b"blk.1.ffn_up.weight")] = b'x';
        assert!(error(&bad).contains("blk.1.ffn_up.weight is missing"));
        let mut bad = good.clone();
        let at = place(b"llama.block_count") + 17 + 4;
        bad[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(error(&bad).contains("block_count"));
        let mut bad = good;
        let last = bad.len() - 4;
        bad[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(error(&bad).contains("NaN"));
    }
}
