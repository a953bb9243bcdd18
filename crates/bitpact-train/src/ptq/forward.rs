//! A network in float32, node after node over all images at once: each value lives until its last reader is done.

use bitpact_core::{ActQuant, Bits, Function, act_code, channel_q_max, largest_clip};
use bitpact_graph::{ActPlan, Graph, NodeId, Op, Shape, moved_source};
use bitpact_kernels::{Chunked, Pool};
use bitpact_model::{InputDescription, Model, ModelError};

/// `[image][row][column][channel]` of a node.
pub(super) type Values = Vec<f32>;

/// Computes `elements` numbers for each image; a task is an image, so that the result is the same for any number of
/// threads.
pub(super) fn each_image(
    elements: usize,
    images: usize,
    pool: &Pool,
    f: &(dyn Fn(usize, &mut [f32]) + Sync),
) -> Values {
    let mut out = vec![0.0; elements * images];
    let parts = Chunked::new(&mut out, elements);
    pool.run(parts.chunks(), &|image, _| f(image, &mut parts.get(image)));
    out
}

/// Calls `f` with every node after the input and the values of its inputs, in order, and returns the values of the main
/// output. Values that nothing reads any more are dropped.
///
/// # Errors
/// Those of `f`.
pub(super) fn walk<E>(
    graph: &Graph,
    first: Values,
    mut f: impl FnMut(NodeId, &[&[f32]]) -> Result<Values, E>,
) -> Result<Values, E> {
    let mut readers: Vec<usize> = (0..graph.nodes().len()).map(|id| graph.consumers(id).len()).collect();
    readers[graph.output()] += 1;
    let mut values: Vec<Values> = vec![first];
    for id in 1..graph.nodes().len() {
        let inputs = &graph.node(id).inputs;
        let read: Vec<&[f32]> = inputs.iter().map(|&i| &values[i][..]).collect();
        let value = f(id, &read)?;
        values.push(value);
        for &i in inputs {
            readers[i] -= 1;
            if readers[i] == 0 {
                values[i] = Vec::new();
            }
        }
    }
    Ok(std::mem::take(&mut values[graph.output()]))
}

/// Bytes of the values that live at once, of one image, at the most.
pub(super) fn live_bytes(graph: &Graph) -> u64 {
    let bytes = |id: NodeId| 4 * graph.shape(id).elements() as u64;
    let last = |id: NodeId| graph.consumers(id).iter().copied().max().unwrap_or(id);
    let alive = |at: NodeId| (0..=at).filter(|&id| last(id) >= at).map(bytes).sum::<u64>();
    (0..graph.nodes().len()).map(alive).max().unwrap_or(0)
}

/// The image less its zero point: what layers that read it multiply; the scale of a pixel is their weights' matter.
pub(super) fn centred(bytes: &[u8], input: &InputDescription) -> Values {
    let zeros = input.zero_point.iter().cycle();
    input.codes(bytes).zip(zeros).map(|(code, &zero)| f32::from(code) - f32::from(zero)).collect()
}

