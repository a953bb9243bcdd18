//! Values of a pickle.

use std::rc::Rc;

use crate::weights::dtype::DType;

/// A value of a pickle; what is not a single number lies in an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Object(usize),
}

/// What a value refers to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Text(Rc<str>),
    /// An integer beyond 64 bits, little-endian in two's complement.
    Long(Box<[u8]>),
    List(Vec<Value>),
    Tuple(Box<[Value]>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(Storage),
    Tensor(Box<StridedTensor>),
}

/// Everything that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(DType),
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch" | "torch.cuda", storage) => Self::Storage(match storage {
                "DoubleStorage" => DType::F64,
                "FloatStorage" => DType::F32,
                "HalfStorage" => DType::F16,
                "BFloat16Storage" => DType::Bf16,
                "LongStorage" => DType::I64,
                "IntStorage" => DType::I32,
                "ShortStorage" => DType::I16,
                "CharStorage" => DType::I8,
                "ByteStorage" => DType::U8,
                "BoolStorage" => DType::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A run of numbers that tensors look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Its name in the file.
    pub(crate) key: Rc<str>,
    pub(crate) dtype: DType,
    /// Numbers of the whole storage.
    pub(crate) len: u64,
    /// Where this view of it begins, in numbers.
    pub(crate) start: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StridedTensor {
    pub(crate) storage: Storage,
    /// The first number, from the beginning of the storage.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    /// Numbers from one element to the next, a dimension each.
    pub(crate) strides: Vec<u64>,
}

/// The objects that values refer to.
#[derive(Debug, Default)]
pub(crate) struct Arena(pub(super) Vec<Object>);

impl Arena {
    /// The object that a value refers to; `None` of a number.
    pub(crate) fn get(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(at) => self.0.get(at),
            _ => None,
        }
    }

    pub(crate) fn text(&self, value: Value) -> Option<&Rc<str>> {
        match self.get(value)? {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// The values of a tuple or a list.
    pub(crate) fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::Tuple(values) => Some(values),
            Object::List(values) => Some(values),
            _ => None,
        }
    }

    /// Every storage that the pickle names.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.0.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Keys and values of a dict, in the order they were set.
    pub(crate) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.get(value)? {
            Object::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }
}
