//! From a network and its bits to the plan of a step.

use bitpact_core::rng::Key;
use bitpact_graph::{
    Factor, Graph, Layer, NodeId, Op, QuantPlan, Shape, Sum, Term, View, WeightPlan, Window, fuse, fuse_float,
};
use bitpact_kernels::norm::UnitSums;
use bitpact_kernels::{Aligned, ConvGeometry, GroupScratch, Isa, Layout, pool2d};
use bitpact_model::{InputDescription, Model};

use super::{
    Activation, ChannelClips, ClipPlace, Counts, Scratch, Shortcut, StageKind, StageStep, StepPlan, Store, UnitStep,
    Value, ValueId, products_of,
};
use crate::cpu::general::{FunctionStep, Gather, General, Of, Taps};
use crate::cpu::product::backward::{BackwardScratch, BatchMemory};
use crate::cpu::product::{Norm, Product, ProductSpec, Source, WeightSums};
use crate::cpu::slabs::{self, Slabs};
use crate::cpu::totals::Totals;
use crate::cpu::weights;
use crate::params::{ParamId, Params};
use crate::{Gradients, OptimizerConfig, TrainError};

struct Builder<'a> {
    isa: Isa,
    gradients: Gradients,
    graph: &'a Graph,
    plan: &'a QuantPlan,
    batch: usize,
    input: &'a InputDescription,
    params: &'a Params,
    /// The activation that holds the clip value of each.
    owners: Vec<NodeId>,
    values: Vec<Value>,
    /// Value of each layer's output node.
    value_of: Vec<Option<ValueId>>,
    steps: Vec<StageStep>,
}

