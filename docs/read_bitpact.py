#!/usr/bin/env python3
"""Reads and evaluates .bitpact files with numpy (1.20 or newer) alone: a second opinion, written from format.md only.

    read_bitpact.py MODEL.bitpact                                prints the structure
    read_bitpact.py MODEL.bitpact --images FILE.bin [--count N]  evaluates images in CIFAR-10's binary records
    read_bitpact.py MODEL.bitpact --golden OUT.json              evaluates the images of `formula_images`

As a module: `Network(data)` parses and checks the bytes of a file, `run(images)` gives the output of every layer.
"""
import argparse
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace as Fields

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LIMIT, CHANNELS, ELEMENTS = 32768, 65536, 1 << 26  # of sides and strides, of channels, of the elements of a tensor


class FormatError(ValueError):
    """The file breaks the rule that the message names."""


def need(condition, message):
    """Refuses the file where `condition` does not hold."""
    if not condition:
        raise FormatError(message)


class Reader:
    """Takes fields off the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        """The next n bytes."""
        need(n <= len(self.data) - self.at, f"the file ends inside the field at byte {self.at} after the header")
        self.at += n
        return self.data[self.at - n:self.at]

    def numbers(self, form):
        """Numbers by a format of `struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def string(self, shortest=0):
        """A `string` of at least `shortest` bytes."""
        (n,) = self.numbers("H")
        need(shortest <= n <= 4096, f"a string of {n} bytes")
        text = self.take(n).decode("utf-8")
        need(not any(c < " " or "\x7f" <= c <= "\x9f" for c in text), f"control characters in {text!r}")
        return text

    def integers(self, n, bits=64, in_full=False):
        """A list of n integers, which must fit `bits`, as an array; or a list in full."""
        (head,) = self.numbers("B")
        width, equal = head & 127, head >> 7 == 1
        need(1 <= width <= 8, f"a list of {width} bytes an integer")
        data = self.take(width if equal else width * n)
        values = [int.from_bytes(data[i:i + width], "little", signed=True) for i in range(0, len(data), width)]
        most = max(max(v, ~v) for v in values)  # fits b bits if below 2^(b - 1)
        need(width == 1 or most >> (8 * width - 9), "a list is wider than it must be")
        need(equal == (min(values) == max(values) and not in_full), "a list of equal integers in the wrong form")
        need(most >> (bits - 1) == 0, f"an integer of more than {bits} bits")
        return np.array(values * (n if equal else 1), np.int64)

    def weights(self, count, k, grid):
        """`count` weight codes of k bits on a grid."""
        bits = np.unpackbits(np.frombuffer(self.take((count * k + 7) // 8), np.uint8), bitorder="little")
        need(not bits[count * k:].any(), "unused bits of weights are not 0")
        f = bits[:count * k].reshape(count, k).astype(np.int64) @ (1 << np.arange(k))
        f -= (f >> (k - 1)) << k  # two's complement
        bound = 32639 if k == 16 else 2 ** (k - 1) - 1
        need(grid == 1 or np.abs(f).max() <= bound, "a weight outside its grid")
        return 2 * f + 1 if grid == 1 else f


class Network:
    """The network in the bytes of a file; raises a ValueError where they break a rule."""

    def __init__(self, data):
        need(data[:8] == b"BITPACT\n" and len(data) >= 24, "not a .bitpact file, or one that is cut off")
        version, length = struct.unpack("<IQ", data[8:20])
        need(version == 1, f"version {version}, expected 1")
        need(length == len(data), f"{len(data)} bytes, expected {length}: the file is cut off, or something follows it")
        self.checksum = int.from_bytes(data[-4:], "little")
        need(zlib.crc32(data[:-4]) == self.checksum, "the checksum is wrong")
        r = self.reader = Reader(data[20:-4])
        self.arch, self.layers = r.string(), []
        self.shapes, self.ranges, self.kinds, self.used = [], [], [], set()  # by tensor
        self.padding_codes = {}  # by tensor
        shape, (self.input_bits,) = fitting(r.numbers("3I")), r.numbers("B")
        need(self.input_bits in (8, 16), f"an input of {self.input_bits} bits, expected 8 or 16")
        self.add_tensor(shape, (0, (1 << self.input_bits) - 1), "image")
        self.zero_points = np.array(r.numbers(f"{shape[2]}{'B' if self.input_bits == 8 else 'H'}"), np.int64)
        self.scales = r.numbers(f"{len(self.zero_points)}f")
        self.class_names = [r.string() for _ in range(*r.numbers("I"))]
        (count,) = r.numbers("I")
        read = [self.read_sum, self.read_pool, self.read_pool, self.read_concat, self.read_view_op]
        for i in range(count):
            layer = Fields(name=r.string(shortest=1))
            layer.scale, layer.op, layer.flags, layer.length = r.numbers("d2BQ")
            start = r.at
            need(layer.op < len(read) and layer.flags <= (layer.op == 2), f"op {layer.op}, flags {layer.flags}")
            self.add_tensor(*read[layer.op](layer))
            need(r.at - start == layer.length, f"an op of {r.at - start} bytes, but {layer.length} are announced")
            self.layers.append(layer)
        self.outputs = [r.numbers("Ii") for _ in range(*r.numbers("I"))]
        need(r.at == len(r.data), "bytes between the outputs and the checksum")
        named = [tensor for tensor, _ in self.outputs]
        need(named and len(set(named)) == len(named) and all(0 < t <= count for t in named), f"outputs {named}")
        need(self.kinds[named[0]] == "output", f"the main output is {self.kinds[named[0]]}")
        need(all(zero == 0 for t, zero in self.outputs if self.kinds[t] == "output"), "a zero of an output")
        need(self.shapes[named[0]][2] == len(self.class_names), "a channel of the main output for each class")
        unread = set(range(count + 1)) - self.used - set(named)
        need(not unread, f"nobody reads the tensors {unread}, and they are no outputs")
        need(len({layer.name for layer in self.layers}) == count, "two layers of one name")
        scales = [*self.scales, *(layer.scale for layer in self.layers)]
        need(all(0 < s < np.inf for s in scales), "a scale that is not a positive finite number")

    def add_tensor(self, shape, values, kind):
        """The image, or the output of a layer; kind: image, codes, sums, wide or output."""
        self.shapes.append(fitting(shape))
        self.ranges.append(values)
        self.kinds.append(kind)

    def tensor(self, *kinds):
        """Reads the number of a tensor of one of these kinds."""
        (tensor,) = self.reader.numbers("I")
        need(tensor < len(self.shapes), f"layer {len(self.layers)} reads tensor {tensor}")
        need(self.kinds[tensor] in kinds, f"tensor {tensor} is {self.kinds[tensor]}, expected {' or '.join(kinds)}")
        self.used.add(tensor)
        return tensor

    def read_window(self, shape):
        """A window over a tensor of `shape`; its `sides` are rows and columns of positions."""
        n = self.reader.numbers("12I")
        w = Fields(kernel=n[:2], stride=n[2:4], before=n[4:6], after=n[6:8], dilation=n[8:10], spread=n[10:])
        need(all(1 <= v <= LIMIT for pair in (w.kernel, w.stride, w.dilation, w.spread) for v in pair), f"window {n}")
        need(max(n[4:8]) <= LIMIT, f"paddings {n[4:8]}")
        w.pads = max(n[4:8]) > 0 or max(w.spread) > 1
        w.padded = [(side - 1) * s + 1 + a + b for side, s, a, b in zip(shape, w.spread, w.before, w.after)]
        w.extent = [(k - 1) * d + 1 for k, d in zip(w.kernel, w.dilation)]
        need(all(e <= side for e, side in zip(w.extent, w.padded)), f"an extent of {w.extent} over {w.padded}")
        most, channels = 2 * max(n[4:8]), rounded(shape[2])
        need((shape[0] + most) * (shape[1] + most) * channels <= ELEMENTS, "a padded tensor is too large")
        need(w.padded[0] * w.padded[1] * channels <= ELEMENTS, "a padded tensor is too large")
        w.sides = tuple((side - e) // t + 1 for side, e, t in zip(w.padded, w.extent, w.stride))
        return w

    def padded(self, tensor, window, code):
        """Checks a padding code and gives the least number that a window over the tensor sees."""
        low, high = self.ranges[tensor]
        need(code <= (high if window.pads and tensor else 0), f"padding code {code}")
        if not window.pads:
            return low
        need(self.padding_codes.setdefault(tensor, code) == code, "two padding codes")
        return min(low, code)

    def read_product(self, channels):
        """A product."""
        r = self.reader
        p = Fields(kind=0, name=r.string(shortest=1), tensor=self.tensor("image", "codes", "sums"))
        shape = self.shapes[p.tensor]
        p.window = self.read_window(shape)
        p.padding_code, p.out, p.groups, p.bits, p.grid = r.numbers("3I2B")
        need(p.grid in (0, 1) and (1 <= p.bits <= 8 or p.bits == 16 and p.grid == 0), f"{p.bits} bits, grid {p.grid}")
        need(1 <= p.out <= CHANNELS and p.out == channels, f"{p.out} output channels of {channels}")
        need(p.groups > 0 and shape[2] % p.groups == 0 == p.out % p.groups, f"{p.groups} groups")
        p.shape = (*p.window.sides, p.out)
        kernel = p.window.kernel[0] * p.window.kernel[1]
        p.weights = r.weights(p.out * (shape[2] // p.groups) * kernel, p.bits, p.grid).reshape(p.out, -1)
        high = self.ranges[p.tensor][1]
        low = self.padded(p.tensor, p.window, p.padding_code)
        plus, minus = np.maximum(p.weights, 0).sum(1).tolist(), np.minimum(p.weights, 0).sum(1).tolist()
        p.ranges = [(a * low + b * high, a * high + b * low) for a, b in zip(plus, minus)]
        need(all(-(1 << 63) <= lo and hi < 1 << 63 for lo, hi in p.ranges), "an acc of more than 64 bits")
        return p

    def read_view(self, *kinds):
        """A view of a tensor of one of these kinds; `range` is that of its values."""
        v = Fields(kind=1, tensor=self.tensor(*kinds or ("codes", "sums", "wide")), moves=[])
        v.fill, count = self.reader.numbers("iB")
        need(count <= 16, f"{count} moves")
        v.shape, (low, high) = self.shapes[v.tensor], self.ranges[v.tensor]
        for _ in range(count):
            (move,) = self.reader.numbers("B")
            need(move < 8, f"move {move}")
            numbers = self.reader.numbers(f"{(2, 4, 2, 6, 1, 1, 2, 1)[move]}I")
            v.shape = fitting(moved_shape(v.shape, move, numbers))
            v.moves.append((move, numbers))
        inserts = any(move == 3 for move, _ in v.moves)
        need(v.fill == 0 or inserts and low <= v.fill <= high, f"a fill of {v.fill}")
        v.range = (min(low, v.fill), max(high, v.fill)) if inserts else (low, high)
        return v

    def read_multiplication(self):
        """A multiplication."""
        m = Fields(kind=2, a=self.read_view("codes"), zero_a=self.reader.numbers("B")[0])
        m.b, m.zero_b = self.read_view("codes"), self.reader.numbers("B")[0]
        m.shape = m.a.shape
        need(m.b.shape in (m.shape, (1, 1, m.shape[2])), f"factors of {m.shape} and {m.b.shape}")
        ends = [(x - m.zero_a) * (y - m.zero_b) for x in m.a.range for y in m.b.range]
        m.range = min(ends), max(ends)
        return m

    def read_term(self, channels):
        """A term of a sum; `ranges` are those of its values, channel by channel."""
        (kind,) = self.reader.numbers("B")
        need(kind < 3, f"term {kind}")
        if kind == 0:
            return self.read_product(channels)
        term = self.read_view() if kind == 1 else self.read_multiplication()
        need(term.shape[2] == channels, f"a term of shape {term.shape} in a sum of {channels} channels")
        term.ranges = [term.range] * channels
        return term

    def read_sum(self, layer):
        """Op 0."""
        r = self.reader
        layer.channels, count = r.numbers("IB")
        layer.terms = [self.read_term(layer.channels) for _ in range(count)]
        full = all(term.kind for term in layer.terms)
        (layer.shift,) = r.numbers("B")
        need(layer.shift <= 62, f"shift {layer.shift}")
        layer.muls = [r.integers(layer.channels, 32, in_full=term.kind > 0) for term in layer.terms]
        layer.add = r.integers(layer.channels, in_full=full)
        layer.base = [(self.read_view(), *r.numbers("i")) for _ in range(*r.numbers("B"))]
        shapes = {part.shape for part in [*layer.terms, *(view for view, _ in layer.base)]}
        need(len(shapes) == 1 and (shape := shapes.pop())[2] == layer.channels, f"a sum of different shapes {shapes}")
        (layer.end,) = r.numbers("B")
        need(layer.end < 5 and (layer.end == 3 or not layer.base), f"end {layer.end}, {len(layer.base)} tensors added")
        ends = [[], []]  # least and largest sum of every channel
        for o, add in enumerate(layer.add.tolist()):
            values = [sorted(int(mul[o]) * end for end in t.ranges[o]) for t, mul in zip(layer.terms, layer.muls)]
            most = sum(max(map(abs, t.ranges[o])) * abs(int(mul[o])) for t, mul in zip(layer.terms, layer.muls))
            need(abs(add) + most < 1 << 63, f"the sums of channel {o} could pass 64 bits")
            for side in (0, 1):
                ends[side].append((sum(v[side] for v in values) + add) >> layer.shift)
        if layer.end == 4:
            need(layer.shift == 0, f"an output with shift {layer.shift}")
            return shape, (0, 0), "output"
        if layer.end == 3:
            base = [sorted(mul * end for end in view.range) for view, mul in layer.base]
            lo, hi = min(ends[0]) + sum(b[0] for b in base), max(ends[1]) + sum(b[1] for b in base)
            need(-(1 << 31) < lo and hi < 1 << 31, f"wide values from {lo} to {hi}")
            return shape, (lo, hi), "wide"
        if layer.end == 2:
            layer.lo, layer.hi, tables = r.numbers("2iI")
            entries = layer.hi - layer.lo + 1
            need(1 <= entries <= 256 and tables in (1, layer.channels), f"{tables} tables of {entries}")
            layer.tables = np.frombuffer(r.take(tables * entries), np.uint8).reshape(tables, entries)
            need(tables == 1 or np.any(layer.tables != layer.tables[0]), "equal tables, channel by channel")
            return shape, (int(layer.tables.min()), int(layer.tables.max())), "codes"
        if layer.end == 1:
            layer.lo, layer.hi = (r.integers(layer.channels, 32, in_full=full) for _ in range(2))
            need(len(set(zip(layer.lo.tolist(), layer.hi.tolist()))) > 1, "equal codes, channel by channel")
        else:
            layer.lo, layer.hi = r.numbers("2B")
        lo, hi = int(np.min(layer.lo)), int(np.max(layer.hi))
        need(np.all(np.less_equal(layer.lo, layer.hi)) and 0 <= lo and hi <= 255, f"codes {layer.lo} to {layer.hi}")
        return shape, (lo, hi), "codes"

    def read_pool(self, layer):
        """Ops 1 and 2."""
        layer.tensor = self.tensor("codes", "wide") if layer.op == 1 else self.tensor("codes")
        shape, (low, high) = self.shapes[layer.tensor], self.ranges[layer.tensor]
        w = layer.window = self.read_window(shape)
        need(w.spread == (1, 1), f"a pool with spread {w.spread}")
        paddings = [max(pair) for pair in zip(w.before, w.after)]
        need(all(p < e for p, e in zip(paddings, w.extent)), f"paddings {paddings} of a pool over {w.extent}")
        if layer.op == 1:
            for side, t, k, d, before, n in zip(shape, w.stride, w.kernel, w.dilation, w.before, w.sides):
                rows = np.arange(n)[:, None] * t + np.arange(k) * d - before
                need(((rows >= 0) & (rows < side)).any(1).all(), "a max pool over padding alone")
            return (*w.sides, shape[2]), (low, high), self.kinds[layer.tensor]
        (layer.padding_code,) = self.reader.numbers("I")
        (count,) = self.reader.numbers("I") if layer.flags else (0,)
        need(count > 0 or not layer.flags, "no factors")
        low, n = self.padded(layer.tensor, w, layer.padding_code), w.kernel[0] * w.kernel[1]
        factors = np.array(self.reader.numbers(f"{count}I") or [1], np.int64)
        need(count in (0, w.sides[0] * w.sides[1]) and factors.min() > 0, f"{count} factors from {factors.min()}")
        need(count == 0 or factors.max() > 1, "factors that are all 1")
        need(high * n * int(factors.max()) < 1 << 31, "window sums of more than 31 bits")
        layer.factors = factors.reshape(*w.sides, 1) if count else factors
        least, most = int(factors.min()), int(factors.max())
        smallest = min(low * least + layer.padding_code * (most - least), low * most)
        return (*w.sides, shape[2]), (smallest * n, high * n * most), "sums"

    def read_concat(self, layer):
        """Op 3."""
        layer.tensors = [self.tensor("codes", "wide") for _ in range(*self.reader.numbers("I"))]
        need(len(layer.tensors) >= 2, f"{len(layer.tensors)} tensors to concatenate")
        shapes, kinds, ranges = ([of[t] for t in layer.tensors] for of in (self.shapes, self.kinds, self.ranges))
        need(len(set(kinds)) == 1, "a concatenation of codes and wide tensors")
        need(len({shape[:2] for shape in shapes}) == 1, "a concatenation of different sides")
        shape = (*shapes[0][:2], sum(shape[2] for shape in shapes))
        return shape, (min(r[0] for r in ranges), max(r[1] for r in ranges)), kinds[0]

    def read_view_op(self, layer):
        """Op 4."""
        layer.view = self.read_view()
        return layer.view.shape, layer.view.range, self.kinds[layer.view.tensor]

    def value(self, term, tensors):
        """Values of a term, [image][y][x][channel]."""
        if term.kind == 1:
            return moved(tensors[term.tensor], term)
        if term.kind == 2:
            return (moved(tensors[term.a.tensor], term.a) - term.zero_a) * (
                moved(tensors[term.b.tensor], term.b) - term.zero_b)
        # float64 is fast, and exact where all partial sums are integers below 2^53.
        number = np.float64 if max(max(map(abs, ends)) for ends in term.ranges) < 1 << 53 else np.int64
        padding = term.padding_code if term.tensor else self.zero_points
        seen = windows(tensors[term.tensor].astype(number), term.window, padding)
        seen = seen.reshape(-1, term.groups, term.weights.shape[1]).swapaxes(0, 1)
        weights = term.weights.reshape(term.groups, -1, term.weights.shape[1]).astype(number)
        acc = (seen @ weights.swapaxes(1, 2)).swapaxes(0, 1)  # [position][group][output of the group]
        return acc.astype(np.int64).reshape(-1, *term.shape)

    def sum(self, layer, tensors):
        """Output of a sum."""
        out = layer.add + sum(self.value(term, tensors) * mul for term, mul in zip(layer.terms, layer.muls))
        out = (out >> layer.shift) + sum(moved(tensors[view.tensor], view) * mul for view, mul in layer.base)
        if layer.end > 2:
            return out
        out = np.clip(out, layer.lo, layer.hi)
        if layer.end < 2:
            return out
        channel = np.arange(layer.channels) % len(layer.tables)
        return layer.tables[channel, out - layer.lo].astype(np.int64)

    def run(self, images):
        """Outputs of all layers as int64 [image][y][x][channel] for pixels of that shape."""
        need(images.shape[1:] == self.shapes[0], f"images of {images.shape[1:]}, expected {self.shapes[0]}")
        tensors = [images.astype(np.int64)]
        for layer in self.layers:
            if layer.op == 0:
                tensors.append(self.sum(layer, tensors))
            elif layer.op == 1:
                tensors.append(windows(tensors[layer.tensor], layer.window, -1 << 40).max((-2, -1)))
            elif layer.op == 2:
                sums = windows(tensors[layer.tensor], layer.window, layer.padding_code).sum((-2, -1))
                padding = layer.window.kernel[0] * layer.window.kernel[1] * layer.padding_code
                tensors.append((sums - padding) * layer.factors + padding * layer.factors.max())
            elif layer.op == 3:
                tensors.append(np.concatenate([tensors[tensor] for tensor in layer.tensors], axis=-1))
            else:
                tensors.append(moved(tensors[layer.view.tensor], layer.view))
        return tensors[1:]

    def __str__(self):
        lines = [f"{self.arch}: {len(self.class_names)} classes, checksum {self.checksum:08X}, image {self.shapes[0]}"]
        for t, a in enumerate(self.layers, 1):
            what = ["sum", "max pool", "window sum", "concat", "view"][a.op]
            low, high = self.ranges[t]
            lines.append(f"{t:3} {a.name} {self.shapes[t]}: {what}, {self.kinds[t]} from {low} to {high}")
            if a.op in (1, 2):
                lines.append(f"      of tensor {a.tensor}: {shown(a.window)}")
            elif a.op == 3:
                lines.append(f"      of tensors {a.tensors}")
            elif a.op == 4:
                lines.append(f"      {shown_view(a.view)}")
            for p in getattr(a, "terms", []):
                lines.append("    + " + (
                    f"{p.name} of tensor {p.tensor}: {shown(p.window)} with {p.padding_code}, {p.groups} groups, "
                    f"{p.bits} bits {['with', 'without'][p.grid]} zero" if p.kind == 0 else
                    shown_view(p) if p.kind == 1 else f"{shown_view(p.a)} times {shown_view(p.b)}"))
            lines += [f"   >> + {shown_view(view)} times {mul}" for view, mul in getattr(a, "base", [])]
        return "\n".join(lines)


def rounded(channels):
    """Channels rounded up to a multiple of 16."""
    return -(-channels // 16) * 16


def fitting(shape):
    """A shape, refused where it is too small or too large."""
    h, w, c = shape
    need(1 <= h <= LIMIT and 1 <= w <= LIMIT and 1 <= c <= CHANNELS, f"a tensor of shape {shape}")
    need(h * w * rounded(c) <= ELEMENTS, f"a tensor of shape {shape}")
    return tuple(shape)


def moved_shape(shape, move, n):
    """Shape after a move with the numbers n."""
    h, w, c = shape
    if move == 0:
        need(all(1 <= v <= LIMIT for v in n), f"a stride of {n}")
        return -(-h // n[0]), -(-w // n[1]), c
    if move == 1:
        need(n[0] + n[2] <= h and n[1] + n[3] <= w, f"a crop {n} of {shape}")
        return n[2], n[3], c
    if move == 2:
        need(sum(n) <= c, f"channels {n} of {shape}")
        return h, w, n[1]
    if move == 3:
        return n[0] + h + n[2], n[1] + w + n[3], n[4] + c + n[5]
    if move == 6:
        return h * n[0], w * n[1], c
    if move == 7:
        need(n[0] > 0 and c % n[0] == 0, f"{n[0]} groups of {c} channels")
        return shape
    f = n[0]
    need(f > 0 and (c % f ** 2 == 0 if move == 4 else h % f == 0 == w % f), f"a factor of {f} for {shape}")
    return (h * f, w * f, c // f ** 2) if move == 4 else (h // f, w // f, c * f ** 2)


def moved(values, view):
    """A view of values [image][y][x][channel]."""
    for move, n in view.moves:
        count, h, w, c = values.shape
        if move == 0:
            values = values[:, ::n[0], ::n[1]]
        elif move == 1:
            values = values[:, n[0]:n[0] + n[2], n[1]:n[1] + n[3]]
        elif move == 2:
            values = values[..., n[0]:n[0] + n[1]]
        elif move == 3:
            values = np.pad(values, ((0, 0), (n[0], n[2]), (n[1], n[3]), n[4:]), constant_values=view.fill)
        elif move == 4:  # channels [c][a][b] of pixel (y, x) go to the pixel (y * f + a, x * f + b)
            f = n[0]
            values = values.reshape(count, h, w, c // f ** 2, f, f).transpose(0, 1, 4, 2, 5, 3)
            values = values.reshape(count, h * f, w * f, c // f ** 2)
        elif move == 5:
            f = n[0]
            values = values.reshape(count, h // f, f, w // f, f, c).transpose(0, 1, 3, 5, 2, 4)
            values = values.reshape(count, h // f, w // f, c * f ** 2)
        elif move == 6:
            values = values.repeat(n[0], 1).repeat(n[1], 2)
        else:
            values = values.reshape(count, h, w, n[0], c // n[0]).swapaxes(3, 4).reshape(count, h, w, c)
    return values


def windows(values, window, padding):
    """What a window sees, [image][y][x][channel][row][column]; padding is a number, or one a channel."""
    w, (n, h, _, c) = window, values.shape
    padded = np.empty((n, *w.padded, c), values.dtype)
    padded[:] = padding
    inner = padded[:, w.before[0]:w.padded[0] - w.after[0], w.before[1]:w.padded[1] - w.after[1]]
    inner[:, ::w.spread[0], ::w.spread[1]] = values
    seen = sliding_window_view(padded, w.extent, axis=(1, 2))[:, ::w.stride[0], ::w.stride[1]]
    return seen[..., ::w.dilation[0], ::w.dilation[1]]


def shown(w):
    """A window for people."""
    return f"{w.kernel} by {w.stride}, padding {w.before + w.after}, dilation {w.dilation}, spread {w.spread}"


def shown_view(view):
    """A view for people."""
    names = ("stride", "crop", "channels", "insert", "shuffle", "unshuffle", "repeat", "channel shuffle")
    return f"tensor {view.tensor}" + "".join(f", {names[move]} {n}" for move, n in view.moves)


def formula_images(shape, count, seed=2024):
    """Images of blocks of random colours, the same on every machine.

    v(n) is the n-th output (n = 0, 1, ...) of splitmix64 that starts from the state `seed`, shifted right by 56. Pixel
    (y, x, c) of image i is v(((i * H + (y >> b)) * W + (x >> b)) * C + c) with b = i mod 4, so blocks have the sides
    1, 2, 4, 8; in images with i mod 3 = 2 pixels from 128 on become 255 and the others 0.
    """
    h, w, c = shape
    i, y, x, channel = np.ogrid[:count, :h, :w, :c]
    n = (((i * h + (y >> i % 4)) * w + (x >> i % 4)) * c + channel).astype(np.uint64)
    z = np.uint64(seed) + (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    v = (z ^ (z >> np.uint64(31))) >> np.uint64(56)
    return np.where(i % 3 == 2, (v >> np.uint64(7)) * np.uint64(255), v).astype(np.uint8)


def evaluate(network, images, batch=10):
    """CRC-32 of every layer's output over all images (little-endian i64), and the logits [image][class]."""
    crcs, logits = [0] * len(network.layers), []
    for start in range(0, len(images), batch):
        outputs = network.run(images[start:start + batch])
        crcs = [zlib.crc32(out.astype("<i8").tobytes(), crc) for out, crc in zip(outputs, crcs)]
        logits.append(outputs[network.outputs[0][0] - 1][:, 0, 0])
    return crcs, np.concatenate(logits)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", help="CIFAR-10 records: a label byte, then planes of R, G and B")
    parser.add_argument("--count", type=int, help="only the first COUNT images")
    parser.add_argument("--golden", type=Path, help="file to write: CRCs of all layers over 100 formula images")
    args = parser.parse_args()
    network = Network(args.model.read_bytes())
    if args.images:
        records = np.fromfile(args.images, np.uint8).reshape(-1, 3073)[:args.count]
        crcs, logits = evaluate(network, records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        hits = int((logits.argmax(1) == records[:, 0]).sum())  # argmax: of equal ones the first
        print(f"top-1 {hits} of {len(records)} = {hits / len(records):.4f}, logits CRC-32 {crcs[-1]:08X}")
    elif args.golden:
        crcs, logits = evaluate(network, formula_images(network.shapes[0], 100))
        golden = {"checksum": network.checksum, "crcs": [[a.name, crc] for a, crc in zip(network.layers, crcs)],
                  "first_logits": logits[0].tolist(), "argmax": logits.argmax(1).tolist()}
        args.golden.write_text(json.dumps(golden) + "\n", encoding="utf-8")
    else:
        print(network)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
