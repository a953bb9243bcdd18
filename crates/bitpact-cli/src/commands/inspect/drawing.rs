//! A network's graph as text: a line a layer, the main path on the left, tensors that are read later in lanes beside
//! it.
//!
//! ```text
//! ●      act1             16x16x16  3x3 3 to 16, W8 A4
//! ├─╮
//! ● │    layer1.0.act1    16x16x16  3x3 16 to 16, W4 A4
//! ●─╯    layer1.0.act2    16x16x16  3x3 16 to 16, W4 A4 + shortcut
//! ```

use anyhow::Result;
use bitpact::IntegerModel;
use bitpact::unstable::graph::Move;
use bitpact::unstable::graph::{End, Graph, Layer, Op, Term, fuse_float};
use bitpact::unstable::model::{IntegerEnd, IntegerOp, IntegerTerm, IntegerView};
use bitpact::unstable::report::layers::{code_bits, operation, without_product};

use crate::out::table;

/// Longest name that is shown whole.
const LONGEST_NAME: usize = 40;

/// A layer to draw.
struct Drawn {
    name: String,
    shape: String,
    what: String,
    /// Which layers it reads, by their place, all before its own.
    inputs: Vec<usize>,
}

/// The layers of a network, the image first.
pub(crate) struct Drawing(Vec<Drawn>);

impl Drawing {
    /// Of an integer network: what is one step there is one line here.
    pub(crate) fn of_integers(model: &IntegerModel) -> Self {
        let image = Drawn::image(model.input_shape.to_string());
        let layers = model.layers.iter().map(|layer| {
            let mut what: Vec<String> =
                layer.op.products().map(|p| format!("{}, W{}", operation(p), p.weight_bits)).collect();
            match (&layer.op, what.is_empty()) {
                (IntegerOp::Sum(sum), false) => {
                    what[0] += &match sum.end {
                        IntegerEnd::Codes | IntegerEnd::Table(_) => format!(" A{}", code_bits(layer)),
                        IntegerEnd::Wide => ", stream".to_owned(),
                        IntegerEnd::Output => ", logits".to_owned(),
                    };
                    let views = sum.terms.iter().filter_map(|term| match term {
                        IntegerTerm::View(view) => Some(view),
                        _ => None,
                    });
                    what.extend(
                        views.chain(sum.base.iter().map(|(view, _)| view)).map(|view| shortcut(stride_of(view))),
                    );
                }
                (op @ IntegerOp::Sum(_), true) => {
                    what.extend(without_product(op).map(|op| format!("{op} A{}", code_bits(layer))));
                }
                (op, _) => what.extend(without_product(op)),
            }
            let (name, shape) = (layer.name.clone(), layer.shape.to_string());
            Drawn { name, shape, what: what.join(" + "), inputs: layer.op.inputs() }
        });
        Self([image].into_iter().chain(layers).collect())
    }

