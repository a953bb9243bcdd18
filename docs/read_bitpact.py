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

LIMIT, CHANNELS = 32768, 65536  # of sides and strides, and of channels


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
        need(version in (2, 3, 4), f"version {version}, expected 2 to 4")
        need(length == len(data), f"{len(data)} bytes, expected {length}: the file is cut off, or something follows it")
        self.checksum = int.from_bytes(data[-4:], "little")
        need(zlib.crc32(data[:-4]) == self.checksum, "the checksum is wrong")
        r = self.reader = Reader(data[20:-4])
        self.arch, self.layers = r.string(), []
        self.shapes, self.ranges, self.kinds, self.used = [], [], [], set()  # by tensor
        self.padding_codes = {}  # by tensor
        self.add_tensor(r.numbers("3I"), (0, 255), "image")
        self.zero_points = np.frombuffer(r.take(self.shapes[0][2]), np.uint8)
        self.scales = r.numbers(f"{len(self.zero_points)}f")
        self.class_names = [r.string() for _ in range(*r.numbers("I"))]
        (count,) = r.numbers("I")
        for i in range(count):
            layer = Fields(name=r.string(shortest=1), **dict(zip(("scale", "op"), r.numbers("dB"))))
            need(layer.op < 9 and (layer.op == 1) == (i == count - 1), f"op {layer.op} of layer {i} of {count}")
            read = {2: self.read_pool, 3: self.read_pool, 4: self.read_pool, 6: self.read_act, 7: self.read_concat,
                    8: self.read_act}
            read.get(layer.op, self.read_product_layer)(layer)
            self.layers.append(layer)
        by_channel = any(getattr(layer, "by_channel", False) for layer in self.layers)
        least = 4 if by_channel else 3 if any(layer.op > 3 for layer in self.layers) else 2
        need(version == least, f"version {version} of other ops")
        need(r.at == len(r.data), "bytes between the last layer and the checksum")
        need(count > 0 and self.shapes[-1] == (1, 1, len(self.class_names)), "one logit a class, at one position")
        need(self.used == set(range(count)), f"nobody reads the tensors {set(range(count)) - self.used}")
        need(len({layer.name for layer in self.layers}) == count, "two layers of one name")
        scales = [*self.scales, *(layer.scale for layer in self.layers)]
        need(all(0 < s < np.inf for s in scales), "a scale that is not a positive finite number")

    def add_tensor(self, shape, code_range, kind="codes"):
        """The image, or the output of the layer that has just been read; kind: image, codes, sums or stream."""
        need(all(1 <= side <= LIMIT for side in shape[:2]) and 1 <= shape[2] <= CHANNELS, f"a tensor of shape {shape}")
        self.output_sides(shape, (1, 1), 1, 0)
        self.shapes.append(tuple(shape))
        self.ranges.append(code_range)
        self.kinds.append(kind)

    def output_sides(self, shape, window, stride, padding):
        """Rows and columns that a window has over a tensor."""
        h, w, c = shape[0] + 2 * padding, shape[1] + 2 * padding, -(-shape[2] // 16) * 16
        need(h * w * c <= 1 << 26, f"a tensor of shape {shape} with padding {padding} is too large")
        need(all(1 <= r <= min(LIMIT, side) for r, side in zip(window, (h, w))), f"a window {window} over {h} x {w}")
        need(1 <= stride <= LIMIT, f"stride {stride}")
        return tuple((side - r) // stride + 1 for r, side in zip(window, (h, w)))

    def input_shape(self, tensor, *kinds):
        """Notes that a tensor of one of these kinds is read and gives its shape."""
        need(tensor < len(self.shapes), f"layer {len(self.layers)} reads tensor {tensor}")
        need(self.kinds[tensor] in kinds, f"tensor {tensor} is {self.kinds[tensor]}, expected {' or '.join(kinds)}")
        self.used.add(tensor)
        return self.shapes[tensor]

    def read_product(self):
        """A product; its `most` is the largest |acc| that codes can give, per output channel."""
        fields = ("tensor", "rows", "columns", "stride", "padding", "padding_code", "out", "groups", "bits", "grid")
        p = Fields(name=self.reader.string(shortest=1), **dict(zip(fields, self.reader.numbers("8I2B"))))
        need(p.grid in (0, 1) and (1 <= p.bits <= 8 or p.bits == 16 and p.grid == 0), f"{p.bits} bits, grid {p.grid}")
        need(p.padding <= LIMIT and 1 <= p.out <= CHANNELS, f"padding {p.padding}, {p.out} output channels")
        shape, p.window = self.input_shape(p.tensor, "image", "codes", "sums"), (p.rows, p.columns)
        need(p.groups > 0 and shape[2] % p.groups == 0 == p.out % p.groups, f"{p.groups} groups")
        p.shape = *self.output_sides(shape, p.window, p.stride, p.padding), p.out
        p.weights = self.reader.weights(p.out * (shape[2] // p.groups) * p.rows * p.columns, p.bits, p.grid)
        p.weights = p.weights.reshape(p.out, -1)
        high = self.ranges[p.tensor][1]
        low = self.padded(p.tensor, p.padding, p.padding_code)
        plus, minus = np.maximum(p.weights, 0).sum(1).tolist(), np.minimum(p.weights, 0).sum(1).tolist()
        p.reach = [(a * low + b * high, a * high + b * low) for a, b in zip(plus, minus)]
        p.most = [max(hi, -lo) for lo, hi in p.reach]
        return p

    def padded(self, tensor, padding, code):
        """Checks a padding code and gives the least number that a window over the tensor sees."""
        low, high = self.ranges[tensor]
        need(code <= (high if padding and tensor else 0), f"padding code {code}")
        if not padding:
            return low
        need(self.padding_codes.setdefault(tensor, code) == code, "two padding codes")
        return min(low, code)

    def read_product_layer(self, layer):
        """Ops 0, 1 and 5; logits are a product layer without the step, a stream one without the clamp."""
        r, logits, stream = self.reader, layer.op == 1, layer.op == 5
        (flags,) = (0,) if logits else r.numbers("B")
        need(flags < 4 or flags < 8 and not stream, f"flags {flags}")
        layer.products = [self.read_product() for _ in range(1 + (flags & 1))]
        main = layer.products[0]
        need(layer.products[-1].shape == main.shape, "two products of different shapes")
        layer.shortcut = r.numbers("4I") if flags & 2 else None
        (layer.shift,) = (0,) if logits else r.numbers("B")
        need(layer.shift <= 62, f"shift {layer.shift}")
        lo, hi = (0, 0) if logits or stream else self.read_codes(layer, flags & 4, main.out)
        layer.muls = [r.integers(main.out, 32) for _ in layer.products]
        terms = [(p.most, mul) for p, mul in zip(layer.products, layer.muls)]
        if layer.shortcut:
            tensor, stride, before, after = layer.shortcut
            h, w, c = self.input_shape(tensor, "codes", *["stream"] * stream)
            need(1 <= stride <= LIMIT, f"stride {stride}")
            need((-(-h // stride), -(-w // stride), before + c + after) == main.shape, "a shortcut of another shape")
            layer.res_mul = r.numbers("i")[0] if stream else r.integers(main.out, 32)
            if not stream:
                terms.append(([self.ranges[tensor][1]] * main.out, layer.res_mul))
        layer.add = r.integers(main.out)
        self.bounded(layer, terms)
        if not stream:
            return self.add_tensor(main.shape, (lo, hi), "logits" if logits else "codes")
        ends = [[], []]
        for o, add in enumerate(layer.add.tolist()):
            acc = [sorted(int(mul[o]) * end for end in p.reach[o]) for p, mul in zip(layer.products, layer.muls)]
            for side in (0, 1):
                ends[side].append((sum(a[side] for a in acc) + add) >> layer.shift)
        lo, hi = min(ends[0]), max(ends[1])
        if layer.shortcut:
            low, high = self.ranges[layer.shortcut[0]]
            res = sorted((min(low, 0) * layer.res_mul, max(high, 0) * layer.res_mul))
            lo, hi = lo + res[0], hi + res[1]
        need(-(1 << 31) < lo and hi < 1 << 31, f"a stream from {lo} to {hi}")
        self.add_tensor(main.shape, (lo, hi), "stream")

    def bounded(self, layer, terms):
        """Checks that the sums of a layer fit 64 bits; terms are the largest inputs and multipliers per channel."""
        for o, add in enumerate(layer.add.tolist()):
            most = abs(add) + sum(bound[o] * abs(int(mul[o])) for bound, mul in terms)
            need(most < 1 << 63, f"the sums of channel {o} could pass 64 bits")

    def read_codes(self, layer, by_channel, n):
        """Smallest and largest code: the layer's, or those of n channels, of which the layer has the least and the most."""
        layer.by_channel = bool(by_channel)
        lo, hi = [self.reader.integers(n, 32) for _ in range(2)] if by_channel else self.reader.numbers("2B")
        layer.codes = lo, hi
        need(np.all(np.less_equal(lo, hi)) and np.min(lo) >= 0 and np.max(hi) <= 255, f"codes {lo} to {hi}")
        need(not by_channel or len(set(zip(lo.tolist(), hi.tolist()))) > 1, "equal codes, channel by channel")
        return int(np.min(lo)), int(np.max(hi))

    def read_act(self, layer):
        """Ops 6 and 8."""
        r = self.reader
        (layer.tensor,) = r.numbers("I")
        shape = self.input_shape(layer.tensor, "sums", "stream")
        (layer.shift,) = r.numbers("B")
        need(layer.shift <= 62, f"shift {layer.shift}")
        lo, hi = self.read_codes(layer, layer.op == 8, shape[2])
        layer.mul, layer.add = r.integers(shape[2], 32, True), r.integers(shape[2], 64, True)
        most = max(abs(end) for end in self.ranges[layer.tensor])
        self.bounded(layer, [([most] * shape[2], layer.mul)])
        self.add_tensor(shape, (lo, hi))

    def read_concat(self, layer):
        """Op 7."""
        (count,) = self.reader.numbers("I")
        need(count >= 2, f"{count} tensors to concatenate")
        layer.tensors = self.reader.numbers(f"{count}I")
        shapes = [self.input_shape(tensor, "codes", "stream") for tensor in layer.tensors]
        need(len({self.kinds[tensor] for tensor in layer.tensors}) == 1, "a concatenation of codes and streams")
        need(len({shape[:2] for shape in shapes}) == 1, "a concatenation of different sides")
        ends = [self.ranges[tensor] for tensor in layer.tensors]
        shape = (*shapes[0][:2], sum(shape[2] for shape in shapes))
        self.add_tensor(shape, (min(e[0] for e in ends), max(e[1] for e in ends)), self.kinds[layer.tensors[0]])

    def read_pool(self, layer):
        """Ops 2, 3 and 4."""
        layer.tensor, *layer.window = self.reader.numbers({2: "4I", 3: "I", 4: "5I"}[layer.op])
        h, w, c = shape = self.input_shape(layer.tensor, "codes")
        low, high = self.ranges[layer.tensor]
        if layer.op == 3:
            return self.add_tensor((1, 1, c), (low * h * w, high * h * w), "sums")
        kernel, stride, padding = layer.window[:3]
        need(padding < kernel, "padding of a pool that is not less than its kernel")
        sides = self.output_sides(shape, (kernel, kernel), stride, padding)
        if layer.op == 2:
            return self.add_tensor((*sides, c), (low, high))
        low = self.padded(layer.tensor, padding, layer.window[3])
        self.add_tensor((*sides, c), (low * kernel ** 2, high * kernel ** 2), "sums")

    def acc(self, p, codes):
        """acc of a product for codes [image][y][x][channel].

        float64 is fast and exact here: all partial sums are integers, and as no tensor has more than 2^26 numbers, even
        those over sums of codes are at most 255 * 32639 * 2^26 < 2^53 in size.
        """
        value = p.padding_code if p.tensor else self.zero_points
        seen = windows(codes.astype(np.float64), p.window, p.stride, p.padding, value)
        seen = seen.reshape(-1, p.groups, p.weights.shape[1]).swapaxes(0, 1)
        weights = p.weights.reshape(p.groups, -1, p.weights.shape[1]).astype(np.float64)
        acc = (seen @ weights.swapaxes(1, 2)).swapaxes(0, 1)  # [position][group][output of the group]
        return acc.astype(np.int64).reshape(-1, *p.shape)

    def run(self, images):
        """Outputs of all layers as int64 [image][y][x][channel] for pixels of that shape; the last are the logits."""
        need(images.shape[1:] == self.shapes[0], f"images of {images.shape[1:]}, expected {self.shapes[0]}")
        tensors = [images.astype(np.int64)]
        for layer in self.layers:
            if layer.op == 2:
                kernel, stride, padding = layer.window
                out = windows(tensors[layer.tensor], (kernel, kernel), stride, padding, -1).max((-2, -1))
            elif layer.op == 3:
                out = tensors[layer.tensor].sum((1, 2), keepdims=True)
            elif layer.op == 4:
                kernel, stride, padding, code = layer.window
                out = windows(tensors[layer.tensor], (kernel, kernel), stride, padding, code).sum((-2, -1))
            elif layer.op in (6, 8):
                out = np.clip(tensors[layer.tensor] * layer.mul + layer.add >> layer.shift, *layer.codes)
            elif layer.op == 7:
                out = np.concatenate([tensors[tensor] for tensor in layer.tensors], axis=-1)
            else:
                accs = [self.acc(p, tensors[p.tensor]) for p in layer.products]
                out = layer.add + sum(acc * mul for acc, mul in zip(accs, layer.muls))
                if layer.shortcut:
                    tensor, stride, *channels = layer.shortcut
                    res = np.pad(tensors[tensor][:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), channels))
                    out = (out >> layer.shift) + res * layer.res_mul if layer.op == 5 else out + res * layer.res_mul
                elif layer.op == 5:
                    out = out >> layer.shift
                if layer.op == 0:
                    out = np.clip(out >> layer.shift, *layer.codes)
            tensors.append(out)
        return tensors[1:]

    def __str__(self):
        lines = [f"{self.arch}: {len(self.class_names)} classes, checksum {self.checksum:08X}, image {self.shapes[0]}"]
        for t, a in enumerate(self.layers, 1):
            what = ["codes", "logits", "max pool", "sum pool", "window sum", "stream", "act", "concat", "act"][a.op]
            what += ", by channel," if getattr(a, "by_channel", False) else ""
            what += "" if a.op == 1 else " from {} to {}".format(*self.ranges[t])
            read = getattr(a, "tensors", None) or getattr(a, "tensor", None)
            lines.append(f"{t:3} {a.name} {self.shapes[t]}: {what}" + (f" of tensor {read}" if read is not None else ""))
            lines += [f"      {p.name} of tensor {p.tensor}: {p.rows} x {p.columns} by {p.stride}, padding {p.padding}"
                      f" with {p.padding_code}, {p.groups} groups, {p.bits} bits {['with', 'without'][p.grid]} zero" for p in getattr(a, "products", [])]
            if getattr(a, "shortcut", None):
                lines.append("      shortcut of tensor {}: stride {}, {} channels before, {} after".format(*a.shortcut))
        return "\n".join(lines)


def windows(codes, window, stride, padding, value):
    """What a window sees, [image][y][x][channel][row][column], where codes have a border of `value`."""
    n, h, w, c = codes.shape
    padded = np.empty((n, h + 2 * padding, w + 2 * padding, c), codes.dtype)
    padded[:] = value
    padded[:, padding:padding + h, padding:padding + w] = codes
    return sliding_window_view(padded, window, axis=(1, 2))[:, ::stride, ::stride]


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
        logits.append(outputs[-1][:, 0, 0])
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
