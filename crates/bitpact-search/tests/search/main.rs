//! Costs against layers computed by hand, and choices against all choices tried.

mod budgets;
mod choices;
mod costs;

use bitpact_core::Bits;
use bitpact_graph::Graph;

/// A convolution, a depthwise one, a pointwise one with stride 2, and a classifier.
fn separable() -> Graph {
    toml::from_str(
        r#"
        name = "separable"
        nodes = [
          { name = "image", op = "input", height = 32, width = 32, channels = 3 },
          { name = "conv1", op = "conv", out_channels = 16, kernel = 3, padding = 1 },
          { name = "act1", op = "act" },
          { name = "depth", op = "conv", out_channels = 16, kernel = 3, padding = 1, groups = 16 },
          { name = "act2", op = "act" },
          { name = "point", op = "conv", out_channels = 32, kernel = 1, stride = 2 },
          { name = "act3", op = "act" },
          { name = "pool", op = "global_avg_pool" },
          { name = "linear", op = "linear", out_features = 10 },
        ]
        "#,
    )
    .unwrap()
}

fn bits(widths: &[u8]) -> Vec<Bits> {
    widths.iter().map(|&bits| Bits::new(bits).unwrap()).collect()
}
