#!/usr/bin/env python3
"""Writes resnet20_step_float.json and resnet20_step_w4a4.json: one training step of ResNet-20 as PyTorch computes it.

    pip install torch==2.15.0 numpy
    python resnet20_step.py             # writes both files beside this program, some ten seconds on one core
    python resnet20_step.py --survey    # prints margins, float32 errors and clipped fractions per activation instead

Network: ResNet-20 (16/32/64 channels, option-A shortcuts) on 32x32x3 pixels, first convolution and last layer in float.
`float` has plain ReLUs; `w4a4` has PACT activations (arXiv 1805.06085, eq. 1-3) and DoReFa weights, the maximum held constant.
Step: mean cross entropy on one batch of 16, batch norm (eps 1e-5, momentum 0.1, unbiased running variance), SGD with lr 0.1,
momentum 0.9 from zero, weight decay 2e-4 on every parameter, clip values too. Computed in float32.

Everything starts from one formula in integers, written out in FORMULA, so that a test in any language builds the same step.

A 4-bit step is only a usable reference where no value lies on the fence. One code that rounds the other way shifts nine sums in
every channel of the next layer, which tip more codes; with the plain formula a single flip between float32 and float64 grows to
2 % of the logits and changes the gradient of a clip value several times over. So the start values have variants: the first one of each
quantized weight tensor, and of each batch norm bias in front of an activation, that keeps every value at least a margin (some
times float32's error) away from every rounding and clipping threshold. The program checks that this worked: it runs each step in
float32 and in float64 and fails where a tensor differs by more than 1e-4 (relative L2 over all elements).
"""
import argparse
import functools
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

FORMULA = (
    "h(name, i) = mix(fnv1a64(name) + (i + 1) * 0x9E3779B97F4A7C15) mod 2^64, mix = splitmix64's finalizer (shifts 30, 27, 31; factors "
    "0xBF58476D1CE4E5B9, 0x94D049BB133111EB); i = flat index in PyTorch order (OIHW, NCHW). The hashed name is 'name@k' where the variant k "
    "is not 0: k = tensor_variants[name], or element_variants[name][i], else 0. u = (h >> 40) / 2^24, v = 2u - 1. In float64, then rounded to "
    "float32: conv weight = v * (sqrt(3) * sqrt(2 / (cin*k*k))); linear.weight = v / sqrt(64); linear.bias = 0.1 v; bn weight = 1 + 0.2 v; "
    "bn bias = 0.2 v; clip_val = 1.5 + 0.5 v; running_mean = 0, running_var = 1. Pixel codes: name 'input', h >> 56, real value (code - 128) / 64. "
    "Labels: name 'labels', h mod 10. Samples are elements (j * 2654435761 mod 2^32) mod n for j = 0..31, or all n in order where n <= 32."
)
BATCH, BITS = 16, 4
LR, MOMENTUM, DECAY = 0.1, 0.9, 2e-4
EPS, BN_MOMENTUM = 1e-5, 0.1
MARGIN = {"float": 1e-4, "w4a4": 2e-5}  # between a value in front of an activation and a threshold
WEIGHT_MARGIN = 2e-5  # between a weight and a rounding threshold, in steps of the 4-bit grid
TOLERANCE = 1e-4

# (name, input channels, output channels, stride) of every residual block
BLOCKS = [
    (f"layer{stage + 1}.{i}", 16 << max(stage - (i == 0), 0), 16 << stage, 2 if stage and i == 0 else 1)
    for stage in range(3)
    for i in range(3)
]


