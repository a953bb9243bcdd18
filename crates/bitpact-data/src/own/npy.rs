//! NumPy's array files: `.npy` and the `.npz` archives of them.
//!
//! The format is the one of numpy.lib.format, versions 1 to 3: a magic, a head that is a Python dictionary of a type,
//! an order and a shape, and the elements. Sizes are checked before anything is allocated, and no Python is evaluated.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::layout::wrong;
use crate::DataError;
use crate::files::read_promised;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of the longest head that is read; NumPy itself warns of longer ones than 10,000.
const LONGEST_HEAD: usize = 1 << 16;
/// Sides of an array at most, as in NumPy.
const MOST_SIDES: usize = 64;

/// An array of numbers in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes of its sides, the outermost first.
    pub shape: Vec<usize>,
    /// Elements, as many as the product of the sides.
    pub values: Values,
}

/// Elements of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Bytes, or booleans as 0 and 1.
    Bytes(Vec<u8>),
    /// Unsigned integers of 16 bits.
    Unsigned16(Vec<u16>),
    /// Integers of other types.
    Integers(Vec<i64>),
    /// float32 and float64.
    Floats(Vec<f64>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Values::Bytes(values) => values.len(),
            Values::Unsigned16(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Floats(values) => values.len(),
        }
    }

    /// What they are, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Values::Bytes(_) => "bytes",
            Values::Unsigned16(_) | Values::Integers(_) => "integers",
            Values::Floats(_) => "floats",
        }
    }

    /// The elements as numbers; integers beyond 2^53 are rounded.
    pub(crate) fn numbers(self) -> Vec<f64> {
        match self {
            Values::Bytes(values) => values.into_iter().map(f64::from).collect(),
            Values::Unsigned16(values) => values.into_iter().map(f64::from).collect(),
            Values::Integers(values) => values.into_iter().map(|value| value as f64).collect(),
            Values::Floats(values) => values,
        }
    }

    fn permuted(self, from: impl Fn(usize) -> usize) -> Self {
        fn pick<T: Copy>(values: &[T], from: impl Fn(usize) -> usize) -> Vec<T> {
            (0..values.len()).map(|i| values[from(i)]).collect()
        }
        match self {
            Values::Bytes(values) => Values::Bytes(pick(&values, from)),
            Values::Unsigned16(values) => Values::Unsigned16(pick(&values, from)),
            Values::Integers(values) => Values::Integers(pick(&values, from)),
            Values::Floats(values) => Values::Floats(pick(&values, from)),
        }
    }
}

/// Reads the array of a `.npy` file.
pub(crate) fn read(path: &Path) -> Result<Array, DataError> {
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    parse(BufReader::new(file)).map_err(|what| wrong(path, what))
}

/// Names of the arrays of an `.npz` file, without `.npy`, and reading one by its number.
pub(crate) struct Archive<'a> {
    path: &'a Path,
    zip: zip::ZipArchive<BufReader<File>>,
    pub(crate) names: Vec<String>,
}

impl<'a> Archive<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
        let zip = zip::ZipArchive::new(BufReader::new(file))
            .map_err(|error| wrong(path, format!("is no .npz archive: {error}")))?;
        let names: Vec<String> =
            zip.file_names().map(|name| name.map(|n| n.into_owned()).unwrap_or_default()).collect();
        let names = names.into_iter().map(|name| name.strip_suffix(".npy").unwrap_or_default().to_owned()).collect();
        Ok(Self { path, zip, names })
    }

    pub(crate) fn read(&mut self, index: usize) -> Result<Array, DataError> {
        let (path, name) = (self.path, self.names[index].clone());
        let fault = |what: String| wrong(path, format!("{name}.npy: {what}"));
        let member = self.zip.by_index(index).map_err(|error| fault(error.to_string()))?;
        parse(BufReader::new(member)).map_err(fault)
    }
}

/// Type of an element.
#[derive(Clone, Copy)]
struct Element {
    kind: char,
    bytes: usize,
    is_big: bool,
}

/// Reads an array from its first byte to its last.
pub(crate) fn parse(mut reader: impl Read) -> Result<Array, String> {
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(|_| "is no NumPy array: it is shorter than the head of one")?;
    if &start[..6] != MAGIC {
        return Err("is no NumPy array: it does not begin with \\x93NUMPY".to_owned());
    }
    let mut length = [0; 4];
    let wide = match start[6] {
        1 => false,
        2 | 3 => true,
        version => return Err(format!("has version {version} of NumPy's format; expected 1 to 3")),
    };
    reader.read_exact(&mut length[..if wide { 4 } else { 2 }]).map_err(|_| "ends within its head")?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEAD {
        return Err(format!("has a head of {length} bytes; expected at most {LONGEST_HEAD}"));
    }
    let mut head = vec![0; length];
    reader.read_exact(&mut head).map_err(|_| "ends within its head")?;
    let head = String::from_utf8(head).map_err(|_| "has a head that is not UTF-8")?;
    let (element, is_fortran, shape) = parse_head(&head)?;
    let count = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    let bytes = count.and_then(|n| n.checked_mul(element.bytes)).filter(|&bytes| bytes <= isize::MAX as usize);
    let Some(bytes) = bytes else { return Err(format!("claims a shape of {shape:?}, more than any memory holds")) };
    let data = read_promised(&mut reader, bytes as u64).map_err(|error| format!("shape {shape:?}: {error}"))?;
    if reader.read(&mut [0]).map_err(|error| error.to_string())? != 0 {
        return Err(format!("goes on after the {bytes} bytes of its shape {shape:?}"));
    }
    let values = element.values(data);
    let values = if is_fortran { values.permuted(|i| fortran_index(i, &shape)) } else { values };
    Ok(Array { shape, values })
}

