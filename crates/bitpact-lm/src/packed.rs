//! Quantized networks as files: safetensors with packed codes, specified in `docs/lm-format.md`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bitpact_ptq::{Grid, GroupParams, Matrix, Quantized};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::shard::Shard;
use crate::tensors::part_name;
use crate::{Config, Layer, Linear, LmError, Outer, Part, Recipe, Source, Weights};

/// The key of the header's free part that makes a safetensors file one of ours.
const KEY: &str = "bitpact-lm";
const VERSION: u32 = 1;
const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";
const NORM: &str = "model.norm";

/// What the header says beside the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    config: Config,
    /// Grids of the matrices that have codes.
    grids: BTreeMap<String, StoredGrid>,
    /// How the codes were chosen, in words.
    method: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredGrid {
    /// "ternary" or the number of bits.
    width: String,
    /// "row" or the number of inputs.
    group: String,
    symmetric: bool,
}

impl StoredGrid {
    fn of(grid: Grid) -> StoredGrid {
        StoredGrid { width: grid.width().to_string(), group: grid.group().to_string(), symmetric: grid.symmetric() }
    }

    fn grid(&self) -> Result<Grid, String> {
        let parse = || Grid::new(self.width.parse()?, self.group.parse()?, self.symmetric);
        parse().map_err(|e| e.to_string())
    }
}

/// Bytes of a row of `cols` codes of `bits` bits.
fn row_bytes(cols: usize, bits: u8) -> usize {
    (cols * usize::from(bits)).div_ceil(8)
}

/// Codes of a row one after another from the lowest bit on, the row filled up to whole bytes.
fn pack(codes: &[u8], bits: u8, to: &mut Vec<u8>) {
    let (mut word, mut filled) = (0u32, 0);
    for &code in codes {
        word |= u32::from(code) << filled;
        filled += u32::from(bits);
        while filled >= 8 {
            to.push(word as u8);
            (word, filled) = (word >> 8, filled - 8);
        }
    }
    if filled > 0 {
        to.push(word as u8);
    }
}

fn unpack(bytes: &[u8], cols: usize, bits: u8, to: &mut Vec<u8>) {
    let (mut word, mut filled, mut next) = (0u32, 0, bytes.iter());
    for _ in 0..cols {
        while filled < u32::from(bits) {
            word |= u32::from(*next.next().expect("a row of codes")) << filled;
            filled += 8;
        }
        to.push((word & ((1 << bits) - 1)) as u8);
        (word, filled) = (word >> bits, filled - u32::from(bits));
    }
}

/// Name, type, shape of the tensors of a matrix, in the order in which they are written.
fn matrix_tensors(name: &str, rows: usize, cols: usize, grid: Option<Grid>) -> Vec<(String, Dtype, Vec<usize>)> {
    let Some(grid) = grid else { return vec![(format!("{name}.weight"), Dtype::F32, vec![rows, cols])] };
    let packed = row_bytes(cols, grid.width().stored_bits());
    let mut out = vec![
        (format!("{name}.codes"), Dtype::U8, vec![rows, packed]),
        (format!("{name}.steps"), Dtype::F16, vec![rows, grid.groups(cols)]),
    ];
    if !grid.symmetric() {
        out.push((format!("{name}.zeros"), Dtype::U8, vec![rows, grid.groups(cols)]));
    }
    out
}