def hashes(name, count):
    mask = 2**64 - 1
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & mask
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def centered(name, count):
    return (hashes(name, count) >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def pixels():
    return (hashes("input", BATCH * 3 * 32 * 32) >> np.uint64(56)).astype(np.int64)


def labels():
    return (hashes("labels", BATCH) % np.uint64(10)).astype(np.int64)


def shapes(mode):
    """Name -> shape of every parameter, in the order of the network."""
    out = {}

    def unit(prefix, index, cin, cout):
        out[f"{prefix}conv{index}.weight"] = (cout, cin, 3, 3)
        out[f"{prefix}bn{index}.weight"] = out[f"{prefix}bn{index}.bias"] = (cout,)
        if mode != "float":
            out[f"{prefix}act{index}.clip_val"] = ()

    unit("", 1, 3, 16)
    for name, cin, cout, _ in BLOCKS:
        unit(name + ".", 1, cin, cout)
        unit(name + ".", 2, cout, cout)
    out["linear.weight"], out["linear.bias"] = (10, 64), (10,)
    return out


def initial(name, shape, variant=0):
    """The float32 start value of one parameter, as float64."""
    v = centered(f"{name}@{variant}" if variant else name, math.prod(shape))
    if name == "linear.weight":
        v = v / math.sqrt(64)
    elif name == "linear.bias":
        v = 0.1 * v
    elif name.endswith("clip_val"):
        v = 1.5 + 0.5 * v
    elif "bn" in name:
        v = 0.2 * v + name.endswith(".weight")
    else:
        v = v * (math.sqrt(3) * math.sqrt(2 / math.prod(shape[1:])))
    return torch.from_numpy(v.astype(np.float32).astype(np.float64).reshape(shape))


class Clip(torch.autograd.Function):
    """PACT: codes round(clip(x) * q_max / alpha); gradient of equation 3."""

    @staticmethod
    def forward(ctx, x, alpha, q_max):
        ctx.save_for_backward(x, alpha)
        return (x * (q_max / alpha)).round().clamp(0, q_max) * (alpha / q_max)

    @staticmethod
    def backward(ctx, g):
        x, alpha = ctx.saved_tensors
        inside, above = (x >= 0) & (x < alpha), x >= alpha
        return torch.where(inside, g, 0), torch.where(above, g, 0).sum(), None


class Dorefa(torch.autograd.Function):
    """DoReFa weights: (2 round(t q_max) - q_max) / q_max, t = tanh(w) / (2 max|tanh w|) + 1/2; the maximum is a constant."""

    @staticmethod
    def forward(ctx, w, q_max):
        t = w.tanh()
        m = t.abs().max()
        ctx.save_for_backward(t, m)
        return (2 * ((t / (2 * m) + 0.5) * q_max).round() - q_max) / q_max

    @staticmethod
    def backward(ctx, g):
        t, m = ctx.saved_tensors
        return g * (1 - t * t) / m, None


class Network:
    """The forward pass over a dictionary of tensors; `before_act` sees each convolution's output and shortcut before the batch norm."""

    def __init__(self, mode, params, before_act=None):
        self.q_max = None if mode == "float" else 2**BITS - 1
        self.params, self.buffers, self.before_act = params, {}, before_act

    def unit(self, x, conv, stride=1, quantized=True, shortcut=None):
        """Convolution, batch norm, shortcut, activation."""
        bn, act = conv.replace("conv", "bn"), conv.replace("conv", "act")
        w = self.params[conv + ".weight"]
        if self.q_max and quantized:
            w = Dorefa.apply(w, self.q_max)
        y = F.conv2d(x, w, stride=stride, padding=1)
        mean, var = torch.zeros_like(y[0, :, 0, 0]), torch.ones_like(y[0, :, 0, 0])
        if self.before_act:
            self.before_act(self, bn, act, y, shortcut)
        y = F.batch_norm(y, mean, var, self.params[bn + ".weight"], self.params[bn + ".bias"], True, BN_MOMENTUM, EPS)
        self.buffers[bn + ".running_mean"], self.buffers[bn + ".running_var"] = mean, var
        if shortcut is not None:
            y = y + shortcut
        return Clip.apply(y, self.params[act + ".clip_val"], self.q_max) if self.q_max else F.relu(y)

    def forward(self, x):
        x = self.unit(x, "conv1", quantized=False)
        for name, cin, cout, stride in BLOCKS:
            side = (cout - cin) // 2
            shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, side, side))
            x = self.unit(x, name + ".conv1", stride)
            x = self.unit(x, name + ".conv2", shortcut=shortcut)
        return F.linear(x.mean((2, 3)), self.params["linear.weight"], self.params["linear.bias"])


def batch(dtype):
    x = (torch.from_numpy(pixels()).to(dtype) - 128) / 64
    return x.reshape(BATCH, 3, 32, 32), torch.from_numpy(labels())


def fence_distance(x, alpha, q_max):
    """The smallest distance of a value from zero, from alpha and from any rounding threshold."""
    nearest = x.abs().min()
    if q_max:
        u = x[(x > 0) & (x < alpha)] * (q_max / alpha)
        nearest = min(nearest, (x - alpha).abs().min(), (u - u.floor() - 0.5).abs().min() * alpha / q_max)
    return float(nearest)


def first_variant(keeps_margin):
    return next(k for k in range(100000) if keeps_margin(k))


def start(mode):
    """Start values with their variants, chosen in the order of the network: (params, tensor variants, element variants)."""
    params = {n: initial(n, s) for n, s in shapes(mode).items()}
    tensors, elements = {}, {}

    def weight_margin(w):
        t = w.tanh()
        u = (t / (2 * t.abs().max()) + 0.5) * (2**BITS - 1)
        return (u - u.floor() - 0.5).abs().min() > WEIGHT_MARGIN

    for name, shape in shapes(mode).items():
        if mode != "float" and "conv" in name and name != "conv1.weight":
            k = tensors[name] = first_variant(lambda k: weight_margin(initial(name, shape, k)))
            params[name] = initial(name, shape, k)

    def before_act(network, bn, act, y, shortcut):
        x = F.batch_norm(y, None, None, params[bn + ".weight"], None, True, 0.0, EPS)
        x = (x if shortcut is None else x + shortcut).transpose(0, 1).contiguous()
        name, alpha = bn + ".bias", params.get(act + ".clip_val")
        bias = functools.cache(lambda k: initial(name, (len(x),), k))
        apart = lambda k, c: fence_distance(x[c] + bias(k)[c], alpha, network.q_max) > MARGIN[mode]
        elements[name] = [first_variant(lambda k, c=c: apart(k, c)) for c in range(len(x))]
        params[name] = torch.stack([bias(k)[c] for c, k in enumerate(elements[name])])

    with torch.no_grad():
        Network(mode, params, before_act).forward(batch(torch.float64)[0])
    return params, {n: k for n, k in tensors.items() if k}, elements


