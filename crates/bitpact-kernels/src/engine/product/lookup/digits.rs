//! Weights with few levels as digits of one or two bits.

/// Weights as digits: `w = step * u - zero`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digits {
    pub(super) step: i32,
    pub(super) zero: i32,
    /// Bits of a digit, 1 or 2.
    pub(super) bits: u32,
}

impl Digits {
    /// The digits of weights with at most four levels at equal distances.
    pub(super) fn of(codes: &[i16]) -> Option<Digits> {
        let (lo, hi) = codes.iter().fold((i16::MAX, i16::MIN), |(lo, hi), &code| (lo.min(code), hi.max(code)));
        // One bit for each level: grids of two bits have codes from -3 to 3, others are not looked for beyond a word.
        let span = u32::try_from(i32::from(hi) - i32::from(lo)).ok().filter(|&span| span < u64::BITS)?;
        let mut seen = 0_u64;
        for codes in codes.chunks(1024) {
            seen = codes.iter().fold(seen, |seen, &code| seen | 1 << (code - lo));
            if seen.count_ones() > 4 {
                return None;
            }
        }
        let levels: Vec<i32> = (0..=span).filter(|i| seen >> i & 1 == 1).map(|i| i32::from(lo) + i as i32).collect();
        let lo = i32::from(lo);
        let gcd = |mut a: i32, mut b: i32| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let step = levels.iter().fold(0, |step, level| gcd(level - lo, step));
        let largest = levels.iter().map(|level| level - lo).max()?;
        let step = step.max(1);
        match largest / step {
            0..=1 => Some(Digits { step, zero: -lo, bits: 1 }),
            2..=3 => Some(Digits { step, zero: -lo, bits: 2 }),
            _ => None,
        }
    }

    pub(super) fn digit(self, w: i16) -> u32 {
        let above = i32::from(w) + self.zero;
        // Of four levels; a division a weight would be most of the time to load a network.
        u32::from(above > 0) + u32::from(above > self.step) + u32::from(above > 2 * self.step)
    }

    /// Digits of the index of a table of so many entries.
    pub(super) fn group(self, entries: usize) -> usize {
        (entries.ilog2() / self.bits) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_give_the_weights_back() {
        for (codes, bits) in
            [(&[-3, -1, 1, 3, 3][..], 2), (&[-1, 1], 1), (&[-1, 0, 1], 2), (&[0, 0], 1), (&[5], 1), (&[-3, 3, 0], 2)]
        {
            let digits = Digits::of(codes).expect("four levels");
            assert_eq!(digits.bits, bits, "{codes:?}");
            for &w in codes {
                assert_eq!(digits.step * digits.digit(w) as i32 - digits.zero, w.into(), "{codes:?}");
                assert!(digits.digit(w) < 1 << bits, "{codes:?}");
            }
        }
        assert_eq!(Digits::of(&[-7, -5, -3, -1, 1]), None);
        assert_eq!(Digits::of(&[0, 1, 4]), None);
        assert_eq!(Digits::of(&[]), None);
    }
}