impl StepPlan {
    pub(in crate::cpu) fn build(
        graph: &Graph,
        plan: &QuantPlan,
        input: &InputDescription,
        batch: usize,
        optimizer: OptimizerConfig,
        gradients: Gradients,
        isa: Isa,
        threads: usize,
    ) -> Result<Self, TrainError> {
        plan.check(graph)?;
        let layers = if plan.is_float() { fuse_float(graph)? } else { fuse(graph)? };
        let trained_clip = |name: &str| {
            let act = name.strip_suffix(".clip_val").unwrap_or(name);
            plan.activations.get(act).is_some_and(|a| a.quant.is_learned())
        };
        let params = Params::new(Model::tensor_shapes(graph, plan), optimizer, trained_clip);
        let c = graph.input().c;
        let mut b = Builder {
            isa,
            gradients,
            graph,
            plan,
            batch,
            input,
            params: &params,
            owners: graph.clip_owners(),
            values: Vec::new(),
            value_of: vec![None; graph.nodes().len()],
            steps: Vec::with_capacity(layers.len()),
        };
        let shape = graph.input();
        let cs = if c <= 4 && input.bits == 8 { 4 } else { c.next_multiple_of(16) };
        let layout = Layout::with_cs(shape.h, shape.w, c, cs, b.border(0));
        let (source, store) = if input.bits == 8 {
            let mut pixels = Aligned::<u8>::zeroed(batch * layout.len());
            let zeros = input.zero_bytes();
            pixels.chunks_exact_mut(cs).for_each(|pixel| pixel[..c].copy_from_slice(&zeros));
            (Source::Pixels, Store::Codes(pixels))
        } else {
            (Source::Array, Store::Real(Aligned::zeroed(batch * layout.len())))
        };
        b.add_value(0, layout, source, store);
        for layer in &layers {
            b.layer(layer);
        }
        let output = b.value_of[graph.output()].expect("the last stage has an output");
        let Builder { values, mut steps, .. } = b;
        let sizes = slabs::assign(&mut steps, &values);
        let slabs = sizes.iter().map(|&n| Aligned::zeroed(batch * n)).collect();
        let products = || steps.iter().flat_map(|s| products_of(&s.kind));
        let cs = products().map(|p| p.z_layout.cs).max().unwrap_or(0);
        let most = |f: &dyn Fn(&Product) -> usize| products().map(f).max().unwrap_or(0);
        let groups = || {
            let mut groups = GroupScratch::default();
            products().for_each(|p| p.reserve(&mut groups));
            groups
        };
        let backward = || {
            let (mut backward, mut groups) = (BackwardScratch::default(), groups());
            products().filter(|p| !p.is_identity()).for_each(|p| p.backward.reserve(&mut backward, &mut groups));
            (backward, groups)
        };
        let scratch = || {
            let (backward, groups) = backward();
            Scratch {
                groups,
                backward,
                narrow: Aligned::zeroed(most(&Product::narrow_len)),
                x: Aligned::zeroed(values.iter().map(|v| v.layout.len()).max().unwrap_or(0)),
                dz: Aligned::zeroed(most(&|p| if p.is_identity() { p.z_layout.len() } else { 0 })),
                u: Aligned::zeroed(most(&|p| p.z_layout.len())),
                residual: Aligned::zeroed(most(&|p| p.z_layout.len())),
                residual_codes: Aligned::zeroed(most(&|p| p.z_layout.len())),
                errors: Aligned::zeroed(0),
                dwq: Aligned::zeroed(most(&Product::weights)),
            }
        };
        let clip_channels = |step: &StageStep| match &step.kind {
            StageKind::Unit(unit) => unit.channel_clips.alphas.len(),
            _ => 0,
        };
        let clip_channels = steps.iter().map(clip_channels).max().unwrap_or(0);
        let partials = Aligned::zeroed(most(&|p| p.sums.partials() * p.backward.partial_len()));
        let mut kept = BatchMemory::default();
        products().filter(|p| p.sums == WeightSums::Blocks).for_each(|p| kept.reserve(&p.backward, batch));
        for p in products().filter(|p| p.norm.is_some()) {
            let pixels = (p.z_layout.h * p.z_layout.w) as u128;
            if p.largest_accumulator().is_some_and(|z| u128::from(z).pow(2) * pixels >= 1 << 64) {
                let what = "sums of squares of its accumulators could exceed 64 bits; use fewer bits".to_owned();
                return Err(TrainError::Unsupported { node: p.name.clone(), what });
            }
        }
        Ok(Self {
            scratch: (0..threads).map(|_| scratch()).collect(),
            sums_int: vec![0; batch * 2 * cs],
            sums_real: vec![0.0; batch * 2 * cs],
            sums: [(); 2].map(|()| vec![0.0; batch * UnitSums::PARTS * cs]),
            clip_sums: vec![(0.0, 0); batch],
            channel_sums: vec![0.0; batch * clip_channels],
            maxima: vec![0.0; batch],
            histogram: vec![0; batch.div_ceil(crate::backend::SAMPLED) * 256],
            partials,
            kept,
            totals: Totals::new(cs),
            largest_first: weights::largest_first(&steps),
            clip_maxima: vec![0.0; params.len()],
            pixels: input.clone(),
            values,
            stages: steps,
            slabs,
            output,
            batch,
            params,
            key: Key::new(0),
            sum_noise: 0.0,
        })
    }
}

