//! `bitpact ptq`: a float network to integers, and what it does not take.

use image::{Rgb, RgbImage};

use super::*;

#[test]
fn a_float_run_becomes_integers_step_by_step() {
    let (place, source) = (Place::new(), trained());
    let float = source.path("float");
    let line = format!(
        "ptq {} --bits W4A4 --images 40 --limit-test 30 --steps all --cora-budget 0.5 --keep kept.safetensors -o net.bitpact --json",
        float.display()
    );
    let ended = place.run(&line).ok();
    let object = ended.json();
    let rows = object["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["float", "rounding", "clip", "weights", "equalize", "gptq", "bias", "cora"]);
    assert!(rows.iter().all(|row| row["images"] == 30 && row["top1"].is_f64()), "{rows:?}");
    assert!(rows.iter().skip(1).all(|row| row["snr_db"].as_f64().unwrap() > 3.0), "{rows:?}");
    // What others than the process itself read of the result.
    let evaluated = place.run("eval net.bitpact --dataset builtin --limit-test 30 --json").ok().json();
    assert_eq!(evaluated["top1"], rows[7]["top1"]);
    for model in ["net.bitpact", "kept.safetensors"] {
        let verified = place.run(&format!("verify {model} --dataset builtin --limit-test 10 --json")).ok().json();
        assert_eq!(verified["different"], 0, "{model}");
    }
    // The same bytes again, on another number of threads.
    let again = line.replace("net.bitpact", "again.bitpact") + " --threads 1";
    place.run(&again).ok();
    assert_eq!(std::fs::read(place.path("net.bitpact")).unwrap(), std::fs::read(place.path("again.bitpact")).unwrap());
    // Training goes on from the kept weights.
    place.run(&format!("{TRAIN} --epochs 1 --bits W4A4 --init-from kept.safetensors --output tuned")).ok();
}

#[test]
fn a_table_ends_with_the_files_and_a_quick_one_is_short() {
    let (place, source) = (Place::new(), trained());
    std::fs::copy(source.path("float/last.safetensors"), place.path("float.safetensors")).unwrap();
    let ended =
        place.run("ptq float.safetensors --bits w8a8 --images 16 --limit-test 20 --quick --dataset builtin").ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("step") && lines[1].starts_with("float") && lines[2].starts_with("W8A8"), "{lines:?}");
    assert!(ended.stdout.contains("float.bitpact: tiny W8A8"), "{}", ended.stdout);
    assert!(ended.stderr.contains("float: exact"), "{}", ended.stderr);
    assert!(place.path("float.bitpact").exists());
}

#[test]
fn pictures_without_labels_are_enough() {
    let (place, source) = (Place::new(), trained());
    std::fs::create_dir_all(place.path("photos/more")).unwrap();
    for i in 0..3u8 {
        let photo = RgbImage::from_fn(40, 32, |x, y| Rgb([x as u8 * 6, y as u8 * 7, i * 80]));
        photo.save(place.path(&format!("photos/more/{i}.png"))).unwrap();
    }
    std::fs::write(place.path("photos/broken.jpg"), "no picture").unwrap();
    std::fs::write(place.path("photos/notes.txt"), "no picture either").unwrap();
    let float = source.path("float");
    let line = format!("ptq {} --bits W8A8 --unlabelled --data photos -o net.bitpact --json", float.display());
    let ended = place.run(&line).ok();
    assert_eq!(ended.json()["calibration_images"], 3);
    assert!(
        ended.stderr.contains("broken.jpg") && ended.stderr.contains("1 pictures cannot be used"),
        "{}",
        ended.stderr
    );
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run(&line.replace("photos", "empty")).failed(1, &["empty: no picture"]);
    place.run(&line.replace("photos", "nowhere")).failed(1, &["nowhere: cannot read the folder"]);
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let (place, source) = (Place::new(), trained());
    let (run, float) = (source.path("run").display().to_string(), source.path("float").display().to_string());
    for model in [run.clone(), format!("{run}/model.bitpact"), format!("{run}/last.safetensors")] {
        place.run(&format!("ptq {model} --bits W4A4 -o x.bitpact")).failed(1, &["is quantized already"]);
    }
    for (rest, said) in [
        ("--bits float", "expected a form like W8A8"),
        ("--bits W9A4", "W9A4"),
        ("--bits W4A4 --images 0", "--images"),
        ("--bits W4A4 --steps clip,magic", "`magic`: expected clip, weights"),
        ("--bits W4A4 --calibrate kl", "expected auto"),
        ("--bits W4A4 --cora-budget=-1", "--cora-budget"),
        ("--bits W4A4 --keep x.bitpact", "that is the .bitpact file itself"),
        ("--bits W4A4 --unlabelled", "--data"),
        ("--images 4", "--bits"),
    ] {
        place.run(&format!("ptq {float} {rest} -o x.bitpact")).failed(2, &[said]);
    }
    let own = format!("ptq {float} --bits W4A4 -o {float}/last.safetensors");
    place.run(&own).failed(2, &["that is the float network itself"]);
    place.run("ptq missing --bits W4A4").failed(1, &["missing"]);
    assert!(!place.path("x.bitpact").exists());
}
