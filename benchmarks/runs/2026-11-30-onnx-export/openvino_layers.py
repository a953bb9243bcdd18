#!/usr/bin/env python3
"""Loads a file in OpenVINO and counts the layers of its compiled graph by kind and precision.

    python openvino_layers.py MODEL.onnx
"""
import collections
import sys

import openvino


def text(value):
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def main():
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU")
    layers = collections.Counter()
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        layers[text(info["layerType"]), text(info["runtimePrecision"])] += 1
    for (kind, precision), count in sorted(layers.items()):
        print(f"{count:4} {kind} {precision}")


if __name__ == "__main__":
    main()
