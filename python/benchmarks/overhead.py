"""What a call from Python costs beside the same call of the Rust library, in one process and on one engine.

    python overhead.py [--arch resnet20] [--calls 400]

Rounds of calls from Python and of calls in Rust take turns, so that both see the same machine. Printed are medians in
microseconds, and their difference, of one 32x32 image and of a batch of 64.
"""

import argparse
import json
import statistics
import time

import numpy as np

import bitpact

ROUNDS = 20


def measure(integers, images, calls):
    python, rust = [], []
    for _ in range(ROUNDS):
        rust += integers._seconds(images, calls // ROUNDS)
        for _ in range(calls // ROUNDS):
            began = time.perf_counter()
            integers.run(images)
            python.append(time.perf_counter() - began)
    python, rust = (1e6 * statistics.median(times) for times in (python, rust))
    found = {"images": len(images), "python_us": python, "rust_us": rust}
    return {**found, "overhead_us": python - rust, "ratio": python / rust}


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
    measure(integers, x[:1], 4 * ROUNDS)
    for images, calls in ((x[:1], arguments.calls), (x, max(ROUNDS, arguments.calls // 16))):
        print(json.dumps({"arch": arguments.arch, "threads": arguments.threads, **measure(integers, images, calls)}))


if __name__ == "__main__":
    main()
