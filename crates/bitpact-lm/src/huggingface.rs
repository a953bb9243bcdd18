//! Models in Hugging Face folders: `config.json` and one or several safetensors files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bitpact_kernels::memory::read_at_most;
use serde::Deserialize;

use crate::shard::Shard;
use crate::tensors::{self, Tensors};
use crate::{Config, Layer, LmError, Outer, RopeScaling, Source};

/// Bytes of a `config.json`, at the most.
const CONFIG_BYTES: u64 = 1 << 20;

/// A Hugging Face folder. Tensors are read when they are asked for.
#[derive(Debug)]
pub struct HuggingFace {
    config: Config,
    files: Vec<Shard>,
    /// In which file a tensor is.
    place: HashMap<String, usize>,
}

impl HuggingFace {
    /// Opens a folder: reads `config.json` and the headers of all its safetensors files.
    ///
    /// # Errors
    /// Where something is missing, no model of the Llama family, or damaged.
    pub fn open(folder: &Path) -> Result<HuggingFace, LmError> {
        let path = folder.join("config.json");
        let bytes = read_at_most(&path, CONFIG_BYTES).map_err(LmError::read(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        let config = parse_config(&path, &text)?;
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(LmError::read(folder))?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        names.sort();
        if names.is_empty() {
            return Err(LmError::file(folder, "no .safetensors file in the folder"));
        }
        let files = names.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
        let mut place = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = place.insert(name.clone(), i) {
                    let other = files[other].path().display();
                    return Err(LmError::file(file.path(), format!("tensor {name} is in {other} too")));
                }
            }
        }
        Ok(HuggingFace { config, files, place })
    }
}

