//! Pre-activation ResNets: batch norm and activation before every convolution, and nothing on the residual stream.

use super::Builder;
use crate::{BatchNorm, Conv, Graph, GraphError, NodeId, Op, Shape};

/// Batch norm and activation.
fn norm_act(b: &mut Builder, prefix: &str, n: usize, x: NodeId) -> NodeId {
    let x = b.add(format!("{prefix}bn{n}"), Op::BatchNorm(BatchNorm::default()), &[x]);
    b.act(format!("{prefix}act{n}"), x)
}

fn conv(b: &mut Builder, name: String, x: NodeId, out_channels: usize, kernel: usize, stride: usize) -> NodeId {
    let op = Op::Conv(Conv::square(out_channels, kernel, stride, kernel / 2));
    b.add(name, op, &[x])
}

/// `x + conv2(act2(bn2(conv1(act1(bn1(x))))))`, three stages of 16, 32 and 64 channels, then a batch norm and an
/// activation. Where the size changes, the stream is subsampled (option A), or with `projections` a 1x1 convolution of
/// the activated tensor takes its place.
pub(super) fn cifar(
    name: &str,
    depth: usize,
    projections: bool,
    input: Shape,
    classes: usize,
) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = conv(&mut b, "conv1".to_owned(), 0, 16, 3, 1);
    let mut width = 16;
    for stage in 1..=3usize {
        let out = 16 << (stage - 1);
        for block in 0..(depth - 2) / 6 {
            let prefix = format!("layer{stage}.{block}.");
            let stride = if block == 0 && stage > 1 { 2 } else { 1 };
            let first = norm_act(&mut b, &prefix, 1, x);
            let mut y = conv(&mut b, format!("{prefix}conv1"), first, out, 3, stride);
            y = norm_act(&mut b, &prefix, 2, y);
            y = conv(&mut b, format!("{prefix}conv2"), y, out, 3, 1);
            let shortcut = match (stride, projections) {
                (1, _) => x,
                (_, true) => conv(&mut b, format!("{prefix}shortcut"), first, out, 1, stride),
                (_, false) => {
                    let (pad_before, pad_after) = ((out - width) / 2, (out - width).div_ceil(2));
                    b.add(format!("{prefix}shortcut"), Op::Subsample { stride, pad_before, pad_after }, &[x])
                }
            };
            x = b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
            width = out;
        }
    }
    x = b.add("bn", Op::BatchNorm(BatchNorm::default()), &[x]);
    x = b.act("act", x);
    b.classifier(name, "linear", x, classes)
}

/// The stem of an ordinary ResNet, then blocks whose first convolution reads the pool in the first block and a batch
/// norm and activation of the stream in the others, as in Tensorpack; a 1x1 convolution of what that convolution reads
/// where the size changes. The stride is the 3x3 convolution's.
pub(super) fn imagenet(
    name: &str,
    blocks: &[usize; 4],
    bottleneck: bool,
    input: Shape,
    classes: usize,
) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = b.conv_norm(["conv1", "bn1"], "", 0, 64, 7, 2);
    x = b.act("act1", x);
    x = b.max_pool("maxpool", x, 3, 2, 1);
    let mut width = 64;
    for (stage, &count) in (1..).zip(blocks) {
        let inner = 32usize << stage;
        let out = if bottleneck { 4 * inner } else { inner };
        for block in 0..count {
            let prefix = format!("layer{stage}.{block}.");
            let stride = if block == 0 && stage > 1 { 2 } else { 1 };
            let first = if stage == 1 && block == 0 { x } else { norm_act(&mut b, &prefix, 1, x) };
            let layers: &[(usize, usize, usize)] = if bottleneck {
                &[(inner, 1, 1), (inner, 3, stride), (out, 1, 1)]
            } else {
                &[(inner, 3, stride), (out, 3, 1)]
            };
            let mut y = first;
            for (n, &(channels, kernel, stride)) in (1..).zip(layers) {
                if n > 1 {
                    y = norm_act(&mut b, &prefix, n, y);
                }
                y = conv(&mut b, format!("{prefix}conv{n}"), y, channels, kernel, stride);
            }
            let shortcut = if stride != 1 || width != out {
                conv(&mut b, format!("{prefix}downsample"), first, out, 1, stride)
            } else {
                x
            };
            x = b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
            width = out;
        }
    }
    x = b.add("bn", Op::BatchNorm(BatchNorm::default()), &[x]);
    x = b.act("act", x);
    b.classifier(name, "fc", x, classes)
}
