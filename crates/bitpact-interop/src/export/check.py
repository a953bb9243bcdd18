#!/usr/bin/env python3
"""Runs a network that `bitpact export --check` wrote in ONNX Runtime and compares every number with bitpact's.

    python check.py MODEL.onnx [--images N] [--batch N] [--unoptimized] [--save FILE.npz] [--json]

Needs numpy, onnx and onnxruntime; files of QONNX also qonnx. Exit status 1 where onnx.checker refuses the file, or, of the format
onnx-integer, where a number differs. Other formats compute in float32: a layer counts the numbers that are not bitpact's. Where ONNX
Runtime makes 8-bit convolutions of them it rounds biases to integers; --unoptimized runs what the file says.
"""
import argparse
import json
import os
import sys

import numpy as np
import onnx


def is_qonnx(model):
    return any(opset.domain.startswith("qonnx") for opset in model.opset_import)


def runner(model, wanted, optimized, batch):
    """A function from at most `batch` images to the values called `wanted`, by name."""
    name = model.graph.input[0].name
    if is_qonnx(model):
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        # qonnx runs graphs of known sizes: those of the file are for one image.
        del model.graph.value_info[:]
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        wrapped = ModelWrapper(model).transform(InferShapes())

        def in_full_batches(images):
            full = np.resize(images, (batch, *images.shape[1:])).astype(np.float32)
            found = execute_onnx(wrapped, {name: full}, return_full_exec_context=True)
            return {key: found[key][: len(images)] for key in wanted}

        return in_full_batches
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = with_outputs(model, wanted)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(wanted, session.run(wanted, {name: images})))


def with_outputs(model, names):
    """The model with the values `names` as its outputs."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    there = {output.name for output in model.graph.output}
    extended.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    return extended


def codes(value, entry):
    """Integers of a value: itself, or, of a real number x, x / scale + zero."""
    if value.dtype.kind in "iu":
        return value.astype(np.int64)
    return np.rint(value.astype(np.float64) / entry["scale"]).astype(np.int64) + entry["zero"]


def compare(model, optimized, images, entries, folder, batch, values_of=None):
    """One row for each entry: numbers, how many differ, the largest difference, and images whose largest channel is another.
    `values_of` gathers the file's values by name."""
    run = runner(model, [entry["name"] for entry in entries], optimized, batch)
    rows = [{"name": entry["name"], "numbers": 0, "different": 0, "largest": 0, "range": 1} for entry in entries]
    expected = [np.load(os.path.join(folder, entry["file"])) for entry in entries]
    for start in range(0, len(images), batch):
        values = run(images[start : start + batch])
        for row, entry, ours in zip(rows, entries, expected):
            ours = ours[start : start + batch].astype(np.int64)
            if values_of is not None:
                values_of.setdefault(entry["name"], []).append(values[entry["name"]])
            theirs = codes(values[entry["name"]], entry).reshape(ours.shape)
            difference = np.abs(theirs - ours)
            row["numbers"] += ours.size
            row["different"] += int(np.count_nonzero(difference))
            row["largest"] = max(row["largest"], int(difference.max(initial=0)))
            row["range"] = max(row["range"], int(np.abs(ours - entry["zero"]).max(initial=1)))
            if entry.get("kind") == "logits":
                row["predictions"] = row.get("predictions", 0) + ours[:, 0].size
                changed = int(np.count_nonzero(ours.argmax(axis=1) != theirs.argmax(axis=1)))
                row["changed"] = row.get("changed", 0) + changed
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the exported file")
    parser.add_argument("--images", type=int, help="only the first N images")
    parser.add_argument("--batch", type=int, default=50, help="images in a batch")
    parser.add_argument("--unoptimized", action="store_true", help="without the graph optimizations of ONNX Runtime")
    parser.add_argument("--save", metavar="FILE", help="write the values of the file's outputs, as a .npz archive")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    arguments = parser.parse_args()
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "check.json"), encoding="utf-8") as file:
        contents = json.load(file)
    images = np.load(os.path.join(folder, contents["input"]))[: arguments.images]
    model = onnx.load(arguments.model)
    if not is_qonnx(model):
        onnx.checker.check_model(model, full_check=True)
    optimized = not arguments.unoptimized
    layers = contents["layers"]
    traced = min(len(images), len(np.load(os.path.join(folder, layers[0]["file"]))) if layers else 0)
    values = {} if arguments.save else None
    found = {
        "format": contents["format"],
        "images": len(images),
        "outputs": compare(model, optimized, images, contents["outputs"], folder, arguments.batch, values),
        "traced": traced,
        "layers": compare(model, optimized, images[:traced], layers, folder, arguments.batch),
    }
    if values is not None:
        np.savez(arguments.save, **{name: np.concatenate(parts) for name, parts in values.items()})
    if arguments.json:
        print(json.dumps(found))
    else:
        for what, count in (("outputs", len(images)), ("layers", traced)):
            print(f"{what}, {count} images")
            for row in found[what]:
                if what == "layers" and not row["different"]:
                    continue
                relative = row["largest"] / row["range"]
                line = f"  {row['name']}: {row['different']} of {row['numbers']} differ, by {row['largest']} at most"
                line += f" ({relative:.1e} of the largest)"
                if "changed" in row:
                    line += f"; {row['changed']} of {row['predictions']} predictions are others"
                print(line)
        different = sum(row["different"] for row in found["layers"])
        numbers = sum(row["numbers"] for row in found["layers"])
        print(f"all layers: {different} of {numbers} differ")
    exact = all(row["different"] == 0 for what in ("outputs", "layers") for row in found[what])
    if contents["format"] == "onnx-integer" and not exact:
        sys.exit(1)


if __name__ == "__main__":
    main()
