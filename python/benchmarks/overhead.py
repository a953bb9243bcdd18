"""What a call from Python costs beside the same call of the Rust library, in one process and on one engine.

    python overhead.py [--arch resnet20] [--calls 400] [--threads 1]

A call in Rust and one from Python take turns, so that both see the same machine, whatever else runs on it. Printed are, of
one 32x32 image and of a batch of 64, the median and the least time of each in microseconds, their differences, and the
median of the differences of neighbours.
"""

import argparse
import json
import statistics
import time

import numpy as np

import bitpact


def measure(integers, images, calls):
    python, rust = [], []
    for _ in range(calls):
        rust += integers._seconds(images, 1)
        began = time.perf_counter()
        integers.run(images)
        python.append(time.perf_counter() - began)
    pairs = [1e6 * (a - b) for a, b in zip(python, rust)]
    found = {"images": len(images), "calls": calls}
    for name, of in (("median", statistics.median), ("least", min)):
        a, b = 1e6 * of(python), 1e6 * of(rust)
        found |= {f"{name}_python_us": a, f"{name}_rust_us": b, f"{name}_overhead_us": a - b, f"{name}_ratio": a / b}
    return {name: round(value, 4) for name, value in {**found, "median_of_pairs_us": statistics.median(pairs)}.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    x, y = random.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), np.arange(64) % 10
    recipe = {"dataset": "folder", "arch": arguments.arch, "epochs": 1, "batch_size": 32, "bits": "W4A4"}
    run = bitpact.train(recipe, (x, y), (x, y))
    integers = bitpact.IntegerModel.from_bytes(run.integers.to_bytes(), threads=arguments.threads)
    measure(integers, x[:1], 50)
    for images, calls in ((x[:1], arguments.calls), (x, max(20, arguments.calls // 8))):
        print(json.dumps({"arch": arguments.arch, "threads": arguments.threads, **measure(integers, images, calls)}))


if __name__ == "__main__":
    main()