/// Place in Fortran's order of element `i` in C's.
fn fortran_index(mut i: usize, shape: &[usize]) -> usize {
    let (mut at, mut step) = (0, shape.iter().product::<usize>());
    for &side in shape.iter().rev() {
        step /= side;
        at += i % side * step;
        i /= side;
    }
    at
}

impl Element {
    fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            let what = if text.contains('O') { ", Python objects" } else { "" };
            Err(format!(
                "has elements of type `{text}`{what}; expected integers of up to 64 bits, float32, float64 or booleans"
            ))
        };
        let mut chars = text.chars();
        let (order, kind, bytes) = (chars.next(), chars.next(), chars.as_str());
        let (Some(order), Some(kind), Ok(bytes)) = (order, kind, bytes.parse::<usize>()) else { return refused() };
        let known = match kind {
            'b' => bytes == 1,
            'u' | 'i' => [1, 2, 4, 8].contains(&bytes),
            'f' => [4, 8].contains(&bytes),
            _ => false,
        };
        match order {
            '<' | '|' | '=' | '>' if known => Ok(Self { kind, bytes, is_big: order == '>' }),
            _ => refused(),
        }
    }

    fn values(self, data: Vec<u8>) -> Values {
        let wide = |bytes: &[u8]| -> u64 {
            let byte = |word: u64, &byte: &u8| word << 8 | u64::from(byte);
            if self.is_big { bytes.iter().fold(0, byte) } else { bytes.iter().rev().fold(0, byte) }
        };
        let words = data.chunks_exact(self.bytes).map(wide);
        match (self.kind, self.bytes) {
            ('u', 1) => Values::Bytes(data),
            ('b', _) => Values::Bytes(data.into_iter().map(|byte| u8::from(byte != 0)).collect()),
            ('u', 2) => Values::Unsigned16(words.map(|word| word as u16).collect()),
            ('f', 4) => Values::Floats(words.map(|word| f64::from(f32::from_bits(word as u32))).collect()),
            ('f', _) => Values::Floats(words.map(f64::from_bits).collect()),
            ('i', n) => Values::Integers(words.map(|word| (word << (64 - 8 * n)) as i64 >> (64 - 8 * n)).collect()),
            // Numbers of 2^63 and more are no labels: they become negative and are refused as such.
            _ => Values::Integers(words.map(|word| word as i64).collect()),
        }
    }
}

/// Type, order and shape of a head such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_head(head: &str) -> Result<(Element, bool, Vec<usize>), String> {
    let fault =
        || format!("has a head that NumPy does not write: {}", head.trim().chars().take(80).collect::<String>());
    let mut rest = head.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(fault)?.trim();
    let (mut element, mut order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(fault)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(fault)?.trim_start();
        rest = match key {
            "descr" if element.is_none() => {
                let Some((text, after)) = quoted(value) else {
                    return Err("has elements of several fields; expected numbers".to_owned());
                };
                element = Some(Element::parse(text)?);
                after
            }
            "fortran_order" if order.is_none() => {
                let (is_fortran, after) = match (value.strip_prefix("False"), value.strip_prefix("True")) {
                    (Some(after), _) => (false, after),
                    (_, Some(after)) => (true, after),
                    _ => return Err(fault()),
                };
                order = Some(is_fortran);
                after
            }
            "shape" if shape.is_none() => {
                let (sides, after) = value.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(fault)?;
                let sides = sides.trim();
                let sides = sides.strip_suffix(',').unwrap_or(sides);
                let parse = |side: &str| side.trim().trim_end_matches('L').parse::<usize>().map_err(|_| fault());
                let sides: Vec<usize> = if sides.is_empty() {
                    Vec::new()
                } else {
                    sides.split(',').map(parse).collect::<Result<_, _>>()?
                };
                if sides.len() > MOST_SIDES {
                    return Err(format!("has {} sides; expected at most {MOST_SIDES}", sides.len()));
                }
                shape = Some(sides);
                after
            }
            _ => return Err(fault()),
        }
        .trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(fault()),
        };
    }
    match (element, order, shape) {
        (Some(element), Some(is_fortran), Some(shape)) => Ok((element, is_fortran, shape)),
        _ => Err(fault()),
    }
}

/// A text in quotes without any escape, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let (inside, after) = text[1..].split_once(quote)?;
    (!inside.contains('\\')).then_some((inside, after))
}

