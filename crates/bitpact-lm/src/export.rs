//! Quantized networks in the layouts of AutoGPTQ and AutoAWQ, as folders that transformers and vLLM load.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use bitpact_ptq::{Group, Quantized, Width};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::tensors::part_name;
use crate::{Config, Layer, LmError, Part, RopeScaling, Source, Weights};

/// A layout of quantized matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// AutoGPTQ (checkpoint format `gptq`): codes packed along inputs, zeros stored less one; 2, 4 and 8 bits.
    Gptq,
    /// AutoAWQ (version `gemm`): codes packed along outputs in the order 0, 2, 4, 6, 1, 3, 5, 7; 4 bits.
    Awq,
}

impl FromStr for Layout {
    type Err = LmError;

    fn from_str(text: &str) -> Result<Layout, LmError> {
        match text {
            "gptq" => Ok(Layout::Gptq),
            "awq" => Ok(Layout::Awq),
            other => Err(LmError::Input(format!("unknown layout \"{other}\": expected gptq or awq"))),
        }
    }
}

/// Order of outputs in a word of AutoAWQ.
const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn words(values: Vec<u32>) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The tensors of a matrix.
fn matrix(layout: Layout, name: &str, q: &Quantized) -> Result<Tensors, LmError> {
    let fail = |what: String| LmError::Unsupported(format!("{name}: {what}"));
    let (rows, cols, grid) = (q.rows(), q.cols(), q.grid());
    let bits = match (layout, grid.width()) {
        (Layout::Awq, Width::Bits(4)) => 4,
        (Layout::Gptq, Width::Bits(b @ (2 | 4 | 8))) => usize::from(b),
        (_, width) => return Err(fail(format!("width {width} has no place in this layout"))),
    };
    let (len, groups, each) = (grid.group_len(cols), grid.groups(cols), 32 / bits);
    if !cols.is_multiple_of(len) || !cols.is_multiple_of(each) || !rows.is_multiple_of(each) {
        return Err(fail(format!("{rows} x {cols} in groups of {len}: the layout needs whole groups and words")));
    }
    let code = |r: usize, k: usize| u32::from(q.codes()[r * cols + k]);
    let params = |r: usize, g: usize| q.params()[r * groups + g];
    let lanes = |f: &dyn Fn(usize) -> u32| (0..each).fold(0, |word, i| word | f(i) << (i * bits));
    let mask = (1u32 << bits) - 1;
    let steps = (0..groups).flat_map(|g| (0..rows).map(move |r| (r, g))).map(|(r, g)| params(r, g).step);
    let mut out = vec![(
        format!("{name}.scales"),
        Dtype::F16,
        vec![groups, rows],
        steps.flat_map(f16::to_le_bytes).collect::<Vec<u8>>(),
    )];
    let mut add = |part: &str, shape: [usize; 2], f: &dyn Fn(usize, usize) -> u32| {
        let values = (0..shape[0] * shape[1]).map(|i| f(i / shape[1], i % shape[1])).collect();
        out.push((format!("{name}.{part}"), Dtype::I32, shape.to_vec(), words(values)));
    };
    match layout {
        Layout::Gptq => {
            add("qweight", [cols / each, rows], &|k, r| lanes(&|i| code(r, k * each + i)));
            add("qzeros", [groups, rows / each], &|g, r| {
                lanes(&|i| u32::from(params(r * each + i, g).zero).wrapping_sub(1) & mask)
            });
            let index = (0..cols).map(|k| (k / len) as u32).collect();
            out.push((format!("{name}.g_idx"), Dtype::I32, vec![cols], words(index)));
        }
        Layout::Awq => {
            add("qweight", [cols, rows / each], &|k, r| lanes(&|i| code(r * each + AWQ_ORDER[i], k)));
            add("qzeros", [groups, rows / each], &|g, r| {
                lanes(&|i| u32::from(params(r * each + AWQ_ORDER[i], g).zero))
            });
        }
    }
    Ok(out)
}

