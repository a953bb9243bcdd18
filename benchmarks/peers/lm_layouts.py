"""Unpacks a folder of `bitpact lm export` as its layout is published (AutoGPTQ `gptq`, AutoAWQ `gemm`) and compares every weight with the packed file.

    python3 lm_layouts.py model.safetensors EXPORTED_FOLDER

Needs numpy and safetensors. The packed file is read as docs/lm-format.md has it.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors import safe_open


def packed_weights(path):
    """Name and float32 matrix of every matrix with codes."""
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["bitpact-lm"])
        for name, grid in header["grids"].items():
            steps = file.get_tensor(f"{name}.steps").astype(np.float32)
            ternary = grid["width"] == "ternary"
            bits = 2 if ternary else int(grid["width"])
            rows = np.unpackbits(file.get_tensor(f"{name}.codes"), axis=1, bitorder="little")
            cols = rows.shape[1] // bits
            codes = rows[:, : cols * bits].reshape(len(rows), cols, bits) @ (1 << np.arange(bits))
            cols = matrix_columns(header["config"], name)
            group = cols if grid["group"] == "row" else int(grid["group"])
            zeros = np.full(steps.shape, 1 if ternary else 1 << bits - 1)
            if not grid["symmetric"]:
                zeros = file.get_tensor(f"{name}.zeros")
            spread = lambda a: np.repeat(a, group, axis=1)[:, :cols]
            yield name, spread(steps) * (codes[:, :cols].astype(np.float32) - spread(zeros.astype(np.float32)))


def matrix_columns(config, name):
    if name.endswith("down_proj"):
        return config["hidden"]
    return config["heads"] * config["head_dim"] if name.endswith("o_proj") else config["dim"]


def lanes(words, bits):
    """The 32 / bits codes of every word, lowest first, in a last axis."""
    return words.astype(np.uint32)[..., None] >> np.arange(0, 32, bits, dtype=np.uint32) & (1 << bits) - 1


def exported_weight(get, name, quantization):
    bits, group = quantization["bits"], quantization["group_size"]
    scales = get(f"{name}.scales").astype(np.float32)
    words, zeros = get(f"{name}.qweight"), lanes(get(f"{name}.qzeros"), bits)
    if quantization["quant_method"] == "gptq":
        codes = lanes(words, bits).transpose(0, 2, 1).reshape(-1, scales.shape[1])
        zeros = (zeros.reshape(scales.shape) + 1) & (1 << bits) - 1
        index = get(f"{name}.g_idx")
    else:
        order = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])
        codes = lanes(words, bits)[..., order].reshape(len(words), -1)
        zeros = zeros[..., order].reshape(scales.shape)
        index = np.arange(len(codes)) // (len(codes) if group < 0 else group)
    return (scales[index] * (codes.astype(np.float32) - zeros[index].astype(np.float32))).T


def main():
    packed, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]

    def get(name):
        with safe_open(folder / places[name], "np") as file:
            return file.get_tensor(name)

    matrices = different = 0
    for name, expected in packed_weights(packed):
        if f"{name}.qweight" in places:
            matrices += 1
            different += int((exported_weight(get, name, quantization) != expected).sum())
    print(f"{matrices} matrices, {different} weights differ")
    sys.exit(different > 0 or matrices == 0)


main()
