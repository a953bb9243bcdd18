#!/usr/bin/env python3
"""Exports networks in every ONNX dialect, runs them in ONNX Runtime (of QONNX, in qonnx) and prints a row for each.

    python measure.py BITPACT IMAGES MODEL... [-- further arguments of bitpact export]

Columns: bytes of the file; images; numbers of all layers but outputs that differ, of so many, in the first 20 images; the largest difference of an output over its largest value;
predictions that differ (of masks and pictures, pixels). FORMATS=onnx-integer,onnx-qdq measures some of the formats.
"""
import json
import os
import subprocess
import sys
import tempfile

FORMATS = os.environ.get("FORMATS", "onnx-integer,onnx-qcdq,onnx-qcdq --rounded-biases,onnx-qdq,qonnx").split(",")
# qonnx runs node by node, image by image.
QONNX_IMAGES = 20


def main():
    arguments = sys.argv[1:]
    more = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    bitpact, images, *models = arguments[: len(arguments) - len(more) - bool(more)]
    print(f"{'network':24} {'format':27} {'bytes':>9} {'images':>6} {'different':>9} {'numbers':>9} {'output':>8} {'predictions':>14}")
    for model in models:
        for form in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                file, check = os.path.join(folder, "model.onnx"), os.path.join(folder, "check")
                count = str(QONNX_IMAGES) if form == "qonnx" else images
                command = [bitpact, "export", model, "--format", *form.split(), "-o", file, "--check", check, "--limit-test", count]
                subprocess.run(command + more, check=True, stdout=subprocess.DEVNULL)
                script = [sys.executable, os.path.join(check, "check.py"), file, "--json"]
                ended = subprocess.run(script, capture_output=True, text=True)
                name = os.path.basename(model.rstrip("/"))
                if not ended.stdout:
                    print(f"{name:24} {form:27} {ended.stderr.strip().splitlines()[-1]}", flush=True)
                    continue
                found = json.loads(ended.stdout)
                outputs = {row["name"] for row in found["outputs"] if "changed" in row}
                layers = [row for row in found["layers"] if row["name"] not in outputs]
                different, numbers = (sum(row[key] for row in layers) for key in ("different", "numbers"))
                main_output = found["outputs"][0]
                relative = main_output["largest"] / main_output["range"]
                changed = f"{main_output['changed']}/{main_output['predictions']}"
                size = os.path.getsize(file)
                print(f"{name:24} {form:27} {size:9} {found['images']:6} {different:9} {numbers:9} {relative:8.1e} {changed:>14}", flush=True)


if __name__ == "__main__":
    main()
