//! Post-training quantization of a trained network, against its marks. Long, and only where the files lie:
//!
//! ```text
//! BITPACT_PTQ_MODEL=resnet20.safetensors BITPACT_PTQ_DATA=DIR \
//!     cargo test --release -p bitpact-train --test ptq -- --ignored --nocapture
//! ```
//!
//! The model is a float checkpoint of the ResNet-20 of akamaster/pytorch_resnet_cifar10, the folder holds CIFAR-10.
//! `BITPACT_PTQ_IMAGES` and `BITPACT_PTQ_TEST` are numbers of images to calibrate and to measure on, `BITPACT_PTQ_BITS`
//! a list such as `W8A8,W4A8`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bitpact_data::{DatasetName, Limits, load};
use bitpact_model::Checkpoint;
use bitpact_train::ptq::{PtqEvent, PtqOptions, Step, Steps, draw, quantize};

/// Most that the integers may lose, in points.
const MARKS: [(&str, f64); 2] = [("W8A8", 0.15), ("W4A8", 1.0)];

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "minutes, and needs a trained network and CIFAR-10"]
fn a_trained_network_keeps_its_accuracy() {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
    let model = Checkpoint::load(path("BITPACT_PTQ_MODEL")).unwrap().model;
    let data = path("BITPACT_PTQ_DATA");
    let limits = Limits { train: None, test: Some(number("BITPACT_PTQ_TEST", usize::MAX)) };
    let bits = std::env::var("BITPACT_PTQ_BITS").unwrap_or_else(|_| "W8A8,W4A8,W4A4".to_owned());
    for bits in bits.split(',') {
        let run = |steps: Steps, measures_steps: bool| {
            let split = load(DatasetName::Cifar10, Some(&data), limits).unwrap();
            let calibration = draw(split.train, number("BITPACT_PTQ_IMAGES", 512), 1);
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
            let options = PtqOptions { steps, measures_steps, threads, ..PtqOptions::new(bits.parse().unwrap()) };
            let mut show = |event: PtqEvent<'_>| {
                if let PtqEvent::Row(row) = event {
                    let step = row.step.map_or("", Step::name);
                    let top1 = row.evaluation.as_ref().map_or(f64::NAN, |evaluation| 100.0 * evaluation.top1);
                    println!("{bits:>5} {step:>9} {:>7.2} dB {top1:>6.2} %", row.snr_db);
                }
            };
            let began = std::time::Instant::now();
            let found =
                quantize(&model, &calibration, Some(&*split.test), &options, &AtomicBool::new(false), &mut show)
                    .unwrap();
            let rule = found.rule.map_or_else(|| "none".to_owned(), |rule| rule.to_string());
            println!("{bits:>5} {steps}: clip values by {rule}, {:.0} s", began.elapsed().as_secs_f64());
            println!("{bits:>5} equalized {:?}, ranks {:?}", found.equalized, found.ranks);
            found
        };
        let found = run(Steps::of(&Step::ALL), true);
        let top1 = |i: usize| found.rows[i].evaluation.as_ref().unwrap().top1;
        // The row before the last has the default steps.
        let lost = 100.0 * (top1(0) - top1(found.rows.len() - 2));
        println!("{bits:>5} loses {lost:.2} points");
        if let Some((_, most)) = MARKS.iter().find(|mark| mark.0 == bits) {
            assert!(lost <= *most, "{bits} loses {lost:.2} points, at most {most} are allowed");
        }
    }
}
