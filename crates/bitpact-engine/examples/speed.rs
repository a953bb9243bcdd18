//! Images per second of the executor on a random network: `speed [ARCH] [BITS] [SIDE] [THREADS] [ISA]`.

use std::time::Instant;

use bitpact_core::rng::Key;
use bitpact_engine::{ExecOptions, Executor};
use bitpact_graph::{QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model, convert};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or_else(|| default.to_owned());
    let (arch, bits) = (arg(0, "resnet20"), arg(1, "W4A4"));
    let side: usize = arg(2, "32").parse()?;
    let threads = arg(3, "2").parse()?;
    let isa: Isa = arg(4, &Isa::detect().to_string()).parse()?;
    let graph = zoo::build(&arch, Shape::new(side, side, 3), 10).ok_or("unknown architecture")??;
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits.parse()?))?;
    let names = (0..10).map(|c| c.to_string()).collect();
    let model = convert(&Model::random(graph, plan, InputDescription::uniform(3, 128, 1.0 / 64.0), names, 1)?)?.model;
    let bytes = model.to_bytes()?.len();
    let mut executor = Executor::new(&model, ExecOptions { isa, threads })?;
    let batch = (16 * 1024 * 1024 / executor.image_len()).clamp(1, 1000);
    let key = Key::new(1);
    let pixels: Vec<u8> = (0..batch * executor.image_len()).map(|i| key.u64(i as u64) as u8).collect();
    let mut logits = vec![0; batch * executor.classes()];
    executor.run(&pixels, &mut logits);
    let (begin, mut images) = (Instant::now(), 0);
    while begin.elapsed().as_secs() < 3 {
        executor.run(&pixels, &mut logits);
        images += batch;
    }
    let speed = images as f64 / begin.elapsed().as_secs_f64();
    let mut best = executor.profile(&pixels[..executor.image_len()]);
    for _ in 0..20 {
        let times = executor.profile(&pixels[..executor.image_len()]);
        best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
    }
    for ((name, kernel, macs), time) in executor.layers().zip(&best) {
        println!(
            "{name:24} {:9.1} us {:7.1} GMAC/s  {kernel}",
            time.as_secs_f64() * 1e6,
            macs as f64 / time.as_secs_f64() / 1e9
        );
    }
    println!("{:?} an image", best.iter().sum::<std::time::Duration>());
    println!("{arch} {bits} {side}x{side}, {isa}, {threads} threads: {speed:.0} images/s; file of {bytes} bytes");
    Ok(())
}