fn float(name: String, shape: Vec<usize>, values: &[f32]) -> (String, Dtype, Vec<usize>, Vec<u8>) {
    (name, Dtype::F16, shape, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
}

fn layer(layout: Layout, index: usize, layer: &Layer) -> Result<Tensors, LmError> {
    let mut out = Vec::new();
    let norms = [
        ("input_layernorm", Some(&layer.attention_norm)),
        ("post_attention_layernorm", Some(&layer.mlp_norm)),
        ("self_attn.q_norm", layer.q_norm.as_ref()),
        ("self_attn.k_norm", layer.k_norm.as_ref()),
    ];
    for (name, norm) in norms {
        if let Some(norm) = norm {
            out.push(float(format!("model.layers.{index}.{name}.weight"), vec![norm.len()], norm));
        }
    }
    for part in Part::ALL {
        let (name, linear) = (part_name(index, part), layer.part(part));
        match &linear.weights {
            Weights::Codes(q) => out.extend(matrix(layout, &name, q)?),
            Weights::Float(_) | Weights::Packed(_) => {
                let what = format!("{name} has no codes: the layout needs all matrices of a layer quantized");
                return Err(LmError::Unsupported(what));
            }
        }
        if let Some(bias) = &linear.bias {
            out.push(float(format!("{name}.bias"), vec![bias.len()], bias));
        }
    }
    Ok(out)
}

/// Writes the network of `source`, whose matrices have codes of one grid, to `folder`: `config.json`, a safetensors
/// file a layer and one for the rest, their index, and `tokenizer.json` where given. Floats are float16.
///
/// # Errors
/// Where grids differ or do not fit the layout, or files cannot be written.
pub fn export(source: &dyn Source, layout: Layout, folder: &Path, tokenizer: Option<&[u8]>) -> Result<(), LmError> {
    let config = source.config();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| LmError::Write { path, source })
    };
    std::fs::create_dir_all(folder).map_err(|source| LmError::Write { path: folder.to_owned(), source })?;
    let first = source.layer(0)?;
    let Weights::Codes(codes) = &first.part(Part::Q).weights else {
        return Err(LmError::Unsupported("the network is not quantized".to_owned()));
    };
    let grid = codes.grid();
    let files = config.layers + 1;
    let (mut index, mut total) = (BTreeMap::new(), 0);
    let mut shard = |number: usize, tensors: Tensors| -> Result<(), LmError> {
        let name = format!("model-{number:05}-of-{files:05}.safetensors");
        for (tensor, _, _, bytes) in &tensors {
            index.insert(tensor.clone(), name.clone());
            total += bytes.len();
        }
        let damaged = |e: safetensors::SafeTensorError| LmError::file(&folder.join(&name), e.to_string());
        let views = tensors.iter().map(|(n, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (n.clone(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        let format = Some(std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]));
        write(&name, &safetensors::serialize(views, format).map_err(damaged)?)
    };
    let outer = source.outer()?;
    let table = vec![config.vocab, config.dim];
    let mut tensors = vec![
        float("model.embed_tokens.weight".to_owned(), table.clone(), outer.embedding.to_float().data()),
        float("model.norm.weight".to_owned(), vec![config.dim], &outer.norm),
    ];
    if let Some(head) = &outer.head {
        tensors.push(float("lm_head.weight".to_owned(), table, head.to_float().data()));
    }
    shard(1, tensors)?;
    for i in 0..config.layers {
        let current = source.layer(i)?;
        for part in Part::ALL {
            if let Weights::Codes(q) = &current.part(part).weights
                && q.grid() != grid
            {
                let what = format!("layer {i}, {}: another grid than the first, the layout has one", part.name());
                return Err(LmError::Unsupported(what));
            }
        }
        shard(i + 2, layer(layout, i, &current)?)?;
    }
    let weights = json!({ "metadata": { "total_size": total }, "weight_map": index });
    write("model.safetensors.index.json", weights.to_string().as_bytes())?;
    write("config.json", format!("{:#}", config_json(config, &first, outer.head.is_none(), layout, grid)).as_bytes())?;
    tokenizer.map_or(Ok(()), |bytes| write("tokenizer.json", bytes))
}

fn config_json(config: &Config, layer: &Layer, tied: bool, layout: Layout, grid: bitpact_ptq::Grid) -> Value {
    let biased = layer.part(Part::Q).bias.is_some();
    let (kind, class) = match (layer.q_norm.is_some(), biased) {
        (true, _) => ("qwen3", "Qwen3ForCausalLM"),
        (_, true) => ("qwen2", "Qwen2ForCausalLM"),
        _ => ("llama", "LlamaForCausalLM"),
    };
    let size = if let Group::Of(n) = grid.group() { n as i64 } else { -1 };
    let bits = grid.width().stored_bits();
    let quantization = match layout {
        Layout::Gptq => json!({ "quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": false,
                                "sym": grid.symmetric(), "checkpoint_format": "gptq" }),
        Layout::Awq => {
            json!({ "quant_method": "awq", "bits": bits, "group_size": size, "zero_point": true, "version": "gemm" })
        }
    };
    let scaling = match config.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low, high, original } => json!({ "rope_type": "llama3", "factor": factor,
            "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": original }),
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original } => json!({ "rope_type": "yarn", "factor": factor,
            "beta_fast": beta_fast, "beta_slow": beta_slow, "original_max_position_embeddings": original }),
    };
    json!({
        "architectures": [class], "model_type": kind, "torch_dtype": "float16", "hidden_act": "silu",
        "vocab_size": config.vocab, "hidden_size": config.dim, "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta, "rope_scaling": scaling, "tie_word_embeddings": tied,
        "quantization_config": quantization,
    })
}

