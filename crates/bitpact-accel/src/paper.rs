//! Figure 6 of the PACT paper (Choi et al. 2018, arXiv 1805.06085, section 6), rebuilt.
//!
//! The numbers here were read off the vector drawing of figure 6 (about 1 % exact); the speed-ups are in the paper's
//! text.

use bitpact_graph::{FirstLast, Graph, GraphError, Node, Op, Shape, zoo};

use crate::{AccelError, AreaTable, Device, Estimate, Widths, Workload};

/// Widths of the paper's machines, in the order of its figures.
pub const BITS: [u8; 4] = [16, 8, 4, 2];

/// External bandwidths of figure 6(c) in GB/s; `None` is unlimited.
pub const BANDWIDTHS: [Option<f64>; 3] = [None, Some(32.0), Some(64.0)];

/// Area of a multiply-accumulate unit over that of 2 bits, figure 6(b), by [`BITS`].
pub const AREA: [f64; 4] = [14.3, 6.7, 2.5, 1.0];

/// Images a second of ResNet-50, figure 6(c), by [`BITS`] and [`BANDWIDTHS`].
pub const THROUGHPUT: [[f64; 3]; 4] =
    [[1015.0, 572.0, 805.0], [2006.0, 1384.0, 1840.0], [3674.0, 3460.0, 3625.0], [6225.0, 6059.0, 6136.0]];

/// Speed-up from 16 to 4 bits at 64 GB/s, in the text.
pub const SPEED_UP_16_TO_4: f64 = 4.5;

/// Estimated further speed-up from quantizing the first and last layers too, in the text.
pub const FIRST_LAST_GAIN: f64 = 1.24;

/// The study beside the paper.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// Network the throughput is of.
    pub network: String,
    /// Relative areas by [`BITS`].
    pub area: [f64; 4],
    /// Images a second by [`BITS`] and [`BANDWIDTHS`].
    pub throughput: [[f64; 3]; 4],
    /// Speed-up from 16 to 4 bits at 64 GB/s.
    pub speed_up_16_to_4: f64,
    /// Speed-up at 64 GB/s from the first and last layers at the others' width, at 4 and 2 bits.
    pub first_last_gain: [f64; 2],
    /// Whether everything stays on chip, by [`BITS`].
    pub resident: [bool; 4],
    /// The largest width at which everything stays on chip.
    pub resident_width: Option<u8>,
}

/// The paper's machine at `bits`, one of [`BITS`].
///
/// # Errors
/// None in a program whose built-in devices parse.
pub fn machine(bits: u8) -> Result<Device, AccelError> {
    Device::open(&format!("pact-{bits}"))
}

/// ResNet-50 as He et al. (2015) drew it, with the stride of a stage on its first 1x1 convolution: 3.86 billion
/// multiply-adds. The zoo's has it on the 3x3, as torchvision, and 4.09 billion: at 16 bits the paper's machine could
/// not run that one at the 1015 images a second of figure 6(c), because 4.096e12 / 4.089e9 = 1002.
///
/// # Errors
/// None in a program whose zoo has `resnet50`.
pub fn resnet50() -> Result<Graph, GraphError> {
    let zoo = zoo::build("resnet50", Shape::new(224, 224, 3), 1000).expect("a name of the zoo")?;
    let mut nodes: Vec<Node> = zoo.nodes().to_vec();
    for stage in 2..=4 {
        for (layer, wanted) in [("conv1", 2), ("conv2", 1)] {
            let name = format!("layer{stage}.0.{layer}");
            let node = nodes.iter_mut().find(|n| n.name == name).expect("a layer of ResNet-50");
            if let Op::Conv(conv) = &mut node.op {
                conv.stride = [wanted; 2];
            }
        }
    }
    Graph::new("resnet50-v1", nodes)
}

/// Rebuilds figure 6 for `graph`, which the paper's points are of only where it is [`resnet50`].
///
/// # Errors
/// A graph that cannot be grouped into steps.
pub fn study(graph: &Graph, table: &AreaTable) -> Result<Study, AccelError> {
    let workload = |bits: u8, first_last| Workload::uniform(graph, widths(bits), first_last);
    let mut study = Study {
        network: graph.name().to_owned(),
        area: BITS.map(|bits| table.mac(widths(bits)) / table.mac(widths(2))),
        throughput: [[0.0; 3]; 4],
        speed_up_16_to_4: 0.0,
        first_last_gain: [0.0; 2],
        resident: [false; 4],
        resident_width: None,
    };
    for (i, bits) in BITS.into_iter().enumerate() {
        let workload = workload(bits, FirstLast::Bits8)?;
        for (j, bandwidth) in BANDWIDTHS.into_iter().enumerate() {
            let estimate = Estimate::new(&machine(bits)?.with_bandwidth(bandwidth)?, &workload, 1)?;
            study.throughput[i][j] = estimate.images_per_s();
            study.resident[i] = estimate.residency.is_whole();
        }
    }
    let at_64 = BANDWIDTHS.iter().position(|&b| b == Some(64.0)).expect("one of the three");
    study.speed_up_16_to_4 = study.throughput[2][at_64] / study.throughput[0][at_64];
    for (n, i) in [2, 3].into_iter().enumerate() {
        let device = machine(BITS[i])?.with_bandwidth(Some(64.0))?;
        let estimate = Estimate::new(&device, &workload(BITS[i], FirstLast::Same)?, 1)?;
        study.first_last_gain[n] = estimate.images_per_s() / study.throughput[i][at_64];
    }
    let by_width = |w: Widths| Workload::uniform(graph, w, FirstLast::Bits8);
    study.resident_width = crate::resident_width(&machine(16)?, 1, by_width)?;
    Ok(study)
}

fn widths(bits: u8) -> Widths {
    Widths::same(bits).expect("one of the paper's")
}
