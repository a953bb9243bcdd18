//! Arrays of NumPy, and what can become one, as bytes of images and as elements of data sets.

use bitpact::unstable::data::own::{Array, Values};
use bitpact::{InputDescription, Shape};
use numpy::ndarray::{ArrayViewD, IxDyn};
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::error::wrong;

/// An array of NumPy in this machine's order of bytes: `object` itself, or what `bitpact._arrays.as_array` makes of it.
pub(crate) fn as_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = object.cast::<PyUntypedArray>()
        && array.dtype().is_native_byteorder() != Some(false)
    {
        return Ok(array.clone());
    }
    let made = object.py().import("bitpact._arrays")?.getattr("as_array")?.call1((object,))?;
    Ok(made.cast_into::<PyUntypedArray>()?)
}

/// Examples as the bytes that a network reads.
pub(crate) struct Batch<'py> {
    bytes: Bytes<'py>,
    /// Number of examples, at least one.
    pub(crate) len: usize,
}

/// The bytes, borrowed where the array lies in memory as the network reads it.
enum Bytes<'py> {
    Codes8(PyReadonlyArrayDyn<'py, u8>),
    #[cfg(target_endian = "little")]
    Codes16(PyReadonlyArrayDyn<'py, u16>),
    Own(Vec<u8>),
}

impl Batch<'_> {
    /// The bytes of all examples, one after the other.
    pub(crate) fn bytes(&self) -> PyResult<&[u8]> {
        let is_contiguous = "a batch is borrowed only where it is contiguous";
        Ok(match &self.bytes {
            Bytes::Codes8(array) => array.as_slice().expect(is_contiguous),
            #[cfg(target_endian = "little")]
            Bytes::Codes16(array) => bytemuck::cast_slice(array.as_slice().expect(is_contiguous)),
            Bytes::Own(bytes) => bytes,
        })
    }
}

/// How the sides of an array lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    len: usize,
    is_planes: bool,
    is_single: bool,
}

/// How an array of the sides `sides` holds examples of `shape`, if it does.
fn layout(sides: &[usize], shape: Shape) -> Option<Layout> {
    let Shape { h, w, c } = shape;
    // What may be, the form, and whether channels come first.
    let forms: [(bool, &[usize], bool); 5] = [
        (true, &[h, w, c], false),
        (c == 1, &[h, w], false),
        (h == 1, &[w, c], false),
        (h == 1 && c == 1, &[w], false),
        (true, &[c, h, w], true),
    ];
    forms.into_iter().filter(|(may_be, ..)| *may_be).find_map(|(_, form, is_planes)| match sides {
        [len, rest @ ..] if rest == form => Some(Layout { len: *len, is_planes, is_single: false }),
        _ if sides == form => Some(Layout { len: 1, is_planes, is_single: true }),
        _ => None,
    })
}

/// The examples in `object`, for a network that reads codes of `input` in `shape`: `[n, rows, columns, channels]`, or
/// one example without `n`, or with the channels first. Contiguous arrays are borrowed, others copied.
pub(crate) fn batch<'py>(object: &Bound<'py, PyAny>, input: &InputDescription, shape: Shape) -> PyResult<Batch<'py>> {
    let array = as_array(object)?;
    let expected = if input.bits == 8 { "uint8" } else { "uint16" };
    let Some(found) = layout(array.shape(), shape) else {
        let Shape { h, w, c } = shape;
        return Err(wrong(format!(
            "the images have the shape {}; expected (n, {h}, {w}, {c}) or ({h}, {w}, {c})",
            sides(array.shape())
        )));
    };
    if found.len == 0 {
        return Err(wrong(format!("the images have the shape {}, which holds none", sides(array.shape()))));
    }
    let is_whole = array.is_c_contiguous() && !found.is_planes;
    let bytes = match input.bits {
        8 => array.cast::<PyArrayDyn<u8>>().ok().map(|array| -> PyResult<Bytes<'py>> {
            let array = borrowed(array)?;
            if is_whole {
                return Ok(Bytes::Codes8(array));
            }
            Ok(Bytes::Own(in_order(array.as_array(), found)))
        }),
        _ => array.cast::<PyArrayDyn<u16>>().ok().map(|array| -> PyResult<Bytes<'py>> {
            let array = borrowed(array)?;
            #[cfg(target_endian = "little")]
            if is_whole {
                return Ok(Bytes::Codes16(array));
            }
            Ok(Bytes::Own(in_order(array.as_array(), found).into_iter().flat_map(u16::to_le_bytes).collect()))
        }),
    };
    match bytes {
        Some(bytes) => Ok(Batch { bytes: bytes?, len: found.len }),
        None => {
            let dtype = array.dtype();
            Err(wrong(format!(
                "the images are {dtype}; expected {expected}: the network reads codes, and `quantize` makes codes of real values"
            )))
        }
    }
}

