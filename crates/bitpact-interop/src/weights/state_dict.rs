//! Which tensors of a PyTorch file are the network's.

use std::io::{Read, Seek};

use super::Named;
use super::pickle::{Arena, Object, Value};
use super::torch::{TorchFile, get};
use crate::Kind;
use crate::error::short;

/// Keys under which training programs keep a network's tensors, the one that is taken first.
const SUB_KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema"];
/// Keys of averaged tensors.
const AVERAGES: [&str; 3] = ["ema", "state_dict_ema", "model_ema"];
/// Dicts in dicts that are looked into.
const DEEPEST: usize = 4;

/// Named tensors of a PyTorch file, in the order of the network, and what was left aside, a sentence each.
///
/// # Errors
/// A file that is damaged, hostile or holds more than tensors, with the place and the object.
pub(super) fn read(file: impl Read + Seek, kind: Kind) -> Result<(Named, Vec<String>), String> {
    let mut file = match kind {
        Kind::TorchZip => TorchFile::open_zip(file)?,
        _ => TorchFile::open_legacy(file)?,
    };
    let arena = &file.pickle.arena;
    let (dict, notes) = state_dict(arena, file.pickle.root)?;
    let named = |&(key, value): &(Value, Value)| match arena.get(value)? {
        Object::Tensor(tensor) => Some((arena.text(key)?.to_string(), (**tensor).clone())),
        _ => None,
    };
    let views: Vec<_> = arena.dict(dict).unwrap_or_default().iter().filter_map(named).collect();
    let mut tensors = Vec::with_capacity(views.len());
    for (name, view) in views.into_iter().filter(|(name, _)| !super::counts_something(name)) {
        let tensor = file.tensor(&view).map_err(|what| format!("tensor `{}`: {what}", short(&name)))?;
        tensors.push((name, tensor));
    }
    Ok((tensors, notes))
}

/// The dict of tensors in `root`: itself, or what stands under one of [`SUB_KEYS`].
fn state_dict(arena: &Arena, root: Value) -> Result<(Value, Vec<String>), String> {
    let (mut dict, mut notes, mut path) = (root, Vec::new(), String::new());
    for _ in 0..DEEPEST {
        let under = |key: &&str| get(arena, dict, key).filter(|&value| arena.dict(value).is_some());
        let Some((key, inner)) = SUB_KEYS.iter().find_map(|key| Some((*key, under(key)?))) else { break };
        if let Some(average) = AVERAGES.iter().find(|other| **other != key && under(other).is_some()) {
            notes.push(format!("the tensors under `{key}` are taken, the averages under `{average}` are not"));
        }
        path = format!("{path}['{key}']");
        dict = inner;
    }
    let pairs = arena.dict(dict).ok_or("no dict of tensors, which a state_dict is")?;
    if !pairs.iter().any(|(_, value)| matches!(arena.get(*value), Some(Object::Tensor(_)))) {
        let keys: Vec<String> =
            pairs.iter().take(8).filter_map(|(key, _)| arena.text(*key)).map(|k| short(k)).collect();
        let (looked, keys) = (SUB_KEYS.join(", "), keys.join(", "));
        return Err(format!("no tensors in its dict{path}, whose keys are: {keys}; looked under {looked} too"));
    }
    Ok((dict, notes))
}
