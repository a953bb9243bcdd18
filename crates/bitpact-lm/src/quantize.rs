//! Quantization layer by layer: float activations go through the network once, and every layer is rounded for what it
//! reads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bitpact_kernels::Pool;
use bitpact_ptq::{
    Gptq, Gram, Grid, Matrix, Osaq, OsaqReport, PtqError, Quantized, clip_search, guarded, scale_search,
    smoothing_scales,
};

use crate::forward::{self, LayerCache, Site};
use crate::rope::Rotations;
use crate::{Config, Layer, Linear, LmError, Part, Source, Weights};

/// What is done before weights are rounded, and how they are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Smoothing of activations, with its strength, for products with activations of 8 bits.
    pub smooth: Option<f32>,
    /// AWQ's scales of input channels.
    pub scales: bool,
    /// AWQ's clipping of groups.
    pub clip: bool,
    /// OSAQ, and whether rows are kept as they were where it does not lower their error.
    pub osaq: Option<(Osaq, bool)>,
    /// GPTQ; rounding to nearest where absent.
    pub gptq: Option<Gptq>,
}

impl Method {
    /// Round to nearest.
    pub const RTN: Method = Method { smooth: None, scales: false, clip: false, osaq: None, gptq: None };

    /// Tells whether inputs of layers are needed.
    pub fn calibrated(&self) -> bool {
        *self != Method::RTN
    }
}

impl FromStr for Method {
    type Err = LmError;

    /// Names joined by `+`: `rtn`, `gptq` ([`Gptq::searched`]), `gptq-paper` ([`Gptq::default`]), `smooth` (strength
    /// 0.5), `awq` (scales and clip), `awq-scales`, `osaq` (curvature), `osaq-guarded`, `osaq-paper` (guarded).
    fn from_str(text: &str) -> Result<Method, LmError> {
        let mut method = Method::RTN;
        for name in text.split('+') {
            match name {
                "rtn" => {}
                "smooth" => method.smooth = Some(0.5),
                "gptq" => method.gptq = Some(Gptq::searched()),
                "gptq-paper" => method.gptq = Some(Gptq::default()),
                "awq" => (method.scales, method.clip) = (true, true),
                "awq-scales" => method.scales = true,
                "osaq" => method.osaq = Some((Osaq::curvature(), false)),
                "osaq-guarded" => method.osaq = Some((Osaq::curvature(), true)),
                "osaq-paper" => method.osaq = Some((Osaq::paper(), true)),
                other => {
                    return Err(LmError::Input(format!(
                        "unknown method \"{other}\": expected rtn, gptq, gptq-paper, smooth, awq, awq-scales, osaq, osaq-guarded or osaq-paper, joined by +"
                    )));
                }
            }
        }
        Ok(method)
    }
}

/// Methods and grids with which a network is quantized.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The method.
    pub method: Method,
    /// The grid of all matrices that `overrides` do not name.
    pub grid: Grid,
    /// Grids of single matrices; `None` leaves them in float32. A key is a name ([`Part::name`]), or `LAYER.NAME` with
    /// the layer's number, which goes first.
    pub overrides: BTreeMap<String, Option<Grid>>,
    /// Calibration sequences on which AWQ measures the error of blocks.
    pub search_sequences: usize,
}

impl Recipe {
    /// A recipe with the same method and grid for every matrix.
    pub fn new(method: Method, grid: Grid) -> Recipe {
        Recipe { method, grid, overrides: BTreeMap::new(), search_sequences: 6 }
    }

    /// The grid of a matrix.
    pub fn grid_of(&self, layer: usize, part: Part) -> Option<Grid> {
        let own = self.overrides.get(&format!("{layer}.{}", part.name()));
        *own.or_else(|| self.overrides.get(part.name())).unwrap_or(&Some(self.grid))
    }
}

/// What quantization did to one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct PartReport {
    /// The matrix that was quantized.
    pub part: Part,
    /// Squared error of the outputs on the calibration tokens, relative to the squared outputs; none without
    /// calibration.
    pub error: Option<f64>,
    /// AWQ's exponent and the loss with it relative to that without scales, for the first matrix of a site.
    pub alpha: Option<(f32, f64)>,
    /// OSAQ's directions relative to the inputs, and the share of rows that were changed.
    pub osaq: Option<(f64, f64)>,
}

