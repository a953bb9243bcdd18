#!/usr/bin/env python3
"""Builds the networks of the inference comparison in int8 for each peer, and checks what each peer makes of them.

    pip install -r requirements-inference.txt
    python build_models.py --models DIR

Every peer's own post-training quantizer is calibrated on the same eight random images. For each network DIR receives
ARCH.float.onnx, ARCH.int8.onnx (ONNX Runtime), ARCH.int8.xml and .bin (OpenVINO), ARCH.int8.tflite (TensorFlow Lite) and
ARCH.check.json: per peer, which kernels its convolutions run on this CPU and how far its logits are from those in float32.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import peers
from networks import NETWORKS, Onnx, TensorFlow, images

CALIBRATION_IMAGES = 8
CHECK_IMAGES = 16
# A wrong padding or transpose gives about 0; ResNet-50 without training 0.77.
MIN_AGREEMENT = 0.6


def float_onnx(arch, path):
    import onnx

    net = Onnx(arch)
    onnx.save(net.model(NETWORKS[arch].define(net)), path)


def onnxruntime_int8(arch, float_path, path):
    """u8 activations, s8 weights per channel, QDQ.

    Weights keep 7 bits (`reduce_range`): without VNNI the kernels use vpmaddubsw, whose 16-bit sums saturate at 8. It takes the
    same time.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(images(arch, CALIBRATION_IMAGES))

        def get_next(self):
            image = next(self.left, None)
            return None if image is None else {"image": image[None]}

    quantize_static(
        float_path, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )


def openvino_int8(arch, float_path, path):
    """NNCF's defaults for a CPU, with 7 bits in all weights for the same reason as ONNX Runtime's."""
    import nncf
    import openvino

    parameters = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    dataset = nncf.Dataset([image[None] for image in images(arch, CALIBRATION_IMAGES)])
    model = openvino.convert_model(float_path)
    model = nncf.quantize(model, dataset, subset_size=CALIBRATION_IMAGES, advanced_parameters=parameters)
    openvino.save_model(model, path, compress_to_fp16=False)


def tflite_int8(arch, _float_path, path):
    """s8 throughout, weights per channel; XNNPACK's kernels widen to 16 bits and cannot saturate."""
    import tensorflow as tf

    side = NETWORKS[arch].side

    @tf.function(input_signature=[tf.TensorSpec([1, side, side, 3], tf.float32)])
    def network(x):
        return NETWORKS[arch].define(TensorFlow(arch, x))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image.transpose(1, 2, 0)[None]] for image in images(arch, CALIBRATION_IMAGES))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    pathlib.Path(path).write_bytes(converter.convert())


BUILDERS = {"onnxruntime": onnxruntime_int8, "openvino": openvino_int8, "tflite": tflite_int8}


def agreement(logits, reference):
    """Correlation over images and classes, each class's mean over the images taken out."""
    a, b = (x - x.mean(axis=0) for x in (logits, reference))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def build(arch, folder):
    """Each file appears whole or not at all; those that exist are kept."""
    float_path = folder / f"{arch}.float.onnx"
    targets = [(float_path, lambda path: float_onnx(arch, path))]
    for name, builder in BUILDERS.items():
        targets.append((peers.model_path(name, folder, arch), lambda path, builder=builder: builder(arch, str(float_path), path)))
    for path, make in targets:
        if path.exists():
            continue
        print(f"{path.name} ...", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            make(str(pathlib.Path(scratch) / path.name))
            made = {file.suffix: file for file in pathlib.Path(scratch).iterdir() if file.name.startswith(path.stem)}
            for suffix in sorted(made, key=lambda suffix: suffix == path.suffix):
                made[suffix].replace(path.with_suffix(suffix))


def check(arch, folder):
    import onnxruntime

    x = images(arch, CHECK_IMAGES, seed=11)
    reference = onnxruntime.InferenceSession(folder / f"{arch}.float.onnx", providers=["CPUExecutionProvider"]).run(None, {"image": x})[0]
    report = {}
    for name in BUILDERS:
        peer = peers.load(name, folder, arch, 1, CHECK_IMAGES, x)
        peer.run()
        report[name] = {"agreement_with_float32": round(agreement(peer.logits(), reference), 5)} | peer.kernels()
        print(f"{arch} {name}: {json.dumps(report[name])}", flush=True)
        if report[name]["other_convolutions"] or report[name]["agreement_with_float32"] < MIN_AGREEMENT:
            sys.exit(f"{peers.model_path(name, folder, arch)}: expected int8 convolutions only and an agreement of {MIN_AGREEMENT}")
    (folder / f"{arch}.check.json").write_text(json.dumps(report, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, required=True, metavar="DIR", help="where the models go; existing ones are kept")
    parser.add_argument("--arch", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    args.models.mkdir(parents=True, exist_ok=True)
    for arch in args.arch:
        build(arch, args.models)
        check(arch, args.models)


if __name__ == "__main__":
    sys.exit(main())
