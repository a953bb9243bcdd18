//! The idx format of the MNIST family: unsigned bytes behind a header of big-endian sizes, plain or gzipped.
//!
//! Bytes 0, 0, type (8 for unsigned bytes), number of dimensions; each dimension as a big-endian u32, the number of
//! items first; then the items (LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file formats).

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::DataError;
use crate::files::{Opened, read_promised};

/// The first items of a file.
pub(crate) struct Items {
    /// Items in the whole file.
    pub(crate) count: usize,
    /// The items that were read, one after the other.
    pub(crate) bytes: Vec<u8>,
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads the first `limit` items of `most` at the most, each of the shape `item` (`[28, 28]` for images, `[]` for
/// labels). Whether the file is gzipped is seen from its first bytes. A file that is read to its end, or is not
/// gzipped, must have the length that its header says.
pub(crate) fn read(opened: Opened, item: &[u32], limit: usize, most: usize) -> Result<Items, DataError> {
    let mut reader = BufReader::with_capacity(1 << 16, &opened.file);
    let start = reader.fill_buf().map_err(|source| opened.io(source))?;
    if start.starts_with(&GZIP_MAGIC) {
        parse(&opened, &mut MultiGzDecoder::new(reader), item, (limit, most), None)
    } else {
        parse(&opened, &mut reader, item, (limit, most), Some(opened.bytes))
    }
}

fn parse(
    opened: &Opened,
    reader: &mut impl Read,
    item: &[u32],
    (limit, most): (usize, usize),
    length: Option<u64>,
) -> Result<Items, DataError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => opened.format(format!("truncated: {source}")),
        _ => opened.io(source),
    };
    let magic = read_promised(reader, 4).map_err(io)?;
    let dimensions = item.len() + 1;
    if magic != [0, 0, 8, dimensions as u8] {
        let shown = magic.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let expected = format!("expected 00 00 08 {dimensions:02x}, an idx file of unsigned bytes");
        return Err(opened.format(format!("starts with {shown}; {expected} with {dimensions} dimensions")));
    }
    let header = read_promised(reader, 4 * dimensions as u64).map_err(io)?;
    let sizes: Vec<u32> = header.as_chunks::<4>().0.iter().map(|&size| u32::from_be_bytes(size)).collect();
    if sizes[1..] != *item {
        let shown = |sizes: &[u32]| sizes.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
        return Err(opened.format(format!("its items are {}, expected {}", shown(&sizes[1..]), shown(item))));
    }
    let count = u64::from(sizes[0]);
    if count > most as u64 {
        return Err(opened.format(format!("its header promises {count} items, and the set has {most}")));
    }
    let item_bytes: u64 = item.iter().map(|&size| u64::from(size)).product();
    let expected = 4 + 4 * dimensions as u64 + count * item_bytes;
    if let Some(found) = length.filter(|&found| found != expected) {
        return Err(DataError::WrongSize { path: opened.path.clone(), found, expected });
    }
    let taken = count.min(limit as u64);
    let bytes = read_promised(reader, taken * item_bytes).map_err(io)?;
    if taken == count && reader.read(&mut [0]).map_err(io)? != 0 {
        return Err(opened.format(format!("goes on after the {count} items that its header promises")));
    }
    Ok(Items { count: count as usize, bytes })
}