impl fmt::Display for PartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.part.name())?;
        if let Some(error) = self.error {
            write!(f, " error {error:.5}")?;
        }
        if let Some((alpha, ratio)) = self.alpha {
            write!(f, " alpha {alpha:.2}/{ratio:.2}")?;
        }
        if let Some((directions, rows)) = self.osaq {
            write!(f, " K/N {directions:.2} rows {rows:.2}")?;
        }
        Ok(())
    }
}

/// The hidden states of calibration sequences on their way through the network.
#[derive(Clone, Debug)]
pub struct Calibration {
    hidden: Vec<Matrix>,
}

impl Calibration {
    /// The embeddings of sequences.
    ///
    /// # Errors
    /// [`LmError::Input`] for tokens beyond the vocabulary, or a sequence that is empty or beyond the context.
    pub fn new(source: &dyn Source, sequences: &[Vec<u32>]) -> Result<Calibration, LmError> {
        let context = source.config().context;
        let embedding = source.outer()?.embedding;
        let one = |tokens: &Vec<u32>| {
            if tokens.is_empty() || tokens.len() > context {
                return Err(LmError::Input(format!("a sequence of {} tokens: expected 1 to {context}", tokens.len())));
            }
            forward::embed(&embedding, tokens)
        };
        Ok(Calibration { hidden: sequences.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.hidden.iter().map(Matrix::rows).sum()
    }

    /// Takes the hidden states through a layer; `probe` sees what its matrices read.
    fn advance(
        &mut self,
        config: &Config,
        layer: &Layer,
        pool: &Pool,
        probe: &mut dyn FnMut(usize, Site, &Matrix) -> Result<(), LmError>,
    ) -> Result<(), LmError> {
        for (i, x) in self.hidden.iter_mut().enumerate() {
            let rotations = Rotations::new(config, 0, x.rows());
            let mut result = Ok(());
            *x = forward::layer(config, layer, x, &rotations, &mut LayerCache::default(), pool, &mut |site, m| {
                if result.is_ok() {
                    result = probe(i, site, m);
                }
            });
            result?;
        }
        Ok(())
    }

    /// Takes the hidden states through a layer that is already quantized elsewhere (in float32, as calibration sees
    /// it).
    ///
    /// # Errors
    /// None at present; the signature leaves room for readers that fail.
    pub fn skip(&mut self, config: &Config, layer: &Layer, pool: &Pool) -> Result<(), LmError> {
        self.advance(config, layer, pool, &mut |_, _, _| Ok(()))
    }
}

/// Quantizes a layer. With calibration its hidden states go through the float layer, as the next layer will need them.
///
/// # Errors
/// [`LmError::Layer`] where a matrix cannot be quantized, and [`LmError::Input`] for a method that needs calibration
/// without one.
pub fn quantize_layer(
    config: &Config,
    index: usize,
    layer: Layer,
    recipe: &Recipe,
    calibration: Option<&mut Calibration>,
    pool: &Pool,
) -> Result<(Layer, Vec<PartReport>), LmError> {
    let mut one = quantize_layer_each(config, index, &layer, std::slice::from_ref(recipe), calibration, pool)?;
    Ok(one.pop().expect("a layer a recipe"))
}

/// [`quantize_layer`] with each of several recipes: the hidden states go through the layer once, and what recipes
/// have in common is computed once.
///
/// # Errors
/// As for one recipe.
pub fn quantize_layer_each(
    config: &Config,
    index: usize,
    layer: &Layer,
    recipes: &[Recipe],
    calibration: Option<&mut Calibration>,
    pool: &Pool,
) -> Result<Vec<(Layer, Vec<PartReport>)>, LmError> {
    let searched = recipes.iter().filter(|r| r.method.scales).map(|r| r.search_sequences).max().unwrap_or(0);
    let seen = match calibration {
        Some(calibration) => Some(Seen::new(config, index, layer, calibration, searched, pool)?),
        None if recipes.iter().any(|r| r.method.calibrated()) => {
            return Err(LmError::Input("this method needs calibration text".to_owned()));
        }
        None => None,
    };
    let mut pulled = Pulled::new();
    let mut out = Vec::new();
    for recipe in recipes {
        let mut layer = layer.clone();
        let mut alphas = BTreeMap::new();
        let method = recipe.method;
        let Some(seen) = &seen else {
            out.push(round(index, layer, recipe, None, alphas, &mut Pulled::new(), pool)?);
            continue;
        };
        if method.smooth.is_none() && !method.scales {
            out.push(round(index, layer, recipe, Some(&seen.grams), alphas, &mut pulled, pool)?);
            continue;
        }
        let Seen { mut grams, mut samples } = seen.clone();
        samples.iter_mut().for_each(|s| s.truncate(recipe.search_sequences));
        if let Some(strength) = method.smooth {
            smooth(config, index, &mut layer, strength, &mut grams, &mut samples)?;
        }
        if method.scales {
            scale(config, index, &mut layer, recipe, &mut grams, &samples, &mut alphas, pool)?;
        }
        out.push(round(index, layer, recipe, Some(&grams), alphas, &mut Pulled::new(), pool)?);
    }
    Ok(out)
}

/// The calibration inputs of a layer: Gram matrices of every site, and samples of the first sequences.
#[derive(Clone)]
struct Seen {
    /// A Gram matrix a site.
    grams: Vec<Gram>,
    /// Inputs of the attention and the feed-forward block, a matrix for each of the first sequences.
    samples: [Vec<Matrix>; 2],
}

impl Seen {
    /// Takes the hidden states of `calibration` through `layer` and keeps `searched` sequences of samples.
    fn new(
        config: &Config,
        index: usize,
        layer: &Layer,
        calibration: &mut Calibration,
        searched: usize,
        pool: &Pool,
    ) -> Result<Seen, LmError> {
        let named =
            |site: Site| move |source| LmError::Layer { layer: format!("layer {index}, input {site:?}"), source };
        let mut grams: Vec<Gram> = Site::ALL.iter().map(|&s| Gram::new(site_width(config, s))).collect();
        let mut samples: [Vec<Matrix>; 2] = [Vec::new(), Vec::new()];
        calibration.advance(config, layer, pool, &mut |sequence, site, x| {
            if sequence < searched {
                match site {
                    Site::Attention => samples[0].push(x.clone()),
                    Site::Mlp => samples[1].push(x.clone()),
                    _ => {}
                }
            }
            grams[site as usize].add(x, pool).map_err(named(site))
        })?;
        Ok(Seen { grams, samples })
    }
}

/// Matrices of the unchanged layer whose outliers are pulled in, which does not depend on the grid.
type Pulled = Vec<(Part, Osaq, OsaqReport)>;

fn site_width(config: &Config, site: Site) -> usize {
    match site {
        Site::Attention | Site::Mlp => config.dim,
        Site::Output => config.q_dim(),
        Site::Down => config.hidden,
    }
}

/// Moves range from the inputs of every site to the weights that read them, and folds that into what comes before.
fn smooth(
    config: &Config,
    index: usize,
    layer: &mut Layer,
    strength: f32,
    grams: &mut [Gram],
    samples: &mut [Vec<Matrix>; 2],
) -> Result<(), LmError> {
    for site in Site::ALL {
        // With grouped queries a channel of values feeds several channels of the output matrix.
        if site == Site::Output && config.heads != config.kv_heads {
            continue;
        }
        let readers: Vec<Matrix> =
            Part::ALL.into_iter().filter(|&p| Site::of(p) == site).map(|p| layer.part(p).weights.to_float()).collect();
        let largest = grams[site as usize].largest_magnitude();
        let named = |source| LmError::Layer { layer: format!("layer {index}, input {site:?}"), source };
        let scales = smoothing_scales(largest, &readers.iter().collect::<Vec<_>>(), strength).map_err(named)?;
        fold(layer, site, &scales);
        grams[site as usize] = grams[site as usize].divided(&scales);
        let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
        let own: &mut [Matrix] = match site {
            Site::Attention => &mut samples[0],
            Site::Mlp => &mut samples[1],
            _ => &mut [],
        };
        own.iter_mut().for_each(|x| x.scale_cols(&inverse));
    }
    Ok(())
}

/// Searches AWQ's scales of all sites and folds them into what comes before: norms, values, the feed-forward block's
/// other input.
fn scale(
    config: &Config,
    index: usize,
    layer: &mut Layer,
    recipe: &Recipe,
    grams: &mut [Gram],
    samples: &[Vec<Matrix>; 2],
    alphas: &mut BTreeMap<Part, (f32, f64)>,
    pool: &Pool,
) -> Result<(), LmError> {
    let mean_square = |a: &[Matrix], b: &[Matrix]| -> f64 {
        let pairs = a.iter().zip(b).flat_map(|(a, b)| a.data().iter().zip(b.data()));
        pairs.map(|(x, y)| f64::from(x - y).powi(2)).sum()
    };
    for site in Site::ALL {
        let parts: Vec<Part> = Part::ALL.into_iter().filter(|&p| Site::of(p) == site).collect();
        // With grouped queries a channel of values feeds several channels of the output matrix.
        if site == Site::Output && config.heads != config.kv_heads {
            continue;
        }
        if parts.iter().all(|&p| recipe.grid_of(index, p).is_none()) {
            continue;
        }
        let gram = &grams[site as usize];
        let rounded = |part: Part, s: &[f32]| -> Result<Linear, LmError> {
            let linear = layer.part(part);
            let Some(grid) = recipe.grid_of(index, part) else { return Ok(linear.clone()) };
            let mut w = linear.weights.to_float();
            w.scale_cols(s);
            let mut q = grid.round(&w).map_err(|e| failed(index, part, e))?.dequantize();
            q.scale_cols(&s.iter().map(|s| 1.0 / s).collect::<Vec<_>>());
            Ok(Linear { weights: Weights::Float(q), bias: linear.bias.clone() })
        };
        let found = match site {
            Site::Attention | Site::Mlp => {
                let samples = &samples[usize::from(site == Site::Mlp)];
                let outputs = |linears: &[Linear]| -> Vec<Matrix> {
                    let one = |x: &Matrix| match linears {
                        [q, k, v] => {
                            let rotations = Rotations::new(config, 0, x.rows());
                            let mut cache = LayerCache::default();
                            let heads = forward::attention(config, layer, [q, k, v], x, &rotations, &mut cache, pool);
                            layer.part(Part::O).apply(&heads, pool)
                        }
                        [gate, up] => layer.part(Part::Down).apply(&forward::gated(gate, up, x, pool), pool),
                        _ => unreachable!("three or two matrices"),
                    };
                    samples.iter().map(one).collect()
                };
                let plain: Vec<Linear> = parts.iter().map(|&p| layer.part(p).clone()).collect();
                let goal = outputs(&plain);
                scale_search(&gram.mean_magnitude(), |s| {
                    let linears = parts.iter().map(|&p| rounded(p, s)).collect::<Result<Vec<_>, _>>()?;
                    Ok::<_, LmError>(mean_square(&outputs(&linears), &goal))
                })?
            }
            Site::Output | Site::Down => {
                let w = layer.part(parts[0]).weights.to_float();
                scale_search(&gram.mean_magnitude(), |s| {
                    Ok::<_, LmError>(
                        gram.output_errors(&w, &rounded(parts[0], s)?.weights.to_float(), pool).iter().sum(),
                    )
                })?
            }
        };
        alphas.insert(parts[0], (found.alpha, found.loss / found.unscaled.max(f64::MIN_POSITIVE)));
        fold(layer, site, &found.scales);
        grams[site as usize] = gram.divided(&found.scales);
    }
    Ok(())
}

/// Multiplies the columns of the matrices that read `site` by `scales` and divides what writes there: the function of
/// the layer stays.
fn fold(layer: &mut Layer, site: Site, scales: &[f32]) {
    let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
    for part in Part::ALL.into_iter().filter(|&p| Site::of(p) == site) {
        if let Weights::Float(w) = &mut layer.part_mut(part).weights {
            w.scale_cols(scales);
        }
    }
    let divide = |v: &mut [f32]| v.iter_mut().zip(&inverse).for_each(|(v, i)| *v *= i);
    match site {
        Site::Attention => divide(&mut layer.attention_norm),
        Site::Mlp => divide(&mut layer.mlp_norm),
        Site::Output | Site::Down => {
            let before = layer.part_mut(if site == Site::Output { Part::V } else { Part::Up });
            if let Weights::Float(w) = &mut before.weights {
                w.scale_rows(&inverse);
            }
            if let Some(bias) = &mut before.bias {
                divide(bias);
            }
        }
    }
}

fn failed(index: usize, part: Part, source: PtqError) -> LmError {
    LmError::Layer { layer: format!("layer {index}, {}", part.name()), source }
}

/// Clips, pulls outliers in and rounds every matrix. `pulled` has what was pulled in of the same layer before.
fn round(
    index: usize,
    mut layer: Layer,
    recipe: &Recipe,
    grams: Option<&[Gram]>,
    alphas: BTreeMap<Part, (f32, f64)>,
    pulled: &mut Pulled,
    pool: &Pool,
) -> Result<(Layer, Vec<PartReport>), LmError> {
    let method = recipe.method;
    let mut reports = Vec::new();
    for part in Part::ALL {
        let Some(grid) = recipe.grid_of(index, part) else { continue };
        let fail = |e| failed(index, part, e);
        let original = layer.part(part).weights.to_float();
        let mut report = PartReport { part, error: None, alpha: alphas.get(&part).copied(), osaq: None };
        let codes = match grams {
            None => grid.round(&original).map_err(fail)?,
            Some(grams) => {
                let gram = &grams[Site::of(part) as usize];
                let mut w = original.clone();
                // Queries and keys are multiplied with each other: the authors leave their ranges alone.
                if method.clip && !matches!(part, Part::Q | Part::K) {
                    w = clip_search(&w, gram, grid, pool).map_err(fail)?;
                }
                let quantize = |w: &Matrix| -> Result<Quantized, PtqError> {
                    match method.gptq {
                        Some(gptq) => gptq.quantize(w, gram, grid, pool),
                        None => grid.round(w),
                    }
                };
                if let Some((osaq, guard)) = method.osaq {
                    let known = pulled.iter().position(|(p, o, _)| (*p, *o) == (part, osaq));
                    let changed = match known.filter(|_| !method.clip) {
                        Some(at) => pulled[at].2.clone(),
                        None => osaq.apply(&w, gram, pool).map_err(fail)?,
                    };
                    if known.is_none() && !method.clip {
                        pulled.push((part, osaq, changed.clone()));
                    }
                    let mut share = 1.0;
                    w = if guard {
                        let values = |w: &Matrix| quantize(w).map(|q| q.dequantize());
                        let (kept, rows) = guarded(&w, &changed.weights, gram, pool, values).map_err(fail)?;
                        share = rows as f64 / kept.rows() as f64;
                        kept
                    } else {
                        changed.weights
                    };
                    report.osaq = Some((changed.directions as f64 / w.cols() as f64, share));
                }
                let codes = quantize(&w).map_err(fail)?;
                let zeros = Matrix::zeros(w.rows(), w.cols());
                let error: f64 = gram.output_errors(&original, &codes.dequantize(), pool).iter().sum();
                let outputs: f64 = gram.output_errors(&original, &zeros, pool).iter().sum();
                report.error = Some(error / outputs.max(f64::MIN_POSITIVE));
                codes
            }
        };
        layer.part_mut(part).weights = Weights::Codes(codes);
        reports.push(report);
    }
    Ok((layer, reports))
}

#[cfg(test)]
mod tests {
    use bitpact_ptq::{Group, Width};

    use super::*;
    use crate::testing::{config, model};
    use crate::{Cache, Model};

    fn sequences() -> Vec<Vec<u32>> {
        (0..4).map(|s| (0..24).map(|t| (s * 7 + t * 5 + t * t) % 40).collect()).collect()
    }

    fn logits(model: &Model, pool: &Pool) -> Matrix {
        let hidden = model.hidden(&sequences()[1], &mut Cache::new(&model.config), pool).unwrap();
        model.logits(&hidden, pool)
    }

    fn quantized(model: &Model, recipe: &Recipe, pool: &Pool) -> Model {
        let mut calibration = Calibration::new(model, &sequences()).unwrap();
        let mut out = model.clone();
        for (i, layer) in out.layers.iter_mut().enumerate() {
            *layer = quantize_layer(&model.config, i, layer.clone(), recipe, Some(&mut calibration), pool).unwrap().0;
        }
        out
    }

    fn distance(a: &Matrix, b: &Matrix) -> f32 {
        a.data().iter().zip(b.data()).map(|(x, y)| (x - y).powi(2)).sum()
    }

    #[test]
    fn folding_leaves_the_float_network_as_it_is() {
        let pool = Pool::new(1);
        for kv_heads in [1, 2] {
            let model = model(Config { kv_heads, ..config() }, true);
            let before = logits(&model, &pool);
            let mut folded = model.clone();
            for layer in &mut folded.layers {
                for site in Site::ALL {
                    if site == Site::Output && kv_heads == 1 {
                        continue;
                    }
                    let scales: Vec<f32> =
                        (0..site_width(&model.config, site)).map(|i| 0.3 + (i * 7 % 10) as f32 / 4.0).collect();
                    fold(layer, site, &scales);
                }
            }
            let after = logits(&folded, &pool);
            before.data().iter().zip(after.data()).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} against {b}"));
        }
    }

    #[test]
    fn methods_are_nearer_to_float_than_rounding_and_the_same_for_any_number_of_threads() {
        let (pool, model) = (Pool::new(1), model(config(), true));
        let float = logits(&model, &pool);
        let grid = Grid::new(Width::Bits(3), Group::Of(32), false).unwrap();
        let error = |m: &str| {
            let recipe = Recipe::new(m.parse().unwrap(), grid);
            let q = quantized(&model, &recipe, &pool);
            assert_eq!(q, quantized(&model, &recipe, &Pool::new(3)), "{m}");
            distance(&logits(&q, &pool), &float)
        };
        let rtn = error("rtn");
        for method in ["gptq", "awq", "smooth+awq+gptq", "osaq-guarded+gptq"] {
            let e = error(method);
            assert!(e < 1.1 * rtn, "{method}: {e} against {rtn}");
        }
    }

    #[test]
    fn kernels_give_what_codes_mean_up_to_rounded_activations() {
        let (pool, model) = (Pool::new(1), model(Config { hidden: 68, ..config() }, true));
        for (width, symmetric) in
            [(Width::Bits(4), false), (Width::Bits(3), true), (Width::Bits(6), false), (Width::Ternary, true)]
        {
            let grid = Grid::new(width, Group::Of(32), symmetric).unwrap();
            let codes = quantized(&model, &Recipe::new(Method::RTN, grid), &pool);
            let expected = logits(&codes.dequantized(), &pool);
            let packed = crate::load_packed(&codes, bitpact_kernels::Isa::detect()).unwrap();
            assert_eq!(packed.layers[1].dequantized(), codes.layers[1].dequantized());
            let found = logits(&packed, &pool);
            let size: f32 = expected.data().iter().map(|v| v * v).sum();
            assert!(distance(&found, &expected) < 1e-3 * size, "{width}: {} of {size}", distance(&found, &expected));
            assert_eq!(found, logits(&packed, &Pool::new(3)));
        }
    }

    #[test]
    fn overrides_choose_grids_by_name_and_layer() {
        let (pool, model) = (Pool::new(1), model(config(), false));
        let grid = Grid::new(Width::Bits(4), Group::Row, true).unwrap();
        let eight = Grid::new(Width::Bits(8), Group::Row, true).unwrap();
        let mut recipe = Recipe::new(Method::RTN, grid);
        recipe.overrides.insert("down_proj".to_owned(), Some(eight));
        recipe.overrides.insert("1.down_proj".to_owned(), None);
        assert_eq!(recipe.grid_of(0, Part::Down), Some(eight));
        let layer = |i: usize| quantize_layer(&model.config, i, model.layers[i].clone(), &recipe, None, &pool).unwrap();
        let (second, reports) = layer(1);
        assert_eq!(second.part(Part::Down), model.layers[1].part(Part::Down));
        assert_eq!(reports.len(), 6);
        let Weights::Codes(codes) = &second.part(Part::Q).weights else { panic!("codes") };
        assert_eq!(codes.grid(), grid);
        assert!("awq+gtpq".parse::<Method>().unwrap_err().to_string().contains("gtpq"));
        let needs = Recipe::new("gptq".parse().unwrap(), grid);
        assert!(quantize_layer(&model.config, 0, model.layers[0].clone(), &needs, None, &pool).is_err());
    }
}
