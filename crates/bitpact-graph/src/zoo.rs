//! The model zoo: functions that return a [`Graph`].
//!
//! | name | network | source |
//! |---|---|---|
//! | `resnet20`, `resnet32`, `resnet44`, `resnet56` | post-activation, option-A shortcuts | He et al. 2015 (arXiv
//! 1512.03385), section 4.2 |
//! | the same with `-b` | 1x1 projection shortcuts (option B) | the same |
//! | `resnet18`, `resnet34` | basic blocks, torchvision's layout | the same, table 1 |
//! | `resnet50` | bottlenecks, stride on the 3x3 as in torchvision | the same, table 1 |
//! | `alexnet` | the PACT paper's: two groups in convolutions 1, 3 and 4, batch norm before every activation |
//! Krizhevsky et al. 2012; PACT (arXiv 1805.06085), appendix B |
//! | `mobilenet_v1` | depthwise and pointwise convolutions | Howard et al. 2017 (arXiv 1704.04861), table 1 |
//! | `mobilenet_v2` | inverted residuals with linear bottlenecks, torchvision's layout and names | Sandler et al. 2018
//! (arXiv 1801.04381), table 2 |
//! | `preact_resnet20`, `-32`, `-44`, `-56` | full pre-activation: batch norm and activation before every convolution,
//! an uncut residual stream; option-A shortcuts | He et al. 2016 (arXiv 1603.05027), section 4; PACT's CIFAR-10 network
//! |
//! | the same with `-b` | projections of the activated tensor | the same |
//! | `preact_resnet18`, `preact_resnet34`, `preact_resnet50` | full pre-activation, Tensorpack's layout; PACT's
//! ImageNet networks | the same; PACT, appendix B |
//! | `resnet8` | MLPerf Tiny's image classification network | Banbury et al. 2021 (arXiv 2106.07597), section 3 |
//! | `vgg_small` | six 3x3 convolutions of 128 to 512 channels and one linear layer | Zhang et al. 2018 (LQ-Nets, arXiv
//! 1807.10029), section 4.1 |
//! | `svhn_cnn` | seven convolutions and one linear layer, dropout before the last convolution | Zhou et al. 2016
//! (DoReFa-Net, arXiv 1606.06160), Tensorpack's example; PACT, appendix B |
//! | `resnet1d`, `unet1d` | blood pressure from signals, bp-benchmark | Gonzalez et al. 2023, Scientific Data |
//! | `temponet` | dilated convolutions along a signal | Zanghieri et al. 2020, IEEE TBioCAS |
//! | `tcn` | causal dilated convolutions along a signal | Bai et al. 2018 (arXiv 1803.01271), section 3 |
//! | `cnn` | three stages of two 3x3 convolutions and a pool | ours, for small images |

mod preact;
mod signal;
mod small;

use crate::{BatchNorm, Conv, Graph, GraphError, MaxPool, Node, NodeId, Op, Shape};

/// Every name [`build`] knows.
pub const NAMES: [&str; 33] = [
    "alexnet",
    "cnn",
    "mobilenet_v1",
    "mobilenet_v2",
    "preact_resnet18",
    "preact_resnet20",
    "preact_resnet20-b",
    "preact_resnet32",
    "preact_resnet32-b",
    "preact_resnet34",
    "preact_resnet44",
    "preact_resnet44-b",
    "preact_resnet50",
    "preact_resnet56",
    "preact_resnet56-b",
    "resnet18",
    "resnet1d",
    "resnet20",
    "resnet20-b",
    "resnet32",
    "resnet32-b",
    "resnet34",
    "resnet44",
    "resnet44-b",
    "resnet50",
    "resnet56",
    "resnet56-b",
    "resnet8",
    "svhn_cnn",
    "tcn",
    "temponet",
    "unet1d",
    "vgg_small",
];

