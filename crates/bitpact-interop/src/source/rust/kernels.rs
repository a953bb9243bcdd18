use super::Pixel;

/// Where a tensor lies.
pub enum Place {
    /// The caller's image.
    Image,
    /// The arena, from this byte on.
    Arena(usize),
}

/// A tensor of `h * w` pixels of `c` channels. Codes of 1, 2, 4 or 8 bits lie in a pixel without
/// gaps, the first channel in the lowest bits; 16 bits are unsigned, 32 signed.
pub struct Tensor {
    pub place: Place,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub bits: usize,
    /// Bytes of a pixel.
    pub pixel: usize,
}

/// A window over a tensor, by rows and columns.
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Padding above and left.
    pub before: [usize; 2],
    pub dilation: [usize; 2],
    pub spread: [usize; 2],
}

impl Window {
    /// The row or column that position `at` sees at tap `k`; `None` where that is padding.
    fn along(&self, i: usize, at: usize, k: usize, side: usize) -> Option<usize> {
        let place = (at * self.stride[i] + k * self.dilation[i]).checked_sub(self.before[i])?;
        if self.spread[i] == 1 {
            return (place < side).then_some(place);
        }
        let (element, rest) = (place / self.spread[i], place % self.spread[i]);
        (rest == 0 && element < side).then_some(element)
    }

    /// The pixel of `t` under tap `(a, b)` at `at`; `None` where that is padding.
    fn tap(&self, t: &Tensor, at: [usize; 2], [a, b]: [usize; 2]) -> Option<usize> {
        let row = self.along(0, at[0], a, t.h)?;
        let column = self.along(1, at[1], b, t.w)?;
        Some(row * t.w + column)
    }
}

/// Takes row, column and channel to pixel and channel of a tensor; `None` for what is inserted.
pub type Source = fn(usize, usize, usize) -> Option<(usize, usize)>;

/// A tensor with its elements moved.
pub struct View {
    pub from: &'static Tensor,
    pub source: Option<Source>,
    pub fill: i32,
}

/// A convolution or linear layer: `scale * sum of field * code + offset * sum of codes`.
pub struct Product {
    pub from: &'static Tensor,
    pub weights: &'static [u8],
    pub window: Window,
    /// Weights of an output channel.
    pub k: usize,
    /// Bytes of an output channel, all planes.
    pub row: usize,
    /// Bits of a weight. Below 8 weights are unsigned fields, else signed numbers.
    pub bits: usize,
    /// Bits of the planes that a row consists of, the lowest first; each begins with a whole word.
    pub planes: &'static [usize],
    /// Input channels of a group.
    pub inputs: usize,
    /// Output channels of a group.
    pub outputs: usize,
    pub scale: i32,
    pub offset: i32,
    /// Code of the padding, where it is not that of the image.
    pub padding: i32,
    /// First code of its columns, or first of its taps.
    pub column: usize,
}

impl Product {
    /// Codes of a column, with the zeros behind them.
    fn padded(&self) -> usize {
        (self.k + 7) & !7
    }

    /// Weight `i` of `weights`, which begin with a whole byte.
    fn weight(&self, weights: &[u8], i: usize) -> i32 {
        let field = match self.bits {
            8 => i32::from(weights[i] as i8),
            16 => i32::from(i16::from_le_bytes([weights[2 * i], weights[2 * i + 1]])),
            bits => {
                let bit = i * bits;
                let high = weights.get(bit / 8 + 1).copied().unwrap_or(0);
                let word = u16::from_le_bytes([weights[bit / 8], high]);
                i32::from((word >> (bit % 8)) & ((1 << bits) - 1))
            }
        };
        field * self.scale + self.offset
    }
}

