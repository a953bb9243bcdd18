//! ONNX graphs, node by node.

use std::collections::{BTreeMap, BTreeSet};

use prost::bytes::Bytes;

use bitpact_graph::Shape;

use crate::onnx::proto::{
    Attribute, Dim, Dims, Entry, Graph, Model, Node, OperatorSet, Tensor, TensorType, Type, ValueInfo,
};
use crate::onnx::tensor::kind;

/// Name of the batch dimension.
const BATCH: &str = "N";
/// Constants of at most so many bytes are kept once.
const SHARED: usize = 256;

/// A value of one of the element types that exports use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar {
    U8(u8),
    I64(i64),
    F32(f32),
}

impl Scalar {
    /// Number of the element type.
    pub(super) fn kind(self) -> i32 {
        match self {
            Scalar::U8(_) => kind::UINT8,
            Scalar::I64(_) => kind::INT64,
            Scalar::F32(_) => kind::FLOAT,
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Scalar::U8(v) => vec![v],
            Scalar::I64(v) => v.to_le_bytes().to_vec(),
            Scalar::F32(v) => v.to_le_bytes().to_vec(),
        }
    }
}

/// A parameter of a node.
pub(super) enum Parameter<'a> {
    Int(i64),
    Ints(&'a [usize]),
    Perm(&'a [i64]),
    Text(&'a str),
}

/// A graph that grows. Every value has a name of its own.
pub(super) struct Writer {
    nodes: Vec<Node>,
    initializers: Vec<Tensor>,
    taken: BTreeSet<String>,
    shared: BTreeMap<(i32, Vec<i64>, Vec<u8>), String>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// Images in a batch; any number where `None`.
    batch: Option<i64>,
}

/// What a file says beside its graph.
pub(super) struct Header {
    pub(super) name: String,
    pub(super) ir_version: i64,
    pub(super) opset: i64,
    /// Other domains, each at version 1.
    pub(super) domains: Vec<&'static str>,
    pub(super) metadata: Vec<(&'static str, String)>,
}

impl Writer {
    /// A graph over batches of `batch` images, or of any number, in which the names `reserved` are given by the caller
    /// alone.
    pub(super) fn new<'a>(reserved: impl IntoIterator<Item = &'a str>, batch: Option<i64>) -> Self {
        Self {
            nodes: Vec::new(),
            initializers: Vec::new(),
            taken: reserved.into_iter().map(str::to_owned).collect(),
            shared: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            batch,
        }
    }

    /// A name that nothing has, beginning with `base`.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        let mut n = 1;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    /// A constant of little-endian elements.
    pub(super) fn constant(&mut self, base: &str, kind: i32, dims: &[usize], bytes: Vec<u8>) -> String {
        let dims: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
        let key = (bytes.len() <= SHARED).then(|| (kind, dims.clone(), bytes.clone()));
        if let Some(name) = key.as_ref().and_then(|key| self.shared.get(key)) {
            return name.clone();
        }
        let name = self.fresh(base);
        if let Some(key) = key {
            self.shared.insert(key, name.clone());
        }
        self.initializers.push(Tensor {
            dims,
            data_type: Some(kind),
            name: Some(name.clone()),
            raw_data: Some(Bytes::from(bytes)),
            ..Tensor::default()
        });
        name
    }

    /// A constant without dimensions.
    pub(super) fn scalar(&mut self, base: &str, value: Scalar) -> String {
        self.constant(base, value.kind(), &[], value.bytes())
    }

    /// A list of int64.
    pub(super) fn ints(&mut self, base: &str, values: &[i64]) -> String {
        self.i64s(base, &[values.len()], values)
    }

    /// A tensor of int64.
    pub(super) fn i64s(&mut self, base: &str, dims: &[usize], values: &[i64]) -> String {
        self.constant(base, kind::INT64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of float32.
    pub(super) fn f32s(&mut self, base: &str, dims: &[usize], values: &[f32]) -> String {
        self.constant(base, kind::FLOAT, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// One number a channel, to be broadcast over pixels; one for all where they are equal.
    pub(super) fn channels_i64(&mut self, base: &str, values: &[i64]) -> String {
        match values.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v == first) => self.scalar(base, Scalar::I64(*first)),
            _ => self.i64s(base, &[1, values.len(), 1, 1], values),
        }
    }

    /// As [`Writer::channels_i64`], of float32.
    pub(super) fn channels_f32(&mut self, base: &str, values: &[f32]) -> String {
        match values.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v == first) => self.scalar(base, Scalar::F32(*first)),
            _ => self.f32s(base, &[1, values.len(), 1, 1], values),
        }
    }

    /// A node with one output, whose name begins with `base`.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], base: &str, parameters: &[(&str, Parameter)]) -> String {
        self.node_of("", op, inputs, base, parameters)
    }

    /// A node of a domain.
    pub(super) fn node_of(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        base: &str,
        parameters: &[(&str, Parameter)],
    ) -> String {
        let output = self.fresh(base);
        self.nodes.push(Node {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            name: Some(output.clone()),
            op_type: Some(op.to_owned()),
            attribute: parameters.iter().map(|(name, value)| attribute(name, value)).collect(),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
        });
        output
    }

    /// `Cast` to an element type.
    pub(super) fn cast(&mut self, x: &str, to: i32, base: &str) -> String {
        self.node("Cast", &[x], base, &[("to", Parameter::Int(to.into()))])
    }

    /// `Reshape` to the batch dimension and `dims`.
    pub(super) fn reshape(&mut self, x: &str, dims: &[usize], base: &str) -> String {
        let dims: Vec<i64> = std::iter::once(0).chain(dims.iter().map(|&n| n as i64)).collect();
        let dims = self.ints("shape", &dims);
        self.node("Reshape", &[x, &dims], base, &[])
    }

    /// Gives the value `x` the reserved name `name`.
    pub(super) fn name(&mut self, x: &str, name: &str) {
        // A node is named after its output until that has a reserved name.
        let is_last = self.nodes.last().is_some_and(|last| last.output[0] == x && last.name.as_deref() == Some(x));
        if !is_last {
            self.node("Identity", &[x], name, &[]);
        }
        self.rename_last(name);
    }

    fn rename_last(&mut self, name: &str) {
        let last = self.nodes.last_mut().expect("a node was written");
        last.output[0] = name.to_owned();
        last.name = Some(format!("{name}/{}", last.op_type.as_deref().unwrap_or_default()));
    }

    /// An input of images, channels first.
    pub(super) fn input(&mut self, name: &str, kind: i32, shape: Shape) {
        self.inputs.push(value_info(name, kind, self.batch, &[shape.c, shape.h, shape.w]));
    }

    /// An output with these sizes behind the batch.
    pub(super) fn output(&mut self, name: &str, kind: i32, dims: &[usize]) {
        self.outputs.push(value_info(name, kind, self.batch, dims));
    }

    /// The file.
    pub(super) fn finish(self, header: Header) -> Model {
        let set = |domain: &str, version| OperatorSet { domain: Some(domain.to_owned()), version: Some(version) };
        let graph = Graph {
            node: self.nodes,
            name: Some(header.name),
            initializer: self.initializers,
            input: self.inputs,
            output: self.outputs,
        };
        let entry = |(key, value): (&str, String)| Entry { key: Some(key.to_owned()), value: Some(value) };
        Model {
            ir_version: Some(header.ir_version),
            producer_name: Some("bitpact".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(graph),
            opset_import: std::iter::once(set("", header.opset))
                .chain(header.domains.into_iter().map(|domain| set(domain, 1)))
                .collect(),
            metadata_props: header.metadata.into_iter().map(entry).collect(),
            functions: Vec::new(),
        }
    }
}

fn attribute(name: &str, value: &Parameter) -> Attribute {
    /// Numbers of `AttributeProto.AttributeType`.
    const INT: i32 = 2;
    const STRING: i32 = 3;
    const INTS: i32 = 7;
    let named = |of: i32| Attribute { name: Some(name.to_owned()), r#type: Some(of), ..Attribute::default() };
    match value {
        Parameter::Int(i) => Attribute { i: Some(*i), ..named(INT) },
        Parameter::Ints(ints) => Attribute { ints: ints.iter().map(|&i| i as i64).collect(), ..named(INTS) },
        Parameter::Perm(ints) => Attribute { ints: ints.to_vec(), ..named(INTS) },
        Parameter::Text(text) => Attribute { s: Some(Bytes::copy_from_slice(text.as_bytes())), ..named(STRING) },
    }
}

fn value_info(name: &str, kind: i32, batch: Option<i64>, dims: &[usize]) -> ValueInfo {
    let batch = Dim { dim_value: batch, dim_param: batch.is_none().then(|| BATCH.to_owned()) };
    let size = |&n: &usize| Dim { dim_value: Some(n as i64), dim_param: None };
    let shape = Dims { dim: std::iter::once(batch).chain(dims.iter().map(size)).collect() };
    let tensor = TensorType { elem_type: Some(kind), shape: Some(shape) };
    ValueInfo { name: Some(name.to_owned()), r#type: Some(Type { tensor_type: Some(tensor) }) }
}
