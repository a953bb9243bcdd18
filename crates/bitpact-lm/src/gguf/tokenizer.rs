//! The tokenizer inside a GGUF file as a `tokenizer.json`.

use serde_json::{Value as Json, json};

use super::header::{Header, Value};

/// Splits before a byte-level BPE, by the name files give them.
fn pre_tokenizer(name: &str) -> Option<Json> {
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let steps = match name {
        "default" | "gpt-2" => vec![bytes(true)],
        "smollm" => vec![json!({ "type": "Digits", "individual_digits": true }), bytes(true)],
        "llama-bpe" | "llama3" => vec![
            split(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            bytes(false),
        ],
        "qwen2" => vec![
            split(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            bytes(false),
        ],
        _ => return None,
    };
    Some(json!({ "type": "Sequence", "pretokenizers": steps }))
}

/// The text of a `tokenizer.json`.
pub(super) fn json(header: &Header) -> Result<Vec<u8>, String> {
    let model = header.text("tokenizer.ggml.model").unwrap_or("none");
    if model != "gpt2" {
        return Err(format!("a tokenizer of kind \"{model}\" inside: expected gpt2; --tokenizer names another"));
    }
    let texts = |key: &str| -> Result<Vec<&str>, String> {
        let values = header.array(key).ok_or_else(|| format!("{key} is missing"))?;
        let found: Option<Vec<&str>> =
            values.iter().map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect();
        found.ok_or_else(|| format!("{key} is no list of texts"))
    };
    let (tokens, merges) = (texts("tokenizer.ggml.tokens")?, texts("tokenizer.ggml.merges")?);
    let pairs = merges.iter().map(|m| m.split_once(' ').ok_or_else(|| format!("a merge \"{m}\" without a space")));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    let pre = header.text("tokenizer.ggml.pre").unwrap_or("default");
    let pre = pre_tokenizer(pre)
        .ok_or_else(|| format!("tokenizer.ggml.pre \"{pre}\" is not known; --tokenizer names another"))?;
    let kinds = header.array("tokenizer.ggml.token_type").unwrap_or_default();
    // 3 is a control token, 4 one that a user added.
    let added: Vec<Json> = kinds
        .iter()
        .zip(&tokens)
        .enumerate()
        .filter(|(_, (kind, _))| matches!(kind, Value::Number(3.0 | 4.0)))
        .map(|(id, (kind, token))| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind == Value::Number(3.0) })
        })
        .collect();
    let begin = match (header.value("tokenizer.ggml.add_bos_token"), header.number("tokenizer.ggml.bos_token_id")) {
        (Some(Value::Bool(true)), Some(id)) => tokens.get(id as usize).map(|t| (id as u64, *t)),
        _ => None,
    };
    let post = begin.map(|(id, token)| {
        json!({ "type": "TemplateProcessing",
                "single": [{ "SpecialToken": { "id": token, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
                "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
                "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } } })
    });
    let vocab: serde_json::Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre, "post_processor": post,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocab, "merges": pairs },
    });
    Ok(whole.to_string().into_bytes())
}