/// What a term computes.
pub enum What {
    /// Columns times rows of weights.
    Product(&'static Product),
    /// Every output reads one input channel.
    Depthwise(&'static Product),
    /// Weight by weight in 64 bits.
    Wide(&'static Product),
    View(View),
    /// `(a - zeros[0]) * (b - zeros[1])`.
    Multiply {
        a: View,
        b: View,
        zeros: [i32; 2],
        /// `b` is one pixel, which stands for every pixel.
        is_one_pixel: bool,
    },
}

/// A term: its value times the multiplier of the channel, or the one of all channels.
pub struct Term {
    pub mul: &'static [i32],
    pub what: What,
}

/// A view that is added after the shift.
pub struct Added {
    pub view: View,
    pub mul: i32,
}

/// The constant of each channel, or the one of all channels.
pub enum Constants {
    Short(&'static [i32]),
    Long(&'static [i64]),
}

impl Constants {
    fn at(&self, c: usize) -> i64 {
        match self {
            Constants::Short(list) => i64::from(of_channel(list, c)),
            Constants::Long(list) => of_channel(list, c),
        }
    }
}

/// What becomes of a sum.
pub enum End {
    /// Clamped to a code.
    Codes { lo: i32, hi: i32 },
    /// Clamped to the codes of its channel.
    Bounded(&'static [(u8, u8)]),
    /// Clamped and looked up, in one table or in that of its channel.
    Table { lo: i32, hi: i32, tables: &'static [u8] },
    /// A value of 32 bits, or an output.
    Values,
}

/// `end(((sum of values * multipliers + constant) >> shift) + sum of views * multipliers)`.
pub struct Sum {
    pub to: &'static Tensor,
    pub terms: &'static [Term],
    pub added: &'static [Added],
    pub add: Constants,
    pub shift: u32,
    /// Channels that are computed at once: 2, or 1 where groups have an odd number.
    pub channels: usize,
    pub end: End,
}

/// Where a sum is written.
pub enum Output<'a> {
    Arena,
    Words(&'a mut [i32]),
    LongWords(&'a mut [i64]),
}

/// Where a run reads and writes.
pub struct Run<'a> {
    pub image: &'a [Pixel],
    /// The code that stands for zero in each channel of the image.
    pub zeros: &'a [u16],
    pub arena: &'a mut [u8],
    /// Windows of products, pixel by pixel.
    pub columns: &'a mut [u8],
    /// Pixels under windows by channel.
    pub taps: &'a mut [u32],
    /// Sums of columns, by term.
    pub sums: &'a mut [[i32; 2]],
}

/// The pixel number of a tap that is padding.
const PADDING: u32 = u32::MAX;

fn of_channel<T: Copy>(list: &[T], c: usize) -> T {
    list[if list.len() == 1 { 0 } else { c }]
}

fn get(pixel: &[u8], bits: usize, c: usize) -> i32 {
    match bits {
        8 => i32::from(pixel[c]),
        16 => i32::from(u16::from_le_bytes([pixel[2 * c], pixel[2 * c + 1]])),
        32 => {
            let bytes = &pixel[4 * c..4 * c + 4];
            i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
        _ => {
            let bit = c * bits;
            i32::from((pixel[bit / 8] >> (bit % 8)) & ((1 << bits) - 1))
        }
    }
}

fn put(pixel: &mut [u8], bits: usize, c: usize, value: i32) {
    match bits {
        8 => pixel[c] = value as u8,
        16 => pixel[2 * c..2 * c + 2].copy_from_slice(&(value as u16).to_le_bytes()),
        32 => pixel[4 * c..4 * c + 4].copy_from_slice(&value.to_le_bytes()),
        _ => {
            let bit = c * bits;
            let mask = ((1 << bits) - 1) << (bit % 8);
            let others = pixel[bit / 8] & !mask;
            pixel[bit / 8] = others | ((value as u8) << (bit % 8));
        }
    }
}

/// Takes the codes of a pixel apart, from channel `first` on.
fn unpack(pixel: &[u8], bits: usize, first: usize, codes: &mut [u8]) {
    match bits {
        8 => codes.copy_from_slice(&pixel[first..first + codes.len()]),
        4 if first & 1 == 0 => {
            for (two, byte) in codes.chunks_mut(2).zip(&pixel[first / 2..]) {
                two[0] = byte & 15;
                if let Some(second) = two.get_mut(1) {
                    *second = byte >> 4;
                }
            }
        }
        _ => {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = get(pixel, bits, first + i) as u8;
            }
        }
    }
}

/// Products of two rows of weights and two columns of codes: u with a, u with b, v with a, v
/// with b.
fn dot<const BITS: usize>(u: &[u8], v: &[u8], a: &[u8], b: &[u8]) -> [i32; 4] {
    let fields = 8 / BITS;
    let mut sums = [0; 4];
    let codes = a.chunks_exact(fields).zip(b.chunks_exact(fields));
    for ((wu, wv), (x, y)) in u.iter().zip(v).zip(codes) {
        for (j, (x, y)) in x.iter().zip(y).enumerate() {
            let field = |w: u8| match BITS {
                8 => i32::from(w as i8),
                _ => i32::from((w >> (j * BITS)) & ((1 << (BITS % 8)) - 1)),
            };
            let (x, y) = (i32::from(*x), i32::from(*y));
            sums[0] += field(*wu) * x;
            sums[1] += field(*wu) * y;
            sums[2] += field(*wv) * x;
            sums[3] += field(*wv) * y;
        }
    }
    sums
}

impl Run<'_> {
    /// Channel `c` of a pixel of a tensor.
    fn get(&self, t: &Tensor, pixel: usize, c: usize) -> i32 {
        match t.place {
            Place::Image => i32::from(self.image[pixel * t.c + c]),
            Place::Arena(at) => get(&self.arena[at + pixel * t.pixel..], t.bits, c),
        }
    }

    fn put(&mut self, t: &Tensor, pixel: usize, c: usize, value: i32) {
        if let Place::Arena(at) = t.place {
            put(&mut self.arena[at + pixel * t.pixel..], t.bits, c, value);
        }
    }

    /// Channel `c` at `(y, x)`, which is pixel `p`.
    fn view(&self, v: &View, [y, x]: [usize; 2], p: usize, c: usize) -> i32 {
        match v.source {
            None => self.get(v.from, p, c),
            Some(source) => source(y, x, c).map_or(v.fill, |(p, c)| self.get(v.from, p, c)),
        }
    }

    /// The code of padding that a product reads in channel `c`.
    fn padding(&self, p: &Product, c: usize) -> i32 {
        match p.from.place {
            Place::Image => i32::from(self.zeros[c]),
            Place::Arena(_) => p.padding,
        }
    }

    /// Gathers what outputs at `at` see of a group into the two columns of term `i`, zeros behind.
    fn gather(&mut self, p: &Product, at: [[usize; 2]; 2], group: usize, i: usize) {
        let (n, t, length) = (p.inputs, p.from, p.padded());
        let first = group * n;
        let [rows, columns] = p.window.kernel;
        for (which, at) in at.into_iter().enumerate() {
            let column = &mut self.columns[p.column + which * length..][..length];
            let mut k = 0;
            for tap in (0..rows).flat_map(|a| (0..columns).map(move |b| [a, b])) {
                let codes = &mut column[k..k + n];
                match (p.window.tap(t, at, tap), &t.place) {
                    (Some(pixel), Place::Arena(from)) => {
                        unpack(&self.arena[from + pixel * t.pixel..], t.bits, first, codes);
                    }
                    (Some(pixel), Place::Image) => {
                        let image = &self.image[pixel * t.c + first..];
                        for (code, value) in codes.iter_mut().zip(image) {
                            *code = u32::from(*value) as u8;
                        }
                    }
                    (None, Place::Arena(_)) => codes.fill(p.padding as u8),
                    (None, Place::Image) => {
                        for (code, zero) in codes.iter_mut().zip(&self.zeros[first..]) {
                            *code = *zero as u8;
                        }
                    }
                }
                k += n;
            }
            column[k..].fill(0);
            if p.offset != 0 {
                self.sums[i][which] = column.iter().map(|&code| i32::from(code)).sum();
            }
        }
    }

    /// Values of output channels c and d for two pixels: c at both, then d at both.
    fn product(&self, p: &Product, c: usize, d: usize, i: usize) -> [i32; 4] {
        let length = p.padded();
        let (a, b) = self.columns[p.column..][..2 * length].split_at(length);
        let (mut u, mut v) = (&p.weights[c * p.row..], &p.weights[d * p.row..]);
        let mut values = [0; 4];
        let mut shift = 0;
        for &bits in p.planes {
            let bytes = (p.k * bits).div_ceil(8);
            let dots = match bits {
                1 => dot::<1>(&u[..bytes], &v[..bytes], a, b),
                2 => dot::<2>(&u[..bytes], &v[..bytes], a, b),
                4 => dot::<4>(&u[..bytes], &v[..bytes], a, b),
                _ => dot::<8>(&u[..bytes], &v[..bytes], a, b),
            };
            for (value, dot) in values.iter_mut().zip(dots) {
                *value += dot << shift;
            }
            shift += bits;
            let words = (p.k * bits).div_ceil(32);
            u = &u[4 * words..];
            v = &v[4 * words..];
        }
        if p.offset != 0 {
            let sums = self.sums[i];
            for (j, value) in values.iter_mut().enumerate() {
                *value = *value * p.scale + p.offset * sums[j % 2];
            }
        }
        values
    }

    /// Finds the pixels under the windows of two outputs.
    fn gather_taps(&mut self, p: &Product, at: [[usize; 2]; 2]) {
        let [rows, columns] = p.window.kernel;
        let taps = at.into_iter().flat_map(|at| {
            let taps = (0..rows).flat_map(move |a| (0..columns).map(move |b| [a, b]));
            taps.map(move |tap| p.window.tap(p.from, at, tap))
        });
        for (place, tap) in self.taps[p.column..].iter_mut().zip(taps) {
            *place = tap.map_or(PADDING, |pixel| pixel as u32);
        }
    }

    /// The same as `product`, where every output reads one input channel: the weights of a
    /// channel are fields `tap * channels + channel`.
    fn depthwise(&self, p: &Product, c: usize, d: usize, channels: usize) -> [i32; 4] {
        let (first, second) = self.taps[p.column..][..2 * p.k].split_at(p.k);
        let (i, j) = (c / p.outputs, d / p.outputs);
        let code = |tap: u32, c: usize| match tap {
            PADDING => self.padding(p, c),
            pixel => self.get(p.from, pixel as usize, c),
        };
        let mut values = [0; 4];
        for (k, (&x, &y)) in first.iter().zip(second).enumerate() {
            let u = p.weight(p.weights, k * channels + c);
            let v = p.weight(p.weights, k * channels + d);
            values[0] += u * code(x, i);
            values[1] += u * code(y, i);
            values[2] += v * code(x, j);
            values[3] += v * code(y, j);
        }
        values
    }

    /// A product of wide codes, wide weights or long rows.
    fn wide(&self, p: &Product, c: usize, at: [usize; 2]) -> i64 {
        let weights = &p.weights[c * p.row..];
        let first = c / p.outputs * p.inputs;
        let [rows, columns] = p.window.kernel;
        let mut sum = 0;
        let mut k = 0;
        for tap in (0..rows).flat_map(|a| (0..columns).map(move |b| [a, b])) {
            let pixel = p.window.tap(p.from, at, tap);
            for channel in first..first + p.inputs {
                let code = match pixel {
                    Some(pixel) => self.get(p.from, pixel, channel),
                    None => self.padding(p, channel),
                };
                sum += i64::from(code) * i64::from(p.weight(weights, k));
                k += 1;
            }
        }
        sum
    }

    /// Computes a sum, two pixels and up to two channels at a time.
    pub fn sum(&mut self, s: &Sum, mut out: Output<'_>) {
        let (w, channels) = (s.to.w, s.to.c);
        let pixels = s.to.h * w;
        for p in (0..pixels).step_by(2) {
            let q = (p + 1).min(pixels - 1);
            let at = [[p / w, p % w], [q / w, q % w]];
            for term in s.terms {
                if let What::Depthwise(product) = term.what {
                    self.gather_taps(product, at);
                }
            }
            for c in (0..channels).step_by(s.channels) {
                let d = (c + s.channels - 1).min(channels - 1);
                let mut totals = [s.add.at(c), s.add.at(c), s.add.at(d), s.add.at(d)];
                for (i, term) in s.terms.iter().enumerate() {
                    let values = self.term(s, (i, &term.what), [c, d], at, [p, q]);
                    let mul = [c, d].map(|c| i64::from(of_channel(term.mul, c)));
                    for (j, (total, value)) in totals.iter_mut().zip(values).enumerate() {
                        *total += value * mul[j / 2];
                    }
                }
                self.end(s, &mut out, at[0], p, c, totals[0]);
                if q != p {
                    self.end(s, &mut out, at[1], q, c, totals[1]);
                }
                if d != c {
                    self.end(s, &mut out, at[0], p, d, totals[2]);
                    if q != p {
                        self.end(s, &mut out, at[1], q, d, totals[3]);
                    }
                }
            }
        }
    }

    /// Values of term `i` in two channels of two pixels: the first channel at both, then the second.
    fn term(
        &mut self,
        s: &Sum,
        (i, what): (usize, &What),
        [c, d]: [usize; 2],
        at: [[usize; 2]; 2],
        pixels: [usize; 2],
    ) -> [i64; 4] {
        let places = [(c, 0), (c, 1), (d, 0), (d, 1)];
        match what {
            What::Product(product) => {
                if c % product.outputs == 0 {
                    self.gather(product, at, c / product.outputs, i);
                }
                self.product(product, c, d, i).map(i64::from)
            }
            What::Depthwise(product) => self.depthwise(product, c, d, s.to.c).map(i64::from),
            What::Wide(product) => places.map(|(c, which)| self.wide(product, c, at[which])),
            What::View(view) => {
                places.map(|(c, which)| i64::from(self.view(view, at[which], pixels[which], c)))
            }
            What::Multiply { a, b, zeros, is_one_pixel } => places.map(|(c, which)| {
                let (at, pixel) = (at[which], pixels[which]);
                let (b_at, b_pixel) = if *is_one_pixel { ([0, 0], 0) } else { (at, pixel) };
                let first = self.view(a, at, pixel, c) - zeros[0];
                let second = self.view(b, b_at, b_pixel, c) - zeros[1];
                i64::from(first) * i64::from(second)
            }),
        }
    }

    /// Ends channel `c` of pixel `p`, which is `at`.
    fn end(
        &mut self,
        s: &Sum,
        out: &mut Output<'_>,
        at: [usize; 2],
        p: usize,
        c: usize,
        total: i64,
    ) {
        let place = p * s.to.c + c;
        match out {
            Output::Arena => {}
            Output::Words(words) => {
                words[place] = total as i32;
                return;
            }
            Output::LongWords(words) => {
                words[place] = total;
                return;
            }
        }
        let quotient = total >> s.shift;
        let value = match &s.end {
            End::Codes { lo, hi } => quotient.clamp(i64::from(*lo), i64::from(*hi)) as i32,
            End::Bounded(bounds) => {
                let (lo, hi) = bounds[c];
                quotient.clamp(i64::from(lo), i64::from(hi)) as i32
            }
            End::Table { lo, hi, tables } => {
                let (lo, hi) = (i64::from(*lo), i64::from(*hi));
                let entries = (hi - lo + 1) as usize;
                let table = if tables.len() == entries { 0 } else { c };
                let entry = (quotient.clamp(lo, hi) - lo) as usize;
                i32::from(tables[table * entries + entry])
            }
            End::Values => {
                let values = s.added.iter().map(|added| {
                    i64::from(self.view(&added.view, at, p, c)) * i64::from(added.mul)
                });
                values.fold(quotient, i64::wrapping_add) as i32
            }
        };
        self.put(s.to, p, c, value);
    }

    /// The largest value of every window; padding is left out.
    pub fn max_pool(&mut self, from: &Tensor, window: &Window, to: &Tensor) {
        let [rows, columns] = window.kernel;
        for (p, at) in (0..to.h * to.w).map(|p| (p, [p / to.w, p % to.w])) {
            let mut is_first = true;
            for tap in (0..rows).flat_map(|a| (0..columns).map(move |b| [a, b])) {
                let Some(pixel) = window.tap(from, at, tap) else { continue };
                for c in 0..to.c {
                    let value = self.get(from, pixel, c);
                    if is_first || value > self.get(to, p, c) {
                        self.put(to, p, c, value);
                    }
                }
                is_first = false;
            }
        }
    }

    /// Sums over windows: `(sum - n * padding) * factor + n * padding * largest factor`.
    pub fn window_sum(
        &mut self,
        from: &Tensor,
        window: &Window,
        to: &Tensor,
        padding: i32,
        factors: &[u32],
    ) {
        let [rows, columns] = window.kernel;
        let zero = (rows * columns) as i64 * i64::from(padding);
        let largest = factors.iter().max().map_or(1, |&factor| i64::from(factor));
        for (p, at) in (0..to.h * to.w).map(|p| (p, [p / to.w, p % to.w])) {
            let factor = factors.get(p).map_or(1, |&factor| i64::from(factor));
            for c in 0..to.c {
                let taps = (0..rows).flat_map(|a| (0..columns).map(move |b| [a, b]));
                let codes = taps.map(|tap| match window.tap(from, at, tap) {
                    Some(pixel) => i64::from(self.get(from, pixel, c)),
                    None => i64::from(padding),
                });
                let sum: i64 = codes.sum();
                self.put(to, p, c, ((sum - zero) * factor + zero * largest) as i32);
            }
        }
    }

    /// The channels of a tensor as those of another from channel `first` on.
    pub fn copy_channels(&mut self, from: &Tensor, to: &Tensor, first: usize) {
        for p in 0..to.h * to.w {
            for c in 0..from.c {
                let value = self.get(from, p, c);
                self.put(to, p, first + c, value);
            }
        }
    }

    /// A tensor with its elements moved.
    pub fn move_elements(&mut self, view: &View, to: &Tensor) {
        for p in 0..to.h * to.w {
            for c in 0..to.c {
                let value = self.view(view, [p / to.w, p % to.w], p, c);
                self.put(to, p, c, value);
            }
        }
    }

    /// Writes the values of a tensor to the caller's elements.
    pub fn write<T>(&self, from: &Tensor, to: &mut [T], element: fn(i32) -> T) {
        for (i, place) in to.iter_mut().enumerate() {
            *place = element(self.get(from, i / from.c, i % from.c));
        }
    }
}
