"""What GPTQ at 3 bits needs on SmolLM2-135M: order of inputs, steps, damping, first tokens; in PyTorch, apart from bitpact.

    python ablation.py SmolLM2-135M-Instruct.Q4_1.gguf wikitext-2-valid.txt wikitext-2-test.txt [SEQUENCES [TESTED]]

Needs torch, numpy and tokenizers. Prints what inputs of the down matrices look like, then a line for each variant."""

import struct
import sys

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

LENGTH, BITS, GROUP = 256, 3, 64
PARTS = {"attn_q": 0, "attn_k": 0, "attn_v": 0, "attn_output": 1, "ffn_gate": 2, "ffn_up": 2, "ffn_down": 3}


def read_gguf(path):
    data, at = np.memmap(path, dtype=np.uint8, mode="r"), 4
    kinds = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def number(kind):
        nonlocal at
        size = struct.calcsize(kind)
        at += size
        return struct.unpack("<" + kind, data[at - size : at].tobytes())[0]

    def text():
        nonlocal at
        size = number("Q")
        at += size
        return data[at - size : at].tobytes().decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number(kinds[kind])

    number("I")
    tensors, keys = number("Q"), number("Q")
    meta = {}
    for _ in range(keys):
        key = text()
        meta[key] = value(number("I"))
    infos = []
    for _ in range(tensors):
        name, dims = text(), number("I")
        infos.append((name, [number("Q") for _ in range(dims)], number("I"), number("Q")))
    start, out = -(-at // 32) * 32, {}
    half = lambda b: b.copy().view(np.float16).astype(np.float32)
    for name, dims, kind, offset in infos:
        count, raw = int(np.prod(dims)), data[start + offset :]
        if kind == 0:
            values = raw[: 4 * count].copy().view(np.float32)
        elif kind == 3:  # Q4_1
            blocks = raw[: count // 32 * 20].reshape(-1, 20)
            codes = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], 1)
            values = codes * half(blocks[:, :2]) + half(blocks[:, 2:4])
        else:  # Q8_0
            assert kind == 8, (name, kind)
            blocks = raw[: count // 32 * 34].reshape(-1, 34)
            values = blocks[:, 2:].copy().view(np.int8) * half(blocks[:, :2])
        out[name] = torch.from_numpy(values.astype(np.float32).reshape(dims[::-1]))
    return meta, out


def norm(x, w):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w


def rotate(x, angles):
    a, b, c, s = x[..., 0::2], x[..., 1::2], angles.cos()[None, :, None], angles.sin()[None, :, None]
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)


def layer(x, w, angles, probe=lambda site, inputs: None):
    batch, tokens, _ = x.shape
    h = norm(x, w["attn_norm"])
    probe(0, h)
    heads = lambda p, n: (h @ w[p].T).view(batch, tokens, n, 64)
    q, k, v = rotate(heads("attn_q", 9), angles), rotate(heads("attn_k", 3), angles), heads("attn_v", 3)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2).repeat_interleave(3, 1), v.transpose(1, 2).repeat_interleave(3, 1)
    a = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    probe(1, a)
    x = x + a @ w["attn_output"].T
    h = norm(x, w["ffn_norm"])
    probe(2, h)
    g = torch.nn.functional.silu(h @ w["ffn_gate"].T) * (h @ w["ffn_up"].T)
    probe(3, g)
    return x + g @ w["ffn_down"].T


def dequantized(w, step, zero):
    return step * (((w / step).round() + zero).clamp(0, 2**BITS - 1) - zero)


def fit(w, importance=None):
    """Steps and zeros that span the rows of w; with importance, those of the least weighted error of narrower ones."""
    high, low = w.amax(1).clamp(min=0), w.amin(1).clamp(max=0)

    def of(share):
        step = ((high - low) * share / (2**BITS - 1)).clamp(min=6.1e-5).half().float()
        return step, (-low * share / step).round().clamp(0, 2**BITS - 1)

    best, least = of(1.0), None
    for i in range(16 if importance is not None else 0):
        step, zero = of(1 - i / 20)
        loss = ((dequantized(w, step[:, None], zero[:, None]) - w).abs() ** 2.4 * importance).sum(1)
        if least is None:
            least = loss
        lower = loss < least
        least = torch.where(lower, loss, least)
        best = torch.where(lower, step, best[0]), torch.where(lower, zero, best[1])
    return best


def rounded(w, gram, search):
    importance, out = torch.diagonal(gram).float(), []
    for i in range(0, w.shape[1], GROUP):
        step, zero = fit(w[:, i : i + GROUP], importance[i : i + GROUP] if search else None)
        out.append(dequantized(w[:, i : i + GROUP], step[:, None], zero[:, None]))
    return torch.cat(out, 1)


