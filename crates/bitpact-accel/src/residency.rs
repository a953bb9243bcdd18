//! What stays on chip, chosen per tensor over the whole network.
//!
//! An activation tensor is either kept on chip from the step that makes it to the last that reads it,
//! `activation_buffers` times, or written to external memory once and read by every step that needs it. The tensors
//! kept are those of at most some size, and every such size is tried. A weight tensor is either kept for good or read
//! from external memory once a batch; those kept are the ones that save the most time in what the largest set of
//! activations alive at once and the tiles of weights in transit leave over: an exact 0/1 knapsack over blocks, so that
//! more memory never makes a network slower.

use crate::{Device, Mapping, Overlap, Workload};

/// Blocks of memory the knapsack distinguishes.
const BLOCKS: u64 = 1 << 15;

/// The tensors and weights that stay on chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residency {
    /// For every tensor of the workload, whether it stays on chip while it is alive.
    pub activations: Vec<bool>,
    /// For every product of the workload in order, whether its weights stay on chip for good.
    pub weights: Vec<bool>,
    /// Bytes of the largest set of kept activations alive at once, buffers included.
    pub activation_bytes: u64,
    /// Bytes of the kept weights.
    pub weight_bytes: u64,
    /// Bytes of tiles of weights in transit.
    pub staging_bytes: u64,
}

impl Residency {
    /// Tells whether everything stays on chip: nothing but images and logits is moved.
    pub fn is_whole(&self) -> bool {
        self.activations.iter().chain(&self.weights).all(|&kept| kept)
    }
}

/// What a product needs of the chip's time and memory.
#[derive(Debug, Clone, Copy)]
struct Cost {
    compute_s: f64,
    weight_bytes: u64,
    spilled_bytes: u64,
}

impl Cost {
    fn seconds(&self, device: &Device, weights_kept: bool) -> f64 {
        let moved = self.spilled_bytes + if weights_kept { 0 } else { self.weight_bytes };
        let transfer = device.transfer_s(moved);
        match device.overlap {
            Overlap::Layer => transfer.max(self.compute_s),
            Overlap::None => transfer + self.compute_s,
        }
    }
}

/// Bytes of activations that each product moves, by index; those of a step are moved with its first product. Steps
/// without products, by index of the step, come second. The arrival of the images and the leaving of the logits are
/// not counted.
pub(crate) fn spilled(workload: &Workload, kept: &[bool], batch: u64) -> (Vec<u64>, Vec<u64>) {
    let mut of_products = Vec::new();
    let mut of_pools = vec![0; workload.steps.len()];
    for (i, step) in workload.steps.iter().enumerate() {
        let arrives = |t: usize| t == 0 && !workload.steps[..i].iter().any(|earlier| earlier.inputs.contains(&0));
        let leaves = |t: usize| t == workload.tensors.len() - 1;
        let tensors = step.inputs.iter().chain([&step.output]);
        let touched = tensors.filter(|&&t| !kept[t] && !arrives(t) && !leaves(t));
        let bytes: u64 = touched.map(|&t| workload.tensors[t].bytes() * batch).sum();
        if step.products.is_empty() {
            of_pools[i] = bytes;
        }
        of_products.extend(step.products.iter().enumerate().map(|(n, _)| if n == 0 { bytes } else { 0 }));
    }
    (of_products, of_pools)
}

/// Chooses what stays on chip; `mappings` has one entry for every product.
pub(crate) fn choose(device: &Device, workload: &Workload, mappings: &[Mapping], batch: u64) -> Residency {
    let staging_bytes = workload.products().map(|p| device.staging_bytes(p)).max().unwrap_or(0);
    let capacity = device.on_chip_bytes() - staging_bytes;
    let bytes: Vec<u64> = workload.tensors.iter().map(|t| t.bytes() * batch * device.activation_buffers).collect();
    let mut sizes = bytes.clone();
    sizes.push(0);
    sizes.sort_unstable();
    sizes.dedup();
    let mut best: Option<(f64, Residency)> = None;
    for &size in sizes.iter().rev() {
        let kept: Vec<bool> = bytes.iter().map(|&b| b <= size).collect();
        let alive = peak(workload, &bytes, &kept);
        if alive > capacity {
            continue;
        }
        let (of_products, of_pools) = spilled(workload, &kept, batch);
        let costs: Vec<Cost> = workload
            .products()
            .zip(mappings)
            .zip(of_products)
            .map(|((product, mapping), spilled_bytes)| Cost {
                compute_s: compute_s(device, mapping),
                weight_bytes: product.weight_bytes(),
                spilled_bytes,
            })
            .collect();
        let fixed = device.transfer_s(of_pools.iter().sum());
        let weights = knapsack(device, &costs, capacity - alive);
        let seconds = fixed + costs.iter().zip(&weights).map(|(c, &kept)| c.seconds(device, kept)).sum::<f64>();
        // Sizes come in falling order: of equal times the one that moves the least wins.
        if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
            let weight_bytes = costs.iter().zip(&weights).filter(|(_, kept)| **kept).map(|(c, _)| c.weight_bytes).sum();
            let chosen = Residency { activations: kept, weights, activation_bytes: alive, weight_bytes, staging_bytes };
            best = Some((seconds, chosen));
        }
    }
    best.expect("keeping nothing is possible, and the tiles of every mapped product fit").1
}

