//! Rows of a catalogue: trained by a queue that is stopped and moved, and their book with no log, some, and all of
//! them.

use super::*;

const ROWS: &str = r#"
[base]
dataset = "builtin"
arch = "tiny.toml"
epochs = 12
limit_train = 250
limit_test = 30
batch_size = 16
gradient_bits = 8

[[group]]
name = "table"
title = "A table"
note = "Drawn figures."
rows = [
  { name = "tiny-w4a4", series = "PACT", set = { bits = "W4A4" }, paper = 50.0, source = "nowhere" },
  { name = "tiny-w2a2", series = "PACT", set = { bits = "W2A2" }, seeds = [1, 2] },
  { name = "tiny-float", series = "float", set = { bits = "float" }, unset = ["gradient_bits"], paper = 60.0 },
]
figures = [
  { against = "bits" },
  { against = "epoch" },
  { against = "epoch", alpha_of = "tiny-w4a4" },
  { against = "alpha", alpha_of = "tiny-w4a4" },
]

[[group]]
name = "decay"
title = "A key"
set = { epochs = 1, bits = "W2A2" }
rows = [
  { name = "tiny-1e-2", series = "PACT", set = { clip_weight_decay = 1e-2 } },
  { name = "tiny-1e-3", series = "PACT", set = { clip_weight_decay = 1e-3 }, paper = 40.0 },
]
figures = [{ against = "clip_weight_decay" }]
"#;

fn with_rows() -> Place {
    let place = Place::new();
    std::fs::write(place.path("rows.toml"), ROWS).unwrap();
    place
}

const QUEUE: &str = "reproduce queue --rows rows.toml --logs logs";
const BOOK: &str = "reproduce book --rows rows.toml --logs logs --output docs/results.md";

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[cfg(unix)]
#[test]
fn a_queue_goes_on_wherever_it_was_and_the_book_is_true_all_the_while() {
    let place = with_rows();
    let book = |place: &Place| {
        place.run(BOOK).ok();
        read(place, "docs/results.md")
    };
    let page = book(&place);
    assert!(page.contains("| `tiny-w4a4` | not reached | 0 of 1 | 50.0 |  | nowhere | 8-bit gradients |"), "{page}");
    assert!(page.contains("- `bitpact reproduce run tiny-w2a2 --seed 2 --data DIR`\n"), "{page}");
    assert!(page.contains("There is no log yet.") && read(&place, "docs/results/README.md").contains("no log to draw"));
    let order = place.run(&format!("{QUEUE} --dry-run")).ok().stdout;
    let runs: Vec<&str> = order.lines().map(|line| line.strip_prefix("bitpact reproduce run ").unwrap()).collect();
    assert_eq!(runs, ["tiny-w4a4", "tiny-w2a2", "tiny-float", "tiny-w2a2 --seed 2", "tiny-1e-2", "tiny-1e-3"]);

    let (child, said) = stops::start(&place, QUEUE, "epoch", 3);
    let rest = stops::end(child, said, "TERM", 143);
    assert!(rest.contains("saved after step"), "{rest}");
    let page = book(&place);
    assert!(page.contains("- `bitpact reproduce run tiny-w4a4 --data DIR --continue`: epoch "), "{page}");
    assert!(page.contains("| `tiny-w4a4` | not reached | 0 of 1 |"), "{page}");
    place.run(QUEUE).failed(2, &["runs/tiny-w4a4-seed1: this run has begun", "--continue goes on with it"]);

    let (mut child, _said) = stops::start(&place, &format!("{QUEUE} --continue"), "epoch", 3);
    child.kill().unwrap();
    child.wait().unwrap();

    // On another machine the folders may have other names.
    std::fs::create_dir(place.path("moved")).unwrap();
    std::fs::rename(place.path("runs/tiny-w4a4-seed1"), place.path("moved/found")).unwrap();
    let rest = format!("{QUEUE} --runs moved --continue");
    place.run(&rest).ok();
    let said = place.run(&rest).ok().stderr;
    assert!(said.starts_with("0 runs are missing"), "{said}");

    // The bytes are those of a run by itself.
    place.run("reproduce show tiny-w4a4 --rows rows.toml").ok();
    std::fs::write(place.path("w4a4.toml"), place.run("reproduce show tiny-w4a4 --rows rows.toml").ok().stdout)
        .unwrap();
    place.run("train w4a4.toml --output alone").ok();
    assert_eq!(results(&place.path("moved/found")), results(&place.path("alone")));

    let said = place.run("reproduce sweep tiny-w4a4 --rows rows.toml --logs logs").failed(2, &["holds no run"]).stderr;
    assert!(said.contains("tiny-w4a4, seed 1"), "{said}");
    let sweep = "reproduce sweep tiny-w4a4 --rows rows.toml --logs logs --runs moved --images 20";
    place.run(sweep).ok();
    let sweeps = read(&place, "logs/tiny-w4a4/seed1/alpha.jsonl");
    let layers: Vec<serde_json::Value> = sweeps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(layers.iter().map(|sweep| sweep["layer"].as_str().unwrap()).collect::<Vec<_>>(), ["act1", "act2"]);
    assert!(layers.iter().all(|sweep| sweep["loss"] == layers[0]["loss"]), "the trained loss is one: {sweeps}");
    let losses = |sweep: &serde_json::Value| sweep["others"].as_array().unwrap().iter().map(|l| l[1].clone()).collect();
    let [first, second]: [Vec<serde_json::Value>; 2] = [losses(&layers[0]), losses(&layers[1])];
    assert!(first.len() == 16 && first != second, "{sweeps}");

    let page = book(&place);
    let row = |name: &str| page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap().to_owned();
    assert!(row("tiny-w2a2").contains(" to ") && row("tiny-w2a2").contains("| 2 of 2 |"), "{page}");
    assert!(row("tiny-float").contains("| 1 of 1 | 60.0 | ") && row("tiny-float").ends_with("| float32 |"), "{page}");
    assert!(!page.contains("Not reached"), "{page}");
    let runs = &page[page.find("## Runs").unwrap()..];
    assert_eq!(runs.matches("| 12 of 12 |").count(), 4, "{page}");
    assert!(!runs.contains("not recorded"), "{page}");
    for name in ["table-1", "table-2", "table-3", "table-4", "decay-1"] {
        let svg = read(&place, &format!("docs/results/{name}.svg"));
        assert!(svg.starts_with("<svg") && svg.contains("polyline"), "{name}");
    }
    assert!(read(&place, "docs/results/table-1.svg").contains("PACT, paper"));

    let records = read(&place, "logs/tiny-w4a4/seed1/records.jsonl");
    let epochs: Vec<serde_json::Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let epochs: Vec<_> = epochs.iter().filter(|record| record["kind"] == "epoch").collect();
    assert_eq!(epochs.len(), 12);
    let with_layers = epochs.iter().filter(|record| record.get("layers").is_some()).map(|record| &record["epoch"]);
    assert_eq!(with_layers.map(|epoch| epoch.as_u64().unwrap()).collect::<Vec<_>>(), [1, 10, 12]);
}

