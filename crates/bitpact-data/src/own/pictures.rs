//! Pictures from files as a data set, kept decoded as far as there is room.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bitpact_core::rng::Key;

use super::Faults;
use super::layout::{Goal, Item};
use super::mask::{self, read_mask};
use crate::picture::{Picture, read_picture};
use crate::resample::{Filter, Window, nearest, resample};
use crate::target::IGNORED;
use crate::{Dataset, ImageShape, TargetKind};

/// Colour behind what is transparent.
const BACKGROUND: [u8; 3] = [255; 3];
/// A picture of which random parts are shown is kept with a shorter side of at most so many times the image's.
const KEPT_SIDES: usize = 4;
/// Examples that are tried in the place of a damaged one.
const STAND_INS: usize = 16;

/// How files become examples.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) shape: ImageShape,
    pub(crate) kind: TargetKind,
    pub(crate) resize: Option<usize>,
    /// Shares of the area that random parts show.
    pub(crate) random: Option<[f64; 2]>,
    /// Whether parts at random places are shown in the size that they have.
    pub(crate) is_patches: bool,
    /// Rows of a picture to give for a row of the image.
    pub(crate) scale: usize,
    /// Class of every value of a mask.
    pub(crate) classes: Arc<[u8; 256]>,
}

/// Bytes of memory that are left for decoded pictures.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An example as it is kept: what random parts are cut out of, or the image itself.
#[derive(Debug)]
pub(crate) struct Stored {
    image: Picture,
    target: Option<Picture>,
    /// The example that it is; another one where that is damaged.
    of: usize,
}

impl Stored {
    fn bytes(&self) -> u64 {
        (self.image.pixels.len() + self.target.as_ref().map_or(0, |target| target.pixels.len())) as u64
    }
}

/// Examples of one half.
#[derive(Debug)]
pub(crate) struct Pictures {
    pub(crate) items: Vec<Item>,
    pub(crate) names: Vec<String>,
    pub(crate) rule: Rule,
    pub(crate) kept: Vec<OnceLock<Stored>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) faults: Arc<Faults>,
}

impl Rule {
    fn to(&self) -> (usize, usize) {
        (self.shape.h, self.shape.w)
    }

    /// Tells whether an example is kept as the image itself.
    fn is_final(&self) -> bool {
        self.random.is_none() && !self.is_patches
    }

    /// Reads an example.
    fn read(&self, index: usize, item: &Item) -> Result<Stored, String> {
        let picture = |path: &Path| read_picture(path, self.shape.c, BACKGROUND).map_err(|error| error.to_string());
        let input = &item.input;
        let (image, target) = match &item.goal {
            Goal::Class(_) | Goal::Numbers(_) => {
                let picture = picture(input)?;
                (if self.is_final() { self.middle(&picture) } else { self.reduced(picture) }, None)
            }
            Goal::Mask(path) => {
                let (image, mut mask) = (picture(input)?, read_mask(path).map_err(|error| error.to_string())?);
                if (image.h, image.w) != (mask.h, mask.w) {
                    let (a, b) = (format!("{}x{}", image.h, image.w), format!("{}x{}", mask.h, mask.w));
                    return Err(format!("{}: has {b} pixels, and its picture {a}", path.display()));
                }
                for value in &mut mask.pixels {
                    let class = self.classes[usize::from(*value)];
                    if class == mask::IGNORED && *value != mask::IGNORED {
                        return Err(format!("{}: has class {value}, which there is not", path.display()));
                    }
                    *value = class;
                }
                match self.is_final() {
                    true => {
                        let window = Window::middle((image.h, image.w), self.to(), self.resize);
                        let pixels = nearest(&mask, window, self.to());
                        let (h, w) = self.to();
                        (self.middle(&image), Some(Picture { h, w, c: 1, pixels }))
                    }
                    false => (image, Some(mask)),
                }
            }
            Goal::High(path) => {
                self.pair(picture(input)?, picture(path)?).map_err(|what| format!("{}: {what}", path.display()))?
            }
            Goal::Itself => {
                let high = picture(input)?;
                let (h, w) = (high.h / self.scale, high.w / self.scale);
                let (high_h, high_w) = (h * self.scale, w * self.scale);
                if h == 0 || w == 0 {
                    return Err(format!("{}: is smaller than the image", input.display()));
                }
                let cut = resample(&high, Window::at(0, 0, (high_h, high_w)), (high_h, high_w), Filter::Cubic);
                let high = Picture { h: high_h, w: high_w, c: high.c, pixels: cut };
                let pixels = resample(&high, Window::at(0, 0, (high_h, high_w)), (h, w), Filter::Cubic);
                let low = Picture { h, w, c: high.c, pixels };
                self.pair(low, high).map_err(|what| format!("{}: {what}", input.display()))?
            }
        };
        Ok(Stored { image, target, of: index })
    }

