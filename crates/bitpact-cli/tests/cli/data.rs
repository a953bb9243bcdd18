//! Image sets by name: `bitpact data`, and grey images from the file to the integers.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// An idx file of unsigned bytes.
fn idx(dims: &[u32], data: Vec<u8>) -> Vec<u8> {
    let sizes = dims.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, 8, dims.len() as u8].into_iter().chain(sizes).chain(data).collect()
}

/// A set in MNIST's format: the row that is bright tells the class.
pub(super) fn grey(folder: &Path, names: [&str; 2], images: [u32; 2]) {
    std::fs::create_dir_all(folder).unwrap();
    for (half, n) in names.into_iter().zip(images) {
        let pixel = |i: u32| if i / 28 % 28 / 2 == i / 784 % 10 { 200 + (i % 50) as u8 } else { (i * 7 % 60) as u8 };
        let pixels = (0..n * 784).map(pixel).collect();
        std::fs::write(folder.join(format!("{half}-images-idx3-ubyte")), idx(&[n, 28, 28], pixels)).unwrap();
        let labels = (0..n).map(|i| (i % 10) as u8).collect();
        std::fs::write(folder.join(format!("{half}-labels-idx1-ubyte")), idx(&[n], labels)).unwrap();
    }
}

pub(super) const MNIST: [&str; 2] = ["train", "t10k"];

#[test]
fn grey_images_go_the_whole_way() {
    let place = Place::new();
    grey(&place.path("data/kmnist"), MNIST, [70, 30]);
    let tiny = TINY.replace("height = 32, width = 32, channels = 3", "height = 28, width = 28, channels = 1");
    std::fs::write(place.path("tiny.toml"), tiny).unwrap();
    let flags = "--dataset kmnist --data data";
    let line = format!("train {flags} --arch tiny.toml --batch-size 14 --epochs 3 --output run --json");
    let trained = place.run(&line).ok().json();
    assert_eq!((&trained["images"], &trained["recipe"]), (&30.into(), &"kmnist-cnn".into()));
    place.run("convert run -o run.bitpact").ok();
    for model in ["run", "run.bitpact", "run/last.safetensors"] {
        let found = place.run(&format!("eval {model} --data data --json --isa scalar")).ok().json();
        assert_eq!((&found["top1"], &found["dataset"]), (&trained["top1"], &"kmnist".into()), "{model}");
    }
    let shown = place.run("inspect run").ok().stdout;
    assert!(shown.contains("28x28x1") && shown.contains("3x3/2 1 to 4"), "{shown}");

    // Class names of MNIST are those of EMNIST's digits: the file alone does not tell which.
    grey(&place.path("data/mnist"), MNIST, [70, 30]);
    place.run(&line.replace("kmnist", "mnist").replace("run", "digits")).ok();
    let told = place.run("eval digits/model.bitpact --data data");
    told.failed(2, &["--dataset is needed", "which of mnist, emnist-digits"]);
}

