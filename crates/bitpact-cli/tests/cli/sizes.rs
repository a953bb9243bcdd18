//! Files without an end, files that promise more than they hold, and networks that need more memory than there is.
#![cfg(target_os = "linux")]

use std::io::Write;

use bitpact::IntegerModel;
use bitpact::unstable::core::{Grid, Requantization};
use bitpact::unstable::graph::{Shape, Window};
use bitpact::unstable::model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm,
};

use super::*;

/// Runs `line` with `megabytes` of addresses.
fn limited(place: &Place, megabytes: u32, line: &str) -> Ended {
    let script = format!("ulimit -v {}; exec {} {line}", megabytes * 1000, env!("CARGO_BIN_EXE_bitpact"));
    let output = Command::new("sh").current_dir(place.path(".")).args(["-c", &script]).stdin(Stdio::null()).output();
    Ended::new(output.unwrap(), line)
}

/// What is written to a pipe of the name `pipe` while `line` runs: `start`, then zeros without an end where `endless`.
fn piped(place: &Place, start: &[u8], endless: bool, line: &str) -> Ended {
    let path = place.path("pipe");
    let _ = std::fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pipe = std::fs::File::options().write(true).open(&path).unwrap();
            let mut more = pipe.write_all(start).is_ok() && endless;
            while more {
                more = pipe.write_all(&[0; 4096]).is_ok();
            }
        });
        limited(place, 2000, line)
    })
}

#[test]
fn files_without_an_end_are_read_no_further_than_their_header_says() {
    let place = Place::new();
    std::os::unix::fs::symlink("/dev/zero", place.path("zero.bitpact")).unwrap();
    for file in ["/dev/zero", "/dev/urandom", "zero.bitpact"] {
        for line in
            ["inspect", "eval", "verify", "bench", "convert -o out", "train --init-from", "train --epochs 1 --teacher"]
        {
            let ended = limited(&place, 600, &format!("{line} {file}"));
            assert!(!ended.stderr.contains("memory"), "{line} {file}: {}", ended.stderr);
            ended.failed(1, &[file]);
        }
        limited(&place, 600, &format!("run {file} picture.png")).failed(1, &[file]);
    }
    limited(&place, 600, "train /dev/zero").failed(2, &["/dev/zero", "not a regular file"]);
    limited(&place, 600, "accel model resnet20 --device pact-4 --measured /dev/zero").failed(1, &["/dev/zero"]);
    limited(&place, 600, "lm run /dev/zero --tokenizer /dev/zero x").failed(1, &["/dev/zero"]);
    let run = trained().path("run").display().to_string();
    limited(&place, 600, &format!("run {run} /dev/zero")).failed(1, &["/dev/zero"]);
}

#[test]
fn headers_that_promise_more_than_there_can_be_are_refused_with_the_sum() {
    let place = Place::new();
    let bitpact = [b"BITPACT\n\x01\0\0\0".as_slice(), &(1u64 << 50).to_le_bytes()].concat();
    let header = br#"{"a":{"dtype":"F32","shape":[250000000000000],"data_offsets":[0,1000000000000000]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    for start in [&bitpact, &safetensors] {
        for line in ["inspect pipe", "eval pipe", "train --init-from pipe"] {
            let text = ["pipe: needs about", "MB of memory, and", "can be had here"];
            piped(&place, start, true, line).failed(1, &text);
        }
        // A file is no longer than it is.
        std::fs::write(place.path("short"), start).unwrap();
        let ended = limited(&place, 600, "inspect short");
        assert!(!ended.stderr.contains("memory"), "{}", ended.stderr);
        ended.failed(1, &["short"]);
    }
    // A header alone, as long as a header may be.
    let long = [&90_000_000u64.to_le_bytes()[..], b"{"].concat();
    piped(&place, &long, true, "inspect pipe").failed(1, &["pipe"]);
}

