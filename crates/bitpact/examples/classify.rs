//! Classifies pictures with one engine on several threads.
//!
//! ```text
//! cargo run --release --example classify -- model.bitpact a.png b.jpg ...
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitpact::{Engine, ExecOptions, ImageShape, load_picture};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let model = args.next().ok_or("usage: classify MODEL.bitpact PICTURE...")?;
    let pictures: Vec<PathBuf> = args.collect();

    // One thread a call: the parallelism is ours.
    let engine = Engine::load(&model, ExecOptions { threads: 1, ..Default::default() })?;
    let shape = engine.input_shape();
    let shape = ImageShape { h: shape.h, w: shape.w, c: shape.c };
    let next = AtomicUsize::new(0);
    let classify = || {
        while let Some(path) = pictures.get(next.fetch_add(1, Ordering::Relaxed)) {
            let class = load_picture(path, shape)
                .map_err(|error| error.to_string())
                .and_then(|pixels| engine.classes(&pixels).map_err(|error| error.to_string()));
            match class {
                Ok(class) => println!("{}: {}", path.display(), engine.class_names()[class[0]]),
                Err(error) => eprintln!("{error}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(classify);
        }
    });
    Ok(())
}
