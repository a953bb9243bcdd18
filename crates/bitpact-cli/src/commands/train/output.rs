//! The folder of a run where none is named: its name tells runs of one recipe apart.

use std::path::{Path, PathBuf};

use bitpact::Recipe;
use bitpact::unstable::train::Draft;

/// Longest name; what is cut off is represented by its checksum.
const LONGEST: usize = 120;
/// Longest value that stands in the name as it is.
const LONGEST_VALUE: usize = 24;

/// `runs/RECIPE-BITS-seedSEED`, with every flag of `flagged` by which `recipe` differs from `before`, the draft without
/// flags, and the weights that the run starts from.
pub(super) fn default_folder(before: Draft, flagged: &[String], recipe: &Recipe, init_from: Option<&Path>) -> PathBuf {
    let bits = recipe.bits.to_string().replace(',', "-");
    let mut name = format!("{}-{bits}-seed{}", recipe.name, recipe.seed);
    // A draft that lacks a value which only a flag gives is told apart by all of its flags.
    let differing = before.finish().ok().map(|before| before.differences(recipe));
    let table = toml_of(recipe);
    for key in flagged.iter().filter(|key| !["name", "bits", "seed", "graph"].contains(&key.as_str())) {
        let differs = differing.as_ref().is_none_or(|keys| keys.iter().any(|(differing, ..)| differing == key));
        if let (true, Some(value)) = (differs, table.get(key)) {
            name += &format!("-{key}{}", shown(value));
        }
    }
    if let Some(path) = init_from {
        name += &format!("-from{}", shown(&path.display().to_string().into()));
    }
    if name.len() > LONGEST {
        let checksum = checksum(&name);
        name.truncate(LONGEST - checksum.len() - 1);
        name += &format!("-{checksum}");
    }
    PathBuf::from("runs").join(name)
}

fn toml_of(recipe: &Recipe) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(recipe) {
        Ok(serde_json::Value::Object(table)) => table,
        _ => serde_json::Map::new(),
    }
}

/// A value as part of a name: itself where it is short and plain, else its checksum.
fn shown(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let short = plain(&text);
    if short == text && text.len() <= LONGEST_VALUE { text } else { format!("-{}", checksum(&text)) }
}

/// `text` with nothing but ASCII letters, digits, dots, dashes and underscores.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect()
}

fn checksum(text: &str) -> String {
    // FNV-1a, folded to 32 bits: names need no more.
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(change: impl Fn(&mut Draft), init_from: Option<&str>) -> String {
        let before = Draft::open("builtin").unwrap();
        let mut draft = before.clone();
        change(&mut draft);
        let flagged = draft.flagged();
        let recipe = draft.finish().unwrap();
        default_folder(before, &flagged, &recipe, init_from.map(Path::new)).display().to_string()
    }

    #[test]
    fn the_names_of_default_folders_tell_runs_apart() {
        let lr = |rate: f64| move |draft: &mut Draft| draft.set("lr", rate, "--lr");
        assert_eq!(folder(|_| {}, None), "runs/builtin-W4A4-seed1");
        assert_eq!(folder(lr(0.001), None), "runs/builtin-W4A4-seed1-lr0.001");
        let usual = Recipe::open("builtin").unwrap().lr;
        assert_eq!(folder(lr(usual), None), "runs/builtin-W4A4-seed1", "a flag that changes nothing");
        let bits = |draft: &mut Draft| draft.set("bits", "W8A8@1,W2A2", "--bits");
        assert_eq!(folder(bits, None), "runs/builtin-W8A8@1-W2A2-seed1");
        let teacher = |file: &'static str| move |draft: &mut Draft| draft.set("teacher", file, "--teacher");
        assert_ne!(folder(teacher("runs/a"), None), folder(teacher("runs/b"), None));
        let groups = |rate: &'static str| {
            move |draft: &mut Draft| draft.add_param_group(&format!("*.bias:lr={rate}"), "--param-group").unwrap()
        };
        assert_ne!(folder(groups("0.1"), None), folder(groups("0.2"), None));
        assert_ne!(folder(|_| {}, Some("a/weights")), folder(|_| {}, Some("b/weights")));
        assert!(!folder(teacher("../../../etc"), None)[5..].contains('/'), "a value is no path");
    }

    #[test]
    fn long_names_are_cut_and_still_differ() {
        let many = |last: f64| {
            move |draft: &mut Draft| {
                for key in ["momentum", "label_smoothing", "ema_decay", "weight_decay", "distill_weight", "clip_lr"] {
                    draft.set(key, 0.123_456_789, "");
                }
                draft.set("warmup_epochs", last, "");
            }
        };
        let (a, b) = (folder(many(0.25), None), folder(many(0.5), None));
        assert!(a.len() <= "runs/".len() + LONGEST && a != b, "{a} {b}");
    }
}
