//! Networks with nodes that the main output does not depend on: nothing trains them, so a backend of the part that
//! leads to the main output is enough, but for clip values, which are calibrated everywhere.

use std::collections::BTreeMap;

use bitpact_graph::{Graph, QuantPlan};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model, Tensor};

use crate::backend::pass_on;
use crate::{
    BackendKind, BackendSpec, Fill, Gradients, LayerStatistics, OptimizerConfig, OptimizerState, StepInput,
    StepOutcome, TrainBackend, TrainError,
};

/// A backend of the main part, and the tensors of the rest.
pub(crate) struct WithOthers {
    kind: BackendKind,
    main: Box<dyn TrainBackend>,
    /// The whole network.
    graph: Graph,
    plan: QuantPlan,
    /// The part that leads to the main output.
    part: Graph,
    input: InputDescription,
    optimizer: OptimizerConfig,
    gradients: Gradients,
    isa: Isa,
    threads: usize,
    /// Tensors that only the rest of the network has.
    others: BTreeMap<String, Tensor>,
}

impl WithOthers {
    /// A backend of `spec`, whose graph has `part` as the part that leads to its main output.
    ///
    /// # Errors
    /// Those of [`BackendKind::build`].
    pub(crate) fn new(kind: BackendKind, spec: &BackendSpec, part: Graph) -> Result<Self, TrainError> {
        let BackendSpec { graph, plan, input, optimizer, gradients, isa, threads, .. } = spec.clone();
        plan.check(graph)?;
        let main = kind.build_whole(&BackendSpec { graph: &part, plan: &plan.restricted(&part), ..spec.clone() })?;
        let (graph, plan, input) = (graph.clone(), plan.clone(), input.clone());
        let others = BTreeMap::new();
        let mut backend = Self { kind, main, graph, plan, part, input, optimizer, gradients, isa, threads, others };
        backend.others = backend.no_tensors();
        let whole = Model::tensor_shapes(&backend.graph, &backend.plan);
        match backend.main.tensors().into_keys().find(|name| !whole.contains_key(name)) {
            None => Ok(backend),
            Some(node) => {
                let what = "shares its clip value with an activation that the main output does not depend on";
                Err(TrainError::Unsupported { node, what: what.to_owned() })
            }
        }
    }

    /// Names of the tensors that the main part does not have.
    fn other_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Model::tensor_shapes(&self.graph, &self.plan);
        let main = Model::tensor_shapes(&self.part, &self.plan.restricted(&self.part));
        shapes.retain(|name, _| !main.contains_key(name));
        shapes
    }

    fn no_tensors(&self) -> BTreeMap<String, Tensor> {
        self.other_shapes().into_iter().map(|(name, shape)| (name, Tensor::full(&shape, 0.0))).collect()
    }
}

impl TrainBackend for WithOthers {
    pass_on!(main);

    fn calibrate(&mut self, percentile: f64, fill: Fill) -> Result<BTreeMap<String, f32>, TrainError> {
        let mut values = self.main.calibrate(percentile, fill)?;
        let whole = BackendSpec {
            graph: &self.graph,
            plan: &self.plan,
            input: &self.input,
            batch_size: self.batch_size(),
            optimizer: self.optimizer.clone(),
            gradients: self.gradients,
            isa: self.isa,
            threads: self.threads,
        };
        let mut whole = self.kind.build_whole(&whole)?;
        whole.load(&self.tensors(), None)?;
        let found = whole.calibrate(percentile, fill)?;
        let calibrated = whole.tensors();
        for (name, tensor) in &mut self.others {
            if let Some(value) = found.get(name) {
                tensor.data.clone_from(&calibrated[name].data);
                values.insert(name.clone(), *value);
            }
        }
        Ok(values)
    }

    fn step(&mut self, input: &StepInput) -> Result<StepOutcome, TrainError> {
        self.main.step(input)
    }

    fn simulate(&mut self, images: usize, fill: Fill, logits: &mut Vec<f32>) {
        self.main.simulate(images, fill, logits);
    }

    fn write_statistics(&self, all: &mut Vec<LayerStatistics>) {
        self.main.write_statistics(all);
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.main.tensors();
        tensors.extend(self.others.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        tensors
    }

    fn load(&mut self, tensors: &BTreeMap<String, Tensor>, state: Option<&OptimizerState>) -> Result<(), TrainError> {
        let mut others = BTreeMap::new();
        for (name, shape) in self.other_shapes() {
            let error = |what: String| TrainError::Tensor { name: name.clone(), what };
            let tensor = tensors.get(&name).ok_or_else(|| error("the value is missing".to_owned()))?;
            if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
                return Err(error(format!("the value has shape {:?}, expected {shape:?}", tensor.shape)));
            }
            others.insert(name.clone(), tensor.clone());
        }
        self.main.load(tensors, state)?;
        self.others = others;
        Ok(())
    }

    fn replan(&mut self, plan: &QuantPlan) -> Result<(), TrainError> {
        plan.check(&self.graph)?;
        self.main.replan(&plan.restricted(&self.part))?;
        self.plan = plan.clone();
        self.others = self.no_tensors();
        Ok(())
    }

    fn reestimate(&mut self, batch: u64, fill: Fill) {
        self.main.reestimate(batch, fill);
    }
}
