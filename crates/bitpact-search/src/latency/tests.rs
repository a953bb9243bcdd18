use super::*;

fn layer(inputs: usize, outputs: usize, side: usize, ns: f64) -> Layer {
    let text = format!("{{\"op\": \"conv\", \"out_channels\": {outputs}, \"kernel\": 3, \"padding\": 1}}");
    let op = serde_json::from_str(&text).unwrap();
    Layer { op, input: [side, side, inputs], image: false, widths: "W4A4".to_owned(), ns }
}

fn product(inputs: usize, outputs: usize, side: usize) -> Product {
    let source = format!(
        "name = \"n\"\nnodes = [\n{{ name = \"image\", op = \"input\", height = {side}, width = {side}, channels = 3 }},\n\
         {{ name = \"a\", op = \"conv\", out_channels = {inputs}, kernel = 1 }},\n{{ name = \"act\", op = \"act\" }},\n\
         {{ name = \"b\", op = \"conv\", out_channels = {outputs}, kernel = 3, padding = 1, bias = true }},\n]"
    );
    let graph: bitpact_graph::Graph = toml::from_str(&source).unwrap();
    Product::all(&graph).remove(1)
}

fn widths(text: &str) -> Widths {
    text.parse().unwrap()
}

#[test]
fn measured_times_are_taken_as_they_are_and_others_lie_between() {
    let mut table = LatencyTable::new("a machine", "scalar");
    // 1 ns a multiply-add (without the window) of 16 channels, 2 ns of 64.
    table.layers = vec![layer(16, 16, 8, 16.0 * 16.0 * 64.0), layer(64, 64, 8, 2.0 * 64.0 * 64.0 * 64.0)];
    let seconds = |inputs, outputs, side| table.seconds(&product(inputs, outputs, side), widths("W4A4")).unwrap();
    assert_eq!(seconds(16, 16, 8), 16.0 * 16.0 * 64.0 * 1e-9);
    // Half way in logarithms: the geometric mean of the rates.
    let between = seconds(32, 32, 8) / (32.0 * 32.0 * 64.0 * 1e-9);
    assert!((between - 2f64.sqrt()).abs() < 1e-6, "{between}");
    let message = table.seconds(&product(16, 16, 8), widths("W2A4")).unwrap_err().to_string();
    assert!(message.contains("layer `b` at W2A4") && message.contains("a machine"), "{message}");
}

#[test]
fn the_error_is_that_of_layers_left_out() {
    let mut table = LatencyTable::new("a machine", "scalar");
    table.layers = vec![layer(16, 16, 8, 16.0 * 16.0 * 64.0)];
    assert_eq!(table.error(), None);
    table.layers.push(layer(32, 16, 8, 32.0 * 16.0 * 64.0 * 1.25));
    let error = table.error().unwrap();
    // Each is taken for the other's rate: 1 / 1.25 - 1 and 1.25 - 1.
    assert_eq!(error.layers, 2);
    assert!((error.largest - 0.25).abs() < 1e-9 && (error.median - 0.25).abs() < 1e-9, "{error:?}");
}

#[test]
fn a_table_reads_back_and_bad_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cpu.json");
    let mut table = LatencyTable::new("a machine", "avx2");
    table.layers = vec![layer(16, 16, 8, 123.0)];
    table.write(&path).unwrap();
    assert_eq!(LatencyTable::read(&path).unwrap(), table);
    for (text, says) in [
        ("", "no table of measured layers"),
        ("{}", "cpu"),
        (&serde_json::to_string(&table).unwrap().replace("123.0", "-1.0"), "positive time"),
        (&serde_json::to_string(&table).unwrap().replace("W4A4", "four"), "widths"),
        (&serde_json::to_string(&table).unwrap().replace("\"input\":[8,8,16]", "\"input\":[0,8,16]"), "shape"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = LatencyTable::read(&path).unwrap_err().to_string();
        assert!(message.contains("cpu.json") && message.contains(says), "{message}");
    }
}

#[test]
fn the_engine_times_each_form_once() {
    let mut table = LatencyTable::new("a machine", "scalar");
    let (one, other) = (product(4, 8, 6), product(8, 4, 6));
    let wanted = [(&one, widths("W2A4")), (&one, widths("W2A4")), (&other, widths("W8A8")), (&one, widths("W16A8"))];
    let isa = bitpact_kernels::Isa::detect();
    let mut told = Vec::new();
    assert!(
        measure_missing(&mut table, &wanted, isa, &mut |done, all| {
            told.push((done, all));
            true
        })
        .unwrap()
    );
    assert_eq!(told, [(0, 3), (1, 3), (2, 3)]);
    assert!(table.layers.iter().all(|layer| layer.ns >= 1.0));
    assert!(table.measured_ns(&one, widths("W2A4")).is_some() && table.measured_ns(&other, widths("W2A4")).is_none());
    assert!(measure_missing(&mut table, &wanted, isa, &mut |_, _| panic!("nothing is missing")).unwrap());
}
