//! The model zoo: functions that return a [`Graph`].
//!
//! | name | network | source |
//! |---|---|---|
//! | `resnet20`, `resnet32`, `resnet44`, `resnet56` | post-activation, option-A shortcuts | He et al. 2015 (arXiv 1512.03385), section 4.2 |
//! | the same with `-b` | 1x1 projection shortcuts (option B) | the same |
//! | `resnet18`, `resnet34` | basic blocks, torchvision's layout | the same, table 1 |
//! | `resnet50` | bottlenecks, stride on the 3x3 as in torchvision | the same, table 1 |
//! | `cnn` | three stages of two 3x3 convolutions and a pool | ours, for small images |

use crate::{Graph, GraphError, Node, NodeId, Op, Shape};

/// Every name [`build`] knows.
pub const NAMES: [&str; 12] = [
    "cnn",
    "resnet18",
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
];

/// Builds the network called `name` for images of shape `input` and `classes` classes; `None` for a name that is not
/// in [`NAMES`].
///
/// # Errors
/// An input too small for the network's strides, or sizes out of range.
pub fn build(name: &str, input: Shape, classes: usize) -> Option<Result<Graph, GraphError>> {
    let cifar = |depth: usize, projections: bool| Some(cifar_resnet(name, depth, projections, input, classes));
    match name {
        "cnn" => Some(cnn(input, classes)),
        "resnet18" => Some(imagenet_resnet(name, &[2, 2, 2, 2], false, input, classes)),
        "resnet34" => Some(imagenet_resnet(name, &[3, 4, 6, 3], false, input, classes)),
        "resnet50" => Some(imagenet_resnet(name, &[3, 4, 6, 3], true, input, classes)),
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
                _ => None,
            }
        }
    }
}

/// Side of the square images and number of classes that the network called `name` is usually measured with: 224 and
/// ImageNet's 1000 for the ImageNet networks, 32 and 10 for the others.
pub fn usual_input(name: &str) -> (usize, usize) {
    if matches!(name, "resnet18" | "resnet34" | "resnet50") { (224, 1000) } else { (32, 10) }
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
        let op = Op::Conv { out_channels, kernel, stride, padding: kernel / 2, bias: false };
        let x = self.add(format!("{prefix}{conv}"), op, &[x]);
        self.add(format!("{prefix}{norm}"), Op::BatchNorm, &[x])
    }

    fn act(&mut self, name: impl Into<String>, x: NodeId) -> NodeId {
        self.add(name, Op::Act, &[x])
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
    x = b.add("maxpool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }, &[x]);
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
            x = b.add(format!("pool{}", n / 2 + 1), Op::MaxPool { kernel: 2, stride: 2, padding: 0 }, &[x]);
        }
    }
    b.classifier("cnn", "linear", x, classes)
}
