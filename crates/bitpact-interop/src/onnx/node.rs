//! A node with its parameters by name.

use super::proto;

/// A node of the file, seen as its operator and parameters.
#[derive(Clone, Copy)]
pub(super) struct NodeView<'a> {
    pub(super) node: &'a proto::Node,
    /// Version of ONNX's operators in this file.
    pub(super) opset: i64,
}

impl<'a> NodeView<'a> {
    /// Operator.
    pub(super) fn op(&self) -> &'a str {
        self.node.op_type.as_deref().unwrap_or("")
    }

    /// Name of the node, or of what it gives.
    pub(super) fn name(&self) -> &'a str {
        let output = || self.node.output.first().map_or("", String::as_str);
        self.node.name.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(output)
    }

    fn attribute(&self, name: &str) -> Option<&'a proto::Attribute> {
        self.node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// A whole number.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// A number.
    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    /// Whole numbers, where given.
    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    /// Numbers, where given.
    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| &attribute.floats[..])
    }

    /// A text.
    pub(super) fn text(&self, name: &str, default: &'static str) -> &'a str {
        let bytes = self.attribute(name).and_then(|attribute| attribute.s.as_deref());
        bytes.map_or(default, |bytes| std::str::from_utf8(bytes).unwrap_or("text that is not UTF-8"))
    }

    /// A tensor, where given.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a proto::Tensor> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref())
    }
}

/// The axis that a number of ONNX means in a tensor of `rank` sizes; negative ones count from the end.
pub(super) fn axis(number: i64, rank: usize) -> Result<usize, String> {
    let at = if number < 0 { number.checked_add(rank as i64) } else { Some(number) };
    at.and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < rank)
        .ok_or_else(|| format!("axis {number} of a tensor with {rank} sizes"))
}

/// As [`axis`], for each of `numbers`.
pub(super) fn axes(numbers: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    numbers.iter().map(|&number| axis(number, rank)).collect()
}

/// The sizes that a reshape to `target` gives a tensor of these sizes: 0 keeps a size unless `allow_zero`, -1 stands
/// for what is left.
pub(super) fn reshaped(sizes: &[usize], target: &[i64], allow_zero: bool) -> Result<Vec<usize>, String> {
    let wrong = || format!("the shape {target:?} for a tensor of {sizes:?}");
    let total: usize = sizes.iter().product();
    let mut result = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, &size) in target.iter().enumerate() {
        result.push(match size {
            -1 if open.replace(i).is_none() => 1,
            0 if !allow_zero => *sizes.get(i).ok_or_else(wrong)?,
            size => usize::try_from(size).map_err(|_| wrong())?,
        });
    }
    super::tensor::volume(&result).ok_or_else(wrong)?;
    let known: usize = result.iter().product();
    if let Some(open) = open {
        if known == 0 || !total.is_multiple_of(known) {
            return Err(wrong());
        }
        result[open] = total / known;
    }
    if result.iter().product::<usize>() == total { Ok(result) } else { Err(wrong()) }
}

/// First element, number of elements and step of a slice of `size` elements from `start` to before `end`.
pub(super) fn range(start: i64, end: i64, step: i64, size: usize) -> Result<(usize, usize, i64), String> {
    let n = size as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    if step == 0 {
        return Err("a slice with step 0".to_owned());
    }
    let (first, last) = match step > 0 {
        true => (from_end(start).clamp(0, n), from_end(end).clamp(0, n)),
        false if n == 0 => (0, 0),
        false => (from_end(start).clamp(0, n - 1), from_end(end).clamp(-1, n - 1)),
    };
    let length = if step > 0 { last - first } else { first - last };
    let count = if length <= 0 { 0 } else { (length as u64).div_ceil(step.unsigned_abs()) };
    Ok((first.max(0) as usize, count as usize, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_count_from_both_ends() {
        assert_eq!(range(0, i64::MAX, 1, 5), Ok((0, 5, 1)));
        assert_eq!(range(1, -1, 2, 6), Ok((1, 2, 2)));
        assert_eq!(range(-1, i64::MIN, -1, 4), Ok((3, 4, -1)));
        assert_eq!(range(-1, -3, -1, 4), Ok((3, 2, -1)));
        assert_eq!(range(3, 1, 1, 4), Ok((3, 0, 1)));
        assert!(range(0, 1, 0, 4).is_err());
        assert_eq!(range(-1, i64::MIN, -1, 0), Ok((0, 0, -1)));
    }

    #[test]
    fn a_reshape_keeps_and_completes_sizes() {
        assert_eq!(reshaped(&[2, 3, 4], &[0, -1], false), Ok(vec![2, 12]));
        assert_eq!(reshaped(&[2, 3, 4], &[24], false), Ok(vec![24]));
        assert!(reshaped(&[2, 3, 4], &[5, -1], false).is_err());
        assert!(reshaped(&[2, 3, 4], &[-1, -1], false).is_err());
        assert!(reshaped(&[2, 3, 4], &[i64::MAX, i64::MAX], false).is_err());
        assert!(reshaped(&[2], &[0, 0, 2], false).is_err());
        assert!(reshaped(&[0], &[0, 1 << 40, 1 << 40], true).is_err());
    }
}
