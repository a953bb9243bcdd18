//! Which cells cannot be.

use super::cell::{Cell, Storage};
use crate::AccelError;

/// The keys a source can be named for.
const KEYS: [&str; 32] = [
    "encoding",
    "read_v",
    "storage",
    "storage.ra_ohm_um2",
    "storage.diameter_nm",
    "storage.tmr",
    "storage.half_v",
    "storage.low_ohm",
    "storage.high_ohm",
    "storage.high_ua",
    "storage.low_ua",
    "access_ohm",
    "cut_off_ua",
    "ratio",
    "critical_ua",
    "add_fj_per_bit",
    "spread",
    "array.rows",
    "array.columns",
    "array.rows_at_once",
    "array.bit_line_ohm",
    "array.word_line_ohm",
    "array.driver_ohm",
    "array.columns_per_adc",
    "array.read_ns",
    "adc",
    "adc.bits",
    "adc.counts_per_code",
    "adc.offset_sigma",
    "adc.ns",
    "adc.fj_per_level",
    "summary",
];

impl Cell {
    /// Checks that such a cell can exist.
    ///
    /// # Errors
    /// Names the first constant that is impossible.
    pub fn check(&self) -> Result<(), AccelError> {
        let fail =
            |key, got: String, expected| Err(AccelError::Constant { device: self.name.clone(), key, got, expected });
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let (array, adc, spread) = (&self.array, &self.adc, &self.spread);
        let storage: &[(&'static str, f64)] = match self.storage {
            Storage::Junction { ra_ohm_um2, diameter_nm, tmr, half_v } => {
                if half_v.is_nan() || half_v <= 0.0 {
                    return fail("storage.half_v", half_v.to_string(), "a positive number, or nothing");
                }
                &[("storage.ra_ohm_um2", ra_ohm_um2), ("storage.diameter_nm", diameter_nm), ("storage.tmr", tmr)]
            }
            Storage::Resistor { low_ohm, high_ohm } => {
                if high_ohm <= low_ohm {
                    return fail("storage.high_ohm", high_ohm.to_string(), "more than low_ohm");
                }
                &[("storage.low_ohm", low_ohm), ("storage.high_ohm", high_ohm)]
            }
            Storage::Transistor { high_ua, low_ua } => {
                if !(not_negative(low_ua) && low_ua < high_ua) {
                    return fail("storage.low_ua", low_ua.to_string(), "0 or a positive number below high_ua");
                }
                &[("storage.high_ua", high_ua)]
            }
        };
        let positives = [("read_v", self.read_v), ("array.read_ns", array.read_ns), ("adc.ns", adc.ns)];
        for &(key, got) in storage.iter().chain(&positives) {
            if !positive(got) {
                return fail(key, got.to_string(), "a positive number");
            }
        }
        for (key, got) in [
            ("access_ohm", self.access_ohm),
            ("cut_off_ua", self.cut_off_ua.unwrap_or(0.0)),
            ("add_fj_per_bit", self.add_fj_per_bit),
            ("array.bit_line_ohm", array.bit_line_ohm),
            ("array.word_line_ohm", array.word_line_ohm),
            ("array.driver_ohm", array.driver_ohm),
            ("adc.offset_sigma", adc.offset_sigma),
            ("adc.fj_per_level", adc.fj_per_level),
        ] {
            if !not_negative(got) {
                return fail(key, got.to_string(), "0 or a positive number");
            }
        }
        for (key, got) in [
            ("spread.current", spread.current),
            ("spread.resistance", spread.resistance),
            ("spread.tmr", spread.tmr),
            ("spread.diameter", spread.diameter),
            ("spread.access", spread.access),
            ("spread.off", spread.off),
        ] {
            if !(0.0..=1.0).contains(&got) {
                return fail(key, got.to_string(), "0 to 1");
            }
        }
        if let Some(ratio) = self.ratio.filter(|&ratio| ratio.is_nan() || ratio <= 1.0) {
            return fail("ratio", ratio.to_string(), "more than 1");
        }
        if let Some(critical) = self.critical_ua.filter(|&ua| !positive(ua)) {
            return fail("critical_ua", critical.to_string(), "a positive number, or nothing");
        }
        for (key, got) in [
            ("array.rows", array.rows),
            ("array.columns", array.columns),
            ("array.columns_per_adc", array.columns_per_adc),
        ] {
            if !(1..=1024).contains(&got) {
                return fail(key, got.to_string(), "1 to 1024");
            }
        }
        let rows = array.rows_at_once;
        if !(rows.is_power_of_two() && array.rows.is_multiple_of(rows)) {
            return fail("array.rows_at_once", rows.to_string(), "a power of two that divides the rows of a sub-array");
        }
        if !(1..=10).contains(&adc.bits) {
            return fail("adc.bits", adc.bits.to_string(), "1 to 10: a flash converter has 2^bits comparators");
        }
        if !(1..=1024).contains(&adc.counts_per_code) {
            return fail("adc.counts_per_code", adc.counts_per_code.to_string(), "1 to 1024");
        }
        if self.high_ua() <= self.low_ua() {
            return fail("cut_off_ua", self.low_ua().to_string(), "less than the high current");
        }
        match self.sources.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(key) => Err(AccelError::Source { device: self.name.clone(), key: key.clone() }),
            None => Ok(()),
        }
    }
}