impl Source for HuggingFace {
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

impl Tensors for HuggingFace {
    fn has(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        let Some(&file) = self.place.get(name) else {
            return Err(LmError::file(self.files[0].path(), format!("tensor {name} is missing")));
        };
        self.files[file].floats(name, shape)
    }
}

#[derive(Deserialize)]
struct Json {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
}

/// The model types that are this network.
const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

fn parse_config(path: &Path, text: &str) -> Result<Config, LmError> {
    let json: Json = serde_json::from_str(text).map_err(|e| LmError::file(path, e.to_string()))?;
    if !MODEL_TYPES.contains(&json.model_type.as_str()) {
        let what = format!("model_type \"{}\": expected one of {}", json.model_type, MODEL_TYPES.join(", "));
        return Err(LmError::file(path, what));
    }
    if let Some(act) = json.hidden_act.filter(|a| a != "silu") {
        return Err(LmError::file(path, format!("hidden_act \"{act}\": expected silu")));
    }
    // Newer files hold the base beside the scaling.
    let rope = json.rope_parameters.or(json.rope_scaling).unwrap_or_default();
    let theta = rope["rope_theta"].as_f64().or(json.rope_theta).unwrap_or(10_000.0);
    let config = Config {
        vocab: json.vocab_size,
        dim: json.hidden_size,
        hidden: json.intermediate_size,
        layers: json.num_hidden_layers,
        heads: json.num_attention_heads,
        kv_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
        head_dim: json.head_dim.unwrap_or(json.hidden_size / json.num_attention_heads.max(1)),
        context: json.max_position_embeddings,
        norm_eps: json.rms_norm_eps,
        rope_theta: theta,
        rope_scaling: parse_scaling(path, &rope, json.max_position_embeddings)?,
        tied: json.tie_word_embeddings,
    };
    config.check().map_err(|e| LmError::file(path, e.to_string()))?;
    Ok(config)
}

fn parse_scaling(path: &Path, rope: &serde_json::Value, context: usize) -> Result<RopeScaling, LmError> {
    let kind = rope["rope_type"].as_str().or(rope["type"].as_str()).unwrap_or("default");
    let number = |name: &str, usual: Option<f64>| {
        let found = rope[name].as_f64().or(usual);
        found.ok_or_else(|| LmError::file(path, format!("rope_scaling.{name} is missing")))
    };
    let original = number("original_max_position_embeddings", Some(context as f64))?;
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: number("factor", None)? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: number("factor", None)?,
            low: number("low_freq_factor", None)?,
            high: number("high_freq_factor", None)?,
            original,
        }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor: number("factor", None)?,
            beta_fast: number("beta_fast", Some(32.0))?,
            beta_slow: number("beta_slow", Some(1.0))?,
            original,
        }),
        other => Err(LmError::file(path, format!("rope type \"{other}\": expected default, linear, llama3 or yarn"))),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::testing::{config, model, tensors};
    use crate::{Model, Weights};

    const JSON: &str = r#"{ "model_type": "qwen3", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 44,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_act": "silu",
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false }"#;

    /// Writes a folder of two files; tensors number 3, 6 .. as float16, 4, 7 .. as bfloat16.
    fn write(folder: &Path, model: &Model) {
        std::fs::write(folder.join("config.json"), JSON).unwrap();
        let stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors(model)
            .into_iter()
            .enumerate()
            .map(|(i, (name, shape, data))| match i % 3 {
                0 => (name, Dtype::F16, shape, data.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
                1 => (name, Dtype::BF16, shape, data.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()),
                _ => (name, Dtype::F32, shape, data.iter().flat_map(|v| v.to_le_bytes()).collect()),
            })
            .collect();
        for (i, part) in stored.chunks(stored.len() / 2 + 1).enumerate() {
            let views = part.iter().map(|(n, d, s, b)| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
            std::fs::write(folder.join(format!("{i}.safetensors")), safetensors::serialize(views, None).unwrap())
                .unwrap();
        }
    }

    fn untied() -> Model {
        let mut model = model(Config { tied: false, ..config() }, true);
        model.outer.head = Some(model.outer.embedding.clone());
        model
    }

    #[test]
    fn folders_of_several_files_and_types_are_read() {
        let (folder, model) = (tempfile::tempdir().unwrap(), untied());
        write(folder.path(), &model);
        let found = HuggingFace::open(folder.path()).unwrap().load().unwrap();
        assert_eq!(found.config, model.config);
        for ((name, _, a), (_, _, b)) in tensors(&found).iter().zip(tensors(&model)) {
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= b.abs() / 128.0 + 1e-7, "{name}: {a} {b}"));
        }
        assert!(matches!(found.outer.head, Some(Weights::Float(_))));
    }

    #[test]
    fn what_is_missing_or_strange_is_told() {
        let (folder, model) = (tempfile::tempdir().unwrap(), untied());
        let path = folder.path();
        let error = || HuggingFace::open(path).and_then(|f| f.load()).unwrap_err().to_string();
        assert!(error().contains("config.json"));
        write(path, &model);
        for (from, to, expected) in [
            ("qwen3", "bert", "model_type \"bert\""),
            ("silu", "gelu", "hidden_act"),
            ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "shape"),
            ("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0", "key and value heads"),
            ("\"hidden_size\": 32", "\"hidden_size\": 4000000000", "hidden size"),
            ("\"rope_theta\": 10000.0", "\"rope_theta\": 1e4, \"rope_scaling\": {\"rope_type\": \"odd\"}", "rope type"),
        ] {
            std::fs::write(path.join("config.json"), JSON.replace(from, to)).unwrap();
            assert!(error().contains(expected), "{from}: {}", error());
        }
        std::fs::write(path.join("config.json"), JSON).unwrap();
        std::fs::copy(path.join("0.safetensors"), path.join("2.safetensors")).unwrap();
        assert!(error().contains("too"));
        std::fs::remove_file(path.join("2.safetensors")).unwrap();
        std::fs::remove_file(path.join("1.safetensors")).unwrap();
        assert!(error().contains("missing"));
    }
}