#[test]
fn one_row_is_trained_and_bad_names_and_logs_are_told() {
    let place = with_rows();
    let run = "reproduce run tiny-1e-3 --rows rows.toml --logs logs";
    place.run(run).ok();
    assert!(place.run(run).ok().stderr.contains("tiny-1e-3, seed 1: done, its log is logs"));
    // Where its log is gone, its run still has it.
    let log = read(&place, "logs/tiny-1e-3/seed1/records.jsonl");
    std::fs::remove_dir_all(place.path("logs")).unwrap();
    place.run("reproduce collect --rows rows.toml --logs logs").ok();
    assert_eq!(read(&place, "logs/tiny-1e-3/seed1/records.jsonl"), log);
    std::fs::remove_dir_all(place.path("logs")).unwrap();
    assert!(place.run(run).ok().stderr.contains("it was trained in runs/tiny-1e-3-seed1"));
    let list = place.run("reproduce list --rows rows.toml --logs logs").ok().stdout;
    assert!(list.lines().any(|line| line.starts_with("tiny-1e-3 ") && line.contains("1 of 1")), "{list}");

    let config = place.path("logs/tiny-1e-3/seed1/config.toml");
    let other = std::fs::read_to_string(&config).unwrap().replace("weight_decay = 0.001", "weight_decay = 0.01");
    std::fs::write(config, other).unwrap();
    place
        .run(BOOK)
        .failed(1, &["logs/tiny-1e-3/seed1: not a log of this row", "`clip_weight_decay` is 0.01, not 0.001"]);
    place.run("reproduce show tiny-1e-4 --rows rows.toml").failed(2, &["no row is called `tiny-1e-4`", "did you mean"]);
    place.run("reproduce list --rows none.toml").failed(2, &["none.toml"]);
    place.run("train cifar10-resnet20-pact-w2a9").failed(2, &["did you mean `cifar10-resnet20-pact-w2a2`?"]);
}

#[test]
fn the_pages_of_results_are_those_of_the_committed_logs() {
    let place = Place::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let output = place.path("results.md");
    let line = ["reproduce", "book", "--output"].map(OsStr::new).into_iter().chain([output.as_os_str()]);
    Ended::new(place.command(line).current_dir(root).output().unwrap(), "book").ok();
    for name in ["results.md", "results/README.md"] {
        let committed = std::fs::read_to_string(Path::new(root).join("docs").join(name)).unwrap();
        assert!(read(&place, name) == committed, "docs/{name} is old: bitpact reproduce book writes it");
    }
}