    /// A picture in low and in high resolution, or the middle of both.
    fn pair(&self, low: Picture, high: Picture) -> Result<(Picture, Option<Picture>), String> {
        let (h, w) = self.to();
        let Picture { h: high_h, w: high_w, .. } = high;
        if (high_h, high_w) != (low.h * self.scale, low.w * self.scale) {
            let (low_h, low_w, scale) = (low.h, low.w, self.scale);
            return Err(format!("has {high_h}x{high_w} pixels; expected {scale} times {low_h}x{low_w}"));
        }
        if low.h < h || low.w < w {
            return Err(format!("shows {}x{} pixels to the network, fewer than its {h}x{w}", low.h, low.w));
        }
        if !self.is_final() {
            return Ok((low, Some(high)));
        }
        let (y, x) = ((low.h - h) / 2, (low.w - w) / 2);
        let (low, high) = self.cut(&low, &high, (y, x));
        let c = self.shape.c;
        let image = Picture { h, w, c, pixels: low };
        Ok((image, Some(Picture { h: h * self.scale, w: w * self.scale, c, pixels: high })))
    }

    /// The image at a place of a picture in low resolution, and the part of the one in high resolution that it shows.
    fn cut(&self, low: &Picture, high: &Picture, (y, x): (usize, usize)) -> (Vec<u8>, Vec<u8>) {
        let (to, n) = (self.to(), self.scale);
        let high_to = (to.0 * n, to.1 * n);
        let image = resample(low, Window::at(y, x, to), to, Filter::Triangle);
        (image, resample(high, Window::at(y * n, x * n, high_to), high_to, Filter::Triangle))
    }

    fn middle(&self, picture: &Picture) -> Picture {
        let (h, w) = self.to();
        let window = Window::middle((picture.h, picture.w), (h, w), self.resize);
        Picture { h, w, c: picture.c, pixels: resample(picture, window, (h, w), Filter::Triangle) }
    }

    /// A picture scaled down to what random parts of it need.
    fn reduced(&self, picture: Picture) -> Picture {
        let (h, w) = self.to();
        let (most, shorter) = (KEPT_SIDES * h.max(w), picture.h.min(picture.w));
        if shorter <= most {
            return picture;
        }
        let side = |side: usize| (side * most + shorter / 2) / shorter;
        let (h, w) = (side(picture.h), side(picture.w));
        let pixels = resample(&picture, Window::at(0, 0, (picture.h, picture.w)), (h, w), Filter::Triangle);
        Picture { h, w, c: picture.c, pixels }
    }
}

impl Pictures {
    pub(crate) fn new(
        items: Vec<Item>,
        names: Vec<String>,
        rule: Rule,
        budget: Arc<Budget>,
        faults: Arc<Faults>,
    ) -> Self {
        let kept = items.iter().map(|_| OnceLock::new()).collect();
        Self { items, names, rule, kept, budget, faults }
    }

    /// Reads example `index`, and keeps it where there is room.
    pub(crate) fn read(&self, index: usize) -> Result<(), String> {
        let stored = self.rule.read(index, &self.items[index])?;
        self.keep(index, stored);
        Ok(())
    }

    fn keep(&self, index: usize, stored: Stored) {
        let bytes = stored.bytes();
        if self.kept[index].get().is_none() && self.budget.take(bytes) && self.kept[index].set(stored).is_err() {
            self.budget.give(bytes);
        }
    }

    /// Leaves out the examples at the places where `bad` is true.
    pub(crate) fn without(self, bad: &[bool]) -> Self {
        let good = |(i, kept): (usize, OnceLock<Stored>)| {
            (!bad[i]).then(|| {
                let stored = kept.into_inner();
                let of = bad[..i].iter().filter(|bad| !**bad).count();
                stored.map_or_else(OnceLock::new, |stored| OnceLock::from(Stored { of, ..stored }))
            })
        };
        let kept = self.kept.into_iter().enumerate().filter_map(good).collect();
        let items = self.items.into_iter().zip(bad).filter(|(_, bad)| !**bad).map(|(item, _)| item).collect();
        Self { items, kept, ..self }
    }

