"""Networks that PyTorch exports to ONNX, imported: a table of what works.

    python benchmarks/onnx_zoo.py --forward target/debug/examples/onnx_forward --bitpact target/release/bitpact \
        --work DIR > table.md

Every network has random weights, batch norms with random statistics, and a reduced input where the network allows one. It is exported by
both of PyTorch's exporters, imported, and computed in plain loops (the example `onnx_forward` of crates/bitpact-interop) on random images;
the table gives the largest difference from ONNX Runtime, relative to the largest output. With `--bitpact`, the command also imports it, trains
one step at W8A8 on drawn pictures, converts it and verifies the integers on two of them. Needs torch, torchvision, timm, onnx, onnxscript,
onnxruntime and pillow.
"""

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime
import torch
from PIL import Image

SIDES = {"densenet121": 32, "alexnet": 224, "vgg11": 224, "vgg11_bn": 224}
TORCHVISION = [
    "resnet18", "mobilenet_v2", "vgg11", "vgg11_bn", "alexnet", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121",
    "googlenet", "regnet_y_400mf", "mnasnet0_5", "efficientnet_b0", "mobilenet_v3_small",
]
TIMM = ["resnet10t", "mobilenetv3_small_050"]


def network(name):
    torch.manual_seed(1)
    if name in TORCHVISION:
        import torchvision

        more = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(weights=None, num_classes=10, **more)
    else:
        import timm

        model = timm.create_model(name, pretrained=False, num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def export(model, side, path, new):
    image = torch.zeros(1, 3, side, side)
    names = {"input_names": ["input"], "output_names": ["logits"]}
    if new:
        torch.onnx.export(model, (image,), path, dynamo=True, external_data=False, verbose=False, **names)
    else:
        axes = {"dynamic_axes": {"input": {0: "N"}, "logits": {0: "N"}}}
        torch.onnx.export(model, (image,), path, dynamo=False, opset_version=17, **names, **axes)


def run(command, timeout=1800):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def difference(forward, path, side, work):
    """Largest difference from ONNX Runtime relative to the largest output, or what the import says."""
    images = np.random.default_rng(1).normal(size=(2, 3, side, side)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: image[None]})[0] for image in images])
    source, target = work / "images.bin", work / "outputs.bin"
    images.transpose(0, 2, 3, 1).tofile(source)
    code, _, error = run([forward, path, source, target, f"{side}x{side}x3"])
    if code:
        return None, error.strip()
    got = np.fromfile(target, np.float32).reshape(expected.shape)
    if "Softmax at the end" in error:
        got = np.exp(got - got.max(1, keepdims=True))
        got /= got.sum(1, keepdims=True)
    return float(np.abs(got - expected).max() / np.abs(expected).max()), error.strip()


def pictures(side, work):
    """A folder of drawn pictures, one a class and half."""
    folder = work / f"pictures-{side}"
    random = np.random.default_rng(1)
    for half in ["train", "val"]:
        for label in range(10):
            path = folder / half / f"class{label}" / "0.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return folder


def integers(bitpact, path, side, work):
    """Whether the command imports, trains a step, converts and verifies the network."""
    model, folder, data = work / "model.safetensors", work / "run", pictures(side, work)
    code, out, error = run([bitpact, "import", path, "--input", "imagenet", "--input-shape", f"{side}x{side}x3", "-o", model, "--json"])
    if code:
        return "no", "", "", error.strip().replace("\n", " ")
    notes = json.loads(out).get("notes", [])
    integer = next((note for note in notes if "no integer form" in note), "yes")
    run(["rm", "-rf", folder])
    train = [bitpact, "train", "--init-from", model, "--dataset", "folder", "--data", data, "--crop", side, "--bits", "W8A8",
             "--epochs", "1", "--batch-size", "8", "--output", folder]
    code, _, error = run(train)
    if code:
        return "yes", integer, "no", error.strip().replace("\n", " ")
    verify = [bitpact, "verify", folder, "--data", data, "--limit-test", "2"]
    code, _, error = run(verify)
    return "yes", integer, "yes", "yes" if code == 0 else error.strip().replace("\n", " ")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forward", required=True)
    parser.add_argument("--bitpact")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"Random weights; {versions}. `difference` is the largest from ONNX Runtime over the largest output.\n")
    print("| network | exporter | side | difference | imports | integer form | trains a step | verified |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.names or TORCHVISION + TIMM:
        side = SIDES.get(name, 64)
        for new in [False, True]:
            exporter, path = ("dynamo" if new else "TorchScript"), args.work / f"{name}-{int(new)}.onnx"
            try:
                if not path.exists():
                    with open(os.devnull, "w") as nowhere:
                        stdout, sys.stdout = sys.stdout, nowhere
                        try:
                            export(network(name), side, path, new)
                        finally:
                            sys.stdout = stdout
                relative, said = difference(args.forward, path, side, args.work)
            except Exception as error:  # what an exporter cannot do is a row of the table
                relative, said = None, f"{type(error).__name__}: {error}"
            row = [name, exporter, side, "-" if relative is None else f"{relative:.1e}"]
            if relative is None:
                row += [said.replace("\n", " ")[:300], "", "", ""]
            elif args.bitpact:
                row += integers(args.bitpact, path, side, args.work)
            else:
                row += ["yes", "no" if "no integer form" in said else "yes", "", ""]
            print("| " + " | ".join(str(part) for part in row) + " |", flush=True)


if __name__ == "__main__":
    main()