#[test]
fn networks_are_read_from_pipes() {
    let (place, source) = (Place::new(), trained());
    let integers = std::fs::read(source.path("run/model.bitpact")).unwrap();
    let checkpoint = std::fs::read(source.path("run/last.safetensors")).unwrap();
    let line = "--dataset builtin --limit-test 30 --json";
    let expected = source.run(&format!("eval run/model.bitpact {line}")).ok().json();
    for bytes in [&integers, &checkpoint] {
        let found = piped(&place, bytes, false, &format!("eval pipe {line}")).ok().json();
        assert_eq!(found["top1"], expected["top1"]);
        let verified = piped(&place, bytes, false, &format!("verify pipe --threads 1 {line}")).ok().json();
        assert_eq!(verified["different"], 0);
        piped(&place, bytes, false, "bench pipe --seconds 0 --threads 1 --batch 1 --json").ok();
        piped(&place, bytes, false, "inspect pipe --json").ok();
        // One byte more than the header says.
        let longer = [&bytes[..], &[0]].concat();
        piped(&place, &longer, false, "inspect pipe").failed(1, &["pipe"]);
    }
    piped(&place, &checkpoint, false, "convert pipe -o out.bitpact").ok();
    assert!(std::fs::read(place.path("out.bitpact")).unwrap() == integers);
}

fn push(model: &mut IntegerModel, op: IntegerOp) {
    let (shape, (lo, hi)) = model.output_of(&op).unwrap();
    let name = format!("layer{}", model.layers.len());
    model.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale: 1.0 });
}

/// A 1x1 product of weights -1, 0 and 1.
fn product(input: usize, [in_channels, out_channels]: [usize; 2]) -> IntegerTerm {
    IntegerTerm::Product(IntegerProduct {
        name: format!("product{input}"),
        input,
        window: Window::square(1, 1, 0),
        padding_code: 0,
        out_channels,
        in_channels,
        groups: 1,
        weight_bits: 2,
        grid: Grid::WithZero,
        codes: (0..in_channels * out_channels).map(|i| (i % 3) as i16 - 1).collect(),
    })
}

fn sum(term: IntegerTerm, channels: usize, [lo, hi]: [i32; 2], end: IntegerEnd) -> IntegerOp {
    let (mul, add) = (vec![vec![1; channels]], vec![0; channels]);
    let requant = Requantization { shift: 0, mul, add, lo, hi, bounds: Vec::new() };
    IntegerOp::Sum(IntegerSum { terms: vec![term], requant, base: Vec::new(), end })
}

/// A small file of `layers` layers of 32x32 and 49,152 channels each.
fn wide(layers: usize) -> IntegerModel {
    let mut model = IntegerModel {
        arch: "wide".to_owned(),
        input: InputDescription::uniform(3, 128, 1.0 / 64.0),
        input_shape: Shape::new(32, 32, 3),
        class_names: (0..10).map(|class| class.to_string()).collect(),
        layers: Vec::new(),
        outputs: Vec::new(),
    };
    push(&mut model, sum(product(0, [3, 48]), 48, [0, 15], IntegerEnd::Codes));
    for tensor in 1..=10 {
        push(&mut model, IntegerOp::Concat { inputs: vec![tensor, tensor] });
    }
    for _ in 0..layers {
        let input = model.layers.len();
        push(&mut model, IntegerOp::MaxPool { input, window: Window::square(1, 1, 0) });
    }
    let window = Window { kernel: [32, 32], ..Window::square(1, 1, 0) };
    let input = model.layers.len();
    push(&mut model, IntegerOp::WindowSum { input, window, padding_code: 0, factors: Vec::new() });
    let term = product(model.layers.len(), [48 << 10, 10]);
    push(&mut model, sum(term, 10, [i32::MIN, i32::MAX], IntegerEnd::Output));
    model.set_last_output();
    model
}

#[test]
fn a_small_file_with_wide_layers_is_refused_with_the_memory_it_needs() {
    let place = Place::new();
    wide(40).save(place.path("wide.bitpact")).unwrap();
    assert!(std::fs::metadata(place.path("wide.bitpact")).unwrap().len() < 200_000);
    let refused = ["the network needs about", "MB of memory, and", "can be had here"];
    for line in ["verify wide.bitpact --limit-test 1", "eval wide.bitpact --limit-test 1"] {
        limited(&place, 2000, &format!("{line} --dataset builtin --threads 1")).failed(1, &refused);
    }
    image::RgbImage::new(8, 8).save(place.path("a.png")).unwrap();
    limited(&place, 130, "run wide.bitpact a.png").failed(1, &refused);
    limited(&place, 2000, "run wide.bitpact a.png").ok();
    limited(&place, 2000, "inspect wide.bitpact").ok();
    let measured = limited(&place, 130, "bench wide.bitpact --threads 1 --batch 1 --seconds 0");
    assert!(measured.code == Some(1) && measured.stderr.contains("needs about"), "{}", measured.stderr);
}
