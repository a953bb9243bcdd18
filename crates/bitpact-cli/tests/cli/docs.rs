//! The commands that README and the docs show, run from top to bottom of a page on small data.

use std::fs::File;

use super::data::{MNIST, grey};
use super::folders::{arrays, photos, save};
use super::import::{plain, weights};
use super::*;

/// The tiny network at few bits, trained on `DIR`, as a page's `RUN` that no command of the page makes.
const RUN: &str = "train --arch tiny.toml --dataset cifar10 --data DIR --epochs 1 --limit-train 20 --limit-test 10 \
                   --batch-size 10 --compare-float false --output run";

/// Commands that a test cannot run, and why.
const LEFT_OUT: [(&str, &str); 5] = [
    ("cargo install", "builds the program once more"),
    ("cargo test", "is this"),
    ("cargo run --release -p bitpact-core", "an example of its own"),
    ("bitpact data fetch", "needs a network"),
    ("bitpact watch", "needs a terminal"),
];

fn text_of(page: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Lines of the shell in a page: without comments, and whole where a backslash ends them.
fn commands(page: &str) -> Vec<String> {
    let text = text_of(page).replace("\\\n", "");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let line = |line: &str| line.split(" #").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    blocks.flat_map(str::lines).map(line).filter(|line| !line.is_empty()).collect()
}

/// A folder with everything that pages name: a network file, an image set in CIFAR-10's files, photographs by class,
/// pictures, weights.
fn stocked() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("DIR")).unwrap();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        File::create(place.path("DIR").join(name).with_extension("bin")).unwrap().set_len(30_730_000).unwrap();
    }
    grey(&place.path("data/fashion-mnist"), MNIST, [20, 10]);
    photos(&place, "photos");
    arrays(&place, "arrays");
    let picture = image::RgbImage::from_fn(40, 50, |x, y| image::Rgb([x as u8 * 5, y as u8 * 4, 90]));
    for name in ["photo.png", "photo.jpg", "other.png", "new.jpg"] {
        save(&place, name, &picture);
    }
    let network = "docs/networks/choices_resnet8.toml";
    std::fs::create_dir_all(place.path("docs/networks")).unwrap();
    std::fs::write(place.path(network), text_of(network)).unwrap();
    // What a file is is told from its bytes.
    let resnet = plain(&weights("resnet20", 10));
    for name in ["resnet20.th", "net.pth", "plain.safetensors"] {
        std::fs::write(place.path(name), &resnet).unwrap();
    }
    place.run("import plain.safetensors --arch resnet20 --input cifar10 -o resnet20.safetensors").ok();
    place
}

/// Puts `value` after `flag`, in place of the value that stands there.
fn set(words: &mut Vec<String>, flag: &str, value: &str) {
    match words.iter().position(|word| word == flag) {
        Some(at) => value.clone_into(&mut words[at + 1]),
        None => words.extend([flag.to_owned(), value.to_owned()]),
    }
}

/// Makes a command short: few images, one epoch, a few milliseconds.
fn shorten(words: &mut Vec<String>) {
    let small =
        ["--epochs", "1", "--warmup-epochs", "0", "--limit-train", "20", "--limit-test", "10", "--batch-size", "10"];
    let kind = if words[0] == "accel" { words[1].clone() } else { words[0].clone() };
    match kind.as_str() {
        "train" => {
            for pair in small.chunks(2) {
                set(words, pair[0], pair[1]);
            }
            set(words, "--compare-float", "false");
        }
        "eval" | "export" | "verify" | "sensitivity" | "report" | "in-memory" | "ptq" => {
            // C is written with the golden vectors of drawn images.
            if !words.iter().any(|word| word == "--unlabelled" || word == "c") {
                set(words, "--limit-test", "4");
            }
            match kind.as_str() {
                "in-memory" => set(words, "--chips", "1"),
                "ptq" => set(words, "--images", "4"),
                "sensitivity" => set(words, "--bits", "2"),
                _ => {}
            }
        }
        "search" if words[1] == "bits" => {
            set(words, "--images", "4");
            set(words, "--bits", "2,8");
        }
        "search" => small.chunks(2).for_each(|pair| set(words, pair[0], pair[1])),
        "bench" => {
            set(words, "--seconds", "0.01");
            if words.iter().any(|word| word == "--train") {
                set(words, "--batch-size", "4");
            } else {
                set(words, "--batch", "1");
            }
        }
        // The drawn model has a context of 64 and is 32 wide.
        "lm" => match words[1].as_str() {
            "perplexity" => (set(words, "--context", "33"), set(words, "--stride", "16")).1,
            "compare" => (set(words, "--length", "32"), set(words, "--context", "33")).1,
            "quantize" => set(words, "--length", "32"),
            "run" => set(words, "-n", "8"),
            "bench" => (set(words, "--prompt", "8"), set(words, "--decode", "4"), set(words, "--rounds", "1")).2,
            _ => {}
        },
        "sweep" => {
            if words.iter().any(|word| word == "--seeds") {
                set(words, "--seeds", "1");
            }
            if !words.iter().any(|word| word == "--") {
                words.push("--".into());
            }
            words.extend(small.map(str::to_owned));
        }
        _ => {}
    }
}

