//! Data of one's own, from the folder to the integers.

use image::{Rgb, RgbImage};

use super::*;

/// Pictures of many sizes: the class is the colour that is strongest, in both halves.
pub(super) fn photos(place: &Place, name: &str) {
    for (class, colour) in ["red", "green", "blue"].into_iter().enumerate() {
        for i in 0..14u32 {
            let half = if i < 10 { "train" } else { "val" };
            let (w, h) = (36 + i % 5 * 7, 40 + i % 3 * 9);
            let picture = RgbImage::from_fn(w, h, |x, y| {
                let mut pixel = [40 + (x * 3 + i) as u8 % 40, 40 + (y * 5 + i) as u8 % 40, 60];
                pixel[class] = 190 + (x + y) as u8 % 50;
                Rgb(pixel)
            });
            save(place, &format!("{name}/{half}/{colour}/{i}.png"), &picture);
        }
    }
}

pub(super) fn save(place: &Place, name: &str, picture: &RgbImage) {
    let path = place.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(path).unwrap();
}

#[test]
fn photos_are_checked_trained_on_evaluated_and_recognized() {
    let place = Place::new();
    photos(&place, "photos");
    std::fs::write(place.path("photos/train/red/broken.jpg"), "no picture").unwrap();
    let tiny = TINY.replace("out_features = 10", "out_features = 3");
    std::fs::write(place.path("three.toml"), tiny).unwrap();

    let found = place.run("data check photos --crop 32").ok().stdout;
    for part in [
        "a folder of pictures for each class, to classify",
        "30 examples",
        "12 examples (val/)",
        "32x32x3",
        "broken.jpg",
    ] {
        assert!(found.contains(part), "no {part:?} in {found}");
    }
    let object = place.run("data check photos --json").ok().json();
    assert_eq!(
        (&object["task"], &object["classes"]),
        (&"classify".into(), &serde_json::json!(["blue", "green", "red"]))
    );
    assert_eq!(object["halves"][0]["histogram"], serde_json::json!([10, 10, 10]));

    let flags = "--dataset folder --data photos --crop 32 --resize 36 --color-jitter 0.1,0.1,0,0 --arch three.toml --batch-size 10";
    let line = format!("train {flags} --epochs 3 --lr 0.02 --warmup-epochs 0 --json --output");
    let trained = place.run(&format!("{line} run --threads 2")).ok();
    assert!(
        trained.stderr.contains("1 files cannot be used and are left out") && trained.stderr.contains("broken.jpg")
    );
    let trained = trained.json();
    place.run(&format!("{line} again --threads 1")).ok();
    assert_eq!(results(&place.path("run")), results(&place.path("again")), "any number of threads");
    assert!(std::fs::read_to_string(place.path("run/config.toml")).unwrap().contains("task = \"classify\""));
    place.run(&format!("{line} strict --strict")).failed(1, &["1 files cannot be used", "broken.jpg"]);
    for model in ["run", "run/last.safetensors"] {
        let found = place.run(&format!("eval {model} --data photos --json")).ok().json();
        assert_eq!((&found["top1"], &found["dataset"]), (&trained["top1"], &"folder".into()), "{model}");
    }
    // One half alone, a file of integers alone.
    let line = "eval run/model.bitpact --dataset folder --data photos/val --json";
    assert_eq!(place.run(line).ok().json()["images"], 12);
    place.run("eval run/model.bitpact --data photos").failed(2, &["--dataset is needed"]);
    // `run` sees what evaluation sees.
    let shown = |line: &str| place.run(line).ok().json()["images"][0]["top"].clone();
    let photo = "photos/val/green/12.png --json";
    let own = shown(&format!("run run {photo}"));
    assert!(["blue", "green", "red"].iter().any(|name| own[0]["name"] == *name), "{own}");
    assert_eq!(shown(&format!("run run/model.bitpact {photo} --resize 36")), own);
    assert_ne!(shown(&format!("run run/model.bitpact {photo}")), own);
    // A resumed run finds the same images or says so.
    place.run("train --resume run --data photos --epochs 4").ok();
    std::fs::remove_file(place.path("photos/train/blue/3.png")).unwrap();
    place.run("train --resume run --data photos --epochs 5").failed(1, &["began with 30 training", "now there are 29"]);
}

#[test]
fn what_keeps_a_folder_from_training_is_said_before_it() {
    let place = Place::new();
    photos(&place, "photos");
    place.run("train --dataset folder").failed(2, &["is read from a folder: give it with --data DIR"]);
    place.run("train --data photos").failed(2, &["`builtin` reads no files", "`folder` for data of one's own"]);
    place.run("train --dataset cifar10 --data photos --crop 32").failed(1, &["--crop changes nothing"]);
    place.run("train --dataset folder --data photos --task segment").failed(1, &["which is to classify"]);
    std::fs::rename(place.path("photos/val/red"), place.path("photos/val/Red")).unwrap();
    let told = ["class `red` is in train/ and not in val/", "`Red` is there"];
    place.run("train --dataset folder --data photos").failed(1, &told);
    let checked = place.run("data check photos");
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("training would fail") && checked.stderr.contains(told[0]), "{}", checked.stderr);
    place.run("data check nothing").failed(1, &["cannot read nothing"]);
    place.run("data check photos --crop 0").failed(2, &["expected a side"]);
    place.run("data check photos/train").ok();
}