/// The value of a node that is neither a product nor a quantized activation.
///
/// # Errors
/// A tensor that the model lacks.
pub(super) fn value(
    model: &Model,
    id: NodeId,
    inputs: &[&[f32]],
    images: usize,
    pool: &Pool,
) -> Result<Values, ModelError> {
    let graph = &model.graph;
    let (node, to) = (graph.node(id), graph.shape(id));
    let (x, from) = (inputs[0], graph.input_shape(id));
    let tensor = |of: &str| -> Result<&[f32], ModelError> { Ok(&model.tensor(&format!("{}.{of}", node.name))?.data) };
    let map = |f: &(dyn Fn(f32, usize) -> f32 + Sync)| {
        each_image(to.elements(), images, pool, &|n, out| {
            let x = &x[n * to.elements()..][..to.elements()];
            for (out, x) in out.chunks_exact_mut(to.c).zip(x.chunks_exact(to.c)) {
                out.iter_mut().zip(x).enumerate().for_each(|(c, (y, &x))| *y = f(x, c));
            }
        })
    };
    Ok(match node.op {
        Op::Input { .. } | Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => {
            unreachable!("products are computed where their weights are known")
        }
        Op::BatchNorm(_) => {
            let lines = norm_lines(model, id)?;
            map(&|x, c| x.mul_add(lines[c].0 as f32, lines[c].1 as f32))
        }
        Op::Act { signed: true } | Op::Dropout { .. } => x.to_vec(),
        Op::Act { signed: false } => map(&|x, _| x.max(0.0)),
        Op::Function(function) => {
            let slopes = if function.is_learned() { tensor("weight")? } else { &[] };
            map(&|x, c| Function::value(function, x, slopes.get(c).copied().unwrap_or(0.0)))
        }
        Op::Add => each_image(to.elements(), images, pool, &|n, out| {
            for x in inputs {
                out.iter_mut().zip(&x[n * to.elements()..]).for_each(|(y, x)| *y += x);
            }
        }),
        Op::Mul => {
            let second = graph.shape(node.inputs[1]);
            each_image(to.elements(), images, pool, &|n, out| {
                let (a, b) = (&x[n * to.elements()..], &inputs[1][n * second.elements()..][..second.elements()]);
                // A factor of one pixel stands for every pixel.
                out.iter_mut().zip(a).zip(b.iter().cycle()).for_each(|((y, a), b)| *y = a * b);
            })
        }
        Op::View(_) | Op::Subsample { .. } => {
            let moves = node.op.moves().expect("a view");
            let sources: Vec<Option<usize>> = (0..to.elements())
                .map(|at| {
                    let (row, column, c) = moved_source(from, &moves, place(to, at))?;
                    Some((row * from.w + column) * from.c + c)
                })
                .collect();
            gather(to, from, x, images, pool, &sources)
        }
        Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool => {
            let window = node.op.window(from).expect("a pool has a window");
            let divisors = node.op.divisors(from);
            let taps: Vec<_> =
                (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))).collect();
            each_image(to.elements(), images, pool, &|n, out| {
                let x = &x[n * from.elements()..][..from.elements()];
                for (p, out) in out.chunks_exact_mut(to.c).enumerate() {
                    let seen = taps.iter().filter_map(|&tap| window.source(from, (p / to.w, p % to.w), tap));
                    out.fill(if divisors.is_some() { 0.0 } else { f32::NEG_INFINITY });
                    for (row, column) in seen {
                        let pixel = &x[(row * from.w + column) * from.c..][..from.c];
                        match divisors {
                            Some(_) => out.iter_mut().zip(pixel).for_each(|(y, x)| *y += x),
                            None => out.iter_mut().zip(pixel).for_each(|(y, x)| *y = y.max(*x)),
                        }
                    }
                    if let Some(divisors) = &divisors {
                        out.iter_mut().for_each(|y| *y /= divisors[p] as f32);
                    }
                }
            })
        }
        Op::Concat => each_image(to.elements(), images, pool, &|n, out| {
            for (p, out) in out.chunks_exact_mut(to.c).enumerate() {
                let mut first = 0;
                for (x, &input) in inputs.iter().zip(&node.inputs) {
                    let shape = graph.shape(input);
                    let pixel = &x[n * shape.elements() + p * shape.c..][..shape.c];
                    out[first..first + shape.c].copy_from_slice(pixel);
                    first += shape.c;
                }
            }
        }),
    })
}

/// `y = gain x + shift` of each channel of a batch norm.
///
/// # Errors
/// A tensor that the model lacks.
pub(super) fn norm_lines(model: &Model, id: NodeId) -> Result<Vec<(f64, f64)>, ModelError> {
    let node = model.graph.node(id);
    let Op::BatchNorm(norm) = node.op else { unreachable!("a norm is a batch norm") };
    let tensor = |of: &str| model.tensor(&format!("{}.{of}", node.name));
    let [gamma, beta, mean, var] =
        [tensor("weight")?, tensor("bias")?, tensor("running_mean")?, tensor("running_var")?];
    let line = |c: usize| {
        let gain = f64::from(gamma.data[c]) / (f64::from(var.data[c]) + norm.added()).sqrt();
        (gain, f64::from(beta.data[c]) - f64::from(mean.data[c]) * gain)
    };
    Ok((0..gamma.data.len()).map(line).collect())
}

/// Row, column and channel of an element.
fn place(shape: Shape, at: usize) -> (usize, usize, usize) {
    (at / shape.c / shape.w, at / shape.c % shape.w, at % shape.c)
}

fn gather(to: Shape, from: Shape, x: &[f32], images: usize, pool: &Pool, sources: &[Option<usize>]) -> Values {
    each_image(to.elements(), images, pool, &|n, out| {
        let x = &x[n * from.elements()..][..from.elements()];
        out.iter_mut().zip(sources).for_each(|(y, source)| *y = source.map_or(0.0, |at| x[at]));
    })
}

/// An activation's quantizer with its clip values, one or one a channel.
pub(super) struct Quantizer<'a> {
    pub(super) plan: ActPlan,
    pub(super) clips: &'a [f32],
}

impl Quantizer<'_> {
    /// What the codes of `x` mean, in a tensor of `shape` images.
    pub(super) fn apply(&self, shape: Shape, x: &[f32], images: usize, pool: &Pool) -> Values {
        let (quant, bits): (ActQuant, Bits) = (self.plan.quant, self.plan.bits);
        let alpha = largest_clip(self.clips);
        let (inverse, step, q_max) =
            (quant.inverse_scale(alpha, bits), quant.scale(alpha, bits), quant.q_max(bits) as f32);
        let limits: Vec<f32> = self.clips.iter().map(|&clip| channel_q_max(clip, inverse, q_max)).collect();
        each_image(shape.elements(), images, pool, &|n, out| {
            let x = &x[n * shape.elements()..][..shape.elements()];
            for ((out, &x), &limit) in out.iter_mut().zip(x).zip(limits.iter().cycle()) {
                *out = step * act_code(quant, x, inverse, limit) as f32;
            }
        })
    }
}
