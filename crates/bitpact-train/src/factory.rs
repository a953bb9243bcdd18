//! The backends there are, by name: the one place that knows them.

use std::fmt;
use std::str::FromStr;

use bitpact_graph::{Graph, QuantPlan};
use bitpact_kernels::Isa;
use bitpact_model::InputDescription;

use crate::beside::WithOthers;
use crate::cpu::CpuBackend;
use crate::reference::ReferenceBackend;
use crate::{Gradients, OptimizerConfig, TrainBackend, TrainError};

/// Backend that computes the steps of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackendKind {
    /// This computer's CPU: a plan of fused steps on all threads.
    #[default]
    Cpu,
    /// The specification of a step: plain loops, node by node, on one thread. Slow.
    Reference,
}

impl BackendKind {
    /// Every backend, the default one first.
    pub const ALL: [BackendKind; 2] = [BackendKind::Cpu, BackendKind::Reference];

    /// Name of the backend, as `--backend` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            BackendKind::Cpu => "cpu",
            BackendKind::Reference => "reference",
        }
    }

    /// A backend of this kind. What the main output does not depend on is kept as it is loaded, but for clip values,
    /// which are calibrated. All tensors are zero until [`TrainBackend::load`].
    ///
    /// # Errors
    /// A graph that cannot be trained, a plan that does not fit it, an ISA this CPU lacks, or gradients that the
    /// backend does not round.
    pub fn build(self, spec: &BackendSpec) -> Result<Box<dyn TrainBackend>, TrainError> {
        match spec.graph.main_part() {
            Some(part) => Ok(Box::new(WithOthers::new(self, spec, part)?)),
            None => self.build_whole(spec),
        }
    }

    /// A backend of all nodes of the network, which can only be trained where the main output depends on all of them.
    pub(crate) fn build_whole(self, spec: &BackendSpec) -> Result<Box<dyn TrainBackend>, TrainError> {
        Ok(match self {
            BackendKind::Cpu => Box::new(CpuBackend::new(spec)?),
            BackendKind::Reference => Box::new(ReferenceBackend::new(spec)?),
        })
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || BackendKind::ALL.map(BackendKind::name).join(" or ");
        BackendKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("expected {}", names()))
    }
}

/// Network, bits and machine settings of a backend.
#[derive(Debug, Clone)]
pub struct BackendSpec<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// Bits and quantizers of the network.
    pub plan: &'a QuantPlan,
    /// Scale and zero point of the pixels.
    pub input: &'a InputDescription,
    /// Images in a training batch.
    pub batch_size: usize,
    /// The optimizer's settings.
    pub optimizer: OptimizerConfig,
    /// Number format of the gradients in the backward products.
    pub gradients: Gradients,
    /// Instruction set.
    pub isa: Isa,
    /// Threads, at least 1.
    pub threads: usize,
}

impl<'a> BackendSpec<'a> {
    /// Batches of `batch_size` images with SGD, float32 gradients and the best instruction set there is, on one thread.
    pub fn new(graph: &'a Graph, plan: &'a QuantPlan, input: &'a InputDescription, batch_size: usize) -> Self {
        let (optimizer, gradients) = (OptimizerConfig::default(), Gradients::Fp32);
        Self { graph, plan, input, batch_size, optimizer, gradients, isa: Isa::detect(), threads: 1 }
    }
}