#[test]
fn masks_and_pairs_train_a_step() {
    let place = Place::new();
    for i in 0..8u32 {
        let half = if i < 6 { "train" } else { "val" };
        let picture = RgbImage::from_fn(34, 30, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, 70 + i as u8]));
        save(&place, &format!("scenes/{half}/images/{i}.png"), &picture);
        let mask = image::GrayImage::from_fn(34, 30, |x, _| image::Luma([u8::from(x > 16)]));
        let path = place.path(&format!("scenes/{half}/masks/{i}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        mask.save(path).unwrap();
        save(&place, &format!("sharp/{i}.png"), &picture);
    }
    let network = |last: &str| {
        format!(
            "name = \"dense\"\nnodes = [\n{{ name = \"image\", op = \"input\", height = 16, width = 16, channels = 3 }},\n\
             {{ name = \"conv1\", op = \"conv\", out_channels = 8, kernel = 3, padding = 1 }},\n{{ name = \"bn1\", op = \"batch_norm\" }},\n\
             {{ name = \"act1\", op = \"act\" }},\n{last}\n]\n"
        )
    };
    let classes = network("{ name = \"classes\", op = \"conv\", out_channels = 2, kernel = 1, bias = true },");
    std::fs::write(place.path("classes.toml"), classes).unwrap();
    let detail = network(
        "{ name = \"detail\", op = \"conv\", out_channels = 12, kernel = 3, padding = 1, bias = true },\n{ name = \"up\", op = \"view\", move = \"pixel_shuffle\", factor = 2 },",
    );
    std::fs::write(place.path("enlarge.toml"), detail).unwrap();
    std::fs::write(
        place.path("base.toml"),
        "dataset = \"folder\"\narch = \"cnn\"\nbatch_size = 3\nepochs = 1\nlr = 0.01\ncrop = 16\n",
    )
    .unwrap();
    let line = "train base.toml --arch classes.toml --data scenes --random-crop 0.3,1 --json --output masks";
    let trained = place.run(line).ok().json();
    assert!(trained["miou"].as_f64().is_some(), "{trained:?}");
    let found = place.run("eval masks --data scenes --json").ok().json();
    assert_eq!(found["miou"], trained["miou"]);
    let shown = place.run("run masks scenes/val/images/7.png --json").ok().json();
    assert!(shown["images"][0]["parts"][0]["pixels"].as_f64().is_some());
    let line = "train base.toml --arch enlarge.toml --data sharp --crop 12 --upscale 2 --test-share 0.25 --json --output large";
    std::fs::write(
        place.path("enlarge.toml"),
        std::fs::read_to_string(place.path("enlarge.toml")).unwrap().replace("= 16, width = 16", "= 12, width = 12"),
    )
    .unwrap();
    let trained = place.run(line).ok().json();
    assert!(trained["psnr"].as_f64().is_some(), "{trained:?}");
    let told = place.run("run large sharp/0.png");
    told.failed(1, &["its output is an image"]);
}

/// Grey images in a folder of `.npy` files: the upper half is bright or the lower.
pub(super) fn arrays(place: &Place, name: &str) {
    let save = |file: String, shape: String, data: Vec<u8>| {
        let head = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let bytes = [b"\x93NUMPY\x01\x00", &(head.len() as u16).to_le_bytes()[..], head.as_bytes(), &data].concat();
        std::fs::write(place.path(name).join(file), bytes).unwrap();
    };
    std::fs::create_dir(place.path(name)).unwrap();
    let pixel = |i: u32| if (i / 72) % 2 == (i / 144) % 2 { 200 } else { (i * 7 % 50) as u8 };
    for (half, count) in [("train", 20u32), ("test", 10)] {
        save(format!("x_{half}.npy"), format!("{count}, 12, 12"), (0..count * 144).map(pixel).collect());
        save(format!("y_{half}.npy"), format!("{count},"), (0..count).map(|i| (i % 2) as u8).collect());
    }
}

#[test]
fn arrays_need_no_recipe_of_their_own() {
    let place = Place::new();
    arrays(&place, "arrays");
    let line = "train --dataset folder --data arrays --arch resnet8 --epochs 2 --batch-size 10 --json --output run";
    let trained = place.run(line).ok().json();
    let found = place.run("eval run --data arrays --json").ok().json();
    assert_eq!((&found["top1"], trained["bits"].as_str()), (&trained["top1"], Some("W4A4")));
    place.run("train --dataset folder --data arrays --crop 8 --epochs 1").failed(1, &["arrays are read as they are"]);
}
