#!/usr/bin/env python3
"""Latency of one network in bitpact and, as the onnx-qcdq file that bitpact exports, in ONNX Runtime and OpenVINO.

    python speed.py BITPACT MODEL.bitpact [--threads 1,2] [--rounds 15] [--seconds 1]

Each round runs every engine once, one after the other in another order, each in a process of its own on the same CPUs; the first round warms the machine up and is dropped. A run's
time is the median of its passes over one image. Ratios are those of runs of one round, so that what else the machine does touches both alike. Rows:
onnx-qcdq is the file as it is by default, rounded the one of --rounded-biases, whose convolutions runtimes compute in 8 bits all.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

LEAST_PASSES = 3


def times(run, seconds):
    """Milliseconds of passes over `seconds`, and the median of them."""
    run()
    passes, end = [], time.perf_counter() + seconds
    while len(passes) < LEAST_PASSES or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        passes.append(1e3 * (time.perf_counter() - start))
    return statistics.median(passes)


def onnxruntime_pass(path, threads):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_free_dimension_override_by_name("N", 1)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    pixels = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
    binding = session.io_binding()
    binding.bind_ortvalue_input(image.name, onnxruntime.OrtValue.ortvalue_from_numpy(pixels))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def openvino_pass(path, threads):
    import numpy as np
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, *list(model.inputs[0].get_partial_shape())[1:]])
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    sizes = [int(dim) for dim in compiled.inputs[0].shape]
    request.set_input_tensor(openvino.Tensor(np.random.default_rng(1).integers(0, 256, sizes, dtype=np.uint8)))
    return lambda: request.infer(share_outputs=True)


PEERS = {"ONNX Runtime": onnxruntime_pass, "OpenVINO": openvino_pass}


def ours(bitpact, model, threads, seconds):
    command = [bitpact, "bench", model, "--threads", str(threads), "--batch", "1", "--seconds", str(seconds), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return next(row["median_ms"] for row in found["rows"] if row["threads"] == threads)


def theirs(name, path, threads, seconds):
    command = [sys.executable, __file__, "--peer", name, path, str(threads), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(engines, threads, rounds):
    """Milliseconds of every round, by engine, and the load average before each."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    found, loads, order = {name: [] for name in engines}, [], random.Random(1)
    for turn in range(rounds + 1):
        loads.append(os.getloadavg()[0])
        for name in order.sample(list(engines), len(engines)):
            found[name].append(engines[name](threads))
        text = ", ".join(f"{name} {times[-1]:.2f}" for name, times in found.items())
        print(f"threads {threads}, {f'round {turn}' if turn else 'warm-up'}, load {loads[-1]:.1f} (ms): {text}", file=sys.stderr, flush=True)
    return {name: times[1:] for name, times in found.items()}, loads[1:]


def main():
    if sys.argv[1:2] == ["--peer"]:
        name, path, threads, seconds = sys.argv[2:]
        print(times(PEERS[name](path, int(threads)), float(seconds)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bitpact")
    parser.add_argument("model")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1)
    arguments = parser.parse_args()
    bitpact, seconds = arguments.bitpact, arguments.seconds
    all_cpus = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        engines = {"bitpact": lambda threads: ours(bitpact, arguments.model, threads, seconds)}
        for title, flags in (("onnx-qcdq", []), ("rounded", ["--rounded-biases"])):
            path = str(pathlib.Path(folder) / f"{title}.onnx")
            subprocess.run([bitpact, "export", arguments.model, *flags, "-o", path], check=True, stdout=subprocess.DEVNULL)
            for peer in PEERS:
                engines[f"{peer}, {title}"] = lambda threads, peer=peer, path=path: theirs(peer, path, threads, seconds)
        print("| threads | engine | ms: median (min-max) | times as long as bitpact: median (quartiles) |\n|---|---|---|---|")
        for threads in map(int, arguments.threads.split(",")):
            os.sched_setaffinity(0, all_cpus)
            found, loads = measure(engines, threads, arguments.rounds)
            for name, ms in found.items():
                ratios = [other / own for other, own in zip(ms, found["bitpact"])]
                low, middle, high = statistics.quantiles(ratios, n=4)
                print(f"| {threads} | {name} | {statistics.median(ms):.2f} ({min(ms):.2f}-{max(ms):.2f}) | {middle:.2f} ({low:.2f}-{high:.2f}) |")
            print(f"\nLoad average before the rounds of {threads} threads: {min(loads):.1f} to {max(loads):.1f}.\n", flush=True)


if __name__ == "__main__":
    main()