def gptq(w, gram, order=False, static=False, search=False, damping=0.01):
    rows, cols = w.shape
    importance = torch.diagonal(gram).clone()
    h = gram + torch.eye(cols).double() * damping * importance.mean()
    perm = torch.argsort(-importance, stable=True) if order else torch.arange(cols)
    h = h[perm][:, perm]
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
    steps = lambda x, i: fit(x, importance[i : i + GROUP].float() if search else None)
    of_group = {}
    if static or order:
        of_group = {i // GROUP: steps(w[:, i : i + GROUP], i) for i in range(0, cols, GROUP)}
    w, q = w[:, perm].clone(), torch.zeros(rows, cols)
    for start in range(0, cols, 128):
        end = min(cols, start + 128)
        errors = torch.zeros(rows, end - start)
        for i in range(start, end):
            g = int(perm[i]) // GROUP
            if not (static or order) and i % GROUP == 0:
                of_group[g] = steps(w[:, i : i + GROUP], i)
            q[:, i] = dequantized(w[:, i], *of_group[g])
            errors[:, i - start] = (w[:, i] - q[:, i]) / u[i, i]
            w[:, i + 1 : end] -= errors[:, i - start, None] * u[i, i + 1 : end][None]
        w[:, end:] -= errors @ u[start:end, end:]
    out = torch.zeros_like(q)
    out[:, perm] = q
    return out


def main():
    model, calibration, test = sys.argv[1:4]
    sequences, tested = (int(n) for n in (sys.argv[4:] + ["16", "12"])[:2])
    meta, weights = read_gguf(model)
    count = meta["llama.block_count"]
    tokens, merges = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.merges"]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    cut = lambda path, n: torch.tensor(tokenizer.encode(open(path).read()).ids[: n * LENGTH]).view(n, LENGTH)
    calibration, test = cut(calibration, sequences), cut(test, tested)
    angles = torch.arange(LENGTH)[:, None] * (100000.0 ** (-torch.arange(0, 64, 2) / 64.0))[None]
    names = [*PARTS, "attn_norm", "ffn_norm"]
    plain = [{p: weights[f"blk.{i}.{p}.weight"] for p in names} for i in range(count)]

    def grams(skip):
        x, out = weights["token_embd.weight"][calibration], []
        for i in range(count):
            of_site = [None] * 4

            def probe(site, inputs):
                if site == 3 and not skip:
                    square = inputs**2
                    first, channel = square[:, 0].sum() / square.sum(), square.mean((0, 1))
                    peak = channel.max() / channel.mean()
                    print(f"layer {i} down: first tokens {first:.2f} of all squares, largest input {peak:.0f} means")
                rows = inputs[:, skip:].flatten(0, 1)
                of_site[site] = (rows.T @ rows).double() / rows.shape[0]

            x = layer(x, plain[i], angles, probe)
            out.append(of_site)
        return out

    def losses(layers):
        x, out = weights["token_embd.weight"][test], []
        for w in layers:
            x = layer(x, w, angles)
        for h, ids in zip(norm(x, weights["output_norm.weight"]), test):
            logits = h[:-1] @ weights["token_embd.weight"].T
            out.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
        return torch.cat(out)

    gram, without_first = grams(0), grams(1)
    float_losses = losses(plain)
    print(f"float: nll {float_losses.mean():.4f}")

    def report(name, method, gram=gram):
        layers = [{**w, **{p: method(w[p], gram[i][site]) for p, site in PARTS.items()}} for i, w in enumerate(plain)]
        d = losses(layers) - float_losses
        print(f"{name}: nll {(float_losses + d).mean():.4f}, above float {d.mean():.4f} +- {d.std() / len(d) ** 0.5:.4f}", flush=True)

    report("RTN", lambda w, g: rounded(w, g, False))
    report("RTN, searched steps", lambda w, g: rounded(w, g, True))
    report("GPTQ, natural order", gptq)
    report("GPTQ, static groups", lambda w, g: gptq(w, g, static=True))
    report("GPTQ, by falling activation", lambda w, g: gptq(w, g, order=True))
    report("GPTQ, searched steps", lambda w, g: gptq(w, g, search=True))
    report("GPTQ, static groups, searched steps", lambda w, g: gptq(w, g, static=True, search=True))
    both = lambda w, g: gptq(w, g, order=True, search=True)
    report("GPTQ, by falling activation, searched steps", both)
    report("the same, damping 0.05", lambda w, g: gptq(w, g, order=True, search=True, damping=0.05))
    report("the same, first tokens not in the Gram matrix", both, without_first)


torch.set_num_threads(1)
main()
