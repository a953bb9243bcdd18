//! Models and tokenizers of llama2.c: a header of seven integers and float32 tensors, and pieces with scores.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::shard::finite;
use crate::tensors::{self, Tensors, split_halves};
use crate::{Config, Layer, LmError, Outer, RopeScaling, Source};

const HEADER: u64 = 28;

/// A model file of llama2.c, version 0.
#[derive(Debug)]
pub struct Llama2c {
    config: Config,
    path: PathBuf,
}

impl Llama2c {
    /// Reads the header and compares the file's size with it.
    ///
    /// # Errors
    /// Where the file cannot be read or is no such file.
    pub fn open(path: &Path) -> Result<Llama2c, LmError> {
        let mut file = File::open(path).map_err(LmError::read(path))?;
        let mut header = [0u8; HEADER as usize];
        file.read_exact(&mut header).map_err(LmError::read(path))?;
        let number = |i: usize| i32::from_le_bytes(header[4 * i..4 * i + 4].try_into().expect("four bytes"));
        let positive = |i: usize| usize::try_from(number(i)).unwrap_or(0);
        let config = Config {
            dim: positive(0),
            hidden: positive(1),
            layers: positive(2),
            heads: positive(3),
            kv_heads: positive(4),
            // A negative vocabulary means an output matrix of its own.
            vocab: number(5).unsigned_abs() as usize,
            tied: number(5) > 0,
            context: positive(6),
            head_dim: positive(0) / positive(3).max(1),
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
        };
        config.check().map_err(|e| LmError::file(path, e.to_string()))?;
        if config.head_dim * config.heads != config.dim {
            return Err(LmError::file(path, format!("{} heads do not divide {}", config.heads, config.dim)));
        }
        let model = Llama2c { config, path: path.to_owned() };
        let (size, found) = (model.size(), file.metadata().map_err(LmError::read(path))?.len());
        if size != found {
            return Err(LmError::file(path, format!("the header means {size} bytes, the file has {found}")));
        }
        Ok(model)
    }

