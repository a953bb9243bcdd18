#!/usr/bin/env python3
"""Exports networks in every ONNX dialect, runs them in ONNX Runtime (of QONNX, in qonnx) and prints a row for each.

    python measure.py BITPACT IMAGES MODEL... [-- further arguments of bitpact export]

Columns: bytes of the file; images; numbers of all layers but outputs that differ, of so many, in the first 20 images; the largest difference of an output over its largest value;
predictions that differ (of masks and pictures, pixels); where the data are CIFAR-10, top-1 of bitpact's integers and of the file. Below a row the layers whose numbers differ.
FORMATS=onnx-integer,onnx-qdq measures some of the formats, QONNX_IMAGES=20 fewer images in qonnx, which runs node by node.
"""
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

FORMATS = os.environ.get("FORMATS", "onnx-integer,onnx-qcdq,onnx-qcdq --rounded-biases,onnx-qdq,qonnx").split(",")
QONNX_IMAGES = int(os.environ.get("QONNX_IMAGES", 10**9))
BATCH = 250
# A label and three planes of 32 x 32 pixels.
CIFAR10_BYTES = 3073


def labels(more):
    """The labels of CIFAR-10's test images, where the arguments say that the data are those."""
    if "cifar10" not in more:
        return None
    batch = np.fromfile(os.path.join(more[more.index("--data") + 1], "test_batch.bin"), np.uint8)
    return batch[::CIFAR10_BYTES]


def top1(values, truth):
    flat = values.reshape(len(values), -1)
    return 100 * np.mean(flat.argmax(axis=1) == truth[: len(flat)])


def run(bitpact, model, form, images, more, numbers, truth):
    """Measures one format. `numbers` is a folder of bitpact's numbers, written by the first format of a model."""
    with tempfile.TemporaryDirectory() as folder:
        file, check, saved = (os.path.join(folder, name) for name in ("model.onnx", "check", "outputs.npz"))
        is_first = not os.listdir(numbers)
        command = [bitpact, "export", model, "--format", *form.split(), "-o", file, "--check", check, "--limit-test", images if is_first else "1"]
        subprocess.run(command + more, check=True, stdout=subprocess.DEVNULL)
        source, target = (check, numbers) if is_first else (numbers, check)
        for array in glob.glob(os.path.join(source, "*.npy")):
            shutil.copy(array, target)
        count = str(min(int(images), QONNX_IMAGES) if form == "qonnx" else images)
        script = [sys.executable, os.path.join(check, "check.py"), file, "--images", count, "--batch", str(BATCH), "--save", saved, "--json"]
        ended = subprocess.run(script, capture_output=True, text=True)
        name = os.path.basename(model.rstrip("/"))
        if not ended.stdout:
            print(f"{name:24} {form:27} {ended.stderr.strip().splitlines()[-1]}", flush=True)
            return
        found = json.loads(ended.stdout)
        outputs = {row["name"] for row in found["outputs"] if "changed" in row}
        layers = [row for row in found["layers"] if row["name"] not in outputs]
        different, total = (sum(row[key] for row in layers) for key in ("different", "numbers"))
        main_output = found["outputs"][0]
        relative = main_output["largest"] / main_output["range"]
        changed = f"{main_output['changed']}/{main_output['predictions']}"
        tops = "-", "-"
        if truth is not None:
            ours, theirs = np.load(os.path.join(numbers, "output0.npy"))[: found["images"]], np.load(saved)[main_output["name"]]
            tops = tuple(f"{top1(values, truth):.2f} %" for values in (ours, theirs))
        size = os.path.getsize(file)
        print(f"{name:24} {form:27} {size:9} {found['images']:6} {different:9} {total:9} {relative:8.1e} {changed:>14} {tops[0]:>8} {tops[1]:>8}", flush=True)
        for row in layers:
            if row["different"]:
                print(f"    {row['name']}: {row['different']} of {row['numbers']}, by {row['largest']} at most", flush=True)


def main():
    arguments = sys.argv[1:]
    more = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    bitpact, images, *models = arguments[: len(arguments) - len(more) - bool(more)]
    truth = labels(more)
    print(f"{'network':24} {'format':27} {'bytes':>9} {'images':>6} {'different':>9} {'numbers':>9} {'output':>8} {'predictions':>14} {'ours':>8} {'file':>8}")
    for model in models:
        with tempfile.TemporaryDirectory() as numbers:
            for form in FORMATS:
                run(bitpact, model, form, images, more, numbers, truth)


if __name__ == "__main__":
    main()
