//! Small networks of papers and benchmarks.

use super::Builder;
use crate::{BatchNorm, Conv, Graph, GraphError, Node, NodeId, Op, Shape};

/// Three stages of one basic block, 16, 32 and 64 channels, projections by 1x1 convolutions without a batch norm, as in
/// MLCommons' Keras model. Convolutions before a batch norm have no bias there either that counts: the norm removes it.
pub(super) fn resnet8(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = b.conv_norm(["conv1", "bn1"], "", 0, 16, 3, 1);
    x = b.act("act1", x);
    for (stage, out) in [(1, 16), (2, 32), (3, 64)] {
        let prefix = format!("layer{stage}.0.");
        let stride = if stage > 1 { 2 } else { 1 };
        let mut y = b.conv_norm(["conv1", "bn1"], &prefix, x, out, 3, stride);
        y = b.act(format!("{prefix}act1"), y);
        y = b.conv_norm(["conv2", "bn2"], &prefix, y, out, 3, 1);
        let shortcut = if stage > 1 {
            let op = Op::Conv(Conv { bias: true, ..Conv::square(out, 1, stride, 0) });
            b.add(format!("{prefix}shortcut"), op, &[x])
        } else {
            x
        };
        y = b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
        x = b.act(format!("{prefix}act2"), y);
    }
    b.classifier("resnet8", "linear", x, classes)
}

/// 128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-FC.
pub(super) fn vgg_small(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = 0;
    for (stage, channels) in [(1, 128), (2, 256), (3, 512)] {
        for layer in [2 * stage - 1, 2 * stage] {
            let (conv, norm) = (format!("conv{layer}"), format!("bn{layer}"));
            x = b.conv_norm([&conv, &norm], "", x, channels, 3, 1);
            x = b.act(format!("act{layer}"), x);
        }
        x = b.max_pool(&format!("pool{stage}"), x, 2, 2, 0);
    }
    linear(b, "vgg_small", "fc", x, classes)
}

/// 48@5, pool, 64@3, 64@3, pool, 128@3, 128@3, 128@3, dropout 0.5, 512, classes: the layers and names of Tensorpack's
/// `svhn-digit-dorefa`, whose images have 40 rows and columns. Convolutions 0, 3, 5 and 6 have no padding; the last
/// one's window is all that is left, 5x5 for those images. `pool` here follows the activation instead of preceding it,
/// which gives the same codes. The first convolution has a bias and no batch norm.
pub(super) fn svhn_cnn(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let conv =
        |out_channels, kernel, padding, bias| Op::Conv(Conv { bias, ..Conv::square(out_channels, kernel, 1, padding) });
    let mut x = b.add("conv0", conv(48, 5, 0, true), &[0]);
    x = b.act("act0", x);
    x = b.max_pool("pool0", x, 2, 2, 0);
    for (n, channels, padding) in [(1, 64, 1), (2, 64, 1), (3, 128, 0), (4, 128, 1), (5, 128, 0)] {
        x = b.add(format!("conv{n}"), conv(channels, 3, padding, false), &[x]);
        x = b.add(format!("bn{n}"), Op::BatchNorm(BatchNorm::default()), &[x]);
        x = b.act(format!("act{n}"), x);
        if n == 2 {
            x = b.max_pool("pool1", x, 2, 2, 0);
        }
    }
    x = b.add("dropout", Op::Dropout { rate: 0.5 }, &[x]);
    // 40 - 4 = 36, 18, 9, 7, 7, 5.
    let left = (input.h.min(input.w).saturating_sub(4) / 4).saturating_sub(4).max(1);
    x = b.add("conv6", conv(512, left, 0, false), &[x]);
    x = b.add("bn6", Op::BatchNorm(BatchNorm::default()), &[x]);
    x = b.act("act6", x);
    linear(b, "svhn_cnn", "fc1", x, classes)
}

fn linear(b: Builder, name: &str, layer: &str, x: NodeId, classes: usize) -> Result<Graph, GraphError> {
    let mut nodes = b.nodes;
    nodes.push(Node { name: layer.to_owned(), op: Op::Linear { out_features: classes, bias: true }, inputs: vec![x] });
    Graph::new(name, nodes)
}