/// Seconds of the array's work, without filling it.
pub(crate) fn compute_s(device: &Device, mapping: &Mapping) -> f64 {
    mapping.cycles / (device.frequency_ghz * 1e9 * device.efficiency)
}

/// Largest sum of kept tensors alive during one step.
fn peak(workload: &Workload, bytes: &[u64], kept: &[bool]) -> u64 {
    let lives = workload.lives();
    let alive = |step: usize| {
        let tensors = lives.iter().zip(bytes).zip(kept);
        tensors
            .filter(|((life, _), kept)| **kept && life.0 <= step && step <= life.1)
            .map(|((_, b), _)| *b)
            .sum::<u64>()
    };
    (0..workload.steps.len()).map(alive).max().unwrap_or(0)
}

/// Which weights to keep in `room` bytes.
fn knapsack(device: &Device, costs: &[Cost], room: u64) -> Vec<bool> {
    if costs.iter().map(|c| c.weight_bytes).sum::<u64>() <= room {
        return vec![true; costs.len()];
    }
    let mut block = 1024;
    while room / block > BLOCKS {
        block *= 2;
    }
    let blocks = |bytes: u64| usize::try_from(bytes.div_ceil(block)).unwrap_or(usize::MAX);
    let room = (room / block) as usize;
    let mut saved = vec![0.0f64; room + 1];
    let mut taken: Vec<Vec<bool>> = Vec::with_capacity(costs.len());
    for cost in costs {
        let (size, value) = (blocks(cost.weight_bytes), cost.seconds(device, false) - cost.seconds(device, true));
        let mut take = vec![false; room + 1];
        if value > 0.0 {
            for at in (size..=room).rev() {
                let with = saved[at - size] + value;
                if with > saved[at] {
                    (saved[at], take[at]) = (with, true);
                }
            }
        }
        taken.push(take);
    }
    let mut kept = vec![false; costs.len()];
    let mut left = room;
    for (i, take) in taken.iter().enumerate().rev() {
        if take[left] {
            kept[i] = true;
            left -= blocks(costs[i].weight_bytes);
        }
    }
    // What saves no time but still fits saves traffic.
    for (kept, cost) in kept.iter_mut().zip(costs) {
        let size = blocks(cost.weight_bytes);
        if !*kept && size <= left {
            *kept = true;
            left -= size;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against every subset, on sizes of whole blocks and of parts of one.
    #[test]
    fn the_knapsack_saves_the_most_time_there_is() {
        let device = Device::open("pact-8").unwrap();
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let costs: Vec<Cost> = (0..9)
                .map(|_| Cost {
                    compute_s: random(1000) as f64 * 1e-9,
                    weight_bytes: 1 + random(60_000),
                    spilled_bytes: random(2) * random(30_000),
                })
                .collect();
            let room = random(250_000);
            let blocks = |kept: &dyn Fn(usize) -> bool| -> u64 {
                (0..9).filter(|&i| kept(i)).map(|i| costs[i].weight_bytes.div_ceil(1024)).sum()
            };
            let time = |kept: &dyn Fn(usize) -> bool| -> f64 {
                costs.iter().enumerate().map(|(i, c)| c.seconds(&device, kept(i))).sum()
            };
            let subsets = (0..512u32).filter(|s| blocks(&|i| s >> i & 1 == 1) <= room / 1024);
            let best = subsets.map(|s| time(&|i| s >> i & 1 == 1)).fold(f64::INFINITY, f64::min);
            let chosen = knapsack(&device, &costs, room);
            let all: u64 = costs.iter().map(|c| c.weight_bytes).sum();
            assert!(all <= room || blocks(&|i| chosen[i]) <= room / 1024);
            assert!(time(&|i| chosen[i]) <= best + 1e-15, "{costs:?} {room}");
        }
    }
}