    /// Draws a network without an integer form, layer by layer.
    pub(crate) fn of_graph(graph: &Graph) -> Result<Self> {
        let layers = fuse_float(graph)?;
        let mut place = vec![0; graph.nodes().len()];
        let mut drawn = vec![Drawn::image(graph.input().to_string())];
        let term = |term: &Term| match (term.product(), term.view()) {
            (Some((_, id)), _) => product(graph, id),
            (_, Some(view)) => shortcut(view.node.map_or(1, |node| stride(graph, node))),
            (None, None) => unreachable!("a term is a product or a view"),
        };
        for layer in layers {
            let output = layer.output();
            place[output] = drawn.len();
            let (what, inputs) = match layer {
                Layer::Sum(sum) => {
                    let inputs = sum.terms.iter().map(|term| place[term.factor.tensor()]).collect();
                    let what = match (sum.products().next(), sum.views().next()) {
                        (None, Some((_, None))) => "act".to_owned(),
                        (None, _) => "norm, act".to_owned(),
                        _ => {
                            let mut terms: Vec<String> = sum.terms.iter().map(term).collect();
                            if sum.end == End::Wide {
                                terms[0] += ", stream";
                            }
                            terms.join(" + ")
                        }
                    };
                    (what, inputs)
                }
                Layer::MaxPool { input, node } => (format!("max pool {}", moving(graph, node)), vec![place[input]]),
                Layer::AvgPool { input, node } => (format!("average pool {}", moving(graph, node)), vec![place[input]]),
                Layer::Function { input, node } => match graph.node(node).op {
                    Op::Function(function) => (function.name().replace('_', " "), vec![place[input]]),
                    _ => ("function".to_owned(), vec![place[input]]),
                },
                Layer::View { input, node } => match graph.node(node).op {
                    Op::View(of) => (of.name().to_owned(), vec![place[input]]),
                    _ => (shortcut(stride(graph, node)), vec![place[input]]),
                },
                Layer::Mul { node } => {
                    ("product".to_owned(), graph.node(node).inputs.iter().map(|&i| place[i]).collect())
                }
                Layer::Concat { node } => {
                    ("concat".to_owned(), graph.node(node).inputs.iter().map(|&i| place[i]).collect())
                }
                Layer::Dropout { input, node } => match graph.node(node).op {
                    Op::Dropout { rate } => (format!("dropout {rate}"), vec![place[input]]),
                    _ => ("dropout".to_owned(), vec![place[input]]),
                },
                Layer::GlobalAvgPool { input, .. } => ("global average pool".to_owned(), vec![place[input]]),
            };
            let (name, shape) = (graph.node(output).name.clone(), graph.shape(output).to_string());
            drawn.push(Drawn { name, shape, what, inputs });
        }
        Ok(Self(drawn))
    }

    /// The drawing, a line a layer and one wherever a lane begins.
    pub(crate) fn text(&self) -> String {
        let last_reader = |tensor: usize| self.0.iter().rposition(|layer| layer.inputs.contains(&tensor));
        // Lane 0 is the path from a layer to the next; the others hold tensors that a later layer reads.
        let mut lanes: Vec<Option<usize>> = Vec::new();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (i, layer) in self.0.iter().enumerate() {
            let mut line = Line::new(&lanes);
            for (lane, tensor) in lanes.iter_mut().enumerate() {
                // The layer before is read along the main path.
                if let Some(read) = tensor.filter(|&read| read + 1 != i && layer.inputs.contains(&read)) {
                    let ends = last_reader(read) == Some(i);
                    line.join(lane, ends);
                    *tensor = tensor.filter(|_| !ends);
                }
            }
            rows.push(vec![line.text('●'), short(&layer.name), layer.shape.clone(), layer.what.clone()]);
            while lanes.last() == Some(&None) {
                lanes.pop();
            }
            if last_reader(i).is_some_and(|reader| reader > i + 1) {
                let free = lanes.iter().position(Option::is_none).unwrap_or(lanes.len());
                let mut line = Line::new(&lanes);
                line.begin(free);
                if free == lanes.len() {
                    lanes.push(None);
                }
                lanes[free] = Some(i);
                let goes_on = self.0.get(i + 1).is_some_and(|next| next.inputs.contains(&i));
                rows.push(vec![line.text(if goes_on { '├' } else { '╰' })]);
            }
        }
        table(&rows, &[0, 1, 2, 3])
    }
}

impl Drawn {
    fn image(shape: String) -> Self {
        Self { name: "image".to_owned(), shape, what: String::new(), inputs: Vec::new() }
    }
}

/// The lanes of one line: a sign a lane, and whether it is joined to the one on its left.
struct Line {
    signs: Vec<(bool, char)>,
}

impl Line {
    fn new(lanes: &[Option<usize>]) -> Self {
        let sign = |lane: &Option<usize>| (false, if lane.is_some() { '│' } else { ' ' });
        Self { signs: lanes.iter().map(sign).collect() }
    }

    /// The lane is read here.
    fn join(&mut self, lane: usize, ends: bool) {
        self.connect(lane, if ends { '╯' } else { '┤' });
    }

    /// The lane begins here.
    fn begin(&mut self, lane: usize) {
        self.signs.resize(self.signs.len().max(lane + 1), (false, ' '));
        self.connect(lane, '╮');
    }

    fn connect(&mut self, lane: usize, end: char) {
        for (joined, sign) in &mut self.signs[..lane] {
            *joined = true;
            *sign = match *sign {
                ' ' => '─',
                '│' => '┼',
                '╯' => '┴',
                other => other,
            };
        }
        self.signs[lane] = (true, end);
    }