impl Builder<'_> {
    /// Border that a tensor needs: the largest padding among the convolutions that read it.
    fn border(&self, node: NodeId) -> usize {
        let padding = |&reader: &NodeId| match self.graph.node(reader).op {
            op if op.is_product() => {
                op.window(self.graph.shape(node)).and_then(|w| w.plain()).map_or(0, |(_, pad)| pad)
            }
            _ => 0,
        };
        self.graph.consumers(node).iter().map(padding).max().unwrap_or(0)
    }

    fn add_value(&mut self, node: NodeId, layout: Layout, source: Source, store: Store) -> ValueId {
        self.values.push(Value { layout, source, store });
        self.value_of[node] = Some(self.values.len() - 1);
        self.values.len() - 1
    }

    fn value(&self, node: NodeId) -> ValueId {
        self.value_of[node].expect("stages come in the order of computation")
    }

    /// A new tensor for the output of `node`, codes or real values as `source` says.
    fn output(&mut self, node: NodeId, source: Source) -> ValueId {
        let shape = self.graph.shape(node);
        let layout = Layout::new(shape.h, shape.w, shape.c, self.border(node));
        let store = self.store(source, layout, source.padding_code());
        self.add_value(node, layout, source, store)
    }

    /// A tensor inside a sum.
    fn hidden(&mut self, layout: Layout) -> ValueId {
        let store = self.store(Source::Real, layout, 0);
        self.values.push(Value { layout, source: Source::Real, store });
        self.values.len() - 1
    }

    /// Memory of a tensor whose codes are `padding`.
    fn store(&self, source: Source, layout: Layout, padding: u8) -> Store {
        let n = self.batch * layout.len();
        if source.is_real() {
            return Store::Real(Aligned::zeroed(n));
        }
        let mut codes = Aligned::zeroed(n);
        codes.fill(padding);
        Store::Codes(codes)
    }

    fn push(&mut self, kind: StageKind) {
        self.steps.push(StageStep { kind, slabs: Slabs::default() });
    }

    /// A step of plain loops.
    fn general(&mut self, of: Of, inputs: Vec<ValueId>, output: ValueId) {
        self.push(StageKind::General(Box::new(General { of, inputs, output, targets: Vec::new() })));
    }

    fn layer(&mut self, layer: &Layer) {
        let node = layer.output();
        let graph = self.graph;
        let op = graph.node(node).op;
        match *layer {
            Layer::Sum(ref sum) => self.sum(sum),
            Layer::AvgPool { input, .. } => {
                let (input, output) = (self.value(input), self.output(node, Source::Real));
                let window = op.window(graph.input_shape(node)).expect("a pool has a window");
                let divisors = op.divisors(graph.input_shape(node)).expect("an average pool");
                let whole = window.kernel[0] * window.kernel[1];
                match square(&window).filter(|_| divisors.iter().all(|&n| n == whole)) {
                    Some(window) => self.push(StageKind::AvgPool { window, input, output }),
                    None => {
                        let divisors = divisors.into_iter().map(|n| n as f32).collect();
                        let taps = Taps::new(self.values[input].layout, &window);
                        self.general(Of::AvgPool(taps, divisors), vec![input], output);
                    }
                }
            }
            Layer::Concat { .. } => {
                let inputs: Vec<ValueId> = graph.node(node).inputs.iter().map(|&i| self.value(i)).collect();
                let output = self.output(node, self.values[inputs[0]].source);
                self.push(StageKind::Concat { inputs, output, targets: Vec::new() });
            }
            Layer::Dropout { input, .. } => {
                let Op::Dropout { rate } = op else { unreachable!("a dropout layer is a dropout node") };
                let (input, output) = (self.value(input), self.output(node, Source::Real));
                let name = graph.node(node).name.clone();
                self.push(StageKind::Dropout { name, rate: rate as f32, input, output });
            }
            Layer::MaxPool { input, .. } => {
                let input = self.value(input);
                let output = self.output(node, self.values[input].source);
                let window = op.window(graph.input_shape(node)).expect("a pool has a window");
                match square(&window) {
                    Some(window) => self.push(StageKind::MaxPool { window, input, output }),
                    None => {
                        let taps = Taps::new(self.values[input].layout, &window);
                        self.general(Of::MaxPool(taps), vec![input], output);
                    }
                }
            }
            Layer::GlobalAvgPool { input, .. } => {
                let (input, output) = (self.value(input), self.output(node, Source::Real));
                self.push(StageKind::MeanPool { input, output });
            }
            Layer::Function { input, .. } => {
                let Op::Function(function) = op else { unreachable!("a function layer is a function node") };
                let slopes =
                    function.is_learned().then(|| self.params.id(&format!("{}.weight", graph.node(node).name)));
                let step = FunctionStep::new(function, slopes, self.batch, graph.shape(node).c);
                let (input, output) = (self.value(input), self.output(node, Source::Real));
                self.general(Of::Function(step), vec![input], output);
            }
            Layer::Mul { .. } => {
                let inputs = graph.node(node).inputs.iter().map(|&i| self.value(i)).collect();
                let output = self.output(node, Source::Real);
                self.general(Of::Multiply, inputs, output);
            }
            Layer::View { input, .. } => {
                self.view(input, node);
            }
        }
    }

    /// The tensor that a node moves the elements of `tensor` to.
    fn view(&mut self, tensor: NodeId, node: NodeId) -> ValueId {
        let moves = self.graph.node(node).op.moves().expect("a view");
        let input = self.value(tensor);
        let gather = Gather::moved(&self.values[input], &moves, self.graph.shape(node));
        let output = self.output(node, self.values[input].source);
        self.general(Of::Gather(gather), vec![input], output);
        output
    }

    /// The stages of a sum: the first adds two terms, each further one adds one to what the stage before it gave.
    fn sum(&mut self, sum: &Sum) {
        let mut terms = sum.terms.iter().peekable();
        let mut partial: Option<ValueId> = None;
        while let Some(&term) = terms.next() {
            let plain_view = term.view().filter(|_| term.norm.is_none());
            let (main, input, shortcut) = match (partial, plain_view) {
                (Some(partial), Some(view)) => {
                    let shortcut = self.shortcut(view);
                    (self.identity(partial, None, sum.output), partial, shortcut)
                }
                (Some(value), None) => {
                    let (main, input) = self.term(term, sum.output);
                    (main, input, Shortcut::Identity { value })
                }
                (None, _) => {
                    let (main, input) = self.term(term, sum.output);
                    let second = terms.next_if(|next| next.product().is_some() || next.norm.is_none());
                    let shortcut = match second.copied() {
                        None => Shortcut::None,
                        Some(Term { factor: Factor::View(view), .. }) => self.shortcut(view),
                        Some(term) => {
                            let (product, value) = self.term(term, sum.output);
                            Shortcut::Projection { value, product: Box::new(product) }
                        }
                    };
                    (main, input, shortcut)
                }
            };
            let is_last = terms.peek().is_none();
            let act = sum.act().filter(|_| is_last);
            let unit = self.end(main, input, shortcut, act, is_last.then_some(sum.output));
            partial = Some(unit.output);
            self.push(StageKind::Unit(Box::new(unit)));
        }
    }

    /// The product that computes `term`, and the value that it reads.
    fn term(&mut self, term: Term, reader: NodeId) -> (Product, ValueId) {
        match term.factor {
            Factor::Product { input, node } => self.product(node, term.norm, self.value(input)),
            Factor::View(View { tensor, node }) => {
                let value = match node {
                    Some(node) => self.view(tensor, node),
                    None => self.value(tensor),
                };
                (self.identity(value, term.norm, reader), value)
            }
        }
    }

    fn shortcut(&mut self, View { tensor, node }: View) -> Shortcut {
        let value = self.value(tensor);
        match node.map(|node| (node, self.graph.node(node).op)) {
            None => Shortcut::Identity { value },
            Some((_, Op::Subsample { stride, pad_before, .. })) => Shortcut::Subsample { value, stride, pad_before },
            Some((node, _)) => Shortcut::Identity { value: self.view(tensor, node) },
        }
    }

    /// A tensor itself, through its batch norm where it has one.
    fn identity(&self, value: ValueId, norm: Option<NodeId>, reader: NodeId) -> Product {
        let Value { layout, source, .. } = self.values[value];
        let c = layout.c;
        let spec = ProductSpec {
            name: self.graph.node(reader).name.clone(),
            weight: ParamId::MAX,
            step: None,
            bias: None,
            norm: norm.map(|n| self.norm(n)),
            geometry: ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin: c, cout: c },
            groups: c,
            source,
            pixels: self.input,
            spec: None,
            x: layout,
            batch: self.batch,
            identity: true,
            order: None,
            taps: 1,
            gradients: self.gradients,
            in_float: self.plan.is_float(),
        };
        Product::new(self.isa, spec)
    }

    fn end(
        &mut self,
        main: Product,
        input: ValueId,
        shortcut: Shortcut,
        act: Option<NodeId>,
        output: Option<NodeId>,
    ) -> UnitStep {
        let act_name = act.map(|id| self.graph.node(id).name.clone());
        let clip = ClipPlace {
            is_first: act.is_none_or(|id| self.owners[id] == id),
            is_last: act.is_none_or(|id| !self.owners[id + 1..].contains(&self.owners[id])),
        };
        let activation = match act_name.as_deref().map(|name| (name, self.plan.activations.get(name))) {
            None => Activation::None,
            Some((_, None)) if act.is_some_and(|id| self.graph.node(id).op == (Op::Act { signed: true })) => {
                Activation::None
            }
            Some((_, None)) => Activation::Relu,
            Some((_, Some(plan))) => {
                let owner = act.map_or("", |id| &self.graph.node(self.owners[id]).name);
                let clip = self.params.id(&format!("{owner}.clip_val"));
                Activation::Quantized { clip, bits: plan.bits, quant: plan.quant }
            }
        };
        let (source, levels) = match activation {
            Activation::Quantized { clip, bits, quant } => {
                let levels = quant.q_max(bits) as usize + usize::from(quant.zero_code(bits)) + 1;
                (Source::Codes { clip, bits, quant }, levels)
            }
            _ => (Source::Real, 0),
        };
        let output = match output {
            Some(node) => self.output(node, source),
            None => self.hidden(main.z_layout),
        };
        let counts = Counts { levels: vec![0; levels], ..Counts::default() };
        let own_clips = match activation {
            Activation::Quantized { clip, .. } if !self.params.is_scalar(clip) => main.z_layout.cs,
            _ => 0,
        };
        let channel_clips = ChannelClips { alphas: vec![0.0; own_clips], limits: vec![0.0; own_clips] };
        UnitStep { main, input, shortcut, activation, act_name, clip, channel_clips, output, counts, maximum: 0.0 }
    }

    /// A product and what it reads: `input`, or a copy of everything that its windows see there.
    fn product(&mut self, id: NodeId, norm: Option<NodeId>, input: ValueId) -> (Product, ValueId) {
        let node = self.graph.node(id);
        let (from, to) = (self.graph.input_shape(id), self.graph.shape(id));
        let window = node.op.window(from).expect("a product has a window");
        let [kh, kw] = window.kernel;
        let (geometry, taps, input) = match window.plain() {
            Some((stride, pad)) => (ConvGeometry { kh, kw, stride, pad, cin: from.c, cout: to.c }, 1, input),
            None => {
                let columns = self.columns(id, &window, input);
                let cin = from.c * kh * kw;
                (ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin, cout: to.c }, kh * kw, columns)
            }
        };
        let id_of = |tensor: &str| self.params.id(&format!("{}.{tensor}", node.name));
        let spec = match self.plan.weights[&node.name] {
            WeightPlan::Quantized(spec) => Some(spec),
            WeightPlan::Float => None,
        };
        let value = &self.values[input];
        let spec = ProductSpec {
            name: node.name.clone(),
            weight: id_of("weight"),
            step: spec.filter(|s| s.quant.is_learned()).map(|_| id_of("weight_step")),
            bias: node.op.has_bias().then(|| id_of("bias")),
            norm: norm.map(|n| self.norm(n)),
            geometry,
            groups: node.op.groups(),
            source: value.source,
            pixels: self.input,
            spec,
            x: value.layout,
            batch: self.batch,
            identity: false,
            order: self.graph.weight_order(id),
            taps,
            gradients: self.gradients,
            in_float: self.plan.is_float(),
        };
        (Product::new(self.isa, spec), input)
    }

    /// Everything that the windows of a product see, as the channels of its output's pixels.
    fn columns(&mut self, id: NodeId, window: &Window, input: ValueId) -> ValueId {
        let value = &self.values[input];
        let [kh, kw] = window.kernel;
        let to = Shape { c: value.layout.c * kh * kw, ..self.graph.shape(id) };
        let zeros = match value.source {
            Source::Pixels => self.input.zero_bytes(),
            source => vec![source.padding_code(); value.layout.c],
        };
        let gather = Gather::columns(value, window, &zeros, to);
        let (source, layout) = (value.source, Layout::new(to.h, to.w, to.c, 0));
        let store = self.store(source, layout, source.padding_code());
        self.values.push(Value { layout, source, store });
        let output = self.values.len() - 1;
        self.general(Of::Gather(gather), vec![input], output);
        output
    }

    fn norm(&self, node: NodeId) -> Norm {
        let id = |tensor: &str| self.params.id(&format!("{}.{tensor}", self.graph.node(node).name));
        let Op::BatchNorm(norm) = self.graph.node(node).op else { unreachable!("a norm is a batch norm") };
        let (eps, momentum) = (norm.added(), norm.momentum);
        Norm { gamma: id("weight"), beta: id("bias"), mean: id("running_mean"), var: id("running_var"), eps, momentum }
    }
}

/// The window as the kernels of pools take it, where they can.
fn square(window: &Window) -> Option<pool2d::Window> {
    let (stride, pad) = window.plain()?;
    let [kernel, columns] = window.kernel;
    (kernel == columns).then_some(pool2d::Window { kernel, stride, pad })
}
