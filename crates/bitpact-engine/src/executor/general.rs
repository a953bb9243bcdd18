//! Products the kernels do not take, in 64-bit scalar arithmetic: codes of more than 8 bits, or sums of more than 32. In
//! real networks that is at most the last layer, behind a sum of codes.

use bitpact_kernels::Layout;
use bitpact_model::IntegerProduct;

/// A product in 64 bits.
#[derive(Debug)]
pub(super) struct GeneralProduct {
    /// `[out][kernel row][kernel column][in of a group]`.
    codes: Vec<i16>,
    /// First input channel of each output's group, and the inputs of a group.
    first_input: Vec<usize>,
    group_inputs: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    x: Layout,
    /// Output rows, columns and channels.
    size: [usize; 3],
}

impl GeneralProduct {
    /// Plans a product over codes in `x` to an output of `size` rows, columns and channels.
    pub(super) fn new(product: &IntegerProduct, x: Layout, size: [usize; 3]) -> Self {
        let [rows, columns] = product.kernel;
        let mut codes = Vec::with_capacity(product.codes.len());
        for o in 0..product.out_channels {
            let channel = product.channel(o);
            for tap in 0..rows * columns {
                codes.extend((0..product.group_inputs()).map(|i| channel[i * rows * columns + tap]));
            }
        }
        let first_input = (0..product.out_channels).map(|o| product.first_input(o)).collect();
        let group_inputs = product.group_inputs();
        Self {
            codes,
            first_input,
            group_inputs,
            kernel: product.kernel,
            stride: product.stride,
            padding: product.padding,
            x,
            size,
        }
    }

    /// Values of the output, `[row][column][channel]`.
    pub(super) fn len(&self) -> usize {
        self.size.iter().product()
    }

    /// Writes the accumulators, dense.
    pub(super) fn run<T: Copy + Into<i64>>(&self, x: &[T], acc: &mut [i64]) {
        let [height, width, channels] = self.size;
        let [rows, columns] = self.kernel;
        // The border is at least the padding.
        let first = self.x.border - self.padding;
        let mut out = acc.iter_mut();
        for (r, q, o) in (0..height).flat_map(|r| (0..width).flat_map(move |q| (0..channels).map(move |o| (r, q, o)))) {
            let mut sum = 0;
            let mut weights = self.codes[o * rows * columns * self.group_inputs..].chunks_exact(self.group_inputs);
            for a in 0..rows {
                for b in 0..columns {
                    let (row, column) = (first + r * self.stride + a, first + q * self.stride + b);
                    let at = row * self.x.row() + column * self.x.cs + self.first_input[o];
                    let pixel = &x[at..][..self.group_inputs];
                    let weights = weights.next().unwrap_or(&[]);
                    sum += pixel.iter().zip(weights).map(|(&q, &w)| q.into() * i64::from(w)).sum::<i64>();
                }
            }
            if let Some(out) = out.next() {
                *out = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitpact_core::Grid;

    use super::*;

    /// A border wider than the padding belongs to another reader of the tensor.
    #[test]
    fn padding_is_counted_from_the_image_not_from_the_border() {
        let product = IntegerProduct {
            name: "p".to_owned(),
            input: 1,
            kernel: [2, 2],
            stride: 2,
            padding: 1,
            out_channels: 1,
            in_channels: 2,
            groups: 1,
            padding_code: 0,
            weight_bits: 8,
            grid: Grid::WithZero,
            codes: vec![1, 2, 3, 4, 10, 20, 30, 40],
        };
        for border in 1..4 {
            let x = Layout::new(2, 2, 2, border);
            let mut codes = vec![0u8; x.len()];
            for (i, (r, q)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
                let at = x.offset(r, q);
                codes[at..at + 2].copy_from_slice(&[1 + i as u8, 5 + i as u8]);
            }
            let plan = GeneralProduct::new(&product, x, [2, 2, 1]);
            let mut acc = vec![0; plan.len()];
            plan.run(&codes, &mut acc);
            // Each output sees one pixel, through the weight that faces it.
            assert_eq!(acc, [4 + 5 * 40, 2 * 3 + 6 * 30, 3 * 2 + 7 * 20, 4 + 8 * 10], "border {border}");
        }
    }
}
