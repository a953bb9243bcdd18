//! What shows a run: the page, the logs for other viewers, sensitivity and sweeps.

use super::*;

fn page(place: &Place, line: &str) -> String {
    place.run(line).ok();
    std::fs::read_to_string(place.path("report.html")).unwrap()
}

#[test]
fn a_page_holds_the_runs_own_numbers_and_names_nothing_outside_of_it() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run").display().to_string();
    let text = page(&place, &format!("report {run}"));
    let records = std::fs::read_to_string(source.path("run/records.jsonl")).unwrap();
    let last = records.lines().rfind(|line| line.contains("\"kind\":\"epoch\"")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    for part in ["Clip values", "Confusion matrix", "Before the clip", "Weights of conv2", "pact-4", "act1"] {
        assert!(text.contains(part), "no {part:?}");
    }
    let loss = format!("{:.6e}", last["loss"].as_f64().unwrap()).parse::<f64>().unwrap().to_string();
    assert!(text.contains(&loss), "no {loss}");
    for outside in ["http://", "https://", "<link rel=\"stylesheet\"", "@import", "src=\"/"] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(text.len() < 3_000_000);
    let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    let before = names(&source.path("run"));
    let both = page(&place, &format!("report {run} {} --limit-test 5", source.path("float").display()));
    assert!(both.contains("2 runs") && both.contains("id=\"run-2\""));
    assert_eq!(names(&source.path("run")), before);
}

#[test]
fn broken_records_are_told_and_the_rest_is_shown() {
    let (place, source) = (Place::new(), trained());
    std::fs::create_dir(place.path("broken")).unwrap();
    let records = std::fs::read_to_string(source.path("run/records.jsonl")).unwrap();
    let torn =
        format!("{{\"other\":1}}\n{}\n{}", records.lines().next().unwrap(), &records.lines().nth(1).unwrap()[..50]);
    std::fs::write(place.path("broken/records.jsonl"), torn).unwrap();
    std::fs::write(place.path("broken/last.safetensors"), "nonsense").unwrap();
    let ended = place.run("report broken").ok();
    for part in ["line 1: passed over", "ends in the middle of a line", "last.safetensors"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    let text = std::fs::read_to_string(place.path("report.html")).unwrap();
    assert!(text.contains("What could not be read") && text.contains("after epoch 1"));
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run("report empty").failed(1, &["empty", "holds no run"]);
    place.run("report nowhere").failed(1, &["nowhere"]);
}

#[test]
fn what_needs_a_terminal_says_so() {
    let (place, source) = (Place::new(), trained());
    place.run(&format!("watch {}", source.path("run").display())).failed(2, &["terminal", "bitpact report"]);
    place.run(&format!("{TRAIN} --epochs 1 --output t --tui")).failed(2, &["--tui draws on a terminal"]);
    assert!(!place.path("t").exists());
}

#[test]
fn clip_values_that_stand_still_and_clip_much_are_told_in_the_same_words_everywhere() {
    let place = Place::new();
    let line = "train --arch tiny.toml --limit-train 110 --limit-test 10 --batch-size 1 --epochs 4 --compare-float false --lr 0.001 \
                --schedule constant --clip-init 0.05 --clip-lr 1e-7 --log csv,tensorboard --output run";
    let told = place.run(line).ok().stderr;
    let text = page(&place, "report run");
    for (part, what) in [("clips", "start its clip value higher"), ("stayed within 1 %", "start it lower")] {
        let line =
            told.lines().find(|line| line.contains(part) && line.contains("act1")).unwrap_or_else(|| panic!("{told}"));
        let message = line.strip_prefix("warning: ").unwrap();
        assert!(message.contains(what) && text.contains(message), "{message}");
    }
    let table = std::fs::read_to_string(place.path("run/epochs.csv")).unwrap();
    assert!(table.starts_with("epoch,step,loss,lr,") && table.lines().count() == 5, "{table}");
    let events: Vec<_> = std::fs::read_dir(place.path("run/tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 1);
    place.run("train --resume run --epochs 5 --log csv").ok();
    assert_eq!(std::fs::read_to_string(place.path("run/epochs.csv")).unwrap().lines().count(), 6);
}

#[test]
fn sensitivity_measures_every_tensor_and_the_page_shows_it() {
    let (place, source) = (Place::new(), trained());
    let run = source.path("run");
    let object = place.run(&format!("sensitivity {} --bits 2,4 --limit-test 30 --json", run.display())).ok().json();
    let rows = object["rows"].as_array().unwrap();
    // Three layers with weights and two activations, at two widths.
    assert_eq!((rows.len(), object["images"].as_u64()), (10, Some(30)), "{object:?}");
    place.run(&format!("sensitivity {} --bits 8", run.display())).failed(2, &["expected 1 to 7"]);
    place.run(&format!("sensitivity {}/model.bitpact", run.display())).failed(1, &["integer network already"]);
    std::fs::create_dir(place.path("own")).unwrap();
    for name in ["config.toml", "records.jsonl", "last.safetensors"] {
        std::fs::copy(run.join(name), place.path("own").join(name)).unwrap();
    }
    let shown = place.run("sensitivity own --bits 3 --limit-test 10 -o own/sensitivity.json").ok().stdout;
    assert!(shown.contains("loss at 3") && shown.contains("conv1"), "{shown}");
    assert!(page(&place, "report own").contains("Where the accuracy is lost"));
}

#[test]
fn a_sweep_is_ordinary_runs_that_are_listed_trained_once_and_lined_up() {
    let place = Place::new();
    let flags = "--arch tiny.toml --limit-train 70 --limit-test 30 --batch-size 16 --epochs 1";
    let sweep = format!("sweep builtin --bits 2,W4A4,float --output s -- {flags}");
    let listed = place.run(&sweep.replace(" -- ", " --float-start --seeds 2 --print -- ")).ok().stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 6, "{listed}");
    assert!(lines[0].starts_with("bitpact train builtin --bits float --seed 1 "), "{listed}");
    assert!(lines[2].contains("--init-from s/float-seed1/last.safetensors"), "{listed}");
    assert!(!place.path("s").exists());
    let first = place.run(&sweep).ok();
    assert!(first.stdout.contains("W2A2") && first.stdout.contains("1 of 1"), "{}", first.stdout);
    let again = place.run(&sweep).ok();
    assert_eq!(again.stderr.matches("is done").count(), 3, "{}", again.stderr);
    let object = place.run("sweep --collect s --json").ok().json();
    let bits: Vec<&str> = object["members"].as_array().unwrap().iter().map(|m| m["bits"].as_str().unwrap()).collect();
    assert_eq!(bits, ["W2A2", "W4A4", "float"]);
    for name in ["sweep.csv", "sweep.json", "sweep.md", "report.html"] {
        assert!(place.path("s").join(name).exists(), "{name}");
    }
    let page = std::fs::read_to_string(place.path("s/report.html")).unwrap();
    assert!(page.contains("builtin at 3 widths") && page.contains("W2A2 reaches "), "the page's first words");
    place.run("sweep builtin -- --bits 3").failed(2, &["--bits: a sweep sets this flag"]);
    place.run("sweep builtin -- --no-such-flag").failed(2, &["--no-such-flag"]);
    place.run("sweep builtin --bits 9").failed(2, &["--bits"]);
    place.run("sweep --collect nowhere").failed(1, &["nowhere"]);
}