def step(mode, values, dtype):
    """Runs the step from `values`."""
    params = {n: t.to(dtype, copy=True).requires_grad_() for n, t in values.items()}
    optimizer = torch.optim.SGD(params.values(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    x, y = batch(dtype)
    network = Network(mode, params)
    logits = network.forward(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    optimizer.step()
    return {
        "loss": loss.detach(),
        "logits": logits.detach(),
        "grad": {n: p.grad for n, p in params.items()},
        "updated": {n: p.detach() for n, p in params.items()},
        "buffers": network.buffers,
    }


def survey(mode, values):
    """Prints, per activation, how far float32 is from float64 and how many values clip."""
    seen = {}
    for dtype in (torch.float64, torch.float32):

        def before_act(network, bn, act, y, shortcut):
            x = F.batch_norm(y, None, None, network.params[bn + ".weight"], network.params[bn + ".bias"], True, 0.0, EPS)
            seen.setdefault(act, []).append((x if shortcut is None else x + shortcut).double())

        with torch.no_grad():
            Network(mode, {n: t.to(dtype) for n, t in values.items()}, before_act).forward(batch(dtype)[0])
    for act, (a, b) in seen.items():
        alpha = values.get(act + ".clip_val")
        q_max = None if alpha is None else 2**BITS - 1
        clipped = "" if alpha is None else f", clipped {float((a >= alpha).double().mean()):.3f}"
        print(f"{mode} {act}: margin {fence_distance(a, alpha, q_max):.2e}, float32 errs by {(a - b).abs().max():.2e}{clipped}")


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def number(x):
    return float(f"{float(x):.9g}")


def samples(t):
    flat = t.reshape(-1)
    n = len(flat)
    index = range(n) if n <= 32 else [(j * 2654435761 % 2**32) % n for j in range(32)]
    return [number(flat[i]) for i in index]


def write(mode, values, tensor_variants, element_variants, folder):
    single, double = step(mode, values, torch.float32), step(mode, values, torch.float64)
    worst = {}
    for kind in ("grad", "updated", "buffers"):
        differences = {n: relative(t, double[kind][n]) for n, t in single[kind].items()}
        name = max(differences, key=differences.get)
        worst[kind] = {"tensor": name, "relative_l2": number(f"{differences[name]:.3g}")}
    worst["logits"] = {"tensor": "logits", "relative_l2": number(f"{relative(single['logits'], double['logits']):.3g}")}
    print(mode, "loss", float(single["loss"]), "float32 against float64:", json.dumps(worst))
    norm = lambda t: number(t.double().norm())
    head = {
        "network": "resnet20, option A, first convolution and last layer float",
        "mode": mode,
        "precision": "float32",
        "torch": torch.__version__.split("+")[0],
        "formula": FORMULA,
        "tensor_variants": tensor_variants,
        "element_variants": element_variants,
        "batch": BATCH, "lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "bn_eps": EPS, "bn_momentum": BN_MOMENTUM,
        "float32_against_float64": worst,
        "first_pixel_codes": pixels()[:16].tolist(),
        "labels": labels().tolist(),
        "loss": number(single["loss"]),
        "logits": [[number(x) for x in row] for row in single["logits"]],
    }
    parameters = {
        n: {"shape": list(g.shape), "grad_norm": norm(g), "updated_norm": norm(single["updated"][n]),
            "grad": samples(g), "updated": samples(single["updated"][n])}
        for n, g in single["grad"].items()
    }
    buffers = {n: {"shape": list(t.shape), "updated_norm": norm(t), "updated": samples(t)} for n, t in single["buffers"].items()}
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    section = lambda table: "{\n" + ",\n".join(f"{dump(n)}:{dump(t)}" for n, t in table.items()) + "\n}"
    lines = [f"{dump(k)}:{dump(v)}" for k, v in head.items()]
    lines += [f'"parameters":{section(parameters)}', f'"buffers":{section(buffers)}']
    (folder / f"resnet20_step_{mode}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if max(w["relative_l2"] for w in worst.values()) > TOLERANCE:
        raise SystemExit(f"{mode}: float32 and float64 differ by more than {TOLERANCE}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for mode in ("float", "w4a4"):
        values, tensor_variants, element_variants = start(mode)
        if args.survey:
            survey(mode, values)
        else:
            write(mode, values, tensor_variants, element_variants, pathlib.Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()