    /// Calls `f` with example `index` as it is kept.
    fn with<T>(&self, index: usize, f: impl FnOnce(&Stored) -> T) -> T {
        if let Some(stored) = self.kept[index].get() {
            return f(stored);
        }
        let stored = self.read_or_stand_in(index);
        let result = f(&stored);
        self.keep(index, stored);
        result
    }

    /// Example `index`, or where its file is damaged the next one of its class, or where those are damaged too,
    /// nothing.
    fn read_or_stand_in(&self, index: usize) -> Stored {
        let class = |i: usize| match self.items[i].goal {
            Goal::Class(class) => Some(class),
            _ => None,
        };
        let n = self.items.len();
        let others = (0..n).map(|k| (index + k) % n).filter(|&i| class(i) == class(index));
        for i in others.take(STAND_INS) {
            match self.rule.read(i, &self.items[i]) {
                Ok(stored) => return stored,
                Err(what) => self.faults.add(what),
            }
        }
        let ImageShape { h, w, c } = self.rule.shape;
        let n = self.rule.scale;
        let grey = |h: usize, w: usize, c: usize| Picture { h, w, c, pixels: vec![128; h * w * c] };
        let target = match self.rule.kind {
            TargetKind::Mask { h, w } => Some(Picture { pixels: vec![mask::IGNORED; h * w], ..grey(h, w, 1) }),
            TargetKind::Image(_) => Some(grey(h * n, w * n, c)),
            _ => None,
        };
        Stored { image: grey(h, w, c), target, of: index }
    }

    /// The part of an example that `key` chooses, or its middle, and that of its target where one is asked for.
    fn part(&self, stored: &Stored, key: Option<Key>, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        let (rule, to) = (&self.rule, self.rule.to());
        let picture = &stored.image;
        let (mut pixels, mut values) = (Vec::new(), Vec::new());
        if rule.is_final() {
            pixels.clone_from(&picture.pixels);
            values = stored.target.as_ref().map_or(Vec::new(), |target| target.pixels.clone());
        } else if let (true, Some(high)) = (rule.is_patches, &stored.target) {
            let room = (picture.h - to.0, picture.w - to.1);
            let place = key
                .map(|key| key.with("patch"))
                .map(|key| (key.below(0, room.0 as u32 + 1) as usize, key.below(1, room.1 as u32 + 1) as usize));
            (pixels, values) = rule.cut(picture, high, place.unwrap_or((room.0 / 2, room.1 / 2)));
        } else {
            let size = (picture.h, picture.w);
            let window = match (key, rule.random) {
                (Some(key), Some(area)) => Window::random(key, size, to, area),
                _ => Window::middle(size, to, rule.resize),
            };
            if image.is_some() {
                pixels = resample(picture, window, to, Filter::Triangle);
            }
            if let (true, Some(mask)) = (target.is_some(), &stored.target) {
                values = nearest(mask, window, to);
            }
        }
        if let Some(out) = image {
            out.copy_from_slice(&pixels);
        }
        let Some(out) = target else { return };
        match (&self.items[stored.of].goal, rule.kind) {
            (Goal::Class(class), _) => out.fill(f32::from(*class)),
            (Goal::Numbers(numbers), _) => out.copy_from_slice(numbers),
            (_, TargetKind::Mask { .. }) => {
                let class = |value: u8| if value == mask::IGNORED { IGNORED } else { f32::from(value) };
                out.iter_mut().zip(values).for_each(|(out, value)| *out = class(value));
            }
            _ => out.iter_mut().zip(values).for_each(|(out, value)| *out = f32::from(value) / 255.0),
        }
    }
}

impl Dataset for Pictures {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn image_shape(&self) -> ImageShape {
        self.rule.shape
    }

    fn image(&self, index: usize, out: &mut [u8]) {
        self.with(index, |stored| self.part(stored, None, Some(out), None));
    }

    fn label(&self, index: usize) -> usize {
        match self.items[index].goal {
            Goal::Class(class) => usize::from(class),
            _ => 0,
        }
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn target_kind(&self) -> TargetKind {
        self.rule.kind
    }

    fn target(&self, index: usize, out: &mut [f32]) {
        self.with(index, |stored| self.part(stored, None, None, Some(out)));
    }

    fn drawn(&self, index: usize, key: Key, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        self.with(index, |stored| self.part(stored, Some(key), image, target));
    }

    fn is_slow(&self) -> bool {
        !self.rule.is_final() || self.kept.iter().any(|kept| kept.get().is_none())
    }
}
