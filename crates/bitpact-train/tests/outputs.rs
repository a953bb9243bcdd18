//! A network with several outputs: its main output is trained as if it were alone, the rest keeps its weights.

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::{Graph, QuantConfig, QuantPlan};
use bitpact_model::{InputDescription, Model, convert};
use bitpact_train::{BackendKind, BackendSpec, StepInput};

const NETWORK: &str = r#"
name = "two"
outputs = ["classes", "beside"]
nodes = [
  { name = "image", op = "input", height = 6, width = 6, channels = 3 },
  { name = "conv", op = "conv", out_channels = 5, kernel = 3, padding = 1 },
  { name = "bn", op = "batch_norm" },
  { name = "act", op = "act" },
  { name = "conv2", op = "conv", out_channels = 4, kernel = 3 },
  { name = "act2", op = "act" },
  { name = "beside", op = "linear", out_features = 2 },
  { name = "classes", op = "linear", out_features = 3, inputs = ["act"] },
]"#;

fn fill(i: usize, image: &mut [u8], place: Placement) -> usize {
    for (y, x) in (0..6).flat_map(|y| (0..6).map(move |x| (y, x))) {
        let at = place.offset + y * place.row_stride + x * place.pixel_stride;
        for (c, pixel) in image[at..at + 3].iter_mut().enumerate() {
            *pixel = Key::new(9).at(i as u64).u64(((y * 6 + x) * 3 + c) as u64) as u8;
        }
    }
    i % 3
}

#[test]
fn what_the_main_output_does_not_depend_on_is_calibrated_and_not_trained() {
    let graph: Graph = toml::from_str(NETWORK).unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    let start = Model::random(graph.clone(), plan.clone(), input.clone(), names, 4).unwrap();
    let part = graph.main_part().unwrap();
    let of_part = plan.restricted(&part);
    assert!(part.find("conv2").is_none() && part.find("classes").is_some());
    for kind in BackendKind::ALL {
        let mut whole = kind.build(&BackendSpec::new(&graph, &plan, &input, 4)).unwrap();
        let mut alone = kind.build(&BackendSpec::new(&part, &of_part, &input, 4)).unwrap();
        for backend in [&mut whole, &mut alone] {
            backend.load(&start.tensors, None).unwrap();
            backend.calibrate(99.0, &fill).unwrap();
            for _ in 0..2 {
                backend.step(&StepInput { lr: 0.1, fill: &fill, ..StepInput::default() }).unwrap();
            }
        }
        let (trained, alone) = (whole.tensors(), alone.tensors());
        for (name, tensor) in &trained {
            match alone.get(name) {
                Some(expected) => assert_eq!(tensor, expected, "{kind}: {name}"),
                None if name == "act2.clip_val" => assert_ne!(tensor, &start.tensors[name], "{kind}"),
                None => assert_eq!(tensor, &start.tensors[name], "{kind}: {name}"),
            }
        }
        assert_eq!(trained.len(), start.tensors.len());
        assert_ne!(trained["conv.weight"], start.tensors["conv.weight"], "{kind}");
        let integers = convert(&Model { tensors: trained, ..start.clone() }).unwrap().model;
        let outputs: Vec<&str> = integers.outputs.iter().map(|o| &*integers.layers[o.tensor - 1].name).collect();
        assert_eq!(outputs, ["classes", "beside"]);
    }
}
