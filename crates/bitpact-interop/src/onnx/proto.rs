//! The messages of ONNX files, as far as they are read or written: fields that nothing needs are skipped.
//!
//! Numbers of the fields are those of `onnx.proto` (IR version 3 and later, opset 9 and later).

use prost::bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A network with the operator sets that it was written for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Model {
    /// Version of the file format.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// Program that wrote the file.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// Version of that program.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// The network.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Operator sets, one a domain.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    /// What else is known of the network, by name.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
    /// Operators that the file defines itself.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<Function>,
}

/// Version of the operators of a domain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSet {
    /// Domain; empty for ONNX's own operators.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// An operator that a file defines; only its name is read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Function {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
}

/// Nodes in the order of computation, with the tensors that they read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Graph {
    /// The nodes.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Constant tensors.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// Inputs; before IR version 4 also one for each initializer.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Names of what it reads; empty for an optional input that is absent.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of what it gives.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// Operator.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// Parameters.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Domain of the operator; empty for ONNX's own.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

/// A parameter of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A number.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// A whole number.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A text.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// A tensor.
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    /// Numbers.
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    /// Whole numbers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// Number of the parameter's type.
    #[prost(int32, optional, tag = "20")]
    pub r#type: Option<i32>,
    /// Name of the parameter of the function that this one stands for.
    #[prost(string, optional, tag = "21")]
    pub ref_attr_name: Option<String>,
}

/// A tensor, in one of many encodings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// Sizes, outermost first.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// Number of the element type.
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Elements of float32.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of integers up to 32 bits, of narrower floats, and of packed codes.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of int64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// Elements as little-endian bytes.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of float64.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of uint32 and uint64.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Where the elements stand in another file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    /// 1 where the elements stand in another file.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// A key with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// Value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// Name and type of an input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfo {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

/// Type of a value; only tensors are read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Type {
    /// The tensor's type.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// Element type and shape of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    /// Number of the element type.
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Dims>,
}

/// Sizes of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dims {
    /// The sizes, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

/// One size, or a name for one that is open.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dim {
    /// The size.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    /// Its name.
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}

/// Fields of a file at the most: every one costs memory, however short it is in the file.
const MOST_FIELDS: usize = 1 << 22;

/// Bytes of a list of varints at the most: in memory each takes eight bytes.
const LONGEST_VARINTS: usize = 1 << 27;

/// The messages that hold messages.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Dims,
    Leaf,
}

/// Reads a file of ONNX.
///
/// # Errors
/// Bytes that are no such message, or so many fields that they would not fit in memory.
pub fn decode(bytes: Bytes) -> Result<Model, String> {
    use prost::Message;
    let mut fields = 0;
    count(bytes.clone(), Kind::Model, &mut fields)?;
    Model::decode(bytes).map_err(|error| format!("is not an ONNX file: {error}"))
}

/// Counts the fields of a message and of those in it.
fn count(mut bytes: Bytes, kind: Kind, fields: &mut usize) -> Result<(), String> {
    let broken = |error: prost::DecodeError| format!("is not an ONNX file: {error}");
    while bytes.has_remaining() {
        *fields += 1;
        if *fields > MOST_FIELDS {
            return Err(format!("has more than {MOST_FIELDS} fields, nodes and tensors, expected fewer"));
        }
        let (tag, wire) = decode_key(&mut bytes).map_err(broken)?;
        if wire != WireType::LengthDelimited {
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(broken)?;
            continue;
        }
        let length = decode_varint(&mut bytes).map_err(broken)?;
        let Some(length) = usize::try_from(length).ok().filter(|&length| length <= bytes.remaining()) else {
            return Err(format!("ends inside a field of {length} bytes: it is cut off, or no ONNX file"));
        };
        let inside = bytes.split_to(length);
        let next = match (kind, tag) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Graph, 1) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Kind::Tensor,
            (Kind::Graph, 11 | 12) => Kind::Value,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::Value, 2) => Kind::Type,
            (Kind::Type, 1) => Kind::TensorType,
            (Kind::TensorType, 2) => Kind::Dims,
            (Kind::Model, 8 | 14 | 25) | (Kind::Tensor, 13) | (Kind::Dims, 1) => Kind::Leaf,
            (Kind::Attribute, 8) | (Kind::Tensor, 1 | 5 | 7 | 11) if length > LONGEST_VARINTS => {
                return Err(format!("has a list of integers of {length} bytes, expected at most {LONGEST_VARINTS}"));
            }
            _ => continue,
        };
        count(inside, next, fields)?;
    }
    Ok(())
}
