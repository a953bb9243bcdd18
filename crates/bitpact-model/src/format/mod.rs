//! The `.bitpact` file, specified in docs/format.md: its writer, and its reader, which checks length, checksum and
//! every count of a damaged file before it uses them.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::read;
pub(crate) use writer::write;

/// Version of the format.
pub const VERSION: u32 = 1;

/// First bytes of every `.bitpact` file; the line feed does not survive a transfer as text.
pub const MAGIC: [u8; 8] = *b"BITPACT\n";
/// Magic, version and length.
pub(crate) const HEADER_BYTES: usize = 20;
/// The checksum at the end.
pub(crate) const CRC_BYTES: usize = 4;
/// What errors call the file.
pub(crate) const KIND: &str = ".bitpact file";

/// Numbers that stand for ops, terms, ends, moves and grids.
pub(crate) mod tag {
    pub(crate) const SUM: u8 = 0;
    pub(crate) const MAX_POOL: u8 = 1;
    pub(crate) const WINDOW_SUM: u8 = 2;
    pub(crate) const CONCAT: u8 = 3;
    pub(crate) const VIEW: u8 = 4;

    /// Flag of a window sum with factors.
    pub(crate) const FACTORS: u8 = 1;

    pub(crate) const PRODUCT_TERM: u8 = 0;
    pub(crate) const VIEW_TERM: u8 = 1;
    pub(crate) const MULTIPLICATION_TERM: u8 = 2;

    pub(crate) const CODES: u8 = 0;
    pub(crate) const CODES_BY_CHANNEL: u8 = 1;
    pub(crate) const TABLE: u8 = 2;
    pub(crate) const WIDE: u8 = 3;
    pub(crate) const OUTPUT: u8 = 4;

    pub(crate) const STRIDE: u8 = 0;
    pub(crate) const CROP: u8 = 1;
    pub(crate) const CHANNELS: u8 = 2;
    pub(crate) const INSERT: u8 = 3;
    pub(crate) const PIXEL_SHUFFLE: u8 = 4;
    pub(crate) const PIXEL_UNSHUFFLE: u8 = 5;
    pub(crate) const REPEAT: u8 = 6;
    pub(crate) const CHANNEL_SHUFFLE: u8 = 7;

    pub(crate) const WITH_ZERO: u8 = 0;
    pub(crate) const WITHOUT_ZERO: u8 = 1;

    /// Bit of the byte before a list of integers: one value stands for all.
    pub(crate) const UNIFORM: u8 = 0x80;
}

/// The byte before a list of integers: the least number of bytes that holds every value in two's complement, and
/// whether all values are equal, so that one is written.
pub(crate) fn list_head(values: &[i64]) -> u8 {
    let bytes = |v: i64| {
        let significant = 65 - if v < 0 { (!v).leading_zeros() } else { v.leading_zeros() };
        significant.div_ceil(8) as u8
    };
    let width = values.iter().map(|&v| bytes(v)).max().unwrap_or(1);
    let uniform = values.iter().all(|v| *v == values[0]);
    width | if uniform { tag::UNIFORM } else { 0 }
}
