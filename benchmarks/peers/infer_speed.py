#!/usr/bin/env python3
"""Inference speed, memory and model size of bitpact and of three int8 peers, turn by turn on the same cores.

    python build_models.py --models DIR
    python infer_speed.py --models DIR --output report

writes report.json and report.md. Each round of each row (network, threads, batch) runs every peer once, then ours once at every
width, each in a fresh process on the same CPUs; the first round warms the machine up and is dropped. `--ours` is a shell command
in which {arch}, {bits}, {threads}, {batch} and {isa} are filled in. It prints one JSON object whose array `rows` has an object with
`threads`, `batch`, `median_ms`, `images_per_s` and `resident_bytes`; `file_bytes`, in the row or beside `rows`, is reported if present.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

from networks import NETWORKS
from peers import HOLDS, PEERS, TITLES, model_path

OURS = "target/release/bitpact bench {arch} --bits {bits} --threads {threads} --batch {batch} --isa {isa} --json"
WIDTHS = ["W8A8", "W4A4", "W3A3", "W2A2", "W1A2"]
ISA_FLAGS = ["avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_vbmi", "avx512_vpopcntdq", "amx_int8", "asimddp", "i8mm"]


def run_json(command, shown):
    """The one JSON object that a command prints on stdout."""
    done = subprocess.run(command, shell=isinstance(command, str), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{shown}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        sys.exit(f"{shown}: expected one JSON object on stdout, got {done.stdout[:200]!r} ({error})")
    return result


def run_peer(name, args, arch, threads, batch):
    command = [sys.executable, str(pathlib.Path(__file__).with_name("peers.py")), name, f"--models={args.models}", f"--arch={arch}"]
    row = [f"--threads={threads}", f"--batch={batch}", f"--seconds={args.seconds}", f"--isa={args.isa}"]
    return run_json(command + row, f"{name} {arch}")


def run_ours(args, arch, threads, batch, bits):
    command = args.ours
    isa = "auto" if args.isa == "default" else args.isa
    for key, value in {"arch": arch, "bits": bits, "threads": threads, "batch": batch, "isa": isa}.items():
        command = command.replace(f"{{{key}}}", str(value))
    result = run_json(command, command)
    try:
        row = next(row for row in result["rows"] if row["threads"] == threads and row["batch"] == batch)
        numbers = {key: float(row[key]) for key in ("median_ms", "images_per_s", "resident_bytes")}
    except StopIteration:
        sys.exit(f"{command}: no row with threads {threads} and batch {batch}")
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"{command}: expected an array rows of threads, batch, median_ms, images_per_s, resident_bytes ({error!r})")
    return numbers | {"file_bytes": row.get("file_bytes", result.get("file_bytes"))}


def spread(values, digits):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def summary(runs):
    result = {"median_ms": spread([run["median_ms"] for run in runs], 4), "images_per_s": spread([run["images_per_s"] for run in runs], 1)}
    for key in ("resident_bytes", "resident_bytes_before", "file_bytes", "load_and_first_run_ms"):
        values = [run[key] for run in runs if run.get(key) is not None]
        if values:
            result[key] = round(statistics.median(values))
    return result | {"rounds_ms": [round(run["median_ms"], 4) for run in runs]}


def measure_row(args, arch, threads, batch):
    cpus = args.cpus[:threads]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    load = round(os.getloadavg()[0], 2)
    runs = {name: [] for name in [*args.peers, *args.bits]}
    for turn in range(args.rounds + 1):
        for name in runs:
            run = run_peer(name, args, arch, threads, batch) if name in PEERS else run_ours(args, arch, threads, batch, name)
            runs[name].append(run)
        text = ", ".join(f"{name} {run[-1]['median_ms']:.3f}" for name, run in runs.items())
        print(f"{arch} threads {threads} batch {batch} {f'round {turn}' if turn else 'warm-up'} (ms): {text}", flush=True)
    versions = {name: runs[name][0]["version"] for name in args.peers}
    amx = {name: runs[name][0]["may_use_amx"] for name in args.peers}
    runs = {name: run[1:] for name, run in runs.items()}
    row = {"arch": arch, "threads": threads, "batch": batch, "cpus": cpus, "load_before": load,
           "may_use_amx": amx, "engines": {name: summary(run) for name, run in runs.items()}}
    if args.peers:
        row["fastest_peer"] = min(args.peers, key=lambda name: row["engines"][name]["median_ms"]["median"])
        for bits in args.bits:
            ratios = [peer["median_ms"] / ours["median_ms"] for peer, ours in zip(runs[row["fastest_peer"]], runs[bits])]
            row["engines"][bits]["speedup"] = spread(ratios, 3) | {"rounds": [round(ratio, 3) for ratio in ratios]}
    return row, versions


def table(report):
    def mb(value):
        return "–" if value is None else f"{value / 1e6:.3g}" if value < 1e8 else f"{value / 1e6:.0f}"

    lines = ["| network | threads | batch | engine | ms (min-max) | images/s | times the fastest peer (min-max) | resident MB | file MB |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in report["rows"]:
        for name, engine in row["engines"].items():
            ms, rate, ratio = engine["median_ms"], engine["images_per_s"]["median"], engine.get("speedup")
            digits = 3 if ms["median"] < 10 else 1
            if name in PEERS:
                title, against = f"{TITLES[name]} int8", "**fastest peer**" if name == row["fastest_peer"] else ""
                resident = f"{mb(engine['resident_bytes'])} ({mb(engine['resident_bytes'] - engine['resident_bytes_before'])})"
            else:
                title, resident = f"bitpact {name}", mb(engine["resident_bytes"])
                against = f"**{ratio['median']:.2f}** ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else ""
            times = "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(ms["median"], ms["min"], ms["max"], d=digits)
            cells = [row["arch"], row["threads"], row["batch"], title, times, f"{rate:.{0 if rate >= 100 else 1}f}", against, resident]
            lines.append(f"| {' | '.join(map(str, cells))} | {mb(engine.get('file_bytes'))} |")
    versions = ", ".join(f"{TITLES[name]} {version}" for name, version in report["versions"].items())
    loads = max((row["load_before"] for row in report["rows"]), default=0)
    flags = ", ".join(report["cpu_flags"])
    held = "" if report["isa"] == "default" else f" Every engine held to {report['isa']}."
    head = (f"{report['cpu']} ({flags}), CPUs {report['cpus']}; {versions}.{held} {report['rounds']} rounds; highest load average "
            f"before a row {loads}. Resident memory is the process's after the timed runs; in brackets what it is above Python "
            "and NumPy.")
    return f"{head}\n\n" + "\n".join(lines) + "\n"


def write(path, text):
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text)
    scratch.replace(path)


def cpu():
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.M)
    present = flags[1].split() if flags else []
    return model[1].strip() if model else platform.processor() or platform.machine(), [flag for flag in ISA_FLAGS if flag in present]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, required=True, metavar="DIR", help="what build_models.py wrote")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="STEM", help="for STEM.json and STEM.md")
    parser.add_argument("--ours", default=OURS, metavar="COMMAND", help=f"default: {OURS}")
    parser.add_argument("--bits", nargs="*", default=WIDTHS, metavar="WnAm", help="widths of ours; none: only the peers are measured")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--isa", choices=HOLDS, default="default",
                        help="instruction set that every engine is held to; peers that cannot be are left out (default: none)")
    parser.add_argument("--arch", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--rounds", type=int, help="rounds that count (default: 5)")
    parser.add_argument("--seconds", type=float, help="timed seconds of a peer per round, three runs at least (default: 1.5)")
    parser.add_argument("--quick", action="store_true", help="two rounds of half a second, unless said otherwise")
    parser.add_argument("--cpus", help="comma-separated; a row with N threads is confined to the first N (default: all allowed)")
    args = parser.parse_args()
    args.peers = [name for name in args.peers if HOLDS[args.isa][name] is not None]
    rounds, seconds = (2, 0.5) if args.quick else (5, 1.5)
    args.rounds = rounds if args.rounds is None else args.rounds
    args.seconds = seconds if args.seconds is None else args.seconds
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
    try:
        args.cpus = [int(c) for c in args.cpus.split(",")] if args.cpus else allowed
    except ValueError:
        parser.error(f"--cpus: expected numbers separated by commas, got {args.cpus!r}")
    if min([args.rounds, *args.threads, *args.batch]) < 1 or args.seconds <= 0:
        parser.error("--rounds, --threads, --batch and --seconds must be positive")
    if max(args.threads) > len(args.cpus) or not set(args.cpus) <= set(allowed):
        parser.error(f"{max(args.threads)} threads need as many of the CPUs {allowed}; --cpus names {args.cpus}")
    if not args.peers and not args.bits:
        parser.error("nothing to measure: --peers and --bits are both empty")
    for arch in args.arch:
        for name in args.peers:
            path = model_path(name, args.models, arch)
            if not path.exists():
                parser.error(f"{path} does not exist; run build_models.py --models {args.models} first")

    model, flags = cpu()
    checks = {arch: args.models / f"{arch}.check.json" for arch in args.arch}
    report = {
        "cpu": model, "cpu_flags": flags, "cpus": args.cpus, "python": platform.python_version(), "rounds": args.rounds,
        "seconds": args.seconds, "isa": args.isa, "ours": re.sub(r"(^|[\s='\"])/(?:[^\s/]+/)*", r"\1", args.ours), "begun": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {}, "kernels": {arch: json.loads(path.read_text()) for arch, path in checks.items() if path.exists()}, "rows": [],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for arch in args.arch:
        for threads in args.threads:
            for batch in args.batch:
                row, versions = measure_row(args, arch, threads, batch)
                report["rows"].append(row)
                report["versions"] |= versions
                write(args.output.with_name(args.output.name + ".json"), json.dumps(report, indent=1) + "\n")
                write(args.output.with_name(args.output.name + ".md"), table(report))
    print(table(report))


if __name__ == "__main__":
    main()