    /// The tensors one after another: name, elements a layer, whether there is one a layer.
    fn order(&self) -> [(&'static str, usize, bool); 14] {
        let c = &self.config;
        let (q, kv, mlp) = (c.dim * c.dim, c.dim * c.kv_dim(), c.dim * c.hidden);
        [
            ("model.embed_tokens.weight", c.vocab * c.dim, false),
            ("input_layernorm.weight", c.dim, true),
            ("self_attn.q_proj.weight", q, true),
            ("self_attn.k_proj.weight", kv, true),
            ("self_attn.v_proj.weight", kv, true),
            ("self_attn.o_proj.weight", q, true),
            ("post_attention_layernorm.weight", c.dim, true),
            ("mlp.gate_proj.weight", mlp, true),
            ("mlp.down_proj.weight", mlp, true),
            ("mlp.up_proj.weight", mlp, true),
            ("model.norm.weight", c.dim, false),
            // Tables of cosines and sines that nothing reads.
            ("rotations", c.context * c.head_dim, false),
            ("lm_head.weight", if c.tied { 0 } else { c.vocab * c.dim }, false),
            ("end", 0, false),
        ]
    }

    fn size(&self) -> u64 {
        self.place("end").expect("the last entry").0
    }

    /// Offset in bytes and number of elements of a tensor.
    fn place(&self, name: &str) -> Option<(u64, usize)> {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let (index, wanted) = match layer {
            Some((index, rest)) => (index.parse::<usize>().ok().filter(|&i| i < self.config.layers)?, rest),
            None => (0, name),
        };
        let mut at = HEADER;
        for (entry, len, layered) in self.order() {
            if entry == wanted && layered == layer.is_some() {
                return Some((at + 4 * (index * len) as u64, len));
            }
            at += 4 * (len * if layered { self.config.layers } else { 1 }) as u64;
        }
        None
    }
}

impl Source for Llama2c {
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

impl Tensors for Llama2c {
    fn has(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        let missing = || LmError::file(&self.path, format!("no tensor {name} of shape {shape:?}"));
        let (at, len) = self.place(name).ok_or_else(missing)?;
        if len != shape.iter().product::<usize>() {
            return Err(missing());
        }
        let mut file = File::open(&self.path).map_err(LmError::read(&self.path))?;
        file.seek(SeekFrom::Start(at)).map_err(LmError::read(&self.path))?;
        let mut bytes = vec![0; 4 * len];
        file.read_exact(&mut bytes).map_err(LmError::read(&self.path))?;
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        finite(&self.path, name, &values)?;
        let turned = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
        Ok(if turned { split_halves(&values, self.config.head_dim, self.config.dim) } else { values })
    }
}

/// A tokenizer of llama2.c: pieces with scores, merged greedily by the best score; bytes without a piece are tokens 3
/// to 258.
#[derive(Clone, Debug)]
pub struct ScoredPieces {
    pieces: Vec<(Vec<u8>, f32)>,
    ids: HashMap<Vec<u8>, u32>,
}

impl ScoredPieces {
    /// Reads the bytes of the file `path`: the longest piece's length, then score, length and bytes of every piece.
    ///
    /// # Errors
    /// Where the bytes are no such file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<ScoredPieces, LmError> {
        let (mut at, mut pieces) = (4, Vec::new());
        while at < bytes.len() {
            let cut = || LmError::file(path, format!("piece {} is cut off", pieces.len()));
            let word = |at: usize| bytes.get(at..at + 4).map(|b| [b[0], b[1], b[2], b[3]]);
            let score = f32::from_le_bytes(word(at).ok_or_else(cut)?);
            let len = u32::from_le_bytes(word(at + 4).ok_or_else(cut)?) as usize;
            let piece = bytes.get(at + 8..(at + 8).saturating_add(len)).ok_or_else(cut)?.to_vec();
            at += 8 + len;
            pieces.push((piece, score));
        }
        if pieces.len() < 259 {
            return Err(LmError::file(path, format!("{} pieces, expected at least 259", pieces.len())));
        }
        // Of equal pieces the first counts.
        let ids = pieces.iter().enumerate().rev().map(|(i, (p, _))| (p.clone(), i as u32)).collect();
        Ok(ScoredPieces { pieces, ids })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never: a tokenizer has bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Tokens of a text, the token of the beginning first; a space is put before a text that is not empty.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        for c in (!text.is_empty()).then_some(' ').into_iter().chain(text.chars()) {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            match self.ids.get(bytes) {
                Some(&id) => tokens.push(id),
                None => tokens.extend(bytes.iter().map(|&b| u32::from(b) + 3)),
            }
        }
        loop {
            let mut best: Option<(f32, usize, u32)> = None;
            for i in 1..tokens.len() {
                let joined = [&self.pieces[tokens[i - 1] as usize].0[..], &self.pieces[tokens[i] as usize].0].concat();
                if let Some(&id) = self.ids.get(&joined) {
                    let score = self.pieces[id as usize].1;
                    if best.is_none_or(|(s, ..)| score > s) {
                        best = Some((score, i, id));
                    }
                }
            }
            let Some((_, i, id)) = best else { break };
            tokens[i - 1] = id;
            tokens.remove(i);
        }
        tokens.insert(0, 1);
        tokens
    }

