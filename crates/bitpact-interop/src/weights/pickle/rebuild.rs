//! What the few names that a pickle may call stand for.

use super::value::{Arena, Global, Object, Storage, StridedTensor, Value};
use super::{ADVICE, pairs_of};

/// What a call makes.
pub(super) enum Made {
    New(Object),
    /// One of its arguments.
    Old(Value),
}

/// What `callee(*args)` makes, without calling anything.
pub(super) fn call(arena: &Arena, callee: Value, args: Value) -> Result<Made, String> {
    let Some(Object::Global(global)) = arena.get(callee) else {
        return Err("calls an object that is no function".to_owned());
    };
    let args = arena.tuple(args).ok_or("calls with what is no tuple of arguments")?;
    Ok(match (global, args) {
        (Global::OrderedDict, []) => Made::New(Object::Dict(Vec::new())),
        (Global::OrderedDict, &[items]) => {
            Made::New(Object::Dict(pairs_of(arena, items).ok_or("an OrderedDict of what is no list of pairs")?))
        }
        (Global::RebuildTensor, args) => Made::New(Object::Tensor(Box::new(tensor(arena, args)?))),
        (Global::RebuildParameter, &[data, ..]) => Made::Old(data),
        (Global::OrderedDict | Global::RebuildParameter, args) => {
            return Err(format!("calls {global:?} with {} arguments", args.len()));
        }
        (Global::Storage(_), _) => return Err("makes a storage without the numbers of the file".to_owned()),
    })
}

/// `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`; before PyTorch 0.4
/// `_rebuild_tensor` of the first four.
fn tensor(arena: &Arena, args: &[Value]) -> Result<StridedTensor, String> {
    let &[storage, Value::Int(offset), shape, strides, ..] = args else {
        return Err("a tensor needs storage, offset, size and stride".to_owned());
    };
    let Some(Object::Storage(storage)) = arena.get(storage) else {
        return Err("a tensor of what is no storage".to_owned());
    };
    let sizes = |value: Value, what: &str| -> Result<Vec<u64>, String> {
        let whole = |value: &Value| match *value {
            Value::Int(size) => u64::try_from(size).ok(),
            _ => None,
        };
        let sizes = arena.sequence(value).filter(|values| values.len() <= MOST_DIMENSIONS);
        sizes
            .and_then(|values| values.iter().map(whole).collect())
            .ok_or_else(|| format!("a tensor whose {what} is no tuple of at most {MOST_DIMENSIONS} numbers from 0 on"))
    };
    let (shape, strides) = (sizes(shape, "size")?, sizes(strides, "stride")?);
    if shape.len() != strides.len() {
        return Err(format!("a tensor of {} sizes and {} strides", shape.len(), strides.len()));
    }
    let offset = u64::try_from(offset).ok().and_then(|offset| offset.checked_add(storage.start));
    let offset = offset.ok_or("a tensor that begins before its storage")?;
    Ok(StridedTensor { storage: storage.clone(), offset, shape, strides })
}

/// Dimensions of a tensor at the most.
const MOST_DIMENSIONS: usize = 8;

/// `('storage', type, key, location, numel)`, before PyTorch 1.6 with `None` or `(key, start, numel)` of a view.
pub(super) fn storage(arena: &Arena, id: Value) -> Result<Storage, String> {
    let parts = arena.tuple(id).unwrap_or_default();
    if parts.first().and_then(|&kind| arena.text(kind)).map(|kind| &**kind) != Some("storage") {
        return Err(format!("an object outside the pickle that is no storage; {ADVICE}"));
    }
    let wrong = || "a storage that is not described as `('storage', type, key, location, numel)`".to_owned();
    let &[_, dtype, key, _, Value::Int(len), ref view @ ..] = parts else { return Err(wrong()) };
    let Some(&Object::Global(Global::Storage(dtype))) = arena.get(dtype) else { return Err(wrong()) };
    let key = arena.text(key).ok_or_else(wrong)?.clone();
    let len = u64::try_from(len).map_err(|_| wrong())?;
    let start = match view {
        [] | [Value::None] => 0,
        &[view] => match arena.tuple(view) {
            Some(&[_, Value::Int(start), _]) => u64::try_from(start).map_err(|_| wrong())?,
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    Ok(Storage { key, dtype, len, start })
}