fn matrix_bytes(weights: &Weights) -> Vec<u8> {
    match weights {
        Weights::Float(w) => float_bytes(w.data()),
        Weights::Codes(q) => {
            let mut bytes = Vec::new();
            let bits = q.grid().width().stored_bits();
            q.codes().chunks(q.cols().max(1)).for_each(|row| pack(row, bits, &mut bytes));
            q.params().iter().for_each(|p| bytes.extend(p.step.to_le_bytes()));
            if !q.grid().symmetric() {
                bytes.extend(q.params().iter().map(|p| p.zero));
            }
            bytes
        }
        Weights::Packed(_) => float_bytes(weights.to_float().data()),
    }
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes a quantized network layer by layer. The file appears under its name when it is whole; until then it is
/// `NAME.part`, and `NAME.part.json` says how much of it is done, so that a stopped run goes on where it was.
#[derive(Debug)]
pub struct PackedWriter {
    path: PathBuf,
    header: Vec<u8>,
    done: usize,
    layers: usize,
    /// Sizes of the layers in bytes.
    sizes: Vec<u64>,
    tokenizer: Option<Vec<u8>>,
    grids: Vec<BTreeMap<Part, Option<Grid>>>,
}

/// What `NAME.part.json` says.
#[derive(Serialize, Deserialize)]
struct State {
    /// The header as text: a run with other settings has another.
    header: String,
    layers: usize,
}

impl PackedWriter {
    /// Begins, or goes on with, the file `path` for a network of the shape of `layer` (any of its layers) with the
    /// grids of `recipe`. `method` is told to readers. `tokenizer` is the name and the bytes of its file.
    ///
    /// # Errors
    /// Where files cannot be written.
    pub fn begin(
        path: &Path,
        config: &Config,
        layer: &Layer,
        outer: &Outer,
        recipe: &Recipe,
        method: &str,
        tokenizer: Option<(&str, Vec<u8>)>,
    ) -> Result<PackedWriter, LmError> {
        let mut tensors = Vec::new();
        let mut grids = BTreeMap::new();
        let mut layer_grids = Vec::new();
        let mut add_matrix = |tensors: &mut Vec<_>, name: &str, rows: usize, cols: usize, grid: Option<Grid>| {
            tensors.extend(matrix_tensors(name, rows, cols, grid));
            if let Some(grid) = grid {
                grids.insert(name.to_owned(), StoredGrid::of(grid));
            }
        };
        let grid_of = |w: &Weights| if let Weights::Codes(q) = w { Some(q.grid()) } else { None };
        add_matrix(&mut tensors, EMBEDDING, config.vocab, config.dim, grid_of(&outer.embedding));
        if let Some(head) = &outer.head {
            add_matrix(&mut tensors, HEAD, config.vocab, config.dim, grid_of(head));
        }
        tensors.push((format!("{NORM}.weight"), Dtype::F32, vec![config.dim]));
        let mut sizes = Vec::new();
        for index in 0..config.layers {
            let from = tensors.len();
            for (name, len) in norms(layer) {
                tensors.push((format!("model.layers.{index}.{name}.weight"), Dtype::F32, vec![len]));
            }
            let mut own = BTreeMap::new();
            for part in Part::ALL {
                let (rows, cols) = part.shape(config);
                let (name, grid) = (part_name(index, part), recipe.grid_of(index, part));
                add_matrix(&mut tensors, &name, rows, cols, grid);
                own.insert(part, grid);
                if layer.part(part).bias.is_some() {
                    tensors.push((format!("{name}.bias"), Dtype::F32, vec![rows]));
                }
            }
            layer_grids.push(own);
            sizes.push(tensors[from..].iter().map(|(_, dtype, shape)| tensor_bytes(*dtype, shape)).sum());
        }
        if let Some((name, bytes)) = &tokenizer {
            tensors.push(((*name).to_owned(), Dtype::U8, vec![bytes.len()]));
        }
        let header = Header { version: VERSION, config: config.clone(), grids, method: method.to_owned() };
        let header = header_bytes(path, header, tensors)?;
        let mut writer = PackedWriter {
            path: path.to_owned(),
            header,
            done: 0,
            layers: config.layers,
            sizes,
            tokenizer: tokenizer.map(|t| t.1),
            grids: layer_grids,
        };
        let mut start = matrix_bytes(&outer.embedding);
        start.extend(outer.head.iter().flat_map(matrix_bytes));
        start.extend(float_bytes(&outer.norm));
        writer.resume(start)?;
        Ok(writer)
    }

    /// Layers that are in the file already.
    pub fn done(&self) -> usize {
        self.done
    }

    fn part(&self) -> PathBuf {
        with_suffix(&self.path, ".part")
    }

    fn resume(&mut self, start: Vec<u8>) -> Result<(), LmError> {
        let (part, text) = (self.part(), String::from_utf8_lossy(&self.header[8..]).into_owned());
        let end = |done: usize| (self.header.len() + start.len()) as u64 + self.sizes[..done].iter().sum::<u64>();
        let state: Option<State> = std::fs::read(with_suffix(&part, ".json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .filter(|s: &State| s.header == text && s.layers <= self.layers);
        if let Some(state) = state
            && std::fs::metadata(&part).is_ok_and(|m| m.len() >= end(state.layers))
        {
            let file = OpenOptions::new().write(true).open(&part).map_err(write_error(&part))?;
            file.set_len(end(state.layers)).map_err(write_error(&part))?;
            self.done = state.layers;
            return Ok(());
        }
        let mut file = BufWriter::new(File::create(&part).map_err(write_error(&part))?);
        file.write_all(&self.header).map_err(write_error(&part))?;
        file.write_all(&start).map_err(write_error(&part))?;
        file.flush().map_err(write_error(&part))?;
        self.state(text)
    }

    fn state(&self, header: String) -> Result<(), LmError> {
        let path = with_suffix(&self.part(), ".json");
        let bytes = serde_json::to_vec(&State { header, layers: self.done }).expect("plain values");
        write_file(&path, &bytes)
    }

    /// Appends the next layer.
    ///
    /// # Errors
    /// Where the file cannot be written, or the layer's grids are not those that were said at the beginning.
    pub fn layer(&mut self, layer: &Layer) -> Result<(), LmError> {
        let mut bytes = Vec::new();
        for norm in norm_values(layer) {
            bytes.extend(float_bytes(norm));
        }
        for part in Part::ALL {
            let linear = layer.part(part);
            let grid = if let Weights::Codes(q) = &linear.weights { Some(q.grid()) } else { None };
            if self.grids[self.done][&part] != grid {
                return Err(LmError::Input(format!("layer {}, {}: another grid than said", self.done, part.name())));
            }
            bytes.extend(matrix_bytes(&linear.weights));
            bytes.extend(linear.bias.iter().flat_map(|b| float_bytes(b)));
        }
        if bytes.len() as u64 != self.sizes[self.done] {
            return Err(LmError::Input(format!("layer {}: another shape than that of the others", self.done)));
        }
        let part = self.part();
        let mut file = OpenOptions::new().append(true).open(&part).map_err(write_error(&part))?;
        file.write_all(&bytes).map_err(write_error(&part))?;
        self.done += 1;
        self.state(String::from_utf8_lossy(&self.header[8..]).into_owned())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// Where the file cannot be written, or layers are missing.
    pub fn finish(self) -> Result<(), LmError> {
        if self.done != self.layers {
            return Err(LmError::Input(format!("{} of {} layers", self.done, self.layers)));
        }
        let part = self.part();
        let mut file = OpenOptions::new().write(true).open(&part).map_err(write_error(&part))?;
        file.seek(SeekFrom::End(0)).map_err(write_error(&part))?;
        file.write_all(self.tokenizer.as_deref().unwrap_or_default()).map_err(write_error(&part))?;
        file.sync_all().map_err(write_error(&part))?;
        std::fs::rename(&part, &self.path).map_err(write_error(&self.path))?;
        let _ = std::fs::remove_file(with_suffix(&part, ".json"));
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> LmError {
    let path = path.to_owned();
    move |source| LmError::Write { path, source }
}

/// Writes a small file so that it is there as a whole or not at all.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), LmError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(write_error(path))
}

fn tensor_bytes(dtype: Dtype, shape: &[usize]) -> u64 {
    shape.iter().map(|&n| n as u64).product::<u64>() * dtype.bitsize() as u64 / 8
}

fn header_bytes(path: &Path, header: Header, tensors: Vec<(String, Dtype, Vec<usize>)>) -> Result<Vec<u8>, LmError> {
    let mut at = 0;
    let infos = tensors.into_iter().map(|(name, dtype, shape)| {
        let from = at;
        at += tensor_bytes(dtype, &shape) as usize;
        (name, TensorInfo { dtype, shape, data_offsets: (from, at) })
    });
    let free = HashMap::from([(KEY.to_owned(), serde_json::to_string(&header).expect("plain values"))]);
    let metadata = Metadata::new(Some(free), infos.collect()).map_err(|e| LmError::file(path, e.to_string()))?;
    let mut text = serde_json::to_vec(&metadata).expect("plain values");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    Ok(bytes)
}

fn norms(layer: &Layer) -> Vec<(&'static str, usize)> {
    let names = ["input_layernorm", "post_attention_layernorm"].into_iter();
    let names = names.chain(layer.q_norm.iter().map(|_| "self_attn.q_norm"));
    let names = names.chain(layer.k_norm.iter().map(|_| "self_attn.k_norm"));
    names.zip(norm_values(layer).map(<[f32]>::len)).collect()
}

fn norm_values(layer: &Layer) -> impl Iterator<Item = &[f32]> {
    let fixed = [&layer.attention_norm[..], &layer.mlp_norm].into_iter();
    fixed.chain(layer.q_norm.as_deref()).chain(layer.k_norm.as_deref())
}

/// A quantized network in a file; layers are read when they are asked for.
#[derive(Debug)]
pub struct PackedFile {
    shard: Shard,
    config: Config,
    grids: BTreeMap<String, Grid>,
    method: String,
}

impl PackedFile {
    /// Tells whether the file begins as a safetensors file of ours does; false also where it cannot be read.
    pub fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|e| e == "safetensors") && PackedFile::open(path).is_ok()
    }

    /// Reads the header.
    ///
    /// # Errors
    /// Where the file cannot be read, is of another kind, or speaks of shapes or grids that cannot be.
    pub fn open(path: &Path) -> Result<PackedFile, LmError> {
        let shard = Shard::open(path.to_owned())?;
        let missing = || LmError::file(path, format!("no \"{KEY}\" in the header: not a network packed by bitpact"));
        let text = shard.metadata(KEY).ok_or_else(missing)?;
        let header: Header = serde_json::from_str(text).map_err(|e| LmError::file(path, format!("{KEY}: {e}")))?;
        if header.version != VERSION {
            let what = format!("version {}, this program reads version {VERSION}", header.version);
            return Err(LmError::file(path, what));
        }
        header.config.check().map_err(|e| LmError::file(path, e.to_string()))?;
        let mut grids = BTreeMap::new();
        for (name, grid) in &header.grids {
            grids.insert(name.clone(), grid.grid().map_err(|e| LmError::file(path, format!("{name}: {e}")))?);
        }
        Ok(PackedFile { shard, config: header.config, grids, method: header.method })
    }

    /// How the codes were chosen, in words.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The tokenizer's file, where there is one: its name and bytes.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn tokenizer(&self) -> Result<Option<(String, Vec<u8>)>, LmError> {
        for name in ["tokenizer.json", "tokenizer.bin"] {
            if self.shard.has(name) {
                return Ok(Some((name.to_owned(), self.shard.bytes(name, &[Dtype::U8], None)?.1)));
            }
        }
        Ok(None)
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weights, LmError> {
        let fail = |source| LmError::Layer { layer: name.to_owned(), source };
        let Some(&grid) = self.grids.get(name) else {
            let data = self.shard.floats(&format!("{name}.weight"), &[rows, cols])?;
            return Matrix::new(rows, cols, data).map(Weights::Float).map_err(fail);
        };
        let tensor = |suffix: &str, dtype, cols| {
            self.shard.bytes(&format!("{name}.{suffix}"), &[dtype], Some(&[rows, cols])).map(|(_, bytes)| bytes)
        };
        let (bits, groups) = (grid.width().stored_bits(), grid.groups(cols));
        let packed = tensor("codes", Dtype::U8, row_bytes(cols, bits))?;
        let mut codes = Vec::with_capacity(rows * cols);
        packed.chunks_exact(row_bytes(cols, bits)).for_each(|row| unpack(row, cols, bits, &mut codes));
        let steps = tensor("steps", Dtype::F16, groups)?;
        let zeros = match grid.symmetric() {
            true => vec![grid.width().middle(); rows * groups],
            false => tensor("zeros", Dtype::U8, groups)?,
        };
        let steps = steps.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
        let params = steps.zip(zeros).map(|(step, zero)| GroupParams { step, zero }).collect();
        Quantized::new(grid, rows, cols, codes, params).map(Weights::Codes).map_err(fail)
    }
}

impl Source for PackedFile {
    fn config(&self) -> &Config {
        &self.config
    }

    fn outer(&self) -> Result<Outer, LmError> {
        let c = &self.config;
        let head = self.shard.has(&format!("{HEAD}.weight")) || self.shard.has(&format!("{HEAD}.codes"));
        Ok(Outer {
            embedding: self.matrix(EMBEDDING, c.vocab, c.dim)?,
            norm: self.shard.floats(&format!("{NORM}.weight"), &[c.dim])?,
            head: if head { Some(self.matrix(HEAD, c.vocab, c.dim)?) } else { None },
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, LmError> {
        let c = &self.config;
        let norm = |name: &str, len: usize| self.shard.floats(&format!("model.layers.{index}.{name}.weight"), &[len]);
        let optional = |name: &str, len: usize| match self.shard.has(&format!("model.layers.{index}.{name}.weight")) {
            true => norm(name, len).map(Some),
            false => Ok(None),
        };
        let mut parts = Vec::with_capacity(7);
        for part in Part::ALL {
            let ((rows, cols), name) = (part.shape(c), part_name(index, part));
            let bias = format!("{name}.bias");
            parts.push(Linear {
                weights: self.matrix(&name, rows, cols)?,
                bias: if self.shard.has(&bias) { Some(self.shard.floats(&bias, &[rows])?) } else { None },
            });
        }
        Ok(Layer {
            attention_norm: norm("input_layernorm", c.dim)?,
            mlp_norm: norm("post_attention_layernorm", c.dim)?,
            q_norm: optional("self_attn.q_norm", c.head_dim)?,
            k_norm: optional("self_attn.k_norm", c.head_dim)?,
            parts: parts.try_into().expect("seven parts"),
        })
    }
}

#[cfg(test)]
mod tests {
    use bitpact_kernels::Pool;
    use bitpact_ptq::{Group, Width};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{config, model};
    use crate::{Method, Model, quantize_layer};

    proptest! {
        #[test]
        fn codes_come_back(bits in 2u8..=8, codes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let codes: Vec<u8> = codes.into_iter().map(|c| c & ((1u16 << bits) - 1) as u8).collect();
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            pack(&codes, bits, &mut packed);
            prop_assert_eq!(packed.len(), row_bytes(codes.len(), bits));
            unpack(&packed, codes.len(), bits, &mut back);
            prop_assert_eq!(back, codes);
        }
    }

    fn quantized(recipe: &Recipe) -> Model {
        let mut model = model(Config { tied: false, ..config() }, true);
        let pool = Pool::new(1);
        for i in 0..model.layers.len() {
            model.layers[i] = quantize_layer(&model.config, i, model.layers[i].clone(), recipe, None, &pool).unwrap().0;
        }
        let Weights::Float(embedding) = &model.outer.embedding else { panic!("floats") };
        let eight = Grid::new(Width::Bits(8), Group::Of(32), false).unwrap();
        model.outer.head = Some(Weights::Codes(eight.round(embedding).unwrap()));
        model
    }

    fn begin(path: &Path, model: &Model, recipe: &Recipe) -> PackedWriter {
        let tokenizer = Some(("tokenizer.bin", vec![1, 2, 3]));
        PackedWriter::begin(path, &model.config, &model.layers[0], &model.outer, recipe, "rtn", tokenizer).unwrap()
    }

    #[test]
    fn networks_come_back_and_stopped_runs_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        for width in [Width::Ternary, Width::Bits(3), Width::Bits(5)] {
            let grid = Grid::new(width, Group::Of(32), width == Width::Ternary).unwrap();
            let mut recipe = Recipe::new(Method::RTN, grid);
            recipe.overrides.insert("1.o_proj".to_owned(), None);
            let model = quantized(&recipe);
            let mut writer = begin(&path, &model, &recipe);
            writer.layer(&model.layers[0]).unwrap();
            drop(writer);
            // As if the second layer had been cut off.
            OpenOptions::new().append(true).open(with_suffix(&path, ".part")).unwrap().write_all(&[7; 100]).unwrap();
            let mut writer = begin(&path, &model, &recipe);
            assert_eq!(writer.done(), 1);
            assert!(writer.layer(&model.layers[0]).is_err(), "grids of another layer");
            writer.layer(&model.layers[1]).unwrap();
            writer.finish().unwrap();
            let file = PackedFile::open(&path).unwrap();
            assert_eq!(file.load().unwrap(), model);
            assert_eq!(file.tokenizer().unwrap().unwrap().1, [1, 2, 3]);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let recipe = Recipe::new(Method::RTN, Grid::new(Width::Bits(4), Group::Of(32), false).unwrap());
        let model = quantized(&recipe);
        let mut writer = begin(&path, &model, &recipe);
        model.layers.iter().for_each(|l| writer.layer(l).unwrap());
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let text = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
        let attempt = |change: &dyn Fn(&str) -> String| {
            let header = change(&text);
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.extend(&bytes[8 + length..]);
            std::fs::write(&path, &file).unwrap();
            PackedFile::open(&path).and_then(|f| f.load()).map(|_| ())
        };
        attempt(&|t| t.to_owned()).unwrap();
        for (from, to) in [
            ("\\\"layers\\\":2", "\\\"layers\\\":3"),
            ("\\\"dim\\\":32", "\\\"dim\\\":99999999999"),
            ("\\\"width\\\":\\\"4\\\"", "\\\"width\\\":\\\"3\\\""),
            ("\\\"version\\\":1", "\\\"version\\\":9"),
            ("\\\"heads\\\":2", "\\\"heads\\\":0"),
            ("\"dtype\":\"U8\"", "\"dtype\":\"I8\""),
            ("bitpact-lm", "bitpact-xx"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = attempt(&|t| t.replace(from, to)).unwrap_err().to_string();
            assert!(error.len() > 10, "{from}: {error}");
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(PackedFile::open(&path).unwrap_err().to_string().contains("bytes of data"));
        std::fs::write(&path, [255; 20]).unwrap();
        assert!(PackedFile::open(&path).is_err());
    }
}
