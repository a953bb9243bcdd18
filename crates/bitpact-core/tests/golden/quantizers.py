"""Writes quantizers.json: every quantizer, forward and gradients, by automatic differentiation in PyTorch.

    python quantizers.py > quantizers.json        (made with PyTorch 2.15, float64)

Each formula is the paper's, written with `round_ste`, which rounds half to even and differentiates as the identity; nothing is
taken from bitpact but the SAWB coefficients, which tests/golden.rs compares with its own. Numbers are drawn by `uniform`, a
formula that Rust repeats exactly.
"""
import json
import torch

torch.set_default_dtype(torch.float64)

# (c1, c2) of SAWB by bits and grid; bitpact-core/src/sawb_fit.rs derives them.
SAWB = {(2, "zero"): (2.59502, 1.70261), (4, "zero"): (12.15000, 12.17061),
        (2, "no_zero"): (3.18210, 2.14064), (4, "no_zero"): (12.49838, 12.56131)}


def uniform(n, multiplier):
    """n numbers in [-1, 1), exact in float32."""
    return torch.tensor([((i + 1) * multiplier % 2 ** 32 >> 8) / 2 ** 23 - 1 for i in range(n)])


def round_ste(x):
    return x + (torch.round(x) - x).detach()


def clip(x, lo, hi):
    """min(max(x, lo), hi), whose gradient goes to the bound from the bound on."""
    x = torch.where(x < hi, x, hi)
    return torch.where(x > lo, x, lo)


def act(quant, bits, x, alphas):
    """x [channel][element]; alphas one number, or one a channel in a column."""
    signed = quant == "pact-sym"
    n = 2 ** (bits - 1) - 1 if signed else 2 ** bits - 1
    if quant == "lsq":  # eq. 1 and 2 with s = alpha / n; autograd then gives eq. 3
        s = alphas / n
        return s * round_ste(torch.clamp(x / s, 0, n)), n
    if quant == "sign":  # alpha sign(x), and the straight-through estimator of arXiv 1602.02830, eq. 4, clipped at alpha
        passes = clip(x, -alphas.detach(), alphas.detach())
        return torch.where(x >= 0, alphas, -alphas) + passes - passes.detach(), 1
    clipped = clip(x, -alphas, alphas) if signed else clip(x, torch.zeros(()), alphas)  # PACT, eq. 1
    s = alphas.max() / n
    if quant != "pact+":
        s = s.detach()
    return s * round_ste(clipped / s), n  # eq. 2


def weights(quant, bits, grid, w, step):
    """w [part][element], quantized part by part; step [part] of LSQ."""
    limit = 2 ** (bits - 1) - 1 if grid == "zero" else 2 ** bits - 1
    def nearest(v):
        return round_ste(v) if grid == "zero" else 2 * round_ste((v + limit) / 2) - limit
    if bits == 1 and quant != "lsq":  # DoReFa, eq. 7, and its straight-through estimator
        scale = w.abs().amax(1, True) if quant == "minmax" else w.abs().mean(1, True)
        return w + (torch.where(w >= 0, scale, -scale) - w).detach()
    if quant == "dorefa":  # eq. 9, the maximum held constant
        t = torch.tanh(w)
        return 2 * round_ste((t / (2 * t.abs().max().detach()) + 0.5) * limit) / limit - 1
    if quant == "minmax":
        s = w.abs().amax(1, True).detach() / limit
        return s * nearest(w / s)
    if quant in ("sawb", "sawb+"):
        c1, c2 = SAWB[bits, grid]
        alpha = (c1 * (w * w).mean(1, True).sqrt() - c2 * w.abs().mean(1, True)).detach()
        clipped = clip(w, -alpha, alpha)
        if quant == "sawb+":
            clipped = w + (clipped - w).detach()
        return alpha / limit * nearest(clipped * limit / alpha)
    s = step[:, None] / (1 if grid == "zero" else 2)  # LSQ, its appendix A
    if bits == 1:
        return torch.where(w >= 0, s, -s) + w - w.detach()
    return s * nearest(clip(w / s, torch.tensor(-float(limit)), torch.tensor(float(limit))))


def numbers(t):
    return [float(f"{v:.7g}") for v in t.flatten().tolist()]


cases = {"acts": [], "weights": []}
for quant in ("pact", "pact+", "lsq", "pact-sym", "sign"):
    for bits in (1,) if quant == "sign" else (2, 3, 4, 8):
        for alphas in ([0.6], [0.75, 0.2, 0.55, 0.1]):
            if quant in ("lsq", "sign") and len(alphas) > 1:
                continue
            x = uniform(64, 2654435761).reshape(4, 16).requires_grad_()
            alpha = torch.tensor(alphas).float().double()
            alpha = alpha.requires_grad_() if len(alphas) == 1 else alpha[:, None].requires_grad_()
            y, n = act(quant, bits, x, alpha)
            (y * uniform(64, 2246822519).reshape(4, 16)).sum().backward()
            cases["acts"].append({"quant": quant, "bits": bits, "alphas": alphas, "y": numbers(y), "dx": numbers(x.grad),
                                  "dalpha": numbers(alpha.grad)})
for quant in ("dorefa", "sawb", "sawb+", "lsq", "minmax"):
    for bits in (1, 2, 4):
        for grid in ("zero", "no_zero"):
            for scale in ("layer", "channel"):
                if grid == "zero" and (bits == 1 or quant == "dorefa") or scale == "channel" and quant == "dorefa":
                    continue
                parts = 4 if scale == "channel" else 1
                u = uniform(64, 3266489917)
                w = (u * u * u).float().double().reshape(parts, -1).requires_grad_()
                step = torch.tensor([0.5, 0.25, 0.125, 0.75][:parts]).requires_grad_()
                y = weights(quant, bits, grid, w, step)
                (y * uniform(64, 2246822519).reshape(parts, -1)).sum().backward()
                case = {"quant": quant, "bits": bits, "grid": grid, "scale": scale, "y": numbers(y), "dw": numbers(w.grad)}
                if quant == "lsq":  # without the scale of section 2.2
                    case["dsteps"] = numbers(step.grad)
                    case["steps"] = step.tolist()
                if quant in ("sawb", "sawb+") and bits > 1:
                    case["coefficients"] = SAWB[bits, grid]
                cases["weights"].append(case)
print(json.dumps(cases))