/// Runs the commands of a page. A `train` without a folder makes the one that the page names next.
fn run_page(page: &str, place: &Place) {
    let lines = commands(page);
    let mut ran = 0;
    let mut last_run = "run".to_owned();
    for (at, line) in lines.iter().enumerate() {
        if LEFT_OUT.iter().any(|(start, _)| line.starts_with(start)) {
            continue;
        }
        let line = line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("bitpact "));
        let Some(line) = line else { panic!("{page}: `{}` is no command of bitpact", lines[at]) };
        let (line, file) = line.split_once(" > ").map_or((line, None), |(line, file)| (line, Some(file)));
        let mut words: Vec<String> = Vec::new();
        for (i, part) in line.split('"').enumerate() {
            match i % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        for word in &mut words {
            match word.as_str() {
                "RUN" | "MODEL" => word.clone_from(&last_run),
                "FORMAT" => "onnx-qcdq".clone_into(word),
                _ => {}
            }
        }
        if words[0] == "accel" && words[1] == "area" && Command::new("yosys").arg("-V").output().is_err() {
            continue;
        }
        shorten(&mut words);
        if words[0] == "train" && !words.iter().any(|word| word == "--output") {
            let named = |line: &String| line.split(' ').find(|word| word.starts_with("runs/")).map(str::to_owned);
            let next = lines[at..].iter().find_map(named).filter(|name| !place.path(name).exists());
            last_run = next.unwrap_or_else(|| format!("runs/{at}"));
            set(&mut words, "--output", &last_run);
        }
        let ended = Ended::new(place.command(&words).output().unwrap(), &format!("{page}: {}", words.join(" "))).ok();
        if let Some(file) = file {
            std::fs::write(place.path(file), ended.stdout).unwrap();
        }
        ran += 1;
    }
    assert!(ran > 0, "{page}: no command");
}

#[test]
fn readme_and_the_first_pages_work() {
    for page in ["README.md", "docs/first.md", "docs/bits.md", "docs/search.md"] {
        run_page(page, &stocked());
    }
}

#[test]
fn the_pages_of_training_and_data_work() {
    for page in ["docs/training.md", "docs/data.md", "docs/import.md", "docs/ptq.md"] {
        run_page(page, &stocked());
    }
}

#[test]
fn the_pages_of_what_comes_after_training_work() {
    for page in
        ["docs/deploying.md", "docs/export.md", "docs/microcontrollers.md", "docs/accelerator.md", "docs/in-memory.md"]
    {
        let place = stocked();
        place.run(RUN).ok();
        run_page(page, &place);
    }
}

#[test]
fn the_page_of_language_models_works() {
    let place = Place::new();
    super::lm::model(&place);
    for (from, to) in [("net.bin", "stories.bin"), ("text.txt", "test.txt"), ("text.txt", "valid.txt")] {
        std::fs::copy(place.path(from), place.path(to)).unwrap();
    }
    run_page("docs/language-models.md", &place);
}

#[test]
fn no_other_page_has_commands() {
    let tested = text_of("crates/bitpact-cli/tests/cli/docs.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") && !tested.contains(&format!("\"docs/{name}\"")) {
            let page = format!("docs/{name}");
            let left = commands(&page).into_iter().find(|l| !LEFT_OUT.iter().any(|(start, _)| l.starts_with(start)));
            assert_eq!(left, None, "{page}");
            assert!(!text_of(&page).contains("\n    bitpact "), "{page}: commands stand in blocks of sh");
        }
    }
}
