//! Post-training quantization of a trained network, against its marks. Long, and only where the files lie:
//!
//! ```text
//! export BITPACT_PTQ_MODEL=resnet20.safetensors BITPACT_PTQ_DATA=DIR
//! cargo test --release -p bitpact-train --test ptq -- --ignored --nocapture
//! ```
//!
//! The model is a float checkpoint of the ResNet-20 of akamaster/pytorch_resnet_cifar10, the folder holds CIFAR-10.
//! `BITPACT_PTQ_BITS` is a list such as `W8A8,W4A8`; `BITPACT_PTQ_IMAGES` and `BITPACT_PTQ_TEST` are numbers of images
//! to calibrate and to measure on. Where `BITPACT_PTQ_SAVE` names a folder, the network after each step is written
//! there and nothing is measured but the distance from the float network.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bitpact_data::{DatasetName, Limits, load};
use bitpact_model::Checkpoint;
use bitpact_train::ptq::{ClipRule, PtqEvent, PtqOptions, Quantized, Step, Steps, draw, quantize};

/// Most that the integers may lose, in points.
const MARKS: [(&str, f64); 2] = [("W8A8", 0.15), ("W4A8", 1.0)];

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")))
}

fn run(bits: &str, steps: Steps, rule: ClipRule, measures: bool) -> Quantized {
    let model = Checkpoint::load(path("BITPACT_PTQ_MODEL")).unwrap().model;
    let limits = Limits { train: None, test: Some(number("BITPACT_PTQ_TEST", usize::MAX)) };
    let split = load(DatasetName::Cifar10, Some(&path("BITPACT_PTQ_DATA")), limits).unwrap();
    let calibration = draw(split.train, number("BITPACT_PTQ_IMAGES", 512), 1);
    let test = measures.then_some(&*split.test);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let options =
        PtqOptions { steps, rule, measures_steps: measures, threads, ..PtqOptions::new(bits.parse().unwrap()) };
    let mut show = |event: PtqEvent<'_>| {
        if let PtqEvent::Row(row) = event {
            let step = row.step.map_or("", Step::name);
            let top1 = row.evaluation.as_ref().map_or(f64::NAN, |evaluation| 100.0 * evaluation.top1);
            println!("{bits:>5} {step:>9} {:>7.2} dB {top1:>6.2} %", row.snr_db);
        }
    };
    let found = quantize(&model, &calibration, test, &options, &AtomicBool::new(false), &mut show).unwrap();
    let rule = found.rule.map_or_else(|| "none".to_owned(), |rule| rule.to_string());
    println!("{bits:>5} {steps}: clip values by {rule}, adapters {:?}", found.ranks);
    found
}

#[test]
#[ignore = "minutes, and needs a trained network and CIFAR-10"]
fn a_trained_network_keeps_its_accuracy() {
    let bits = std::env::var("BITPACT_PTQ_BITS").unwrap_or_else(|_| "W8A8,W4A8,W4A4".to_owned());
    let folder = std::env::var_os("BITPACT_PTQ_SAVE").map(PathBuf::from);
    for bits in bits.split(',') {
        if let Some(folder) = &folder {
            let mut rule = ClipRule::Auto;
            for steps in (0..=Step::ALL.len()).map(|n| Steps::of(&Step::ALL[..n])) {
                let found = run(bits, steps, rule, false);
                rule = found.rule.map_or(rule, ClipRule::Rule);
                found.integers.save(folder.join(format!("{bits}-{steps}.bitpact"))).unwrap();
            }
            continue;
        }
        let found = run(bits, Steps::of(&Step::ALL), ClipRule::Auto, true);
        let top1 = |i: usize| found.rows[i].evaluation.as_ref().unwrap().top1;
        // The row before the last has the default steps.
        let lost = 100.0 * (top1(0) - top1(found.rows.len() - 2));
        println!("{bits:>5} loses {lost:.2} points");
        if let Some((_, most)) = MARKS.iter().find(|mark| mark.0 == bits) {
            assert!(lost <= *most, "{bits} loses {lost:.2} points, at most {most} are allowed");
        }
    }
}
