//! Files with damage, of bytes and of what they say: whatever is read of them is a checked model that can be written.

use std::path::Path;

use bitpact_interop::ImportOptions;
use bitpact_interop::onnx::{import_bytes, operators, proto};
use bitpact_model::Checkpoint;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

use crate::build::{File, int, ints, text};
use crate::networks::{conv, head, quantized};

/// Numbers that sizes, axes and paddings are not.
const NUMBERS: [i64; 12] = [0, 1, -1, 2, 3, 7, 65_537, 1 << 31, 1 << 40, i64::MAX, i64::MIN, -(1 << 33)];

fn files() -> Vec<File> {
    let moved = conv()
        .node("Relu", &["c"], "r", vec![])
        .whole("order", 7, &[4], &[2, 0, 3, 1])
        .node("Gather", &["r", "order"], "g", vec![int("axis", 1)])
        .whole("sizes", 7, &[4], &[1, 4, 16, 16])
        .node("Resize", &["g", "", "", "sizes"], "u", vec![text("mode", "linear")])
        .whole("pads", 7, &[8], &[0, 0, 1, 1, 0, 0, 1, 1])
        .node("Pad", &["u", "pads"], "p", vec![])
        .node("MaxPool", &["p"], "m", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]);
    let shuffled = conv()
        .node("Relu", &["c"], "r", vec![])
        .whole("five", 7, &[5], &[1, 2, 2, 8, 8])
        .whole("four", 7, &[4], &[0, -1, 8, 8])
        .node("Reshape", &["r", "five"], "f", vec![])
        .node("Transpose", &["f"], "t", vec![ints("perm", &[0, 2, 1, 3, 4])])
        .node("Reshape", &["t", "four"], "s", vec![])
        .whole("shape", 7, &[2], &[2, 3])
        .node("ConstantOfShape", &["shape"], "filled", vec![])
        .node("ReduceMean", &["filled"], "mean", vec![int("keepdims", 0)])
        .node("Add", &["s", "mean"], "a", vec![])
        .node("Split", &["a"], "one two", vec![int("axis", 1)])
        .node("Concat", &["two", "one"], "j", vec![int("axis", 1)]);
    vec![head(conv(), "c", 4), head(moved, "m", 4), head(shuffled, "j", 4), quantized(0)]
}

/// One thing that a file says otherwise.
#[derive(Debug, Clone)]
struct Change {
    what: u8,
    at: [Index; 3],
    number: i64,
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![prop::sample::select(&NUMBERS[..]), -4..40i64, any::<i64>()];
    (0..8u8, any::<[Index; 3]>(), number).prop_map(|(what, at, number)| Change { what, at, number })
}

fn pick<'a, T>(items: &'a mut [T], at: &Index) -> Option<&'a mut T> {
    if items.is_empty() { None } else { Some(at.get_mut(items)) }
}

/// Makes the change, where there is such a place.
fn make(graph: &mut proto::Graph, Change { what, at: [a, b, c], number }: &Change) -> Option<()> {
    let names: Vec<String> = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.clone())
        .chain(graph.node.iter().flat_map(|node| node.output.clone()))
        .collect();
    match what {
        0 => {
            let known: Vec<&str> = operators().collect();
            pick(&mut graph.node, a)?.op_type = Some((*b.get(&known)).to_owned());
        }
        1 => {
            let attribute = pick(&mut pick(&mut graph.node, a)?.attribute, b)?;
            match pick(&mut attribute.ints, c) {
                Some(place) => *place = *number,
                None => attribute.i = Some(*number),
            }
        }
        2 => *pick(&mut pick(&mut graph.initializer, a)?.dims, b)? = *number,
        3 => {
            let of = pick(&mut graph.input, a)?.r#type.as_mut()?.tensor_type.as_mut()?;
            pick(&mut of.shape.as_mut()?.dim, b)?.dim_value = Some(*number);
        }
        4 => *pick(&mut pick(&mut graph.node, a)?.input, b)? = c.get(&names).clone(),
        5 => *pick(&mut pick(&mut graph.initializer, a)?.int64_data, b)? = *number,
        6 if !graph.initializer.is_empty() => drop(graph.initializer.remove(a.index(graph.initializer.len()))),
        _ => {
            let n = graph.node.len();
            graph.node.swap(a.index(n), b.index(n));
        }
    }
    Some(())
}

fn read(bytes: Vec<u8>) {
    let (folder, path) = (Path::new("no such folder"), Path::new("damaged"));
    if let Ok(imported) = import_bytes(bytes, "damaged", folder, path, &ImportOptions::default()) {
        let checkpoint = Checkpoint { model: imported.model, training: None, note: None };
        checkpoint.to_bytes().expect("what was imported can be written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_what_a_file_says_makes_the_reader_panic(
        file in 0..4usize,
        changes in prop::collection::vec(change(), 1..5),
    ) {
        let mut file = files().swap_remove(file);
        for change in &changes {
            make(&mut file.graph, change);
        }
        read(file.bytes());
    }

    #[test]
    fn no_damage_of_bytes_makes_the_reader_panic(
        file in 0..4usize,
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = files().swap_remove(file).bytes();
        for (at, byte) in flips {
            *at.get_mut(&mut bytes) = byte;
        }
        read(bytes);
    }
}
