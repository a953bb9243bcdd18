//! Arithmetic on the elements of constants.

use super::{bounded, broadcast, broadcast_to, take};
use crate::onnx::tensor::{Array, Data, kind};

/// The array as elements of the type `to`.
pub(super) fn cast(array: &Array, to: i32) -> Result<Array, String> {
    let dims = array.dims.clone();
    let data = if kind::is_float(to) {
        Data::Float(array.to_floats())
    } else {
        let (bits, signed) = kind::integer(to).ok_or_else(|| format!("a cast to {}", kind::name(to)))?;
        let wrap = |v: i64| match (bits, signed) {
            (64, _) => v,
            (_, true) => v << (64 - bits) >> (64 - bits),
            (_, false) => v & ((1 << bits) - 1),
        };
        Data::Int(match &array.data {
            Data::Int(data) if to == kind::BOOL => data.iter().map(|&v| i64::from(v != 0)).collect(),
            Data::Float(data) if to == kind::BOOL => data.iter().map(|&v| i64::from(v != 0.0)).collect(),
            Data::Int(data) => data.iter().map(|&v| wrap(v)).collect(),
            Data::Float(data) => data.iter().map(|&v| wrap(v as i64)).collect(),
        })
    };
    Ok(Array { dims, kind: to, data, steps: None })
}

/// A function of each element.
pub(super) fn unary(op: &str, array: &Array) -> Result<Array, String> {
    let data = match (&array.data, op) {
        (Data::Int(data), "Not") => Data::Int(data.iter().map(|&v| i64::from(v == 0)).collect()),
        (Data::Int(data), "Neg") => Data::Int(data.iter().map(|&v| v.wrapping_neg()).collect()),
        (Data::Int(data), "Abs") => Data::Int(data.iter().map(|&v| v.wrapping_abs()).collect()),
        (Data::Float(data), _) => {
            let of: fn(f32) -> f32 = match op {
                "Neg" => |v| -v,
                "Abs" => f32::abs,
                "Floor" => f32::floor,
                "Ceil" => f32::ceil,
                "Round" => f32::round_ties_even,
                "Sqrt" => f32::sqrt,
                "Reciprocal" => f32::recip,
                "Exp" => |v| libm::exp(f64::from(v)) as f32,
                "Log" => |v| libm::log(f64::from(v)) as f32,
                _ => return Err(format!("{op} of numbers that are not whole")),
            };
            Data::Float(data.iter().map(|&v| of(v)).collect())
        }
        _ => return Err(format!("{op} of whole numbers")),
    };
    Ok(Array { dims: array.dims.clone(), kind: array.kind, data, steps: None })
}

/// An operation on the elements of two arrays that are broadcast to each other.
pub(super) fn binary(op: &str, left: &Array, right: &Array) -> Result<Array, String> {
    let dims = broadcast(&left.dims, &right.dims)?;
    bounded(&dims)?;
    let (left, right) = (broadcast_to(left, &dims), broadcast_to(right, &dims));
    let mut of = left.kind;
    let data = match (&left.data, &right.data) {
        (Data::Int(a), Data::Int(b)) => {
            if matches!(op, "Equal" | "Less" | "Greater") {
                of = kind::BOOL;
            }
            let pairs = a.iter().zip(b).map(|(&a, &b)| {
                Some(match op {
                    "Add" => a.wrapping_add(b),
                    "Sub" => a.wrapping_sub(b),
                    "Mul" => a.wrapping_mul(b),
                    "Div" => a.checked_div(b)?,
                    "Fmod" => a.checked_rem(b)?,
                    // The sign is the divisor's.
                    "Mod" => a.checked_rem(b)?.wrapping_add(b).checked_rem(b)?,
                    "Pow" => a.checked_pow(u32::try_from(b).ok()?)?,
                    "Min" => a.min(b),
                    "Max" => a.max(b),
                    "Equal" => i64::from(a == b),
                    "Less" => i64::from(a < b),
                    "Greater" => i64::from(a > b),
                    "And" => i64::from(a != 0 && b != 0),
                    _ => i64::from(a != 0 || b != 0),
                })
            });
            Data::Int(pairs.collect::<Option<_>>().ok_or_else(|| format!("{op} of whole numbers without a result"))?)
        }
        _ => {
            let (a, b) = (left.to_floats(), right.to_floats());
            let pairs = a.into_iter().zip(b);
            match op {
                "Equal" | "Less" | "Greater" => {
                    of = kind::BOOL;
                    let holds = |(a, b): (f32, f32)| match op {
                        "Equal" => a == b,
                        "Less" => a < b,
                        _ => a > b,
                    };
                    Data::Int(pairs.map(|pair| i64::from(holds(pair))).collect())
                }
                _ => {
                    let of: fn(f32, f32) -> f32 = match op {
                        "Add" => |a, b| a + b,
                        "Sub" => |a, b| a - b,
                        "Mul" => |a, b| a * b,
                        "Div" => |a, b| a / b,
                        "Fmod" => |a, b| a % b,
                        "Pow" => |a, b| libm::pow(f64::from(a), f64::from(b)) as f32,
                        "Min" => f32::min,
                        "Max" => f32::max,
                        _ => return Err(format!("{op} of numbers that are not whole")),
                    };
                    Data::Float(pairs.map(|(a, b)| of(a, b)).collect())
                }
            }
        }
    };
    if matches!(data, Data::Float(_)) && kind::integer(of).is_some() && of != kind::BOOL {
        of = kind::FLOAT;
    }
    Ok(Array { dims, kind: of, data, steps: None })
}

/// Sums, products or limits along the axes `on`.
pub(super) fn reduce(op: &str, array: &Array, on: &[usize], keep: bool) -> Result<Array, String> {
    let step = match op {
        "ReduceProd" => "Mul",
        "ReduceSum" => "Add",
        "ReduceMin" => "Min",
        _ => "Max",
    };
    let mut so_far = array.clone();
    for &at in on {
        if so_far.dims[at] == 0 {
            return Err("an empty tensor".to_owned());
        }
        let parts = (1..so_far.dims[at]).map(|i| take(&so_far, at, &[i]));
        let first = take(&so_far, at, &[0]);
        so_far = parts.collect::<Vec<_>>().iter().try_fold(first, |sum, part| binary(step, &sum, part))?;
    }
    if !keep {
        so_far.dims = (0..array.dims.len()).filter(|i| !on.contains(i)).map(|i| so_far.dims[i]).collect();
    }
    Ok(so_far)
}