#[test]
fn check_tells_what_is_there_and_a_foreign_checksum_is_a_note() {
    let place = Place::new();
    grey(&place.path("sets/fashion-mnist"), MNIST, [25, 12]);
    grey(&place.path("sets/emnist"), ["emnist-digits-train", "emnist-digits-test"], [11, 10]);
    let object = place.run("data check sets --json").ok().json();
    let sets = object["sets"].as_array().unwrap();
    assert_eq!((&sets[0]["name"], &sets[1]["name"]), (&"fashion-mnist".into(), &"emnist-digits".into()));
    assert_eq!(sets[0]["train"]["images"], 25);
    assert_eq!(sets[0]["train"]["published"], 60_000);
    assert_eq!(sets[0]["test"]["histogram"], serde_json::json!([2, 2, 1, 1, 1, 1, 1, 1, 1, 1]));
    assert_eq!(sets[0]["files"].as_array().unwrap().len(), 4);
    let shown = place.run("data check sets/fashion-mnist").ok().stdout;
    for part in ["Fashion-MNIST", "Ankle boot", "no checksum published", "25", "60000", "28x28x1"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let labels = place.path("sets/fashion-mnist/train-labels-idx1-ubyte");
    std::fs::rename(&labels, place.path("sets/fashion-mnist/train-labels-idx1-ubyte.gz")).unwrap();
    let shown = place.run("data check sets --dataset fashion-mnist").ok().stdout;
    assert!(shown.contains("not the published file"), "{shown}");

    grey(&place.path("flat"), MNIST, [25, 12]);
    place.run("data check flat").failed(2, &["mnist, fashion-mnist, kmnist have the same file names", "--dataset"]);
    place.run("data check flat --dataset kmnist").ok();
    std::fs::write(place.path("flat/t10k-labels-idx1-ubyte"), idx(&[12], vec![77; 12])).unwrap();
    place.run("data check flat --dataset mnist --json").failed(1, &["label 77", "flat: 1 of 1 sets cannot be read"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run("data check empty").failed(1, &["empty: has no pictures: expected train/", "a CSV file"]);
    place.run("data check nowhere").failed(1, &["nowhere"]);
    place.run("data check flat --dataset mnits").failed(2, &["--dataset", "did you mean `mnist`?"]);
    place.run("data check flat --dataset builtin").failed(2, &["drawn"]);
}

#[test]
fn list_shows_every_set_and_its_source() {
    let place = Place::new();
    let shown = place.run("data list").ok().stdout;
    let object = place.run("data list --json").ok().json();
    let sets = object["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 14);
    for set in sets {
        assert!(shown.contains(set["name"].as_str().unwrap()), "{shown}");
        for download in set["downloads"].as_array().unwrap() {
            assert!(download["url"].as_str().unwrap().starts_with("https://"), "{download}");
            assert_eq!(download["md5"].as_str().unwrap().len(), 32);
        }
        let recipe = set["recipe"].as_str().unwrap();
        assert!(shown.contains(recipe));
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 110), "{shown}");
}

/// Answers every request with `response` until the process ends.
fn serve(response: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(response.as_bytes());
        }
    });
    format!("http://{address}/sets/")
}

#[test]
fn a_fetch_that_fails_says_how_to_do_it_by_hand() {
    let place = Place::new();
    let hand = ["By hand: Download", "data/fashion-mnist", "https://raw.githubusercontent.com", "(MD5 8d4fb7e6"];
    let missing = serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let ended = place.run(&format!("data fetch fashion-mnist --mirror {missing}"));
    ended.failed(1, &[&hand[..], &["train-images-idx3-ubyte.gz", "HTTP status 404"]].concat());

    let wrong = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    let ended = place.run(&format!("data fetch fashion-mnist --mirror {wrong}"));
    ended.failed(1, &[&hand[..], &["what came has the MD5 5d41402abc4b2a76b9719d911017c592"]].concat());

    // A port on which no one listens, as without a network.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = place.run(&format!("data fetch fashion-mnist --mirror http://{closed}/"));
    ended.failed(1, &hand);
    let left: Vec<_> = std::fs::read_dir(place.path("data/fashion-mnist")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");

    place.run("data fetch emnist-letters").failed(1, &["cannot be fetched", "gzip.zip", "data/emnist"]);
    place.run("data fetch builtin").failed(2, &["drawn"]);
    place.run("data fetch fashion").failed(2, &["did you mean `fashion-mnist`?"]);
    std::fs::write(place.path("file"), "").unwrap();
    place.run(&format!("data fetch svhn --output file --mirror {missing}")).failed(1, &["file/svhn"]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn damaged_files_are_put_aside_and_fetched_again() {
    let name = "train-images-idx3-ubyte.gz";
    let whole = gzip(&vec![7; 10_000]);
    let mut flipped = whole.clone();
    flipped[whole.len() - 6] ^= 1;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (bytes, kept) in
        [(Vec::new(), false), (whole[..whole.len() / 2].to_vec(), true), (flipped, true), (b"<html>".to_vec(), true)]
    {
        let place = Place::new();
        let folder = place.path("data/fashion-mnist");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), &bytes).unwrap();
        let ended = place.run(&format!("data fetch fashion-mnist --mirror http://{closed}/"));
        let ended = ended.failed(1, &["By hand"]);
        assert!(!ended.stderr.contains("already there"), "{}", ended.stderr);
        let aside = folder.join(format!("{name}.damaged"));
        assert_eq!(std::fs::read(aside).ok(), kept.then_some(bytes));
    }
}

#[test]
fn files_that_are_there_are_not_fetched_again() {
    let place = Place::new();
    let folder = place.path("data/fashion-mnist");
    std::fs::create_dir_all(&folder).unwrap();
    for half in MNIST {
        for kind in ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"] {
            std::fs::write(folder.join(format!("{half}-{kind}")), gzip(b"one's own")).unwrap();
        }
    }
    let ended = place.run("data fetch fashion-mnist --mirror http://127.0.0.1:1/").ok();
    assert!(ended.stderr.contains("t10k-labels-idx1-ubyte.gz: already there"), "{}", ended.stderr);
    assert!(ended.stdout.contains("bitpact train --dataset fashion-mnist --data data"), "{}", ended.stdout);
}

