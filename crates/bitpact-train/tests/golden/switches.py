#!/usr/bin/env python3
"""Writes switches.json: what PyTorch computes for the optimizers, gradient clipping, parameter groups and losses.

    pip install torch==2.15.0
    python switches.py                  # a second; writes the file beside this program

Updates: two tensors `a` (7 values) and `b` (3 values) in groups of their own, six steps with given gradients, in float32. The start
and the gradients are v(seed) = sin(0.9 seed + 0.3) for seeds 0, 1, 2, ...: first a, then b, then the gradients of a and b of step 1,
of step 2 and so on; gradients are doubled.
Losses: a batch of 4 images and 5 classes, in float64; logits 2 v(seed) from seed 100, the teacher's 3 v(seed) from seed 200, labels
3, 0, 4, 0. With mixup of r/256 the target of image i is r/256 of its label and the rest of image 3 - i's.
"""
import json
import math
import pathlib

import torch
import torch.nn.functional as F

STEPS = 6
CASES = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, None),
    "sgd_nesterov_clipped": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 1.5),
    "adam": (torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8}, None),
    "adam_clipped": (torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-3}, 1.5),
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8}, None),
}
GROUPS = [{"lr": 0.05, "weight_decay": 0.02}, {"lr": 0.01, "weight_decay": 0.3}]


def values(first, count, factor=1.0):
    return [factor * math.sin(0.9 * (first + i) + 0.3) for i in range(count)]


def updates():
    out = {}
    for name, (optimizer, options, most) in CASES.items():
        a = torch.tensor(values(0, 7), requires_grad=True)
        b = torch.tensor(values(7, 3), requires_grad=True)
        rule = optimizer([dict(params=[p], **g) for p, g in zip((a, b), GROUPS)], **options)
        for step in range(STEPS):
            g = values(10 * (step + 1), 10, 2.0)
            a.grad, b.grad = torch.tensor(g[:7]), torch.tensor(g[7:])
            if most is not None:
                torch.nn.utils.clip_grad_norm_([a, b], most)
            rule.step()
        out[name] = {"a": a.tolist(), "b": b.tolist()}
    return out


def losses():
    z = torch.tensor(values(100, 20, 2.0), dtype=torch.float64).reshape(4, 5)
    taught = torch.tensor(values(200, 20, 3.0), dtype=torch.float64).reshape(4, 5)
    labels = torch.tensor([3, 0, 4, 0])
    one_hot = F.one_hot(labels, 5).double()
    out = []
    for smoothing in (0.0, 0.1):
        for mixup in (256, 77):
            for temperature, weight in ((1.0, 0.0), (1.0, 1.0), (4.0, 0.7)):
                logits = z.clone().requires_grad_()
                target = one_hot * (mixup / 256) + one_hot.flip(0) * (1 - mixup / 256)
                own = F.cross_entropy(logits, target, label_smoothing=smoothing)
                t = temperature
                kd = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(taught / t, 1), reduction="batchmean") * t * t
                loss = (1 - weight) * own + weight * kd
                loss.backward()
                case = {"label_smoothing": smoothing, "mixup": mixup, "temperature": t, "weight": weight}
                out.append({**case, "loss": loss.item(), "gradient": logits.grad.flatten().tolist()})
    return out


def main():
    golden = {"torch": torch.__version__, "updates": updates(), "losses": losses()}
    path = pathlib.Path(__file__).with_name("switches.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