#[cfg(test)]
mod tests {
    use bitpact_kernels::Pool;
    use bitpact_ptq::Grid;

    use super::*;
    use crate::shard::Shard;
    use crate::testing::{config, model};
    use crate::{HuggingFace, Method, Model, Recipe, quantize_layer};

    fn quantized(bits: u8, symmetric: bool) -> Model {
        let mut model = model(Config { hidden: 64, head_dim: 16, ..config() }, false);
        let grid = Grid::new(Width::Bits(bits), Group::Of(32), symmetric).unwrap();
        let recipe = Recipe::new(Method::RTN, grid);
        for i in 0..2 {
            let layer = model.layers[i].clone();
            model.layers[i] = quantize_layer(&model.config, i, layer, &recipe, None, &Pool::new(1)).unwrap().0;
        }
        model
    }

    /// The code of output r, input k as readers of the layout unpack it, and the zero and step of its group.
    fn unpacked(
        layout: Layout,
        file: &Shard,
        name: &str,
        rows: usize,
        bits: usize,
        r: usize,
        k: usize,
    ) -> (u32, u32, f16) {
        let ints = |part: &str| -> Vec<u32> {
            let (_, bytes) = file.bytes(&format!("{name}.{part}"), &[Dtype::I32], None).unwrap();
            bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let (each, mask) = (32 / bits, (1u32 << bits) - 1);
        let (_, steps) = file.bytes(&format!("{name}.scales"), &[Dtype::F16], None).unwrap();
        let g = k / 32;
        let at = 2 * (g * rows + r);
        let step = f16::from_le_bytes([steps[at], steps[at + 1]]);
        match layout {
            Layout::Gptq => {
                let code = ints("qweight")[k / each * rows + r] >> (k % each * bits) & mask;
                let zero = ints("qzeros")[g * (rows / each) + r / each] >> (r % each * bits) & mask;
                assert_eq!(ints("g_idx")[k], g as u32);
                (code, (zero + 1) & mask, step)
            }
            Layout::Awq => {
                let lane = AWQ_ORDER.iter().position(|&o| o == r % 8).unwrap() * 4;
                let code = ints("qweight")[k * (rows / 8) + r / 8] >> lane & 15;
                (code, ints("qzeros")[g * (rows / 8) + r / 8] >> lane & 15, step)
            }
        }
    }

    #[test]
    fn layouts_unpack_to_the_same_codes() {
        let folder = tempfile::tempdir().unwrap();
        for (layout, bits, symmetric) in
            [(Layout::Gptq, 4, true), (Layout::Gptq, 2, false), (Layout::Gptq, 8, true), (Layout::Awq, 4, false)]
        {
            let model = quantized(bits, symmetric);
            export(&model, layout, folder.path(), Some(b"{}")).unwrap();
            let file = Shard::open(folder.path().join("model-00003-of-00003.safetensors")).unwrap();
            for part in Part::ALL {
                let (rows, cols) = part.shape(&model.config);
                let Weights::Codes(q) = &model.layers[1].part(part).weights else { panic!("codes") };
                for (r, k) in [(0, 0), (rows - 1, cols - 1), (5, 13), (rows / 2, 31)] {
                    let found = unpacked(layout, &file, &part_name(1, part), rows, bits.into(), r, k);
                    let p = q.params()[r * q.grid().groups(cols) + k / 32];
                    let expected = (u32::from(q.codes()[r * cols + k]), u32::from(p.zero) & ((1 << bits) - 1), p.step);
                    assert_eq!(found, expected, "{layout:?} {part:?} ({r}, {k})");
                }
            }
            // The shape comes back; matrices have other names.
            let folder = HuggingFace::open(folder.path()).unwrap();
            assert_eq!(Source::config(&folder), &model.config);
            assert!(folder.layer(0).unwrap_err().to_string().contains("q_proj.weight is missing"));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = |m: &Model, layout| export(m, layout, folder.path(), None).unwrap_err().to_string();
        assert!(error(&quantized(3, true), Layout::Gptq).contains("width 3"));
        assert!(error(&quantized(8, true), Layout::Awq).contains("width 8"));
        assert!(error(&model(config(), false), Layout::Awq).contains("not quantized"));
        let mut mixed = quantized(4, true);
        mixed.layers[1] = quantized(8, true).layers.remove(1);
        assert!(error(&mixed, Layout::Gptq).contains("another grid"));
    }
}