    /// The bytes of a token that follows `before`: the space after the token of the beginning is dropped, `<0x41>` is a
    /// byte.
    pub fn bytes(&self, before: u32, token: u32) -> Vec<u8> {
        let piece = self.pieces.get(token as usize).map_or(&[][..], |(p, _)| p);
        let byte = |p: &[u8]| {
            let hex = std::str::from_utf8(p).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
            u8::from_str_radix(hex, 16).ok()
        };
        match byte(piece) {
            Some(b) => vec![b],
            None if before == 1 && piece.first() == Some(&b' ') => piece[1..].to_vec(),
            None => piece.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, interleaved, model, tensors};
    use crate::{Model, Part};

    /// The bytes of a model file.
    fn file(model: &Model) -> Vec<u8> {
        let c = &model.config;
        let header = [c.dim, c.hidden, c.layers, c.heads, c.kv_heads, c.vocab, c.context].map(|n| n as i32);
        let mut out: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
        let named = tensors(model);
        let mut put = |name: &str| {
            let (_, _, data) = named.iter().find(|(n, ..)| n == name).unwrap();
            let turned = name.contains("q_proj") || name.contains("k_proj");
            let data = if turned { interleaved(data, c.head_dim, c.dim) } else { data.clone() };
            out.extend(data.iter().flat_map(|v| v.to_le_bytes()));
        };
        put("model.embed_tokens.weight");
        for name in ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
            .into_iter()
            .chain(["post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"])
        {
            (0..c.layers).for_each(|i| put(&format!("model.layers.{i}.{name}.weight")));
        }
        put("model.norm.weight");
        out.resize(out.len() + 4 * c.context * c.head_dim, 0);
        out
    }

    #[test]
    fn models_come_back_and_wrong_sizes_are_told() {
        let model = model(Config { head_dim: 16, ..config() }, false);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        let bytes = file(&model);
        std::fs::write(&path, &bytes).unwrap();
        let found = Llama2c::open(&path).unwrap().load().unwrap();
        assert_eq!(found.layers[1].part(Part::Q), model.layers[1].part(Part::Q));
        assert_eq!(found, model);
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(Llama2c::open(&path).unwrap_err().to_string().contains("the header means"));
        for (at, value) in [(0, -1i32), (4, i32::MAX), (8, 0), (12, 5), (16, 9), (20, i32::MIN)] {
            let mut bad = bytes.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            std::fs::write(&path, &bad).unwrap();
            assert!(Llama2c::open(&path).is_err(), "{value} at {at}");
        }
    }

    fn pieces() -> Vec<u8> {
        let mut all: Vec<(Vec<u8>, f32)> =
            vec![(b"<unk>".to_vec(), 0.0), (b"<s>".to_vec(), 0.0), (b"</s>".to_vec(), 0.0)];
        all.extend((0..256).map(|b| (format!("<0x{b:02X}>").into_bytes(), 0.0)));
        all.extend(
            [" ", "a", "b", "ab", " a", " ab"].iter().enumerate().map(|(i, p)| (p.as_bytes().to_vec(), i as f32)),
        );
        let piece = |(bytes, score): (Vec<u8>, f32)| {
            [&score.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes(), &bytes].concat()
        };
        [vec![6, 0, 0, 0], all.into_iter().flat_map(piece).collect()].concat()
    }

    #[test]
    fn pieces_merge_by_score_and_bytes_fall_back() {
        let t = ScoredPieces::parse(Path::new("x"), &pieces()).unwrap();
        assert_eq!(t.len(), 265);
        // " a" (4) goes before "ab" (3); then nothing merges " a" and "b" but " ab".
        assert_eq!(t.encode("ab"), [1, 264]);
        assert_eq!(t.encode("\u{e9}"), [1, 259, 0xc3 + 3, 0xa9 + 3]);
        assert_eq!(t.encode(""), [1]);
        assert_eq!(
            (t.bytes(1, 264), t.bytes(5, 264), t.bytes(5, 0xc3 + 3)),
            (b"ab".to_vec(), b" ab".to_vec(), vec![0xc3])
        );
        let cut = ScoredPieces::parse(Path::new("x"), &pieces()[..pieces().len() - 1]).unwrap_err();
        assert!(cut.to_string().contains("cut off"));
        let mut huge = pieces();
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(ScoredPieces::parse(Path::new("x"), &huge).is_err());
    }
}
