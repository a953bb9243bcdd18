//! The built-in set: its exact bytes, its balance, and that its halves and seeds differ.

use bitpact_data::{Dataset, synthetic};

fn image(set: &dyn Dataset, index: usize) -> Vec<u8> {
    let mut out = vec![0; set.image_shape().len()];
    set.image(index, &mut out);
    out
}

fn checksum(set: &dyn Dataset) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for index in 0..set.len() {
        crc.update(&image(set, index));
    }
    crc.finalize()
}

#[test]
fn the_bytes_are_the_same_on_every_machine() {
    let split = synthetic::generate(synthetic::SEED, 100, 100).unwrap();
    assert_eq!(checksum(&split.train), 2_403_800_754, "train");
    assert_eq!(checksum(&split.test), 2_120_883_067, "test");
}

#[test]
fn fewer_images_are_the_first_of_more() {
    let (few, more) = (synthetic::generate(5, 7, 3).unwrap(), synthetic::generate(5, 20, 10).unwrap());
    for index in 0..7 {
        assert_eq!(image(&few.train, index), image(&more.train, index));
        assert_eq!(few.train.label(index), more.train.label(index));
    }
    assert_eq!(image(&few.test, 2), image(&more.test, 2));
}

#[test]
fn halves_and_seeds_and_images_differ() {
    let (one, two) = (synthetic::generate(1, 50, 50).unwrap(), synthetic::generate(2, 50, 50).unwrap());
    let mut seen = std::collections::HashSet::new();
    for set in [&one.train, &one.test, &two.train, &two.test] {
        for index in 0..50 {
            assert!(seen.insert(image(set, index)), "image {index} occurs twice");
        }
    }
}

#[test]
fn classes_take_turns_and_have_names() {
    let split = synthetic::generate(1, 25, 10).unwrap();
    assert_eq!(split.train.class_names().len(), 10);
    for index in 0..25 {
        assert_eq!(split.train.label(index), index % 10);
    }
}

#[test]
fn the_published_sizes_are_the_named_ones() {
    assert_eq!((synthetic::TRAIN_IMAGES, synthetic::TEST_IMAGES), (10_000, 2_000));
}

#[test]
fn an_empty_half_is_refused() {
    for (train, test, name) in [(0, 1, "training"), (1, 0, "test")] {
        let text = synthetic::generate(1, train, test).err().expect("an error").to_string();
        assert_eq!(text, format!("the built-in {name} set has no images; at least one is needed"));
    }
}

/// Pixels spread over the range without piling up at its ends, and no class is told from the others by its average
/// brightness.
#[test]
fn brightness_says_nothing_and_rarely_saturates() {
    let split = synthetic::generate(1, 2_000, 1).unwrap();
    let mut sums = [0f64; 10];
    let mut saturated = 0usize;
    for index in 0..2_000 {
        let pixels = image(&split.train, index);
        saturated += pixels.iter().filter(|&&p| p == 0 || p == 255).count();
        sums[split.train.label(index)] += pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64;
    }
    assert!(saturated * 50 < 2_000 * 3072, "{saturated} saturated bytes");
    for (class, sum) in sums.iter().enumerate() {
        assert!((115.0..140.0).contains(&(sum / 200.0)), "class {class}: mean {}", sum / 200.0);
    }
}