/// The bytes of a `.npy` file of version 1.
#[cfg(test)]
pub(crate) fn written(descr: &str, is_fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let order = if is_fortran { "True" } else { "False" };
    let mut head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({sides}), }}");
    head.push_str(&" ".repeat(63 - (head.len() + 10) % 64));
    head.push('\n');
    [MAGIC, &[1, 0], &(head.len() as u16).to_le_bytes(), head.as_bytes(), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn array(bytes: &[u8]) -> Result<Array, String> {
        parse(bytes)
    }

    #[test]
    fn every_type_is_read_in_either_order_of_bytes() {
        for (descr, data, values) in [
            ("|u1", vec![0, 255], Values::Bytes(vec![0, 255])),
            ("|b1", vec![0, 7], Values::Bytes(vec![0, 1])),
            ("|i1", vec![0x80, 5], Values::Integers(vec![-128, 5])),
            ("<u2", vec![1, 2, 255, 255], Values::Unsigned16(vec![513, 65_535])),
            (">i2", vec![1, 2, 255, 254], Values::Integers(vec![258, -2])),
            ("<i8", [5i64, -9].map(i64::to_le_bytes).concat(), Values::Integers(vec![5, -9])),
            (">f4", [1.5f32, -2.0].map(f32::to_be_bytes).concat(), Values::Floats(vec![1.5, -2.0])),
            ("<f8", [1e300f64, 0.1].map(f64::to_le_bytes).concat(), Values::Floats(vec![1e300, 0.1])),
        ] {
            assert_eq!(array(&written(descr, false, &[2], &data)), Ok(Array { shape: vec![2], values }), "{descr}");
        }
        assert_eq!(array(&written("|u1", false, &[], &[3])).unwrap().shape, Vec::<usize>::new());
        assert_eq!(array(&written("|u1", false, &[0, 5], &[])).unwrap().values.len(), 0);
    }

    #[test]
    fn fortrans_order_becomes_cs() {
        let found = array(&written("|u1", true, &[2, 3], &[0, 10, 1, 11, 2, 12])).unwrap();
        assert_eq!(found.values, Values::Bytes(vec![0, 1, 2, 10, 11, 12]));
    }

    #[test]
    fn damaged_arrays_are_told() {
        let good = written("|u1", false, &[2, 3], &[1; 6]);
        for cut in 0..good.len() {
            assert!(array(&good[..cut]).is_err(), "cut at {cut}");
        }
        let head = |text: &str| [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        for (bytes, part) in [
            (b"PK\x03\x04 and more".to_vec(), "does not begin"),
            ([MAGIC, &[9, 0, 0, 0]].concat(), "version 9"),
            ([MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat(), "a head of 4294967295 bytes"),
            ([&good[..], &[1]].concat(), "goes on after the 6 bytes"),
            (written("|O", false, &[2], &[0; 16]), "Python objects"),
            (written("<f2", false, &[2], &[0; 4]), "type `<f2`"),
            (written("<c8", false, &[2], &[0; 16]), "type `<c8`"),
            (written("<u1", false, &[usize::MAX, 2], &[]), "more than any memory holds"),
            (written("<u8", false, &[1 << 61], &[]), "more than any memory holds"),
            (written("|u1", false, &[1 << 50], &[0; 10]), "memory"),
            (head("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,)}"), "several fields"),
            (head("{'descr': '|u1', 'fortran_order': 0, 'shape': (1,)}"), "head that NumPy does not write"),
            (head("{'descr': '|u1', 'shape': (1,)}"), "head that NumPy does not write"),
            (head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"), "head that NumPy does not write"),
            (head("{'descr': '|u1', 'fortran_order': False, 'shape': 3}"), "head that NumPy does not write"),
            (head("__import__('os')"), "head that NumPy does not write"),
            (head("{'é': 1}"), "head that NumPy does not write"),
            (head(&format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({})}}", "1,".repeat(65))), "65 sides"),
        ] {
            let error = array(&bytes).unwrap_err();
            assert!(error.contains(part), "{error}, expected {part}");
        }
    }

    proptest! {
        #[test]
        fn any_head_is_an_array_or_an_error(text in "[{}()':, a-zA-Z0-9<|_é]{0,80}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes(), &data].concat();
            let _ = array(&bytes);
        }

        #[test]
        fn any_mutation_is_an_array_or_an_error(at in 0..134usize, byte: u8) {
            let mut bytes = written("|u1", false, &[2, 3], &[1; 6]);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(array) = array(&bytes) {
                prop_assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
            }
        }

        #[test]
        fn both_orders_hold_the_same_elements(shape in proptest::collection::vec(1..5usize, 1..4)) {
            let n: usize = shape.iter().product();
            let c: Vec<u8> = (0..n as u8).collect();
            let mut fortran = vec![0; n];
            c.iter().enumerate().for_each(|(i, &v)| fortran[fortran_index(i, &shape)] = v);
            let found = array(&written("|u1", true, &shape, &fortran)).unwrap();
            prop_assert_eq!(found.values, Values::Bytes(c));
        }
    }
}
