//! The `.bitpact` file, specified in docs/format.md: writer and bounds-checked reader.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::read;
pub(crate) use writer::write;

/// Latest version of the format. A file has the least version that knows what it holds, 2, 3 or 4.
pub const VERSION: u32 = 4;
/// Version of a file whose codes have the same range in all channels of a layer.
pub(crate) const SECOND_VERSION: u32 = 3;
/// Version of a file whose ops are all among the first four.
pub(crate) const FIRST_VERSION: u32 = 2;

/// The version of a file with these ops.
pub(crate) fn version_of<'a>(ops: impl Iterator<Item = &'a crate::IntegerOp>) -> u32 {
    use crate::IntegerOp::{Act, Logits, MaxPool, Product, SumPool};
    let ops: Vec<&crate::IntegerOp> = ops.collect();
    if ops.iter().any(|op| matches!(op, Product { step, .. } | Act { step, .. } if !step.bounds.is_empty())) {
        return VERSION;
    }
    let first = |op: &crate::IntegerOp| matches!(op, Product { .. } | Logits { .. } | MaxPool { .. } | SumPool { .. });
    if ops.into_iter().all(first) { FIRST_VERSION } else { SECOND_VERSION }
}

/// First bytes of every file; the line feed does not survive a transfer as text.
pub(crate) const MAGIC: [u8; 8] = *b"BITPACT\n";
/// Magic, version and length.
pub(crate) const HEADER_BYTES: usize = 20;
/// The checksum at the end.
pub(crate) const CRC_BYTES: usize = 4;
/// What errors call the file.
pub(crate) const KIND: &str = ".bitpact file";

/// Numbers that stand for ops and grids.
pub(crate) mod tag {
    pub(crate) const PRODUCT: u8 = 0;
    pub(crate) const LOGITS: u8 = 1;
    pub(crate) const MAX_POOL: u8 = 2;
    pub(crate) const SUM_POOL: u8 = 3;
    pub(crate) const WINDOW_SUM: u8 = 4;
    pub(crate) const STREAM: u8 = 5;
    pub(crate) const ACT: u8 = 6;
    pub(crate) const CONCAT: u8 = 7;
    pub(crate) const ACT_BOUNDS: u8 = 8;

    pub(crate) const WITH_ZERO: u8 = 0;
    pub(crate) const WITHOUT_ZERO: u8 = 1;

    /// Bits of the byte that says what a product layer adds.
    pub(crate) const SECOND: u8 = 1;
    pub(crate) const RESIDUAL: u8 = 2;
    /// The range of codes is the channel's.
    pub(crate) const BOUNDS: u8 = 4;

    /// Bit of the byte before a list of integers: one value stands for all.
    pub(crate) const UNIFORM: u8 = 0x80;
}

/// The byte before a list of integers: the least number of bytes that holds every value in two's complement, and whether all
/// values are equal, so that one is written.
pub(crate) fn list_head(values: &[i64]) -> u8 {
    let bytes = |v: i64| {
        let significant = 65 - if v < 0 { (!v).leading_zeros() } else { v.leading_zeros() };
        significant.div_ceil(8) as u8
    };
    let width = values.iter().map(|&v| bytes(v)).max().unwrap_or(1);
    let uniform = values.iter().all(|v| *v == values[0]);
    width | if uniform { tag::UNIFORM } else { 0 }
}
