//! Windows of convolutions and pools.

use bitpact_graph::{Padding, Shape};

use super::super::node::NodeView;
use super::usual::Spatial;

/// A window as rows and columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) padding: Padding,
}

impl Geometry {
    /// The window of a node over an input of this shape, which zeros `around` it make larger.
    pub(super) fn new(
        node: NodeView,
        spatial: Spatial,
        kernel: &[usize],
        from: Shape,
        around: Padding,
    ) -> Result<Self, String> {
        let n = spatial.count();
        if n == 0 || kernel.len() != n {
            return Err(format!("a window of {} sizes over {n}, expected one or two", kernel.len()));
        }
        let list = |name: &str, default: i64, n: usize| -> Result<Vec<usize>, String> {
            let given = node.ints(name).map_or_else(|| vec![default; n], <[i64]>::to_vec);
            let sizes: Option<Vec<usize>> = given.iter().map(|&size| usize::try_from(size).ok()).collect();
            sizes
                .filter(|sizes| sizes.len() == n)
                .ok_or_else(|| format!("{name} {given:?}, expected {n} numbers of 0 or more"))
        };
        let kernel = spatial.spread(kernel, 1);
        let stride = spatial.spread(&list("strides", 1, n)?, 1);
        let dilation = spatial.spread(&list("dilations", 1, n)?, 1);
        let sides = [from.h + around.top + around.bottom, from.w + around.left + around.right];
        let padding = match node.text("auto_pad", "NOTSET") {
            "NOTSET" => {
                let pads = list("pads", 0, 2 * n)?;
                let [top, left] = spatial.spread(&pads[..n], 0);
                let [bottom, right] = spatial.spread(&pads[n..], 0);
                Padding { top, left, bottom, right }
            }
            "VALID" => Padding::default(),
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                let split = |i: usize| {
                    let extent = (kernel[i].max(1) - 1) * dilation[i] + 1;
                    let positions = sides[i].div_ceil(stride[i].max(1));
                    let missing = ((positions - 1) * stride[i] + extent).saturating_sub(sides[i]);
                    if same == "SAME_UPPER" {
                        (missing / 2, missing.div_ceil(2))
                    } else {
                        (missing.div_ceil(2), missing / 2)
                    }
                };
                let ((top, bottom), (left, right)) = (split(0), split(1));
                Padding { top, left, bottom, right }
            }
            other => return Err(format!("auto_pad {other:?}")),
        };
        let limit = 1 << 15;
        if [kernel, stride, dilation].iter().flatten().any(|&n| n == 0 || n > limit) || padding.most() > limit {
            return Err("a window with a size of 0, or of more than 32768".to_owned());
        }
        Ok(Self { kernel, stride, dilation, padding })
    }

    /// The window with zeros around its input as its own padding.
    pub(super) fn around(self, around: Padding) -> Self {
        let Padding { top, left, bottom, right } = self.padding;
        let padding = Padding {
            top: top + around.top,
            left: left + around.left,
            bottom: bottom + around.bottom,
            right: right + around.right,
        };
        Self { padding, ..self }
    }
}
