#!/usr/bin/env python3
"""Training speed and peak memory of PyTorch and of bitpact, turn by turn in one run.

    pip install torch numpy
    python train_speed.py --bits 4 --ours "COMMAND" --output report.json

PyTorch trains ResNet-20 (16/32/64 channels, option-A shortcuts, 32x32 images) in eager float32, channels-last, the fastest layout
it has here, with a hand-written PACT (arXiv 1805.06085, eq. 1-3) and DoReFa weights; first convolution and last layer in float;
--bits 32 has neither. A step is forward, backward and SGD with momentum on one resident batch; nothing is loaded or augmented.

COMMAND is run by the shell and prints one JSON object with the key `images_per_s`. It should train the same network at the same
widths, batch size and number of threads. Each round runs PyTorch, then COMMAND, each in a fresh process. The first pair warms
the machine up and is dropped. Without --ours only PyTorch is measured.
"""
import argparse
import json
import math
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time

WARM_UP_STEPS = 3


def torch_side(bits, batch, threads, steps):
    """Runs in the child process: times `steps` training steps and prints one JSON object."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    after_import = peak_mb(resource.getrusage(resource.RUSAGE_SELF))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    q_max = 2**bits - 1

    class Clip(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, alpha):
            ctx.save_for_backward(x, alpha)
            inverse_step = q_max / alpha
            return x.clamp(min=0).minimum(alpha).mul_(inverse_step).round_().div_(inverse_step)

        @staticmethod
        def backward(ctx, grad):
            x, alpha = ctx.saved_tensors
            above = x >= alpha
            return grad * ((x >= 0) & ~above), (grad * above).sum()

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x * q_max).round_().div_(q_max)

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Pact(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip_val = nn.Parameter(torch.tensor(10.0))

        def forward(self, x):
            return Clip.apply(x, self.clip_val)

    class Dorefa(nn.Conv2d):
        def forward(self, x):
            t = self.weight.tanh()
            w = 2 * Round.apply(t / (2 * t.abs().max().detach()) + 0.5) - 1
            return self._conv_forward(x, w, None)

    quantized = bits < 32
    activation = Pact if quantized else lambda: nn.ReLU(inplace=True)

    def unit(conv, cin, cout, stride):
        return conv(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)

    class Block(nn.Module):
        def __init__(self, cin, cout):
            super().__init__()
            self.stride, self.side = cout // cin, (cout - cin) // 2
            conv = Dorefa if quantized else nn.Conv2d
            self.first = nn.Sequential(*unit(conv, cin, cout, self.stride), activation())
            self.second = nn.Sequential(*unit(conv, cout, cout, 1))
            self.act = activation()

        def forward(self, x):
            y = self.second(self.first(x))
            if self.side:
                x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side))
            return self.act(y + x)

    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    model = nn.Sequential(
        *unit(nn.Conv2d, 3, 16, 1), activation(),
        *(Block(cin, cout) for cin, cout in zip(widths, widths[1:])),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(WARM_UP_STEPS):
        step()
    begin = time.perf_counter()
    for _ in range(steps):
        loss = step()
    seconds = time.perf_counter() - begin
    if not math.isfinite(loss):
        sys.exit("PyTorch's loss is not finite")
    version = torch.__version__
    print(json.dumps({"images_per_s": steps * batch / seconds, "torch": version, "import_rss_mb": after_import}))


def peak_mb(usage):
    """ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(command, shell=False):
    """Runs a command; its JSON object, with the peak memory of its largest process in MiB."""
    with subprocess.Popen(command, shell=shell, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    shown = command if shell else "the PyTorch side"
    if process.returncode != 0:
        sys.exit(f"{shown}: exit status {process.returncode}")
    try:
        result = json.loads(out)
        result["images_per_s"] = float(result["images_per_s"])
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{shown}: expected one JSON object with a number images_per_s, got {out[:200]!r} ({error!r})")
    return result | {"peak_rss_mb": peak_mb(usage)}


def cpu_model():
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def spread(values, digits):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def line(name, s, unit=""):
    print(f"{name:20} median {s['median']:>8} {unit}  (min {s['min']}, max {s['max']})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=[2, 3, 4, 5, 8, 32], default=4, help="width of PyTorch's codes; 32: none")
    parser.add_argument("--rounds", type=int, default=5, help="pairs that count")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=16, help="timed steps of PyTorch per round")
    parser.add_argument("--ours", metavar="COMMAND", help="shell command that prints {\"images_per_s\": ...}")
    parser.add_argument("--output", type=pathlib.Path, help="where to write the report")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.rounds, args.threads, args.batch_size, args.steps) < 1:
        parser.error("--rounds, --threads, --batch-size and --steps must be at least 1")
    if args.child:
        return torch_side(args.bits, args.batch_size, args.threads, args.steps)

    child = [sys.executable, __file__, "--child", f"--bits={args.bits}", f"--threads={args.threads}"]
    child += [f"--batch-size={args.batch_size}", f"--steps={args.steps}"]
    load_before, peer, ours = round(os.getloadavg()[0], 2), [], []
    for turn in range(args.rounds + 1):
        peer.append(measure(child))
        text = f"{'warm-up' if turn == 0 else f'round {turn}'}: torch {peer[-1]['images_per_s']:.1f} images/s"
        if args.ours:
            ours.append(measure(args.ours, shell=True))
            text += f", ours {ours[-1]['images_per_s']:.1f}, ratio {ours[-1]['images_per_s'] / peer[-1]['images_per_s']:.3f}"
        print(text, flush=True)
    peer, ours = peer[1:], ours[1:]

    def summary(runs):
        rates = [run["images_per_s"] for run in runs]
        return {"images_per_s": spread(rates, 1), "peak_rss_mb": spread([run["peak_rss_mb"] for run in runs], 1),
                "rounds": [round(rate, 1) for rate in rates]}

    report = {
        "network": "resnet20, 32x32", "bits": args.bits, "batch_size": args.batch_size, "threads": args.threads,
        "torch_steps_per_round": args.steps, "cpu": cpu_model(), "cpus": os.cpu_count(), "load_before": load_before,
        "python": platform.python_version(),
        "torch": summary(peer) | {"version": peer[0]["torch"], "rss_after_import_mb": round(peer[0]["import_rss_mb"], 1)},
    }
    line(f"torch {report['torch']['version']}", report["torch"]["images_per_s"], "images/s")
    line("  peak memory", report["torch"]["peak_rss_mb"], "MiB")
    if ours:
        report["ours"] = summary(ours)
        report["ours"]["command"] = re.sub(r"(^|[\s='\"])/(?:[^\s/]+/)*", r"\1", args.ours)
        ratios = [a["images_per_s"] / b["images_per_s"] for a, b in zip(ours, peer)]
        report["ratio"] = spread(ratios, 3) | {"rounds": [round(r, 3) for r in ratios]}
        line("ours", report["ours"]["images_per_s"], "images/s")
        line("  peak memory", report["ours"]["peak_rss_mb"], "MiB")
        line("ours / torch", report["ratio"])
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
