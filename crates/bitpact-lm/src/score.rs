//! How well a network predicts text, and how far two networks are apart.

use bitpact_kernels::{Chunked, Pool};
use bitpact_ptq::Matrix;

use crate::{Cache, LmError, Model};

/// Rows of logits in memory at a time.
const ROWS: usize = 64;

/// The losses of the tokens that a network predicted, and how far it is from a reference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// `-ln p(token)` of every predicted token, in the order of the text.
    pub losses: Vec<f64>,
    /// Sum of `KL(reference || model)`, where there is a reference.
    pub divergence: f64,
    /// Tokens of which model and reference have the same first guess.
    pub agreed: usize,
}

impl Score {
    /// Tokens predicted.
    pub fn tokens(&self) -> usize {
        self.losses.len()
    }

    /// Mean of `-ln p`.
    pub fn mean_nll(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.tokens().max(1) as f64
    }

    /// `exp` of the mean of `-ln p`.
    pub fn perplexity(&self) -> f64 {
        self.mean_nll().exp()
    }

    /// Mean divergence from the reference.
    pub fn mean_divergence(&self) -> f64 {
        self.divergence / self.tokens().max(1) as f64
    }

    /// Share of tokens with the reference's first guess.
    pub fn agreement(&self) -> f64 {
        self.agreed as f64 / self.tokens().max(1) as f64
    }

    /// Mean of `-ln p` less that of `other`, token by token, and its standard error `sqrt(variance / n)`, which takes
    /// tokens as independent. Both are of the same tokens.
    ///
    /// # Panics
    /// If the two scores are of different numbers of tokens.
    pub fn excess(&self, other: &Score) -> (f64, f64) {
        assert_eq!(self.tokens(), other.tokens(), "tokens of both");
        let n = self.tokens() as f64;
        let differences = || self.losses.iter().zip(&other.losses).map(|(a, b)| a - b);
        let mean = differences().sum::<f64>() / n.max(1.0);
        let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        (mean, (variance / n.max(1.0)).sqrt())
    }
}

/// A run of tokens of which those from `from` on are predicted, each from all before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The first predicted one, at least 1.
    pub from: usize,
}

/// Cuts a text into windows of `context` tokens that begin `stride` tokens apart; a window predicts what no earlier one
/// did. `first`, the token of the beginning, opens every window where given and counts as one of its tokens.
///
/// # Errors
/// [`LmError::Input`] for a stride of 0 or beyond what a window holds, or a text of fewer than two tokens.
pub fn windows(tokens: &[u32], context: usize, stride: usize, first: Option<u32>) -> Result<Vec<Window>, LmError> {
    let room = context.saturating_sub(usize::from(first.is_some()));
    if room < 2 || stride == 0 || stride > room {
        return Err(LmError::Input(format!(
            "a context of {context} and a stride of {stride} leave nothing to predict"
        )));
    }
    if tokens.len() < 2 {
        return Err(LmError::Input(format!("{} tokens of text, expected at least 2", tokens.len())));
    }
    let opening = usize::from(first.is_some());
    let mut out = Vec::new();
    let (mut start, mut done) = (0, 1 - opening);
    while done < tokens.len() {
        let end = tokens.len().min(start + room);
        let window: Vec<u32> = first.into_iter().chain(tokens[start..end].iter().copied()).collect();
        let from = (done.max(start) - start + opening).max(1);
        if from < window.len() {
            out.push(Window { tokens: window, from });
        }
        done = end;
        start += stride;
    }
    Ok(out)
}

/// A network that others are compared with, on certain windows.
#[derive(Debug)]
pub struct Reference<'a> {
    model: &'a Model,
    /// Its hidden states, a matrix a window.
    hidden: Vec<Matrix>,
    /// Its own score.
    pub score: Score,
}

impl<'a> Reference<'a> {
    /// Takes `windows` through `model` and keeps its hidden states, a float32 number a token and channel. `each` is
    /// told after every window.
    ///
    /// # Errors
    /// A window that does not suit the model, and the first error of `each`.
    pub fn new(
        model: &'a Model,
        windows: &[Window],
        pool: &Pool,
        each: &mut dyn FnMut(usize, &Score) -> Result<(), LmError>,
    ) -> Result<Reference<'a>, LmError> {
        let mut reference = Reference { model, hidden: Vec::new(), score: Score::default() };
        for (i, window) in windows.iter().enumerate() {
            let hidden = model.hidden(&window.tokens, &mut Cache::new(&model.config), pool)?;
            add_window(&mut reference.score, window, (model, &hidden), None, pool);
            reference.hidden.push(hidden);
            each(i, &reference.score)?;
        }
        Ok(reference)
    }
}

/// Scores of `model` on windows; with `reference`, of the same windows, also how far it is from that network. `each` is
/// told after every window.
///
/// # Errors
/// A window that does not suit the model, and the first error of `each`.
///
/// # Panics
/// If the reference is of fewer windows than `windows`.
pub fn score(
    model: &Model,
    reference: Option<&Reference>,
    windows: &[Window],
    pool: &Pool,
    each: &mut dyn FnMut(usize, &Score) -> Result<(), LmError>,
) -> Result<Score, LmError> {
    let mut total = Score::default();
    for (i, window) in windows.iter().enumerate() {
        let hidden = model.hidden(&window.tokens, &mut Cache::new(&model.config), pool)?;
        add_window(&mut total, window, (model, &hidden), reference.map(|r| (r.model, &r.hidden[i])), pool);
        each(i, &total)?;
    }
    Ok(total)
}

