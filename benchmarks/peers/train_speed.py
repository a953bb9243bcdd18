#!/usr/bin/env python3
"""Training speed and peak memory of PyTorch and of bitpact, turn by turn in one run.

    pip install torch numpy
    cargo build --release
    python train_speed.py --output report

Networks: ResNet-20 of He et al. (16/32/64 channels, option-A shortcuts) at 32x32, batch 128, and ResNet-18 (torchvision's layout, projection
shortcuts) at 64x64, batch 32, ten classes. PyTorch trains them eager and channels-last, the fastest layout it has here, with a hand-written
PACT (arXiv 1805.06085, eq. 1-3) and DoReFa weights, first convolution and last layer in float, in float32 and with bfloat16
autocast; `--bits 32` has no quantizers. A step is forward, backward and SGD with momentum on one resident batch; nothing is loaded
or augmented. Ours is `bitpact bench --train` with the same network, widths, batch and threads; it augments its batch anew in every step.

Each round runs every engine once, each in a process of its own. The first round warms the machine up and is dropped. Writes
OUTPUT.json and OUTPUT.md after every network.
"""
import argparse
import json
import math
import os
import pathlib
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time

WARM_UP_STEPS = 3
LEAST_STEPS = 5
NETWORKS = {"resnet20": (32, 128), "resnet18": (64, 32)}
PEERS = {"torch-fp32": "PyTorch float32", "torch-bf16": "PyTorch bfloat16 autocast"}
MODES = {
    "fp32": "--precision fp32",
    "bf16": "--precision bf16",
    "gradient8": "--gradient-bits 8",
}
OURS = (
    "target/release/bitpact bench --train cifar10-resnet20-torch --arch {arch} --image-size {size} --batch-size {batch} "
    "--bits {bits} --threads {threads} --seconds {seconds} --json {mode}"
)


