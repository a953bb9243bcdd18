//! What must hold of every device: more of anything is never slower, and nothing beats the roof.

use bitpact_accel::{Dataflow, Device, Estimate, Overlap, Wider};
use proptest::prelude::*;

use super::*;

prop_compose! {
    fn device()(
        cores in 1u64..40,
        rows in 1u64..20,
        columns in 1u64..80,
        lanes in 1u64..5,
        output in any::<bool>(),
        bits in (1u8..=16, 1u8..=16),
        product in any::<bool>(),
        on_chip_kib in 64u64..1500,
        gbps in 0.05f64..50.0,
        serial in any::<bool>(),
        activation_buffers in 1u64..3,
    ) -> Device {
        Device {
            cores, rows, columns, lanes,
            dataflow: if output { Dataflow::OutputStationary } else { Dataflow::WeightStationary },
            activation_bits: bits.0,
            weight_bits: bits.1,
            wider: if product { Wider::Product } else { Wider::Linear },
            on_chip_kib,
            bandwidth_gbps: Some(gbps),
            overlap: if serial { Overlap::None } else { Overlap::Layer },
            activation_buffers,
            ..toy()
        }
    }
}

fn network() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["cnn", "resnet20", "resnet20-b"])
}

fn seconds(device: &Device, work: &Workload, batch: u64) -> f64 {
    Estimate::new(device, work, batch).map_or(f64::INFINITY, |e| e.total_s)
}

fn not_slower(better: f64, worse: f64) -> bool {
    better <= worse * (1.0 + 1e-9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_is_never_slower(device in device(), name in network(), bits in (1u8..=8, 1u8..=8), more in 1.0f64..4.0) {
        let at = |a: u8, w: u8| Workload::uniform(&graph(name), Widths::new(a, w).unwrap(), FirstLast::Bits8).unwrap();
        let work = at(bits.0, bits.1);
        let now = seconds(&device, &work, 1);
        let better = [
            Device { bandwidth_gbps: device.bandwidth_gbps.map(|gbps| gbps * more), ..device.clone() },
            Device { bandwidth_gbps: None, ..device.clone() },
            Device { on_chip_kib: (device.on_chip_kib as f64 * more) as u64, ..device.clone() },
            Device { frequency_ghz: device.frequency_ghz * more, ..device.clone() },
        ];
        for better in better {
            prop_assert!(not_slower(seconds(&better, &work, 1), now), "{better:?}");
        }
        // More cores need more memory for tiles in transit: with memory to spare they are never slower.
        let ample = Device { on_chip_kib: 1 << 20, ..device.clone() };
        let cores = Device { cores: (device.cores as f64 * more) as u64, ..ample.clone() };
        prop_assert!(not_slower(seconds(&cores, &work, 1), seconds(&ample, &work, 1)));
        for (a, w) in [(bits.0.max(2) - 1, bits.1), (bits.0, bits.1.max(2) - 1)] {
            prop_assert!(not_slower(seconds(&device, &at(a, w), 1), now), "W{w}A{a}");
        }
    }

    #[test]
    fn nothing_beats_the_roof_or_overfills_the_chip(
        device in device(), name in network(), bits in (1u8..=8, 1u8..=8), batch in 1u64..5,
    ) {
        let work = Workload::uniform(&graph(name), Widths::new(bits.0, bits.1).unwrap(), FirstLast::Same).unwrap();
        let Ok(e) = Estimate::new(&device, &work, batch) else { return Ok(()) };
        prop_assert_eq!(e.macs(), work.macs() * batch);
        prop_assert!(e.total_s >= e.macs() as f64 / device.peak_macs_per_s());
        prop_assert!(e.total_s * (1.0 + 1e-9) >= device.transfer_s(e.external_bytes()));
        prop_assert!(e.layers.iter().all(|l| l.utilization <= 1.0 + 1e-12 && l.split[0] * l.split[1] <= device.cores));
        let r = &e.residency;
        prop_assert!(r.activation_bytes + r.weight_bytes + r.staging_bytes <= device.on_chip_bytes());
        prop_assert_eq!(r.weights.len(), work.products().count());
        if r.is_whole() {
            prop_assert_eq!(e.external_bytes(), e.end_bytes);
        }
    }
}
