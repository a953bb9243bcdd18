//! `bitpact lm` on a drawn network of llama2.c's kind.

use super::Place;

/// Writes `net.bin` (2 layers, 32 wide) and `tokenizer.bin` (bytes and a few pieces), and `text.txt`.
pub(crate) fn model(place: &Place) {
    let (dim, hidden, layers, heads, kv, vocab, context) =
        (32usize, 44usize, 2usize, 4usize, 2usize, 262usize, 64usize);
    let header = [dim, hidden, layers, heads, kv, vocab, context].map(|n| n as i32);
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
    let kv_dim = dim / heads * kv;
    let attention = 2 * dim * dim + 2 * dim * kv_dim;
    let mut state = 88_172_645_463_325_252u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut put = |n: usize, f: &mut dyn FnMut() -> f32| (0..n).for_each(|_| bytes.extend(f().to_le_bytes()));
    put(vocab * dim, &mut draw);
    put(layers * dim, &mut || 1.0);
    put(layers * attention, &mut draw);
    put(layers * dim, &mut || 1.0);
    put(layers * 3 * dim * hidden, &mut draw);
    put(dim, &mut || 1.0);
    put(context * dim / heads, &mut || 0.0);
    std::fs::write(place.path("net.bin"), bytes).unwrap();

    let mut pieces: Vec<(Vec<u8>, f32)> = ["<unk>", "<s>", "</s>"].map(|p| (p.as_bytes().to_vec(), 0.0)).to_vec();
    pieces.extend((0..256).map(|b| (format!("<0x{b:02X}>").into_bytes(), 0.0)));
    pieces.extend([" ", "a", " a"].iter().zip([1.0, 2.0, 3.0]).map(|(p, s)| (p.as_bytes().to_vec(), s)));
    let mut bytes = vec![6, 0, 0, 0];
    for (piece, score) in pieces {
        bytes.extend(score.to_le_bytes());
        bytes.extend((piece.len() as u32).to_le_bytes());
        bytes.extend(piece);
    }
    std::fs::write(place.path("tokenizer.bin"), bytes).unwrap();
    let text: String = (0..600).map(|i| if i % 7 == 3 { ' ' } else { (b'a' + (i * i % 23) as u8) as char }).collect();
    std::fs::write(place.path("text.txt"), text).unwrap();
}

/// The number after `name` in a line.
fn number(text: &str, name: &str) -> f64 {
    let rest = &text[text.find(name).unwrap_or_else(|| panic!("{name} in {text}")) + name.len()..];
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_model_is_measured_quantized_looked_at_and_run() {
    let place = Place::new();
    model(&place);
    let float = place.run("lm perplexity net.bin --text text.txt --context 33 --stride 16").ok().stdout;
    let float = number(&float, "nll ");
    let line = "lm quantize net.bin --method awq+gptq --bits 8 --group 32 --calibrate text.txt --length 32 --embedding 8 -o q.safetensors";
    assert!(place.run(line).ok().stdout.contains("q.safetensors"));
    for kernels in ["", "--kernels"] {
        let line = format!("lm perplexity q.safetensors --text text.txt --context 33 --stride 16 {kernels}");
        let coded = number(&place.run(&line).ok().stdout, "nll ");
        assert!((coded - float).abs() < 0.05, "{coded} against {float}");
    }
    let table = place.run("lm inspect q.safetensors").ok().stdout;
    assert!(table.contains("8 bits, groups of 32, asymmetric") && table.contains("down_proj"), "{table}");
    let run =
        |threads: u8| place.run(&format!("lm run q.safetensors hello -n 12 --seed 3 --threads {threads}")).ok().stdout;
    assert!(run(1).len() > 6);
    assert_eq!(run(1), run(2));
    let table = place
        .run("lm compare net.bin --methods rtn,gptq,gptq-paper,osaq,osaq+gptq --bits 4,ternary --group 32 --calibrate text.txt --length 32 --text text.txt --text text.txt --context 64")
        .ok().stdout;
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("4 ") || l.starts_with("ternary ")).collect();
    assert_eq!(rows.len(), 20, "{table}");
    assert_eq!(rows[..10], rows[10..], "the same text twice");
    assert!(
        rows.iter().all(|row| row.contains('\u{b1}')) && table.contains("above float") && table.contains("above rtn"),
        "{table}"
    );
}

#[test]
fn wrong_requests_are_told() {
    let place = Place::new();
    model(&place);
    for (line, code, expected) in [
        ("lm quantize net.bin --method gtpq -o q.safetensors", 2, "unknown method \"gtpq\""),
        ("lm quantize net.bin --bits 9 -o q.safetensors", 2, "no width"),
        ("lm quantize net.bin --method gptq -o q.safetensors", 2, "calibration"),
        ("lm quantize net.bin -o q.bin", 2, ".safetensors"),
        ("lm quantize net.bin --keep nothing=8 -o q.safetensors", 2, "NAME=WIDTH"),
        ("lm perplexity net.bin --text text.txt --context 1", 2, "leave nothing"),
        ("lm perplexity net.bin --text none.txt", 1, "none.txt"),
        ("lm perplexity none.bin --text text.txt", 1, "none.bin"),
        ("lm perplexity text.txt --text text.txt", 1, "text.txt"),
        ("lm run net.bin hello --top-p 0", 2, "top-p"),
        ("lm export net.bin --format awq -o out", 1, "not quantized"),
        ("lm export net.bin --format gguf -o out", 2, "unknown layout"),
    ] {
        place.run(line).failed(code, &[expected]);
    }
    let long = "a b".repeat(40);
    let ended = place.command(["lm", "run", "net.bin", &long]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("expected 1 to 63"));
}
