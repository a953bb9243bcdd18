//! The order in which an epoch visits the images.

use bitpact_core::rng::{Key, permutation};

/// All of `0..n` once, shuffled for this epoch of this seed and for nothing else.
///
/// # Panics
/// When `n` is above `u32::MAX`.
pub fn epoch_order(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let n = u32::try_from(n).expect("at most u32::MAX images");
    permutation(Key::new(seed).with("epoch order").at(epoch), n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation() {
        for n in [0, 1, 2, 3, 1000] {
            let mut order = epoch_order(1, 0, n);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n as u32), "{n}");
        }
    }

    #[test]
    fn orders_differ_between_epochs_and_seeds_and_repeat_otherwise() {
        let order = epoch_order(1, 0, 1000);
        assert_eq!(order, epoch_order(1, 0, 1000));
        for (other, what) in [(epoch_order(1, 1, 1000), "epoch"), (epoch_order(2, 0, 1000), "seed")] {
            let same = order.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 20, "{same} of 1000 places agree with another {what}");
        }
    }
}
