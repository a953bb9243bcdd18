//! Writes a sheet of images as a PPM file, one row per class:
//! `cargo run -p bitpact-data --example contact_sheet -- OUT.ppm [CIFAR_FOLDER]`.

use std::error::Error;
use std::path::Path;

use bitpact_data::{DatasetName, Limits, load};

const COLUMNS: usize = 24;
const ZOOM: usize = 2;
const GAP: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().ok_or("usage: contact_sheet OUT.ppm [CIFAR_FOLDER]")?;
    let folder = args.next();
    let name = if folder.is_some() { DatasetName::Cifar10 } else { DatasetName::Builtin };
    let set = load(name, folder.as_deref().map(Path::new), Limits { train: Some(1000), test: Some(1) })?.train;

    let shape = set.image_shape();
    let classes = set.class_names().len();
    let (cell_h, cell_w) = (shape.h * ZOOM + GAP, shape.w * ZOOM + GAP);
    let width = COLUMNS * cell_w;
    let mut sheet = vec![255; classes * cell_h * width * 3];
    let mut filled = vec![0; classes];
    let mut image = vec![0; shape.len()];
    for index in 0..set.len() {
        let row = set.label(index);
        let column = filled[row];
        if column == COLUMNS {
            continue;
        }
        filled[row] += 1;
        set.image(index, &mut image);
        for y in 0..shape.h * ZOOM {
            for x in 0..shape.w * ZOOM {
                let from = ((y / ZOOM) * shape.w + x / ZOOM) * shape.c;
                let to = ((row * cell_h + y) * width + column * cell_w + x) * 3;
                for c in 0..3 {
                    sheet[to + c] = image[from + c.min(shape.c - 1)];
                }
            }
        }
    }

    let mut file = format!("P6\n{width} {}\n255\n", classes * cell_h).into_bytes();
    file.extend_from_slice(&sheet);
    std::fs::write(&out, file)?;
    println!("{out}: from top to bottom {}", set.class_names().join(", "));
    Ok(())
}