/// Adds the predicted tokens of a window, with the hidden states of a model and a reference.
fn add_window(
    total: &mut Score,
    window: &Window,
    (model, hidden): (&Model, &Matrix),
    other: Option<(&Model, &Matrix)>,
    pool: &Pool,
) {
    let last = window.tokens.len() - 1;
    for start in (window.from - 1..last).step_by(ROWS) {
        let end = last.min(start + ROWS);
        let part = |h: &Matrix| Matrix::from_fn(end - start, h.cols(), |r, c| h.row(start + r)[c]);
        let logits = model.logits(&part(hidden), pool);
        let other = other.map(|(r, h)| r.logits(&part(h), pool));
        let mut scores = vec![(0.0, 0.0, false); end - start];
        let parts = Chunked::new(&mut scores, 1);
        pool.run(end - start, &|r, _| {
            let target = window.tokens[start + r + 1] as usize;
            parts.get(r)[0] = token_score(logits.row(r), other.as_ref().map(|o| o.row(r)), target);
        });
        drop(parts);
        for (loss, divergence, agreed) in scores {
            total.losses.push(loss);
            total.divergence += divergence;
            total.agreed += usize::from(agreed);
        }
    }
}

/// `-ln p(target)`, the divergence from the reference, and whether both have the same first guess.
fn token_score(logits: &[f32], reference: Option<&[f32]>, target: usize) -> (f64, f64, bool) {
    let normalizer = log_sum(logits);
    let loss = normalizer - f64::from(logits[target]);
    let Some(reference) = reference else { return (loss, 0.0, false) };
    let other = log_sum(reference);
    let divergence = reference.iter().zip(logits).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - other, f64::from(q) - normalizer);
        p.exp() * (p - q)
    });
    (loss, divergence.sum(), largest(logits) == largest(reference))
}

/// `ln sum exp`.
fn log_sum(x: &[f32]) -> f64 {
    let peak = f64::from(x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v)));
    peak + x.iter().map(|&v| (f64::from(v) - peak).exp()).sum::<f64>().ln()
}

/// The first of the largest.
pub fn largest(x: &[f32]) -> usize {
    let mut best = 0;
    (1..x.len()).for_each(|i| best = if x[i] > x[best] { i } else { best });
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_predicted_once() {
        let tokens: Vec<u32> = (10..33).collect();
        for (context, stride, first) in [(8, 8, None), (8, 3, None), (8, 7, Some(1)), (8, 2, Some(1)), (64, 5, None)] {
            let windows = windows(&tokens, context, stride, first).unwrap();
            let predicted: Vec<u32> = windows.iter().flat_map(|w| w.tokens[w.from..].to_vec()).collect();
            // Without a token of the beginning, the first of a text has nothing before it; nor has that of a window
            // that does not overlap the one before.
            let skipped = |i: usize| first.is_none() && (i == 0 || (stride == context && i.is_multiple_of(stride)));
            let expected: Vec<u32> = (0..23).filter(|&i| !skipped(i)).map(|i| tokens[i]).collect();
            assert_eq!(predicted, expected, "{context} {stride}");
            assert!(windows.iter().all(|w| w.tokens.len() <= context && first.is_none_or(|f| w.tokens[0] == f)));
        }
        assert!(windows(&tokens, 8, 9, None).is_err() && windows(&tokens, 8, 0, None).is_err());
        assert!(windows(&[1], 8, 8, None).is_err() && windows(&tokens, 2, 1, Some(1)).is_err());
    }

    #[test]
    fn scores_are_those_of_their_formulas() {
        let (p, q) = ([0.0f32, 1.0, 2.0], [0.5f32, 3.0, -1.0]);
        let soft = |x: [f32; 3]| {
            let sum: f64 = x.iter().map(|&v| f64::from(v).exp()).sum();
            x.map(|v| f64::from(v).exp() / sum)
        };
        let (loss, found, agreed) = token_score(&q, Some(&p), 2);
        assert!((loss + soft(q)[2].ln()).abs() < 1e-12);
        let divergence: f64 = (0..3).map(|i| soft(p)[i] * (soft(p)[i] / soft(q)[i]).ln()).sum();
        assert!((found - divergence).abs() < 1e-12);
        let (_, none, same) = token_score(&p, Some(&p), 0);
        assert!(!agreed && same && none.abs() < 1e-12);
    }

    #[test]
    fn excess_is_paired() {
        let of = |losses: &[f64]| Score { losses: losses.to_vec(), ..Score::default() };
        let (mean, error) = of(&[1.5, 2.5, 3.0]).excess(&of(&[1.0, 2.0, 2.5]));
        assert!((mean - 0.5).abs() < 1e-12 && error < 1e-12);
        let (mean, error) = of(&[1.0, 2.0, 3.0]).excess(&of(&[0.0; 3]));
        assert!((mean - 2.0).abs() < 1e-12 && (error - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_model_is_as_good_as_itself() {
        let (model, pool) = (crate::testing::model(crate::testing::config(), true), Pool::new(1));
        let tokens: Vec<u32> = (0..70).map(|i| i * 13 % 40).collect();
        let windows = windows(&tokens, 24, 10, None).unwrap();
        let reference = Reference::new(&model, &windows, &pool, &mut |_, _| Ok(())).unwrap();
        let found = score(&model, Some(&reference), &windows, &pool, &mut |_, _| Ok(())).unwrap();
        assert_eq!((found.tokens(), found.agreed, &found.losses), (69, 69, &reference.score.losses));
        assert!(found.mean_divergence().abs() < 1e-9 && found.excess(&reference.score) == (0.0, 0.0));
    }
}
