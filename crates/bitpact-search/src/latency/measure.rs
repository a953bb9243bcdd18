//! Times layers with the engine, each in the smallest network that has it.

use std::time::{Duration, Instant};

use bitpact_accel::Widths;
use bitpact_engine::{ExecOptions, Executor};
use bitpact_graph::{BitSpec, Conv, FirstLast, Graph, Node, Op, Override, QuantConfig, QuantPlan, Shape};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, IntegerModel, Model, convert};

use super::{LatencyTable, Layer, key};
use crate::{Product, SearchError};

/// Least time and number of the runs whose median is taken.
const MEASURED: (Duration, usize) = (Duration::from_millis(20), 21);

/// Adds the layers of `wanted` that `table` does not have. `told` hears of layers that are done and of all, and says
/// whether to go on; the result tells whether it did to the end.
///
/// # Errors
/// A layer that the engine refuses.
pub fn measure_missing(
    table: &mut LatencyTable,
    wanted: &[(&Product, Widths)],
    isa: Isa,
    told: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<bool, SearchError> {
    let mut missing: Vec<(&Product, Widths)> = Vec::new();
    for &(product, widths) in wanted {
        let is_same = |other: &(&Product, Widths)| key(other.0) == key(product) && other.1 == widths;
        if table.measured_ns(product, widths).is_none() && !missing.iter().any(is_same) {
            missing.push((product, widths));
        }
    }
    for (i, (product, widths)) in missing.iter().enumerate() {
        if !told(i, missing.len()) {
            return Ok(false);
        }
        let (op, input, image) = key(product);
        let ns = layer_ns(op, Shape { h: input[0], w: input[1], c: input[2] }, image, *widths, isa)?;
        table.layers.push(Layer { op, input, image, widths: widths.to_string(), ns });
    }
    Ok(true)
}

/// Seconds of one image of `graph` at the bits of `plan` with random weights, on one thread: the median of many runs.
///
/// # Errors
/// A network that the engine refuses.
pub fn network_seconds(graph: &Graph, plan: &QuantPlan, isa: Isa) -> Result<f64, SearchError> {
    let model = integers(graph.clone(), plan.clone())?;
    let mut executor = Executor::new(&model, ExecOptions { isa, threads: 1 })?;
    let pixels = vec![100; executor.image_len()];
    let mut logits = vec![0; executor.output_len()];
    Ok(median(|| {
        let begin = Instant::now();
        executor.run(&pixels, &mut logits);
        begin.elapsed()
    }) * 1e-9)
}

fn integers(graph: Graph, plan: QuantPlan) -> Result<IntegerModel, SearchError> {
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let names = (0..graph.classes()).map(|class| class.to_string()).collect();
    Ok(convert(&Model::random(graph, plan, input, names, 1)?)?.model)
}

/// Median nanoseconds of a time, after one run that warms up.
fn median(mut time: impl FnMut() -> Duration) -> f64 {
    time();
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < MEASURED.1 || begin.elapsed() < MEASURED.0 {
        times.push(time());
    }
    times.sort_unstable();
    times[times.len() / 2].as_nanos().max(1) as f64
}

/// Nanoseconds of one layer: of `image -> 1x1 convolution -> activation -> layer -> activation -> pool -> linear`, or
/// without what stands before it where it reads the image.
fn layer_ns(op: Op, input: Shape, image: bool, widths: Widths, isa: Isa) -> Result<f64, SearchError> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut add = |name: &str, op: Op| {
        let inputs = if nodes.is_empty() { Vec::new() } else { vec![nodes.len() - 1] };
        nodes.push(Node { name: name.to_owned(), op, inputs });
    };
    let channels = if image { input.c } else { 1 };
    add("image", Op::Input { height: input.h, width: input.w, channels });
    if !image {
        let conv = Conv {
            out_channels: input.c,
            kernel: [1, 1],
            stride: [1, 1],
            padding: Default::default(),
            dilation: [1, 1],
            groups: 1,
            bias: false,
        };
        add("before", Op::Conv(conv));
        add("codes", Op::Act { signed: false });
    }
    add("layer", op);
    add("act", Op::Act { signed: false });
    add("pool", Op::GlobalAvgPool);
    add("end", Op::Linear { out_features: 2, bias: false });
    let graph = Graph::new("layer", nodes)?;
    let eight: BitSpec = "W8A8".parse().expect("is a width");
    let mut config = QuantConfig { first_last: FirstLast::Same, ..QuantConfig::new(eight) };
    let weight_bits = Some(if widths.weights() > 8 { 32 } else { widths.weights() });
    config.overrides.insert("layer".to_owned(), Override { weight_bits, ..Override::default() });
    if !image {
        let activation_bits = Some(widths.activations());
        config.overrides.insert("codes".to_owned(), Override { activation_bits, ..Override::default() });
    }
    let model = integers(graph.clone(), QuantPlan::resolve(&graph, &config)?)?;
    let mut executor = Executor::new(&model, ExecOptions { isa, threads: 1 })?;
    let pixels = vec![100; executor.image_len()];
    let at = usize::from(!image);
    Ok(median(|| executor.profile(&pixels)[at].time))
}