def torch_network(arch, bits):
    """ResNet-20 or ResNet-18 with PACT activations and DoReFa weights, or plain where `bits` is 32."""
    import torch
    import torch.nn.functional as F
    from torch import nn

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

    conv = Dorefa if bits < 32 else nn.Conv2d
    activation = Pact if bits < 32 else lambda: nn.ReLU(inplace=True)

    def unit(kind, cin, cout, kernel, stride):
        return kind(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)

    class Block(nn.Module):
        def __init__(self, cin, cout, stride, project):
            super().__init__()
            self.stride, self.side = stride, (cout - cin) // 2
            self.first = nn.Sequential(*unit(conv, cin, cout, 3, stride), activation())
            self.second = nn.Sequential(*unit(conv, cout, cout, 3, 1))
            self.shortcut = nn.Sequential(*unit(conv, cin, cout, 1, stride)) if project and self.side else None
            self.act = activation()

        def forward(self, x):
            y = self.second(self.first(x))
            if self.shortcut is not None:
                x = self.shortcut(x)
            elif self.side:
                x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side))
            return self.act(y + x)

    if arch == "resnet20":
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        stem = [*unit(nn.Conv2d, 3, 16, 3, 1), activation()]
    else:
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        stem = [*unit(nn.Conv2d, 3, 64, 7, 2), activation(), nn.MaxPool2d(3, 2, 1)]
    blocks = [Block(cin, cout, cout // cin, arch == "resnet18") for cin, cout in zip(widths, widths[1:])]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)]
    return nn.Sequential(*stem, *blocks, *tail).to(memory_format=torch.channels_last)


def torch_side(args):
    """Runs in the child process: times training steps for some seconds and prints one JSON object."""
    import torch
    import torch.nn.functional as F

    after_import = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    [arch], bf16 = args.arch, args.child == "torch-bf16"
    size, batch = NETWORKS[arch]
    model = torch_network(arch, args.bits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 / 64, momentum=0.9, weight_decay=2e-4)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(WARM_UP_STEPS):
        step()
    times, began = [], time.perf_counter()
    while len(times) < LEAST_STEPS or time.perf_counter() - began < args.seconds:
        begin = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - begin)
    if not math.isfinite(loss):
        sys.exit("PyTorch's loss is not finite")
    rate = batch / statistics.median(times)
    print(json.dumps({"images_per_s": rate, "version": torch.__version__, "import_bytes": after_import}))


def peak_bytes(usage):
    """ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(command):
    """Runs a command; its JSON object, with the peak memory of its process."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    shown = shlex.join(command)
    if process.returncode != 0:
        sys.exit(f"{shown}: exit status {process.returncode}")
    try:
        result = json.loads(out)
        result["images_per_s"] = float(result["images_per_s"])
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{shown}: expected one JSON object with a number images_per_s, got {out[:200]!r} ({error!r})")
    return result | {"peak_bytes": peak_bytes(usage)}


def command(args, engine, arch):
    if engine in PEERS:
        child = [sys.executable, __file__, "--child", engine, "--arch", arch, "--bits", str(args.bits)]
        return [*child, "--threads", str(args.threads), "--seconds", str(args.seconds)]
    size, batch = NETWORKS[arch]
    bits = "float" if args.bits == 32 else f"W{args.bits}A{args.bits}"
    values = {"arch": arch, "size": size, "batch": batch, "bits": bits, "threads": args.threads, "seconds": args.seconds}
    return shlex.split(args.ours.format(mode=MODES[engine], **values))


def spread(values, digits):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def network_row(args, arch):
    """One network: every engine in every round."""
    engines = [*args.peers, *args.modes]
    runs = {engine: [] for engine in engines}
    load_before = round(os.getloadavg()[0], 2)
    for turn in range(args.rounds + 1):
        for engine in engines:
            result = measure(command(args, engine, arch))
            print(f"{arch} {'warm-up' if turn == 0 else f'round {turn}'} {engine}: {result['images_per_s']:.1f} images/s", flush=True)
            if turn > 0:
                runs[engine].append(result)
    row = {"arch": arch, "image_size": NETWORKS[arch][0], "batch_size": NETWORKS[arch][1], "load_before": load_before, "engines": {}}
    for engine, results in runs.items():
        rates = [result["images_per_s"] for result in results]
        summary = {"images_per_s": spread(rates, 1), "rounds": [round(rate, 1) for rate in rates]}
        summary["peak_bytes"] = max(result["peak_bytes"] for result in results)
        for key in ("version", "import_bytes", "isa", "busy"):
            if key in results[0]:
                summary[key] = results[0][key]
        for peer in args.peers:
            ratios = [ours["images_per_s"] / theirs["images_per_s"] for ours, theirs in zip(results, runs[peer])]
            summary.setdefault("times", {})[peer] = spread(ratios, 3)
        row["engines"][engine] = summary
    return row


def table(report, peers):
    titles = PEERS | {mode: f"bitpact, {flags.removeprefix('--').replace('-', ' ')}" for mode, flags in MODES.items()}
    head = [f"times {PEERS[peer]} (min-max)" for peer in peers]
    columns = ["network", "engine", "images/s (min-max)", *head, "peak MB", "above import"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in report["networks"]:
        network = f"{row['arch']}, {row['image_size']}x{row['image_size']}, batch {row['batch_size']}"
        for name, engine in row["engines"].items():
            rate, peak = engine["images_per_s"], engine["peak_bytes"]
            ratios = [engine["times"][peer] for peer in peers]
            cells = [network, titles[name], f"{rate['median']:.0f} ({rate['min']:.0f}-{rate['max']:.0f})"]
            cells += [f"**{r['median']:.2f}** ({r['min']:.2f}-{r['max']:.2f})" if name in MODES else f"{r['median']:.2f}" for r in ratios]
            cells += [f"{peak / 1e6:.0f}", f"{(peak - engine['import_bytes']) / 1e6:.0f}" if "import_bytes" in engine else "–"]
            lines.append(f"| {' | '.join(cells)} |")
    loads = max(row["load_before"] for row in report["networks"])
    versions = {engine["version"] for row in report["networks"] for engine in row["engines"].values() if "version" in engine}
    head = (f"{report['cpu']}, {report['threads']} threads, {report['bits']} bits; PyTorch {', '.join(versions) or 'not measured'}. "
            f"Medians of {report['rounds']} rounds; highest load average before a network {loads}. Peak memory is each process's.")
    return f"{head}\n\n" + "\n".join(lines) + "\n"


def cpu_model():
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bits", type=int, choices=[2, 3, 4, 5, 8, 32], default=4, help="width of the codes; 32: no quantizers")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES), help="of ours")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="timed seconds of every engine per round, five steps at least")
    parser.add_argument("--ours", default=OURS, metavar="COMMAND", help=f"default: {OURS}")
    parser.add_argument("--output", type=pathlib.Path, metavar="STEM", help="for STEM.json and STEM.md")
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.rounds, args.threads) < 1 or args.seconds < 0:
        parser.error("--rounds and --threads must be at least 1, --seconds at least 0")
    if args.child:
        return torch_side(args)
    report = {
        "cpu": cpu_model(), "cpus": os.cpu_count(), "python": platform.python_version(), "bits": args.bits, "threads": args.threads,
        "seconds": args.seconds, "rounds": args.rounds, "ours": re.sub(r"(^|[\s='\"])/(?:[^\s/]+/)*", r"\1", args.ours), "networks": [],
    }
    for arch in args.arch:
        report["networks"].append(network_row(args, arch))
        text = table(report, args.peers)
        if args.output:
            args.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
            args.output.with_suffix(".md").write_text(text)
    print(f"\n{text}", end="")


if __name__ == "__main__":
    main()
