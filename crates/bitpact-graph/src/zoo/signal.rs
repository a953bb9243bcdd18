//! Networks of signals: windows of one row. An image of several rows is read as a signal of as many channels for each
//! of its own, by a first convolution as high as the image.
//!
//! Batch norm stands where a network has instance norm, which has no integer form.

use bitpact_core::Function;

use super::Builder;
use crate::{AvgPool, BatchNorm, Conv, ConvTranspose, Graph, GraphError, MaxPool, Move, NodeId, Op, Padding, Shape};

/// Convolutions along one row.
struct Signal {
    b: Builder,
    /// Rows of the last tensor: those of the image before the first convolution, then one.
    rows: usize,
}

/// Window of a convolution along a row.
#[derive(Clone, Copy)]
struct Along {
    kernel: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    /// Whether a sample sees none after it.
    is_causal: bool,
}

/// A window of `kernel` samples without gaps.
const fn along(kernel: usize) -> Along {
    Along { kernel, stride: 1, dilation: 1, groups: 1, is_causal: false }
}

impl Signal {
    fn new(input: Shape) -> Self {
        Self { b: Builder::new(input), rows: input.h }
    }

    /// Convolution `conv` and batch norm `bn`, each with the number `n` behind it, padded so that a stride of 1 keeps
    /// the number of samples.
    fn conv_norm(&mut self, prefix: &str, n: &str, x: NodeId, out_channels: usize, window: Along) -> NodeId {
        let Along { kernel, stride, dilation, groups, is_causal } = window;
        let all = dilation * (kernel - 1);
        let left = if is_causal { all } else { all / 2 };
        let op = Op::Conv(Conv {
            out_channels,
            kernel: [self.rows, kernel],
            stride: [1, stride],
            padding: Padding { left, right: all - left, ..Padding::default() },
            dilation: [1, dilation],
            bias: false,
            groups,
        });
        self.rows = 1;
        let x = self.b.add(format!("{prefix}conv{n}"), op, &[x]);
        self.b.add(format!("{prefix}bn{n}"), Op::BatchNorm(BatchNorm::default()), &[x])
    }

    /// The same with an activation `act` behind it.
    fn layer(&mut self, prefix: &str, n: &str, x: NodeId, out_channels: usize, window: Along) -> NodeId {
        let x = self.conv_norm(prefix, n, x, out_channels, window);
        self.b.act(format!("{prefix}act{n}"), x)
    }

    /// A 1x1 convolution with a bias: a layer of one position.
    fn dense(&mut self, name: String, x: NodeId, out_channels: usize) -> NodeId {
        self.b.add(name, Op::Conv(Conv { bias: true, ..Conv::square(out_channels, 1, 1, 0) }), &[x])
    }

    fn average(&mut self, name: String, x: NodeId) -> NodeId {
        let pool = AvgPool { kernel: [1, 2], stride: [1, 2], ..AvgPool::square(1, 1, 0) };
        self.b.add(name, Op::AvgPool(pool), &[x])
    }
}

/// ResNet-1D of bp-benchmark (Gonzalez et al. 2023, Scientific Data, doi 10.1038/s41597-023-02020-6) with its settings
/// for PPG-BP: 32 filters, a first window of 9 and windows of 5, four blocks of two convolutions in two groups, a
/// stride of 4 in every second block, twice the filters after two blocks, squeeze and excitation by 4. Activations
/// follow the sums, and shortcuts that change shape are 1x1 convolutions.
pub(super) fn resnet1d(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut s = Signal::new(input);
    let mut x = s.layer("", "1", 0, 32, along(9));
    let mut width = 32;
    for block in 0..4 {
        let prefix = format!("layer{}.{}.", block / 2 + 1, block % 2);
        let (out, stride) = (32 << (block / 2), if block % 2 == 1 { 4 } else { 1 });
        let window = Along { groups: 2, ..along(5) };
        let y = s.layer(&prefix, "1", x, out, Along { stride, ..window });
        let y = s.conv_norm(&prefix, "2", y, out, window);
        let y = s.b.add(format!("{prefix}act2"), Op::Act { signed: true }, &[y]);
        let mut gate = s.b.add(format!("{prefix}se.pool"), Op::GlobalAvgPool, &[y]);
        gate = s.dense(format!("{prefix}se.conv1"), gate, out / 4);
        gate = s.b.act(format!("{prefix}se.act1"), gate);
        gate = s.dense(format!("{prefix}se.conv2"), gate, out);
        gate = s.b.add(format!("{prefix}se.act2"), Op::Act { signed: true }, &[gate]);
        gate = s.b.add(format!("{prefix}se.gate"), Op::Function(Function::Sigmoid), &[gate]);
        gate = s.b.act(format!("{prefix}se.act3"), gate);
        let y = s.b.add(format!("{prefix}se.mul"), Op::Mul, &[y, gate]);
        let shortcut = if stride == 1 && width == out {
            x
        } else {
            s.conv_norm(&format!("{prefix}shortcut."), "", x, out, Along { stride, ..along(1) })
        };
        let sum = s.b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
        x = s.b.act(format!("{prefix}act3"), sum);
        width = out;
    }
    s.b.classifier("resnet1d", "linear", x, classes)
}

