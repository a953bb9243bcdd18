//! From a network and its bits to the plan of a step.

use bitpact_core::rng::Key;
use bitpact_graph::{Graph, Layer, NodeId, Op, QuantPlan, Sum, WeightPlan, fuse};
use bitpact_kernels::norm::UnitSums;
use bitpact_kernels::pool2d::Window;
use bitpact_kernels::{Aligned, ConvGeometry, GroupScratch, Isa, Layout};
use bitpact_model::{InputDescription, Model};

use super::{
    Activation, ChannelClips, ClipPlace, Counts, Scratch, Shortcut, StageKind, StageStep, StepPlan, Store, UnitStep,
    Value, ValueId, products_of,
};
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
    params: &'a Params,
    /// The activation that holds the clip value of each.
    owners: Vec<NodeId>,
    values: Vec<Value>,
    /// Value of each layer's output node.
    value_of: Vec<Option<ValueId>>,
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
        let layers = fuse(graph)?;
        let trained_clip = |name: &str| {
            let act = name.strip_suffix(".clip_val").unwrap_or(name);
            plan.activations.get(act).is_some_and(|a| a.quant.is_learned())
        };
        let params = Params::new(Model::tensor_shapes(graph, plan), optimizer, trained_clip);
        let c = graph.input().c;
        let uneven = |v: &[u8]| v.iter().any(|z| *z != v[0]);
        if c > 16 && (uneven(&input.zero_point) || !c.is_multiple_of(16)) {
            let what = format!("{c} input channels; expected at most 16, or a multiple of 16 with one zero point");
            return Err(TrainError::Unsupported { node: graph.node(0).name.clone(), what });
        }
        let mut b = Builder {
            isa,
            gradients,
            graph,
            plan,
            batch,
            params: &params,
            owners: graph.clip_owners(),
            values: Vec::new(),
            value_of: vec![None; graph.nodes().len()],
        };
        let shape = graph.input();
        let cs = if c <= 4 { 4 } else { c.next_multiple_of(16) };
        let layout = Layout::with_cs(shape.h, shape.w, c, cs, b.border(0));
        let mut pixels = Aligned::<u8>::zeroed(batch * layout.len());
        for pixel in pixels.chunks_exact_mut(cs) {
            pixel[..c].copy_from_slice(&input.zero_point);
        }
        b.add_value(0, layout, Source::Pixels, Store::Codes(pixels));
        let mut steps = Vec::with_capacity(layers.len());
        for layer in &layers {
            steps.push(StageStep { kind: b.layer(layer)?, slabs: Slabs::default() });
        }
        let output = b.value_of[graph.output()].expect("the last stage has an output");
        let values = b.values;
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
        for p in products() {
            let pixels = (p.z_layout.h * p.z_layout.w) as u128;
            if p.largest_accumulator().is_some_and(|z| u128::from(z).pow(2) * pixels >= 1 << 63) {
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
            classes: graph.classes(),
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
            Op::Conv { padding, .. } => padding,
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
        let n = self.batch * layout.len();
        let store = match source {
            Source::Real => Store::Real(Aligned::zeroed(n)),
            _ => {
                let mut codes = Aligned::zeroed(n);
                codes.fill(source.zero_code());
                Store::Codes(codes)
            }
        };
        self.add_value(node, layout, source, store)
    }

    fn layer(&mut self, layer: &Layer) -> Result<StageKind, TrainError> {
        Ok(match *layer {
            Layer::Sum(ref sum) => StageKind::Unit(Box::new(self.sum(sum)?)),
            Layer::AvgPool { input, node } => {
                let Op::AvgPool { kernel, stride, padding: pad } = self.graph.node(node).op else {
                    unreachable!("an average pool stage is an average pool node");
                };
                let window = Window { kernel, stride, pad };
                StageKind::AvgPool { window, input: self.value(input), output: self.output(node, Source::Real) }
            }
            Layer::Concat { node } => {
                let inputs: Vec<ValueId> = self.graph.node(node).inputs.iter().map(|&i| self.value(i)).collect();
                let output = self.output(node, self.values[inputs[0]].source);
                StageKind::Concat { inputs, output, targets: Vec::new() }
            }
            Layer::Dropout { input, node } => {
                let Op::Dropout { rate } = self.graph.node(node).op else {
                    unreachable!("a dropout stage is a dropout node");
                };
                let (input, output) = (self.value(input), self.output(node, Source::Real));
                StageKind::Dropout { name: self.graph.node(node).name.clone(), rate: rate.0 as f32, input, output }
            }
            Layer::MaxPool { input, node } => {
                let Op::MaxPool { kernel, stride, padding: pad } = self.graph.node(node).op else {
                    unreachable!("a max pool stage is a max pool node");
                };
                let input = self.value(input);
                if self.values[input].source == Source::Pixels {
                    let what = "a pool cannot read the image".to_owned();
                    return Err(TrainError::Unsupported { node: self.graph.node(node).name.clone(), what });
                }
                let output = self.output(node, self.values[input].source);
                StageKind::MaxPool { window: Window { kernel, stride, pad }, input, output }
            }
            Layer::GlobalAvgPool { input, node } => {
                StageKind::MeanPool { input: self.value(input), output: self.output(node, Source::Real) }
            }
        })
    }

    fn sum(&mut self, sum: &Sum) -> Result<UnitStep, TrainError> {
        let (mut products, mut views) = (sum.products(), sum.views());
        let (main, second) = (products.next(), products.next());
        let view = views.next();
        if products.next().is_some() || views.next().is_some() || (second.is_some() && view.is_some()) {
            let what = "a sum of more than a product and a shortcut or of more than two products".to_owned();
            return Err(TrainError::Unsupported { node: self.graph.node(sum.output).name.clone(), what });
        }
        let Some((input, product, norm)) = main else {
            let (view, norm) = view.expect("a sum has terms");
            return self.act(view.tensor, norm, sum.output);
        };
        let input = self.value(input);
        let main = self.product(product, norm, input);
        let shortcut = match (second, view.map(|(view, _)| (self.value(view.tensor), view.node))) {
            (Some((tensor, product, norm)), _) => {
                let value = self.value(tensor);
                Shortcut::Projection { value, product: Box::new(self.product(product, norm, value)) }
            }
            (None, Some((value, Some(node)))) => {
                let Op::Subsample { stride, pad_before, .. } = self.graph.node(node).op else {
                    unreachable!("a subsample shortcut is a subsample node");
                };
                Shortcut::Subsample { value, stride, pad_before }
            }
            (None, Some((value, None))) => Shortcut::Identity { value },
            (None, None) => Shortcut::None,
        };
        Ok(self.end(main, input, shortcut, sum.act(), sum.output))
    }

    /// `act(norm(x))` of a residual stream or an average pool.
    fn act(&mut self, input: NodeId, norm: Option<NodeId>, act: NodeId) -> Result<UnitStep, TrainError> {
        let name = self.graph.node(act).name.clone();
        let value = self.value(input);
        let Value { layout, source, .. } = self.values[value];
        let c = layout.c;
        let spec = ProductSpec {
            name,
            weight: ParamId::MAX,
            step: None,
            bias: None,
            norm: norm.map(|n| self.norm(n)),
            geometry: ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin: c, cout: c },
            groups: c,
            source,
            spec: None,
            x: layout,
            batch: self.batch,
            identity: true,
            gradients: self.gradients,
            in_float: self.plan.is_float(),
        };
        let main = Product::new(self.isa, spec);
        Ok(self.end(main, value, Shortcut::None, Some(act), act))
    }

    fn end(
        &mut self,
        main: Product,
        input: ValueId,
        shortcut: Shortcut,
        act: Option<NodeId>,
        output: NodeId,
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
        let output = self.output(output, source);
        let counts = Counts { levels: vec![0; levels], ..Counts::default() };
        let own_clips = match activation {
            Activation::Quantized { clip, .. } if !self.params.is_scalar(clip) => main.z_layout.cs,
            _ => 0,
        };
        let channel_clips = ChannelClips { alphas: vec![0.0; own_clips], limits: vec![0.0; own_clips] };
        UnitStep { main, input, shortcut, activation, act_name, clip, channel_clips, output, counts, maximum: 0.0 }
    }

    fn product(&self, id: NodeId, norm: Option<NodeId>, input: ValueId) -> Product {
        let node = self.graph.node(id);
        let value = &self.values[input];
        let in_shape = self.graph.input_shape(id);
        let (geometry, groups, bias) = match node.op {
            Op::Conv { out_channels, kernel, stride, padding, bias, groups } => {
                let geometry =
                    ConvGeometry { kh: kernel, kw: kernel, stride, pad: padding, cin: in_shape.c, cout: out_channels };
                (geometry, groups, bias)
            }
            Op::Linear { out_features, bias } => {
                let (kh, kw) = (in_shape.h, in_shape.w);
                (ConvGeometry { kh, kw, stride: 1, pad: 0, cin: in_shape.c, cout: out_features }, 1, bias)
            }
            _ => unreachable!("a product is a convolution or a linear layer"),
        };
        let id = |node: &str, tensor: &str| self.params.id(&format!("{node}.{tensor}"));
        let norm = norm.map(|n| self.norm(n));
        let spec = match self.plan.weights[&node.name] {
            WeightPlan::Quantized(spec) => Some(spec),
            WeightPlan::Float => None,
        };
        let spec = ProductSpec {
            name: node.name.clone(),
            weight: id(&node.name, "weight"),
            step: spec.filter(|s| s.quant.is_learned()).map(|_| id(&node.name, "weight_step")),
            bias: bias.then(|| id(&node.name, "bias")),
            norm,
            geometry,
            groups,
            source: value.source,
            spec,
            x: value.layout,
            batch: self.batch,
            identity: false,
            gradients: self.gradients,
            in_float: self.plan.is_float(),
        };
        Product::new(self.isa, spec)
    }

    fn norm(&self, node: NodeId) -> Norm {
        let id = |tensor: &str| self.params.id(&format!("{}.{tensor}", self.graph.node(node).name));
        Norm { gamma: id("weight"), beta: id("bias"), mean: id("running_mean"), var: id("running_var") }
    }
}
