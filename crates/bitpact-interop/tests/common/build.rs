//! Small ONNX files.

use bitpact_interop::onnx::proto;
use prost::Message;

/// A file in the making: nodes read what stands before them.
#[derive(Default)]
pub(crate) struct File {
    pub(crate) graph: proto::Graph,
    pub(crate) opset: i64,
    /// Domains beside ONNX's own.
    pub(crate) domains: Vec<&'static str>,
}

/// A parameter of a node.
pub(crate) fn ints(name: &str, values: &[i64]) -> proto::Attribute {
    proto::Attribute { name: Some(name.to_owned()), ints: values.to_vec(), ..Default::default() }
}

/// A parameter of a node.
pub(crate) fn int(name: &str, value: i64) -> proto::Attribute {
    proto::Attribute { name: Some(name.to_owned()), i: Some(value), ..Default::default() }
}

/// A parameter of a node.
pub(crate) fn float(name: &str, value: f32) -> proto::Attribute {
    proto::Attribute { name: Some(name.to_owned()), f: Some(value), ..Default::default() }
}

/// A parameter of a node.
pub(crate) fn text(name: &str, value: &str) -> proto::Attribute {
    proto::Attribute { name: Some(name.to_owned()), s: Some(value.to_owned().into()), ..Default::default() }
}

/// An input or output of floats; 0 for a size that is open.
pub(crate) fn value(name: &str, dims: &[i64]) -> proto::ValueInfo {
    let dim = dims.iter().map(|&size| proto::Dim {
        dim_value: (size > 0).then_some(size),
        dim_param: (size == 0).then(|| "open".to_owned()),
    });
    let shape = Some(proto::Dims { dim: dim.collect() });
    let tensor_type = Some(proto::TensorType { elem_type: Some(1), shape });
    proto::ValueInfo { name: Some(name.to_owned()), r#type: Some(proto::Type { tensor_type }) }
}

impl File {
    /// A network that reads `x` of these sizes and gives `y`.
    pub(crate) fn new(dims: &[i64]) -> Self {
        let graph =
            proto::Graph { input: vec![value("x", dims)], output: vec![value("y", &[1, 1])], ..Default::default() };
        Self { graph, opset: 17, domains: Vec::new() }
    }

    /// Adds a tensor of floats, drawn from a sequence that its name begins.
    pub(crate) fn drawn(mut self, name: &str, dims: &[i64]) -> Self {
        let count = dims.iter().product::<i64>() as u64;
        let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
        let draw = |i: u64| {
            let mixed = seed.wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((mixed >> 40) as f32 / (1u64 << 24) as f32) - 0.5
        };
        let values: Vec<f32> = (0..count).map(draw).collect();
        self.graph.initializer.push(floats(name, dims, &values));
        self
    }

    /// Adds a tensor of floats.
    pub(crate) fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.graph.initializer.push(floats(name, dims, values));
        self
    }

    /// Adds a tensor of whole numbers of the type `kind`.
    pub(crate) fn whole(mut self, name: &str, kind: i32, dims: &[i64], values: &[i64]) -> Self {
        let tensor = proto::Tensor {
            name: Some(name.to_owned()),
            dims: dims.to_vec(),
            data_type: Some(kind),
            ..Default::default()
        };
        let tensor = match kind {
            7 => proto::Tensor { int64_data: values.to_vec(), ..tensor },
            _ => proto::Tensor { int32_data: values.iter().map(|&v| v as i32).collect(), ..tensor },
        };
        self.graph.initializer.push(tensor);
        self
    }

    /// Adds a node.
    pub(crate) fn node(self, op: &str, inputs: &[&str], output: &str, attributes: Vec<proto::Attribute>) -> Self {
        self.node_of("", op, inputs, output, attributes)
    }

    /// Adds a node of another domain.
    pub(crate) fn node_of(
        mut self,
        domain: &'static str,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<proto::Attribute>,
    ) -> Self {
        self.graph.node.push(proto::Node {
            op_type: Some(op.to_owned()),
            name: Some(format!("node_{output}")),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: output.split(' ').map(str::to_owned).collect(),
            attribute,
            domain: Some(domain.to_owned()),
        });
        self
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let set =
            |domain: &str, version| proto::OperatorSet { domain: Some(domain.to_owned()), version: Some(version) };
        let others = self.domains.iter().map(|domain| set(domain, 1));
        let model = proto::Model {
            ir_version: Some(8),
            graph: Some(self.graph.clone()),
            opset_import: std::iter::once(set("", self.opset)).chain(others).collect(),
            ..Default::default()
        };
        model.encode_to_vec()
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> proto::Tensor {
    proto::Tensor {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: values.to_vec(),
        ..Default::default()
    }
}
