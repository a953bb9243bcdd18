//! Training speed on random pixels: `step_speed [ARCH] [BITS] [SIZE] [BATCH] [STEPS] [THREADS] [ISA] [fp32|bf16|int8]` prints one JSON
//! object with the median images/s over the steps.

use std::time::Instant;

use bitpact_core::rng::Key;
use bitpact_graph::{FirstLast, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Isa;
use bitpact_model::InputDescription;
use bitpact_train::{CpuBackend, Gradients, OptimizerConfig, StepInput, TrainBackend, initial_tensors};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or_else(|| default.to_owned());
    let (arch, bits, size) = (arg(0, "resnet20"), arg(1, "W4A4"), arg(2, "32").parse()?);
    let (batch, steps): (usize, usize) = (arg(3, "128").parse()?, arg(4, "12").parse()?);
    let threads = arg(5, "2").parse()?;
    let isa = args.get(6).map_or(Ok(Isa::detect()), |name| name.parse())?;
    let graph = zoo::build(&arch, Shape::new(size, size, 3), 10).ok_or("no such network")??;
    let config = QuantConfig { first_last: FirstLast::Float, ..QuantConfig::new(bits.parse()?) };
    let plan = QuantPlan::resolve(&graph, &config)?;
    let optimizer = OptimizerConfig { weight_decay: 2e-4, clip_weight_decay: 2e-4, ..OptimizerConfig::default() };
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let gradients = match arg(7, "fp32").as_str() {
        "fp32" => Gradients::Fp32,
        "bf16" => Gradients::Bf16,
        "int8" => Gradients::Int8,
        other => return Err(format!("{other}: expected fp32, bf16 or int8").into()),
    };
    let mut backend = CpuBackend::with_gradients(&graph, &plan, &input, batch, optimizer, gradients, isa, threads)?;
    backend.load(&initial_tensors(&graph, &plan, 1, 10.0), None)?;
    let layout = backend.input_layout();
    let fill = |i: usize, image: &mut [u8]| {
        let key = Key::new(i as u64);
        for y in 0..size {
            for (j, p) in image[layout.offset(y, 0)..][..size * layout.cs].iter_mut().enumerate() {
                *p = if j % layout.cs < 3 { key.u64((y * size * 4 + j) as u64) as u8 } else { 0 };
            }
        }
        i % 10
    };
    let mut rates = Vec::new();
    for step in 0..steps + 2 {
        let begin = Instant::now();
        let outcome = backend.step(&StepInput { lr: 0.01, fill: &fill, key: Key::new(1), ..StepInput::default() })?;
        if step >= 2 {
            rates.push(batch as f64 / begin.elapsed().as_secs_f64());
        }
        if step == 0 {
            eprintln!("first loss {:.4}", outcome.loss);
        }
    }
    rates.sort_by(f64::total_cmp);
    let (median, min, max) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    println!("{{\"images_per_s\": {median:.1}, \"min\": {min:.1}, \"max\": {max:.1}, \"isa\": \"{isa}\"}}");
    Ok(())
}