/// The elements of `view` in the order of rows, columns and channels.
fn in_order<T: Copy>(view: ArrayViewD<'_, T>, layout: Layout) -> Vec<T> {
    match (layout.is_planes, layout.is_single) {
        (false, _) => view.iter().copied().collect(),
        (true, false) => view.permuted_axes(IxDyn(&[0, 2, 3, 1])).iter().copied().collect(),
        (true, true) => view.permuted_axes(IxDyn(&[1, 2, 0])).iter().copied().collect(),
    }
}

fn borrowed<'py, T: Element>(array: &Bound<'py, PyArrayDyn<T>>) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    array.try_readonly().map_err(|error| wrong(format!("the array cannot be read: {error}")))
}

/// A shape as Python writes it.
fn sides(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        all => format!("({})", all.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// The elements of `object`, which errors call `name`, copied: inputs or targets of a data set.
pub(crate) fn elements(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Array> {
    let array = as_array(object)?;
    let shape = array.shape().to_vec();
    let values = of_type::<u8, _>(&array, Values::Bytes)
        .or_else(|| of_type::<bool, _>(&array, |values| Values::Bytes(values.into_iter().map(u8::from).collect())))
        .or_else(|| of_type::<u16, _>(&array, Values::Unsigned16))
        .or_else(|| integers::<i64>(&array))
        .or_else(|| integers::<i32>(&array))
        .or_else(|| integers::<i16>(&array))
        .or_else(|| integers::<i8>(&array))
        .or_else(|| integers::<u32>(&array))
        // Numbers of 2^63 and more are no labels: they become negative and are refused as such.
        .or_else(|| {
            of_type::<u64, _>(&array, |values| Values::Integers(values.into_iter().map(|v| v as i64).collect()))
        })
        .or_else(|| of_type::<f64, _>(&array, Values::Floats))
        .or_else(|| of_type::<f32, _>(&array, |values| Values::Floats(values.into_iter().map(f64::from).collect())));
    match values {
        Some(values) => Ok(Array { shape, values: values? }),
        None => {
            let dtype = array.dtype();
            Err(wrong(format!("{name} is {dtype}; expected integers of up to 64 bits, float32, float64 or bool")))
        }
    }
}

fn integers<T: Element + Copy + Into<i64>>(array: &Bound<'_, PyUntypedArray>) -> Option<PyResult<Values>> {
    of_type::<T, _>(array, |values| Values::Integers(values.into_iter().map(Into::into).collect()))
}

/// What `make` makes of the elements in C order, if they are of type `T`.
fn of_type<T: Element + Copy, R>(
    array: &Bound<'_, PyUntypedArray>,
    make: impl FnOnce(Vec<T>) -> R,
) -> Option<PyResult<R>> {
    let array = array.cast::<PyArrayDyn<T>>().ok()?;
    Some(borrowed(array).map(|array| make(array.as_array().iter().copied().collect())))
}

/// The float32 elements of `object` in C order, and its sides; `name` is what errors call it.
pub(crate) fn floats(object: &Bound<'_, PyAny>, name: &str) -> PyResult<(Vec<usize>, Vec<f32>)> {
    let array = as_array(object)?;
    let shape = array.shape().to_vec();
    let values = of_type::<f32, _>(&array, |values| values)
        .or_else(|| of_type::<f64, _>(&array, |values| values.into_iter().map(|value| value as f32).collect()))
        .or_else(|| of_type::<i64, _>(&array, |values| values.into_iter().map(|value| value as f32).collect()))
        .or_else(|| of_type::<i32, _>(&array, |values| values.into_iter().map(|value| value as f32).collect()));
    match values {
        Some(values) => Ok((shape, values?)),
        None => {
            let dtype = array.dtype();
            Err(wrong(format!("{name} is {dtype}; expected float32 or float64")))
        }
    }
}

/// `values` as an array of NumPy of `len` examples of `shape`, or of its channels alone where that is one pixel.
pub(crate) fn out<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    len: usize,
    shape: Shape,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let Shape { h, w, c } = shape;
    let sides = if (h, w) == (1, 1) { vec![len, c] } else { vec![len, h, w, c] };
    PyArray1::from_vec(py, values).reshape(IxDyn(&sides))
}
