"""Paired speed of two bitpact programs: compare.py SECONDS ROUNDS BEFORE AFTER"""
import json
import math
import statistics
import subprocess
import sys
import time

seconds, rounds, before, after = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
NETWORKS = [  # name, pixels (None: its own), batch of training
    ("resnet20", None, 64), ("resnet8", None, 64), ("preact_resnet20", None, 64), ("vgg_small", None, 32),
    ("mobilenet_v1", 64, 16), ("mobilenet_v2", 64, 16), ("resnet18", 64, 16), ("resnet50", 64, 8),
    ("alexnet", 64, 16), ("svhn_cnn", None, 32),
]


def tasks():
    for name, pixels, _ in NETWORKS:
        size = ["--image-size", str(pixels)] if pixels else []
        for bits in ["W4A4", "W2A2"] if name in ("resnet20", "resnet18") else ["W4A4"]:
            flags = ["--bits", bits, *size, "--batch", "16", "--seconds", "0.5"]
            yield f"infer {name} {bits} b16", ["bench", name, *flags]
    for name, pixels, batch in NETWORKS:
        size = ["--image-size", str(pixels)] if pixels else []
        flags = ["--arch", name, "--bits", "W4A4", *size, "--batch-size", str(batch), "--seconds", "0.8"]
        yield f"train {name} W4A4", ["bench", "--train", "cifar10-resnet20", *flags]


def median_ms(program, arguments):
    command = [program, *arguments, "--threads", "2", "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return (result["rows"][0] if "rows" in result else result)["median_ms"]


pairs = {name: [] for name, _ in tasks()}
end = time.time() + seconds
for turn in range(rounds):
    for name, arguments in tasks():
        if time.time() < end:
            order = [before, after] if turn % 2 == 0 else [after, before]
            ms = {program: median_ms(program, arguments) for program in order}
            pairs[name].append((ms[before], ms[after]))

ratios = {}
for name, taken in pairs.items():
    if not taken:
        continue
    ratio = statistics.median(b / a for a, b in taken)
    ratios.setdefault(name.split()[0], []).append(ratio)
    a, b = (statistics.median(column) for column in zip(*taken))
    print(f"{name:32s} before {a:9.3f} ms  after {b:9.3f} ms  after/before {ratio:.3f}  pairs {len(taken)}")
for kind, values in ratios.items():
    print(kind, "geometric mean after/before", round(math.exp(sum(map(math.log, values)) / len(values)), 4))