/// Fetches from a server that sends a little and then nothing, until it has come.
#[cfg(unix)]
fn stalled_fetch(place: &Place) -> (std::process::Child, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("data fetch fashion-mnist --mirror http://{}/", listener.local_addr().unwrap());
    let child = place.command(line.split(' ')).stderr(Stdio::piped()).spawn().unwrap();
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 26421880\r\n\r\nhello").unwrap();
    let part = place.path("data/fashion-mnist/train-images-idx3-ubyte.gz.part");
    while !std::fs::read(&part).is_ok_and(|bytes| bytes == b"hello") {
        std::thread::yield_now();
    }
    // Kept open by the process that is forgotten here, until the test ends.
    std::mem::forget(stream);
    (child, listener)
}

#[cfg(unix)]
#[test]
fn a_fetch_that_a_signal_ends_says_how_to_go_on_and_keeps_what_came() {
    let place = Place::new();
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (mut child, _listener) = stalled_fetch(&place);
        let said = std::io::BufReader::new(child.stderr.take().unwrap());
        let rest = super::stops::end(child, said, signal, status);
        assert!(rest.contains("the same command goes on from there"), "{rest}");
        let left: Vec<_> =
            std::fs::read_dir(place.path("data/fashion-mnist")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["train-images-idx3-ubyte.gz.part"]);
    }
}

#[cfg(unix)]
#[test]
fn two_fetches_of_one_file_do_not_mix() {
    let place = Place::new();
    let (mut child, listener) = stalled_fetch(&place);
    let address = listener.local_addr().unwrap();
    let second = place.run(&format!("data fetch fashion-mnist --mirror http://{address}/"));
    second.failed(1, &["train-images-idx3-ubyte.gz.part: another process is fetching this file"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_network_is_not_evaluated_on_the_set_of_other_classes() {
    let place = Place::new();
    for set in ["kmnist", "fashion-mnist"] {
        grey(&place.path("data").join(set), MNIST, [70, 30]);
    }
    let tiny = TINY.replace("height = 32, width = 32, channels = 3", "height = 28, width = 28, channels = 1");
    std::fs::write(place.path("tiny.toml"), tiny).unwrap();
    let line = "train --dataset kmnist --data data --arch tiny.toml --batch-size 14 --epochs 1 --output run";
    place.run(line).ok();
    for model in ["run", "run/model.bitpact", "run/best.safetensors"] {
        let wrong = format!("eval {model} --data data --dataset fashion-mnist");
        place
            .run(&wrong)
            .failed(1, &["made for other classes than those of fashion-mnist", "`T-shirt/top`", "--force"]);
        let said = place.run(&format!("{wrong} --force")).ok();
        assert!(said.stderr.contains("warning: ") && said.stdout.contains("top-1"), "{}", said.stderr);
    }
    place.run("eval run --data data").ok();
}
