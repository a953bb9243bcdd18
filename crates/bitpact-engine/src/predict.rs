//! From logits to predictions and accuracies.

/// How often the right class came first, and among the first five.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Share of images whose largest logit is that of their class, 0..=1.
    pub top1: f64,
    /// Share of images whose class is among the five largest logits, 0..=1.
    pub top5: f64,
    /// Number of images.
    pub images: usize,
    /// Images per second spent computing, loading left out.
    pub images_per_s: f64,
}

/// The predicted class: the largest logit, of equal ones the first.
pub fn predict(logits: &[i64]) -> usize {
    let mut best = 0;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = class;
        }
    }
    best
}

/// The `k` classes with the largest logits (or as many as there are), largest first, of equal ones the lower class
/// first.
pub fn top_k(logits: &[i64], k: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    classes.sort_by_key(|&class| std::cmp::Reverse(logits[class]));
    classes.truncate(k);
    classes
}

/// Whether `label` is the prediction, and whether it is among the first five (or as many as there are classes), where
/// of equal logits the lower class comes first.
///
/// # Panics
/// If `label` is no class.
pub fn top_k_hits(logits: &[i64], label: usize) -> (bool, bool) {
    let own = logits[label];
    let before = logits.iter().enumerate().filter(|&(class, &l)| l > own || (l == own && class < label)).count();
    (before < 1, before < 5)
}

/// Probabilities of the classes of one row of logits, each worth `scale`: `exp(scale z) / sum of exp(scale z)`. They
/// are for people, and differ in their last bits from machine to machine.
pub fn softmax(logits: &[i64], scale: f64) -> Vec<f64> {
    let most = logits.iter().copied().max().unwrap_or(0);
    let weights: Vec<f64> = logits.iter().map(|&logit| ((logit as f64 - most as f64) * scale).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}
