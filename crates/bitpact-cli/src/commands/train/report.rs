//! What a finished run says.

use anyhow::Result;
use bitpact::Recipe;
use bitpact::unstable::train::run_folder::{LAST, MODEL};
use bitpact::unstable::train::{EpochRecord, Metric, RunFolder};
use serde_json::{Map, Value, json};

use crate::out;

/// Prints the result: one JSON object, or a table, where the files are and what to do with them.
pub(super) fn print(
    recipe: &Recipe,
    folder: &RunFolder,
    last: &EpochRecord,
    float: Option<&EpochRecord>,
    json: bool,
) -> Result<()> {
    if json {
        return out::print(&Value::Object(object(recipe, folder, last, float)).to_string());
    }
    out::print(&text(recipe, folder, last, float))
}

fn object(recipe: &Recipe, folder: &RunFolder, last: &EpochRecord, float: Option<&EpochRecord>) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if last.metrics().is_empty() {
        put("top1", json!(last.top1()));
        put("top5", json!(last.top5()));
        put("simulated_top1", json!(last.simulated_top1));
    }
    for metric in last.metrics() {
        put(&metric.name, json!(metric.value));
    }
    put("images", json!(last.test_images));
    put("images_per_s", json!(last.test_images_per_s));
    if let Some(held) = last.holdout_top1 {
        put("holdout_top1", json!(held));
    }
    put("epochs", json!(last.epoch));
    put("output", json!(folder.path().display().to_string()));
    put("train_images_per_s", json!(last.images_per_s));
    put("recipe", json!(recipe.name));
    put("bits", json!(recipe.bits));
    if let Some(float) = float {
        if float.metrics().is_empty() {
            put("float_top1", json!(float.top1()));
        }
        for metric in float.metrics() {
            put(&format!("float_{}", metric.name), json!(metric.value));
        }
    }
    object
}

fn text(recipe: &Recipe, folder: &RunFolder, last: &EpochRecord, float: Option<&EpochRecord>) -> String {
    let heads: &[&str] =
        if last.metrics().is_empty() { &["network", "top-1", "top-5"] } else { &["network", "metrics"] };
    let mut rows: Vec<Vec<String>> = vec![heads.iter().map(|&head| head.to_owned()).collect()];
    let mut row = |name: String, (top1, top5): (Option<f64>, Option<f64>), metrics: &[Metric]| {
        if let Some(top1) = top1 {
            rows.push(vec![name, out::percent(top1), top5.map(out::percent).unwrap_or_default()]);
        } else if !metrics.is_empty() {
            let shown: Vec<String> = metrics.iter().map(ToString::to_string).collect();
            rows.push(vec![name, shown.join(", ")]);
        }
    };
    row(format!("integers, {}", recipe.bits.last()), (last.integer_top1, last.integer_top5), &last.integer);
    let is_float = last.integer_top1.is_none() && last.integer.is_empty();
    let simulated = if is_float { "float32".to_owned() } else { "simulated in float32".to_owned() };
    row(simulated, (last.simulated_top1, last.simulated_top5), &last.simulated);
    if let Some(float) = float {
        let name = "float32, trained beside".to_owned();
        row(name, (float.simulated_top1, float.simulated_top5), &float.simulated);
    }
    let mut text =
        format!("\n{} on {}, {} test images, epoch {}\n\n", recipe.arch, recipe.dataset, last.test_images, last.epoch);
    text += &out::table(&rows, &[0]);
    let size = |name: &str| std::fs::metadata(folder.file(name)).map_or(0, |metadata| metadata.len());
    let path = folder.path().display();
    text += "\n";
    if !is_float {
        let (integers, name) = (out::bytes(size(MODEL)), folder.file(MODEL));
        text += &format!("integers    {} ({integers})\n", name.display());
    }
    text += &format!("checkpoint  {} ({})\n", folder.file(LAST).display(), out::bytes(size(LAST)));
    text += &format!("all files   {path}\n");
    let pasted = out::pasted(folder.path());
    text += &format!("\nnext        bitpact eval {pasted}\n            bitpact inspect {pasted}\n");
    text
}