    fn text(&self, main: char) -> String {
        let lane = |&(joined, sign): &(bool, char)| [if joined { '─' } else { ' ' }, sign];
        [main].into_iter().chain(self.signs.iter().flat_map(lane)).collect()
    }
}

fn product(graph: &Graph, id: usize) -> String {
    let channels = graph.shape(graph.node(id).inputs[0]).c;
    match graph.node(id).op {
        Op::Conv(conv) => format!("{} {channels} to {}", moving(graph, id), conv.out_channels),
        Op::ConvTranspose(conv) => {
            let ([rows, columns], [by, _]) = (conv.kernel, conv.stride);
            format!("{rows}x{columns}*{by} {channels} to {}", conv.out_channels)
        }
        Op::Linear { out_features, .. } => {
            format!("linear {} to {out_features}", graph.shape(graph.node(id).inputs[0]).elements())
        }
        other => other.name().to_owned(),
    }
}

/// The window of a node and its stride: `3x3/2`.
fn moving(graph: &Graph, id: usize) -> String {
    let Some(window) = graph.node(id).op.window(graph.input_shape(id)) else { return String::new() };
    let ([rows, columns], stride) = (window.kernel, window.stride);
    match stride {
        [1, 1] => format!("{rows}x{columns}"),
        [by, other] if by == other => format!("{rows}x{columns}/{by}"),
        [by, other] => format!("{rows}x{columns}/{by}x{other}"),
    }
}

fn stride(graph: &Graph, id: usize) -> usize {
    if let Op::Subsample { stride, .. } = graph.node(id).op { stride } else { 1 }
}

fn stride_of(view: &IntegerView) -> usize {
    let strides = view.moves.iter().map(|step| if let Move::Stride { rows, .. } = step { *rows } else { 1 });
    strides.product()
}

fn shortcut(stride: usize) -> String {
    if stride == 1 { "shortcut".to_owned() } else { format!("shortcut/{stride}") }
}

/// A name that leaves room for the rest of the line.
fn short(name: &str) -> String {
    let n = name.chars().count();
    if n <= LONGEST_NAME {
        return name.to_owned();
    }
    let end: String = name.chars().skip(n - (LONGEST_NAME - 3)).collect();
    format!("...{end}")
}

#[cfg(test)]
mod tests {
    use bitpact::unstable::graph::{Shape, zoo};

    use super::*;

    fn signs(network: &str) -> Vec<String> {
        let graph = zoo::build(network, Shape::new(64, 64, 3), 10).unwrap().unwrap();
        let text = Drawing::of_graph(&graph).unwrap().text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let sign = |line: &str| line.chars().take_while(|c| !c.is_alphanumeric()).collect::<String>();
        text.lines().map(|line| sign(line).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_chain_is_a_line() {
        assert!(signs("cnn").iter().all(|sign| sign == "●"));
    }

    #[test]
    fn residual_blocks_have_a_lane_beside_them() {
        let block = ["├─╮", "● │", "●─╯"];
        let found = signs("resnet20");
        assert_eq!(found[..2], ["●", "●"]);
        assert_eq!(found[2..8], [block, block].concat()[..]);
        assert_eq!(found.len(), 2 + 9 * 3 + 2);
        let bottleneck = ["├─╮", "● │", "● │", "●─╯"];
        assert_eq!(signs("resnet50")[3..7], bottleneck);
    }

    /// Layers are (inputs); what is drawn is the shape of the graph alone.
    #[test]
    fn lanes_cross_end_and_are_used_again() {
        let layer = |inputs: &[usize]| Drawn {
            name: "a".to_owned(),
            shape: String::new(),
            what: String::new(),
            inputs: inputs.to_vec(),
        };
        let drawing = Drawing([&[][..], &[0], &[1], &[2, 0], &[3, 1], &[4, 1], &[5]].map(layer).into());
        let text = drawing.text();
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('a').trim_end()).collect();
        assert_eq!(lines, ["●", "├─╮", "● │", "├─┼─╮", "● │ │", "●─╯ │", "●───┤", "●───╯", "●"]);
    }
}
