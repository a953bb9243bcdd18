//! The confusion matrix with the surest mistakes, or the best and the worst examples.

use bitpact_data::TargetKind;
use serde::Serialize;

use super::chart::{Chart, Ink, Line};
use super::{Network, percent, picture};
use crate::ReportError;
use crate::predictions::{Example, Predictions};

/// Classes of which the whole matrix is shown, at the most; of more only the pairs that are confused most.
const WHOLE: usize = 20;
/// Pairs that are shown.
const PAIRS: usize = 20;

/// Name of a class, count and share of each predicted class, and the share that is right.
type MatrixRow = (String, Vec<(u64, f64)>, String);

/// What the page shows of predictions.
#[derive(Serialize)]
pub(super) struct View {
    images: usize,
    names: Vec<String>,
    /// A row a class: name, counts with their share of the row, and the share that is right.
    matrix: Vec<MatrixRow>,
    /// Label, prediction, count and share of the label's images.
    pairs: Vec<[String; 4]>,
    mistakes: Vec<Shown>,
    best: Vec<Shown>,
    worst: Vec<Shown>,
}

/// An example in pictures, or, where its input is a signal, in a chart.
#[derive(Serialize)]
struct Shown {
    pictures: Vec<(String, String)>,
    svg: String,
    caption: String,
    detail: String,
}

pub(super) fn view(network: &Network, with_pictures: bool) -> Option<Result<View, ReportError>> {
    let predictions = network.predictions.as_ref()?;
    Some(viewed(network, predictions, with_pictures))
}

fn viewed(network: &Network, predictions: &Predictions, with_pictures: bool) -> Result<View, ReportError> {
    let n = predictions.names.len();
    let name = |class: usize| match predictions.names.get(class).map(String::as_str) {
        None | Some("") => format!("class {class}"),
        Some(name) => name.to_owned(),
    };
    let names: Vec<String> = (0..n).map(name).collect();
    let count = |label: usize, predicted: usize| predictions.confusion[label * n + predicted];
    let (mut matrix, mut pairs) = (Vec::new(), Vec::new());
    if !predictions.confusion.is_empty() {
        let total = |label: usize| (0..n).map(|p| count(label, p)).sum::<u64>();
        let share = |label: usize, p: usize| count(label, p) as f64 / total(label).max(1) as f64;
        if n <= WHOLE {
            for label in 0..n {
                let row = (0..n).map(|p| (count(label, p), share(label, p))).collect();
                matrix.push((name(label), row, percent(share(label, label))));
            }
        }
        let mut all: Vec<(usize, usize)> =
            (0..n).flat_map(|l| (0..n).map(move |p| (l, p))).filter(|&(l, p)| l != p && count(l, p) > 0).collect();
        all.sort_by_key(|&(l, p)| std::cmp::Reverse(count(l, p)));
        all.truncate(if n <= WHOLE { 5 } else { PAIRS });
        pairs = all.iter().map(|&(l, p)| [name(l), name(p), count(l, p).to_string(), percent(share(l, p))]).collect();
    }
    let mistakes = predictions.mistakes.iter().filter(|_| with_pictures).map(|mistake| Shown {
        pictures: vec![(picture::pixels(network.image, &mistake.pixels), format!("image {}", mistake.index))],
        svg: String::new(),
        caption: format!("{}, taken for {}", name(mistake.label), name(mistake.predicted)),
        detail: format!(
            "{} sure; {} for its own class; image {}",
            percent(mistake.probability),
            percent(mistake.own),
            mistake.index
        ),
    });
    let mistakes = mistakes.collect();
    let shown = |examples: &[Example]| -> Result<Vec<Shown>, ReportError> {
        examples.iter().filter(|_| with_pictures).map(|example| dense(network, &names, example)).collect()
    };
    let (best, worst) = (shown(&predictions.best)?, shown(&predictions.worst)?);
    Ok(View { images: predictions.images, names, matrix, pairs, mistakes, best, worst })
}

fn dense(network: &Network, names: &[String], example: &Example) -> Result<Shown, ReportError> {
    let caption: Vec<String> = example.metrics.iter().map(ToString::to_string).collect();
    let mut shown = Shown {
        pictures: Vec::new(),
        svg: String::new(),
        caption: caption.join(", "),
        detail: format!("example {}", example.index),
    };
    let [h, w, c] = network.image;
    if h == 1 || w == 1 {
        shown.svg = signal(&example.pixels, c)?;
    } else {
        shown.pictures.push((picture::pixels(network.image, &example.pixels), "input".to_owned()));
    }
    match network.targets {
        Some(TargetKind::Mask { h, w }) => {
            let channels = names.len().max(1);
            let best = |z: &[f32]| (1..z.len()).fold(0, |best, c| if z[c] > z[best] { c } else { best }) as i64;
            let output = picture::mask(h, w, example.output.chunks_exact(channels).map(best));
            shown.pictures.push((output, "output".to_owned()));
            shown
                .pictures
                .push((picture::mask(h, w, example.target.iter().map(|&class| class as i64)), "target".to_owned()));
        }
        Some(TargetKind::Image(shape)) => {
            let shape = [shape.h, shape.w, shape.c];
            shown.pictures.push((picture::values(shape, &example.output), "output".to_owned()));
            shown.pictures.push((picture::values(shape, &example.target), "target".to_owned()));
        }
        _ => {
            let pairs = names.iter().zip(example.output.iter().zip(&example.target));
            let text: Vec<String> =
                pairs.map(|(name, (output, target))| format!("{name} {output:.3} for {target:.3}")).collect();
            shown.detail += &format!(": {}", text.join(", "));
        }
    }
    Ok(shown)
}

/// The channels of a signal, one line each.
fn signal(pixels: &[u8], channels: usize) -> Result<String, ReportError> {
    let channels = channels.max(1);
    let line = |c: usize| Line {
        name: format!("channel {c}"),
        ink: Ink::Series(c as u8),
        points: pixels.iter().skip(c).step_by(channels).enumerate().map(|(i, &p)| (i as f64, f64::from(p))).collect(),
        dots: false,
    };
    let lines = (0..channels).map(line).collect();
    let chart = Chart { x: "sample".to_owned(), y: "code".to_owned(), lines, log_y: false, log_x: false, floor: None };
    Ok(chart.draw()?.map_or(String::new(), |drawn| drawn.svg))
}
