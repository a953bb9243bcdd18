//! What can go wrong in this crate; every message carries the numbers.

use crate::{Bits, Granularity, Grid, WeightQuant};

/// A name that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {given:?}, expected one of {expected}")]
pub struct NameError {
    /// The kind of thing that the name should have named.
    pub what: &'static str,
    /// The name as given.
    pub given: String,
    /// The known names.
    pub expected: &'static str,
}

/// A width or a weight quantizer that cannot exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A width outside 1..=8.
    #[error("{given} bits: a width is 1 to 8 bits")]
    Bits {
        /// The width as given.
        given: u64,
    },
    /// A quantizer that has no such grid at this width.
    #[error("weight quantizer {quant} at {bits} bits has no grid {grid:?}, only {only:?}", grid = grid.name(), only = only.name())]
    Grid {
        /// The quantizer.
        quant: WeightQuant,
        /// Width of the codes in bits.
        bits: Bits,
        /// Grid that was asked for.
        grid: Grid,
        /// The grid it has.
        only: Grid,
    },
    /// The quantizer has no scales of this kind.
    #[error("weight quantizer {quant} has no scale per {scale}, only per {only}")]
    Scale {
        /// The quantizer.
        quant: WeightQuant,
        /// The value that was asked for.
        scale: Granularity,
        /// The scale that the quantizer has.
        only: Granularity,
    },
}

/// A packed stream that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A field width outside 1..=16.
    #[error("packed fields of {bits} bits: a field is 1 to 16 bits")]
    Bits {
        /// The width as given.
        bits: u32,
    },
    /// The stream is too short or too long.
    #[error("{fields} fields of {bits} bits take {expected} bytes, got {got}")]
    Length {
        /// Number of fields asked for.
        fields: usize,
        /// Width of a field.
        bits: u32,
        /// Bytes they take.
        expected: u128,
        /// Bytes present.
        got: usize,
    },
    /// Bits after the last field are not zero.
    #[error("{fields} fields of {bits} bits: the unused bits of the last byte {last:#010b} are not zero")]
    Padding {
        /// Number of fields asked for.
        fields: usize,
        /// Width of a field.
        bits: u32,
        /// The last byte of the stream.
        last: u8,
    },
}

/// A requantization that cannot be derived.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequantizationError {
    /// There is not one list of ranges for each term.
    #[error("ranges of {got} terms, expected {expected}")]
    Terms {
        /// Lists of ranges.
        got: usize,
        /// Terms of the sum.
        expected: usize,
    },
    /// A list that must have one entry per channel does not.
    #[error("{what} has {got} entries, expected one for each of the {expected} channels")]
    Length {
        /// Name of the list with a wrong length.
        what: String,
        /// Length of the list that was given.
        got: usize,
        /// The number of channels.
        expected: usize,
    },
    /// A range whose low end lies above its high end.
    #[error("channel {channel}: empty range {lo}..={hi} of {what}")]
    EmptyRange {
        /// Name of the range that is no range.
        what: String,
        /// Number of the channel.
        channel: usize,
        /// Low end of the range.
        lo: i64,
        /// High end of the range.
        hi: i64,
    },
    /// Output codes of a channel that leave those of the layer.
    #[error("channel {channel}: codes {lo}..={hi} leave the layer's, {}..={}", range.0, range.1)]
    Bounds {
        /// Number of the channel.
        channel: usize,
        /// Smallest code of the range.
        lo: i32,
        /// Largest code of the range.
        hi: i32,
        /// Smallest and largest code of the layer.
        range: (i32, i32),
    },
    /// A real multiplier or offset is infinite or not a number.
    #[error("channel {channel}: {what} is {value}, expected a finite number")]
    NotFinite {
        /// Name of the number that is out of range.
        what: String,
        /// Number of the channel.
        channel: usize,
        /// The number.
        value: f64,
    },
    /// The real output is so large that code steps vanish in f64.
    #[error("channel {channel}: the output reaches {magnitude:e} code steps, more than 2^44")]
    Magnitude {
        /// Number of the channel.
        channel: usize,
        /// The largest absolute value before clamping, in code steps.
        magnitude: f64,
    },
    /// A shift that i64 does not have.
    #[error("shift {shift}, expected 0 to 62")]
    Shift {
        /// The shift as given.
        shift: u32,
    },
    /// A multiplier leaves i32 before the rounding is fine enough.
    #[error(
        "channel {channel}: {what} {value} is {scaled:e} at shift {shift}, more than 31 bits, and smaller shifts round coarser than 2^-8 of a code step"
    )]
    Multiplier {
        /// Name of the multiplier that does not fit.
        what: String,
        /// Number of the channel.
        channel: usize,
        /// Real value of the multiplier.
        value: f64,
        /// The shift at which it no longer fits.
        shift: u32,
        /// The multiplier times a power of two, `value * 2^shift`.
        scaled: f64,
    },
    /// The sum could leave i64.
    #[error("channel {channel}: at shift {shift} the sum can reach {magnitude:e}, not below 2^63")]
    Overflow {
        /// Number of the channel.
        channel: usize,
        /// The shift at which it no longer fits.
        shift: u32,
        /// The largest absolute value of the sum.
        magnitude: f64,
    },
    /// No shift up to the largest rounds finely enough.
    #[error(
        "channel {channel}: at the largest shift, {shift}, rounding still moves the output by {error:e} code steps, more than 2^-8"
    )]
    Precision {
        /// Number of the channel.
        channel: usize,
        /// The largest shift.
        shift: u32,
        /// The error left, in code steps.
        error: f64,
    },
}