/// Builds the network called `name` for images of shape `input` and `classes` classes; `None` for a name that is not
/// in [`NAMES`].
///
/// # Errors
/// An input too small for the network's strides, or sizes out of range.
pub fn build(name: &str, input: Shape, classes: usize) -> Option<Result<Graph, GraphError>> {
    let cifar = |depth: usize, projections: bool| Some(cifar_resnet(name, depth, projections, input, classes));
    let preact = |depth: usize, projections: bool| Some(preact::cifar(name, depth, projections, input, classes));
    match name {
        "alexnet" => Some(alexnet(input, classes)),
        "cnn" => Some(cnn(input, classes)),
        "mobilenet_v1" => Some(mobilenet_v1(input, classes)),
        "mobilenet_v2" => Some(mobilenet_v2(input, classes)),
        "resnet18" => Some(imagenet_resnet(name, &[2, 2, 2, 2], false, input, classes)),
        "resnet34" => Some(imagenet_resnet(name, &[3, 4, 6, 3], false, input, classes)),
        "resnet50" => Some(imagenet_resnet(name, &[3, 4, 6, 3], true, input, classes)),
        "preact_resnet18" => Some(preact::imagenet(name, &[2, 2, 2, 2], false, input, classes)),
        "preact_resnet34" => Some(preact::imagenet(name, &[3, 4, 6, 3], false, input, classes)),
        "preact_resnet50" => Some(preact::imagenet(name, &[3, 4, 6, 3], true, input, classes)),
        "resnet8" => Some(small::resnet8(input, classes)),
        "resnet1d" => Some(signal::resnet1d(input, classes)),
        "svhn_cnn" => Some(small::svhn_cnn(input, classes)),
        "tcn" => Some(signal::tcn(input, classes)),
        "temponet" => Some(signal::temponet(input, classes)),
        "unet1d" => Some(signal::unet1d(input, classes)),
        "vgg_small" => Some(small::vgg_small(input, classes)),
        _ => {
            let (depth, projections) = match name.strip_suffix("-b") {
                Some(base) => (base, true),
                None => (name, false),
            };
            match depth {
                "resnet20" => cifar(20, projections),
                "resnet32" => cifar(32, projections),
                "resnet44" => cifar(44, projections),
                "resnet56" => cifar(56, projections),
                "preact_resnet20" => preact(20, projections),
                "preact_resnet32" => preact(32, projections),
                "preact_resnet44" => preact(44, projections),
                "preact_resnet56" => preact(56, projections),
                _ => None,
            }
        }
    }
}

/// Side of the square images and number of classes that the network called `name` is usually measured with: 224 and
/// ImageNet's 1000 for the ImageNet networks, 40 and 10 for `svhn_cnn`, 32 and 10 for the others.
pub fn usual_input(name: &str) -> (usize, usize) {
    match name.strip_prefix("preact_").unwrap_or(name) {
        "alexnet" | "resnet18" | "resnet34" | "resnet50" => (224, 1000),
        "svhn_cnn" => (40, 10),
        _ => (32, 10),
    }
}

struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn new(input: Shape) -> Self {
        let op = Op::Input { height: input.h, width: input.w, channels: input.c };
        Self { nodes: vec![Node { name: "input".to_owned(), op, inputs: Vec::new() }] }
    }

    fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec() });
        self.nodes.len() - 1
    }

    /// Convolution and batch norm; "same" padding for odd kernels.
    fn conv_norm(
        &mut self,
        [conv, norm]: [&str; 2],
        prefix: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> NodeId {
        self.grouped([conv, norm], prefix, x, out_channels, kernel, stride, 1)
    }

    /// Convolution with groups, and batch norm; "same" padding for odd kernels.
    fn grouped(
        &mut self,
        [conv, norm]: [&str; 2],
        prefix: &str,
        x: NodeId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> NodeId {
        let op = Op::Conv(Conv { groups, ..Conv::square(out_channels, kernel, stride, kernel / 2) });
        let x = self.add(format!("{prefix}{conv}"), op, &[x]);
        self.add(format!("{prefix}{norm}"), Op::BatchNorm(BatchNorm::default()), &[x])
    }

    fn act(&mut self, name: impl Into<String>, x: NodeId) -> NodeId {
        self.add(name, Op::Act { signed: false }, &[x])
    }

    fn max_pool(&mut self, name: &str, x: NodeId, kernel: usize, stride: usize, padding: usize) -> NodeId {
        self.add(name, Op::MaxPool(MaxPool::square(kernel, stride, padding)), &[x])
    }

    fn classifier(mut self, name: &str, layer: &str, x: NodeId, classes: usize) -> Result<Graph, GraphError> {
        let x = self.add("avgpool", Op::GlobalAvgPool, &[x]);
        self.add(layer, Op::Linear { out_features: classes, bias: true }, &[x]);
        Graph::new(name, self.nodes)
    }
}

fn cifar_resnet(
    name: &str,
    depth: usize,
    projections: bool,
    input: Shape,
    classes: usize,
) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = b.conv_norm(["conv1", "bn1"], "", 0, 16, 3, 1);
    x = b.act("act1", x);
    let mut width = 16;
    for stage in 1..=3usize {
        let out = 16 << (stage - 1);
        for block in 0..(depth - 2) / 6 {
            let prefix = format!("layer{stage}.{block}.");
            let stride = if block == 0 && stage > 1 { 2 } else { 1 };
            let mut y = b.conv_norm(["conv1", "bn1"], &prefix, x, out, 3, stride);
            y = b.act(format!("{prefix}act1"), y);
            y = b.conv_norm(["conv2", "bn2"], &prefix, y, out, 3, 1);
            let shortcut = match (stride, projections) {
                (1, _) => x,
                (_, true) => b.conv_norm(["shortcut.0", "shortcut.1"], &prefix, x, out, 1, stride),
                (_, false) => {
                    let (pad_before, pad_after) = ((out - width) / 2, (out - width).div_ceil(2));
                    b.add(format!("{prefix}shortcut"), Op::Subsample { stride, pad_before, pad_after }, &[x])
                }
            };
            y = b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
            x = b.act(format!("{prefix}act2"), y);
            width = out;
        }
    }
    b.classifier(name, "linear", x, classes)
}

fn imagenet_resnet(
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
            let layers: &[(usize, usize, usize)] = if bottleneck {
                &[(inner, 1, 1), (inner, 3, stride), (out, 1, 1)]
            } else {
                &[(inner, 3, stride), (out, 3, 1)]
            };
            let mut y = x;
            for (n, &(channels, kernel, stride)) in (1..).zip(layers) {
                let (conv, norm) = (format!("conv{n}"), format!("bn{n}"));
                y = b.conv_norm([&conv, &norm], &prefix, y, channels, kernel, stride);
                if n < layers.len() {
                    y = b.act(format!("{prefix}act{n}"), y);
                }
            }
            let shortcut = if stride != 1 || width != out {
                b.conv_norm(["downsample.0", "downsample.1"], &prefix, x, out, 1, stride)
            } else {
                x
            };
            y = b.add(format!("{prefix}add"), Op::Add, &[y, shortcut]);
            x = b.act(format!("{prefix}act{}", layers.len()), y);
            width = out;
        }
    }
    b.classifier(name, "fc", x, classes)
}

fn cnn(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = 0;
    for (n, channels) in [(1, 16), (3, 32), (5, 64)] {
        for layer in [n, n + 1] {
            let (conv, norm) = (format!("conv{layer}"), format!("bn{layer}"));
            x = b.conv_norm([&conv, &norm], "", x, channels, 3, 1);
            x = b.act(format!("act{layer}"), x);
        }
        if n < 5 {
            x = b.max_pool(&format!("pool{}", n / 2 + 1), x, 2, 2, 0);
        }
    }
    b.classifier("cnn", "linear", x, classes)
}

