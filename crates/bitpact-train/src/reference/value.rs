//! What a node gives for a batch.

use super::ReferenceBackend;

/// A tensor `[image][row][column][channel]`.
#[derive(Debug)]
pub(super) enum Value {
    /// `scale * code`, signed, so that 0 is the code of zero; `padding` is the code beyond the edges, where the windows
    /// of products reach.
    Codes { codes: Vec<i32>, scale: f32, padding: i32 },
    /// Real numbers.
    Real(Vec<f32>),
    /// The sums of a layer that a batch norm alone reads: `unit * sum + bias`, both one number a channel. Those of
    /// codes are exact.
    Sums { sums: Vec<f64>, unit: Vec<f64>, bias: Vec<f32>, is_exact: bool },
}

impl Value {
    pub(super) fn len(&self) -> usize {
        match self {
            Value::Codes { codes, .. } => codes.len(),
            Value::Real(values) => values.len(),
            Value::Sums { sums, .. } => sums.len(),
        }
    }

    /// A tensor of `len` elements of this one, or zeros, as `from` says for each.
    pub(super) fn gather(&self, len: usize, from: impl Fn(usize) -> Option<usize>) -> Value {
        let gather = |i: usize| from(i);
        match self {
            Value::Codes { codes, scale, padding } => {
                let codes = (0..len).map(|i| gather(i).map_or(0, |i| codes[i])).collect();
                Value::Codes { codes, scale: *scale, padding: *padding }
            }
            Value::Real(values) => Value::Real((0..len).map(|i| gather(i).map_or(0.0, |i| values[i])).collect()),
            Value::Sums { .. } => unreachable!("sums are read by batch norms alone"),
        }
    }
}

impl ReferenceBackend {
    /// The real numbers of a tensor.
    pub(super) fn real(&self, value: &Value) -> Vec<f32> {
        match value {
            Value::Codes { codes, scale, .. } => codes.iter().map(|&q| scale * q as f32).collect(),
            Value::Real(values) => values.clone(),
            Value::Sums { sums, unit, bias, .. } => {
                let channels = unit.iter().zip(bias).cycle();
                let real = |(&z, (&unit, &bias))| self.multiply_add(z as f32, unit as f32, bias);
                sums.iter().zip(channels).map(real).collect()
            }
        }
    }
}
