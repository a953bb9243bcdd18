//! Trains on one's own arrays: images as bytes in memory, a small network, three bits.
//!
//! ```text
//! cargo run --release --example own_arrays
//! ```

use std::error::Error;
use std::sync::atomic::AtomicBool;

use bitpact::{
    BackendKind, Dataset, Draft, Event, Executor, ImageShape, Images, IntegerModel, Isa, RunFolder, RunOptions, Start,
};

/// 12 x 12 grey images of one bright line on noise: lying, standing or slanting.
struct Lines {
    pixels: Vec<u8>,
    labels: Vec<usize>,
    names: Vec<String>,
}

const SIDE: usize = 12;

impl Lines {
    fn new(count: usize, seed: u64) -> Self {
        let key = bitpact::unstable::core::rng::Key::new(seed);
        let mut pixels = Vec::with_capacity(count * SIDE * SIDE);
        for i in 0..count {
            let key = key.at(i as u64);
            let at = key.below(0, SIDE as u32) as usize;
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let on_line = match i % 3 {
                        0 => y == at,
                        1 => x == at,
                        _ => (x + y) % SIDE == at,
                    };
                    let noise = key.below((1 + y * SIDE + x) as u64, 90) as u8;
                    pixels.push(if on_line { 140 + noise } else { 60 + noise });
                }
            }
        }
        let names = ["lying", "standing", "slanting"].map(str::to_owned).to_vec();
        Self { pixels, labels: (0..count).map(|i| i % 3).collect(), names }
    }
}

impl Dataset for Lines {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn image_shape(&self) -> ImageShape {
        ImageShape { h: SIDE, w: SIDE, c: 1 }
    }

    fn image(&self, index: usize, out: &mut [u8]) {
        let bytes = SIDE * SIDE;
        out.copy_from_slice(&self.pixels[index * bytes..][..bytes]);
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }
}

const RECIPE: &str = r#"
name = "lines"
dataset = "lines"
arch = "lines"
bits = "W3A3"
epochs = 6
batch_size = 30
lr = 0.05
schedule = "cosine"

[graph]
name = "lines"
nodes = [
  { name = "input", op = "input", height = 12, width = 12, channels = 1 },
  { name = "conv1", op = "conv", out_channels = 16, kernel = 3, padding = 1 },
  { name = "bn1", op = "batch_norm" },
  { name = "act1", op = "act" },
  { name = "conv2", op = "conv", out_channels = 16, kernel = 3, padding = 1 },
  { name = "bn2", op = "batch_norm" },
  { name = "act2", op = "act" },
  { name = "pool", op = "global_avg_pool" },
  { name = "linear", op = "linear", out_features = 3 },
]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let (train, test) = (Lines::new(1500, 1), Lines::new(300, 2));
    let recipe = Draft::parse(RECIPE, "the recipe above")?.finish()?;
    let home = std::env::temp_dir().join(format!("bitpact-own-arrays-{}", std::process::id()));
    let folder = RunFolder::create(&home)?;

    let stop = AtomicBool::new(false);
    let mut observer = |event: Event<'_>| {
        if let Event::Epoch(record) = event {
            println!("epoch {}: loss {:.3}, integer accuracy {:.3}", record.epoch, record.loss, record.top1());
        }
    };
    let (backend, isa) = (BackendKind::default(), Isa::detect());
    let options = RunOptions { backend, isa, threads: 2, stop: &stop, observer: &mut observer };
    let images = Images { train: &train, test: &test };
    let outcome = bitpact::train(&recipe, images, &folder, Start::Fresh { weights: None }, options)?;

    // The network as it is shipped: integers only.
    let integers = IntegerModel::load(home.join("model.bitpact"))?;
    let mut executor = Executor::new(&integers, bitpact::ExecOptions { isa: Isa::detect(), threads: 1 })?;
    let mut image = vec![0; SIDE * SIDE];
    let mut logits = vec![0; 3];
    test.image(4, &mut image);
    executor.run(&image, &mut logits);
    println!("logits of a {} line: {logits:?}", test.names[test.label(4)]);

    std::fs::remove_dir_all(&home)?;
    let top1 = outcome.last.map_or(0.0, |last| last.top1());
    if top1 < 0.9 {
        return Err(format!("lines are easy, but the accuracy is {top1}").into());
    }
    Ok(())
}