/// TEMPONet (Zanghieri et al. 2020, IEEE TBioCAS, doi 10.1109/TBCAS.2019.2959160): three blocks of two dilated
/// convolutions of 3, one of 5 with a stride and an average pool, 32, 64 and 128 channels, then layers of 256 and 128.
/// Pools of a signal of one sample are left out.
pub(super) fn temponet(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut s = Signal::new(input);
    let (mut x, mut samples) = (0, input.w);
    for (block, (channels, dilation, stride)) in [(32, 2, 1), (64, 4, 2), (128, 8, 4)].into_iter().enumerate() {
        let prefix = format!("block{}.", block + 1);
        for n in ["1", "2"] {
            x = s.layer(&prefix, n, x, channels, Along { dilation, ..along(3) });
        }
        x = s.layer(&prefix, "3", x, channels, Along { stride, ..along(5) });
        samples = samples.div_ceil(stride);
        if samples > 1 {
            x = s.average(format!("{prefix}pool"), x);
            samples /= 2;
        }
    }
    for (n, features) in [("1", 256), ("2", 128)] {
        x = s.b.add(format!("fc{n}"), Op::Linear { out_features: features, bias: false }, &[x]);
        x = s.b.add(format!("fc{n}.bn"), Op::BatchNorm(BatchNorm::default()), &[x]);
        x = s.b.act(format!("fc{n}.act"), x);
    }
    s.b.add("linear", Op::Linear { out_features: classes, bias: true }, &[x]);
    Graph::new("temponet", s.b.nodes)
}

/// The temporal convolution network of Bai et al. 2018 (arXiv 1803.01271), section 3: residual blocks of two causal
/// convolutions of 5, dilations 1, 2, 4, 8 and 16, 32 channels, batch norm for its weight norm; the last sample is
/// read.
pub(super) fn tcn(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    const CHANNELS: usize = 32;
    let mut s = Signal::new(input);
    let mut x = 0;
    for block in 0..5 {
        let prefix = format!("block{}.", block + 1);
        let rows = s.rows;
        let window = Along { dilation: 1 << block, is_causal: true, ..along(5) };
        let y = s.layer(&prefix, "1", x, CHANNELS, window);
        let y = s.conv_norm(&prefix, "2", y, CHANNELS, window);
        let shortcut = if block == 0 {
            s.rows = rows;
            s.conv_norm(&format!("{prefix}shortcut."), "", x, CHANNELS, along(1))
        } else {
            x
        };
        let sum = s.b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
        x = s.b.act(format!("{prefix}act2"), sum);
    }
    let last = Move::Crop { top: 0, left: input.w - 1, height: 1, width: 1 };
    x = s.b.add("last", Op::View(last), &[x]);
    s.b.add("linear", Op::Linear { out_features: classes, bias: true }, &[x]);
    Graph::new("tcn", s.b.nodes)
}

/// U-Net-1D after bp-benchmark's: three levels of 16, 32 and 64 channels and 64 below, windows of 5, PReLU, pools of 2
/// and transposed convolutions of 2. Where the benchmark gives a signal, a mean over the samples and a linear layer
/// give numbers. Samples beyond a multiple of 8 are not read, and there must be 8.
pub(super) fn unet1d(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut s = Signal::new(input);
    let mut x = 0;
    let mut skips = Vec::new();
    for (level, channels) in [16, 32, 64].into_iter().enumerate() {
        x = prelu_layer(&mut s, &format!("down{}.", level + 1), x, channels);
        if level == 0 {
            let crop = Move::Crop { top: 0, left: 0, height: 1, width: input.w / 8 * 8 };
            x = s.b.add("crop", Op::View(crop), &[x]);
        }
        skips.push((x, channels));
        let pool = MaxPool { kernel: [1, 2], stride: [1, 2], ..MaxPool::square(1, 1, 0) };
        x = s.b.add(format!("down{}.pool", level + 1), Op::MaxPool(pool), &[x]);
    }
    x = prelu_layer(&mut s, "bottom.", x, 64);
    for (level, (skip, channels)) in skips.into_iter().enumerate().rev() {
        let prefix = format!("up{}.", level + 1);
        let wider = Op::ConvTranspose(ConvTranspose {
            out_channels: channels,
            kernel: [1, 2],
            stride: [1, 2],
            padding: Padding::default(),
            output_padding: [0, 0],
            dilation: [1, 1],
            bias: false,
            groups: 1,
        });
        x = s.b.add(format!("{prefix}wider"), wider, &[x]);
        x = s.b.add(format!("{prefix}wider.bn"), Op::BatchNorm(BatchNorm::default()), &[x]);
        x = s.b.add(format!("{prefix}wider.act"), Op::Act { signed: true }, &[x]);
        x = s.b.add(format!("{prefix}join"), Op::Concat, &[x, skip]);
        x = prelu_layer(&mut s, &prefix, x, channels);
    }
    s.b.classifier("unet1d", "linear", x, classes)
}

/// Convolution of 5, batch norm and PReLU.
fn prelu_layer(s: &mut Signal, prefix: &str, x: NodeId, channels: usize) -> NodeId {
    let x = s.conv_norm(prefix, "", x, channels, along(5));
    let x = s.b.add(format!("{prefix}act1"), Op::Act { signed: true }, &[x]);
    let x = s.b.add(format!("{prefix}prelu"), Op::Function(Function::Prelu), &[x]);
    s.b.add(format!("{prefix}act2"), Op::Act { signed: true }, &[x])
}