/// 96@12/4, 256@5 in 2 groups, 384@3, 384@3 in 2 groups, 256@3 in 2 groups, 4096, 4096, classes: the layers the paper
/// trains, of Tensorpack's DoReFa example, with its names. A batch norm stands before every activation, so no layer but
/// the last has a bias. Pools of 3/2 follow convolutions 1, 2 and 4; the first two pad by 1, where TensorFlow's "SAME"
/// pads at the far side only. 224x224 gives 54, 27, 14 and 6 rows.
fn alexnet(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let conv0 = Op::Conv(Conv::square(96, 12, 4, 0));
    let mut x = b.add("conv0", conv0, &[0]);
    x = b.add("bn0", Op::BatchNorm(BatchNorm::default()), &[x]);
    x = b.act("act0", x);
    for (n, channels, kernel, groups, pool) in
        [(1, 256, 5, 2, Some(1)), (2, 384, 3, 1, Some(1)), (3, 384, 3, 2, None), (4, 256, 3, 2, Some(0))]
    {
        let (conv, norm) = (format!("conv{n}"), format!("bn{n}"));
        x = b.grouped([&conv, &norm], "", x, channels, kernel, 1, groups);
        x = b.act(format!("act{n}"), x);
        if let Some(padding) = pool {
            x = b.max_pool(&format!("pool{n}"), x, 3, 2, padding);
        }
    }
    for n in 0..2 {
        x = b.add(format!("fc{n}"), Op::Linear { out_features: 4096, bias: false }, &[x]);
        x = b.add(format!("bnfc{n}"), Op::BatchNorm(BatchNorm::default()), &[x]);
        x = b.act(format!("actfc{n}"), x);
    }
    b.add("fct", Op::Linear { out_features: classes, bias: true }, &[x]);
    Graph::new("alexnet", b.nodes)
}

fn mobilenet_v1(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = b.conv_norm(["conv1", "bn1"], "", 0, 32, 3, 2);
    x = b.act("act1", x);
    let mut width = 32;
    let blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)];
    let blocks = blocks.into_iter().chain([(512, 1); 5]).chain([(1024, 2), (1024, 1)]);
    for (block, (out, stride)) in blocks.enumerate() {
        let prefix = format!("layers.{block}.");
        x = b.grouped(["conv1", "bn1"], &prefix, x, width, 3, stride, width);
        x = b.act(format!("{prefix}act1"), x);
        x = b.conv_norm(["conv2", "bn2"], &prefix, x, out, 1, 1);
        x = b.act(format!("{prefix}act2"), x);
        width = out;
    }
    b.classifier("mobilenet_v1", "linear", x, classes)
}

fn mobilenet_v2(input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut b = Builder::new(input);
    let mut x = b.conv_norm(["features.0.0", "features.0.1"], "", 0, 32, 3, 2);
    x = b.act("features.0.2", x);
    let (mut width, mut block) = (32, 1);
    for (expand, out, count, first_stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for n in 0..count {
            let prefix = format!("features.{block}.conv.");
            let stride = if n == 0 { first_stride } else { 1 };
            let (mut y, mut layer, inner) = (x, 0, width * expand);
            if expand > 1 {
                y = b.conv_norm(["0.0", "0.1"], &prefix, y, inner, 1, 1);
                y = b.act(format!("{prefix}0.2"), y);
                layer = 1;
            }
            let (conv, norm) = (format!("{layer}.0"), format!("{layer}.1"));
            y = b.grouped([&conv, &norm], &prefix, y, inner, 3, stride, inner);
            y = b.act(format!("{prefix}{layer}.2"), y);
            let (conv, norm) = (format!("{}", layer + 1), format!("{}", layer + 2));
            y = b.conv_norm([&conv, &norm], &prefix, y, out, 1, 1);
            if stride == 1 && width == out {
                y = b.add(format!("features.{block}.add"), Op::Add, &[y, x]);
            }
            x = b.add(format!("features.{block}.act"), Op::Act { signed: true }, &[y]);
            (width, block) = (out, block + 1);
        }
    }
    x = b.conv_norm(["features.18.0", "features.18.1"], "", x, 1280, 1, 1);
    x = b.act("features.18.2", x);
    b.classifier("mobilenet_v2", "classifier.1", x, classes)
}
