"""The peers of the inference comparison: how each is loaded, run and looked into.

    python peers.py ENGINE --models DIR --arch ARCH --threads N --batch N [--seconds S] [--isa ISA]

times one engine in this process and prints one JSON object.
"""
import argparse
import ctypes
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections import Counter

import numpy as np
from networks import NETWORKS, images

MIN_RUNS, MAX_RUNS = 3, 100_000


class OnnxRuntime:
    suffix = "onnx"

    def __init__(self, path, threads, x, optimized_path=None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_free_dimension_override_by_name("batch", len(x))
        if optimized_path:
            options.optimized_model_filepath, options.log_severity_level = optimized_path, 3
        self.path, self.version = path, onnxruntime.__version__
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        output = self.session.get_outputs()[0]
        self.output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        self.binding.bind_ortvalue_output(output.name, self.output)

    def run(self):
        self.session.run_with_iobinding(self.binding)

    def logits(self):
        return self.output.numpy()

    def kernels(self):
        """The operations of the graph after optimization. QLinearConv is the int8 convolution of MLAS."""
        import onnx

        with tempfile.TemporaryDirectory() as scratch:
            path = str(pathlib.Path(scratch) / "optimized.onnx")
            OnnxRuntime(self.path, 1, np.zeros(self.session.get_inputs()[0].shape, np.float32), path)
            ops = Counter(node.op_type for node in onnx.load(path).graph.node)
        return {"int8_convolutions": ops["QLinearConv"], "other_convolutions": ops["Conv"] + ops["FusedConv"], "operations": ops}


class OpenVino:
    suffix = "xml"

    def __init__(self, path, threads, x):
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({0: list(x.shape)})
        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        self.version = openvino.__version__.split("-")[0]
        self.compiled = core.compile_model(model, "CPU", settings)
        self.request = self.compiled.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(x))

    def run(self):
        # On the calling thread; start_async() and wait() would hand over to another one and back.
        self.request.infer(share_outputs=True)

    def logits(self):
        return self.request.get_output_tensor().data.copy()

    def kernels(self):
        """oneDNN's primitive and the precision of each convolution of the compiled graph."""
        keys = ("layerType", "primitiveType", "runtimePrecision")
        ops = [op.get_rt_info() for op in self.compiled.get_runtime_model().get_ordered_ops()]
        info = [{key: op[key].astype(str) for key in keys} for op in ops]
        found = [i for i in info if i["layerType"] == "Convolution"]
        int8 = sum(i["runtimePrecision"] in ("u8", "i8") for i in found)
        shown = [i for i in info if i["layerType"] not in ("Const", "Input", "Output")]
        return {"int8_convolutions": int8, "other_convolutions": len(found) - int8,
                "operations": Counter(f"{i['layerType']} {i['primitiveType']}" for i in shown)}


class TfLite:
    suffix = "tflite"

    def __init__(self, path, threads, x):
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        self.version = ai_edge_litert.__version__
        self.interpreter = Interpreter(path, num_threads=threads)
        self.input, self.output = self.interpreter.get_input_details()[0], self.interpreter.get_output_details()[0]
        if len(x) != self.input["shape"][0]:
            self.interpreter.resize_tensor_input(self.input["index"], [len(x), *self.input["shape"][1:]])
        self.interpreter.allocate_tensors()
        scale, zero = self.input["quantization"]
        codes = np.clip(np.rint(x.transpose(0, 2, 3, 1) / scale + zero), -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.input["index"], codes)

    def run(self):
        self.interpreter.invoke()

    def logits(self):
        scale, zero = self.output["quantization"]
        return (self.interpreter.get_tensor(self.output["index"]).astype(np.float32) - zero) * scale

    def kernels(self):
        """The operations of the graph. One DELEGATE beside them: XNNPACK took over all of them."""
        details = self.interpreter._get_ops_details()
        kinds = {t["index"]: t["dtype"] for t in self.interpreter.get_tensor_details()}
        convolutions = [op for op in details if op["op_name"] == "CONV_2D"]
        int8 = sum(all(kinds.get(op[side][0]) == np.int8 for side in ("inputs", "outputs")) for op in convolutions)
        return {"int8_convolutions": int8, "other_convolutions": len(convolutions) - int8,
                "operations": Counter(op["op_name"] for op in details)}


ARCH_PRCTL, GET_XCOMP_PERM, XTILEDATA = 158, 0x1022, 18  # Linux on x86-64: Documentation/arch/x86/xstate.rst.

# How each peer is held to an instruction set, None where it cannot be: the value of ONEDNN_MAX_CPU_ISA for OpenVINO; for the others
# that this process may not use AMX, without which both run AVX-512 VNNI here.
HOLDS = {
    "default": {"onnxruntime": "", "openvino": "", "tflite": ""},
    "avx512": {"onnxruntime": "no AMX", "openvino": "AVX512_CORE_VNNI", "tflite": "no AMX"},
    "avxvnni": {"onnxruntime": None, "openvino": "AVX2_VNNI", "tflite": None},
    "avx2": {"onnxruntime": None, "openvino": "AVX2", "tflite": None},
}


def may_use_amx():
    """Whether this process has asked for AMX's tiles and been given them; None where that cannot be known."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return None
    mask = ctypes.c_uint64()
    if ctypes.CDLL(None).syscall(ARCH_PRCTL, GET_XCOMP_PERM, ctypes.byref(mask)) != 0:
        return None
    return bool(mask.value >> XTILEDATA & 1)


def forbid_amx():
    """Linux gives AMX to no process that has a signal stack too small for its registers: 8 KB is less than the tiles take, and more
    than AVX-512 needs. The stack must stay."""

    class Stack(ctypes.Structure):
        _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    memory = ctypes.create_string_buffer(8192)
    stack = Stack(ctypes.cast(memory, ctypes.c_void_p), 0, len(memory))
    if ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) != 0:
        sys.exit("cannot set a signal stack, without which this process cannot be kept from AMX")
    return memory


def hold(name, isa):
    """Holds this process, which has not loaded the peer yet, to an instruction set; what it returns must live as long."""
    how = HOLDS[isa][name]
    if how is None:
        sys.exit(f"{name} cannot be held to {isa}")
    if how == "no AMX":
        return forbid_amx()
    if how:
        os.environ["ONEDNN_MAX_CPU_ISA"] = how
    return None


PEERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "tflite": TfLite}
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "TensorFlow Lite (LiteRT)"}


def model_path(name, folder, arch):
    return pathlib.Path(folder) / f"{arch}.int8.{PEERS[name].suffix}"


def model_bytes(name, folder, arch):
    path = model_path(name, folder, arch)
    weights = [path.with_suffix(".bin")] if name == "openvino" else []
    return sum(file.stat().st_size for file in [path, *weights])


def load(name, folder, arch, threads, batch, x):
    return PEERS[name](str(model_path(name, folder, arch)), threads, x)


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name, folder, arch, threads, batch, seconds):
    before = resident_bytes()
    x = images(arch, batch)
    begin = time.perf_counter()
    peer = load(name, folder, arch, threads, batch, x)
    peer.run()
    first = time.perf_counter() - begin
    while time.perf_counter() - begin < first + seconds / 4:
        peer.run()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_RUNS or (time.perf_counter() < end and len(times) < MAX_RUNS):
        begin = time.perf_counter()
        peer.run()
        times.append(time.perf_counter() - begin)
    if not np.isfinite(peer.logits()).all():
        sys.exit(f"{name} {arch}: logits are not finite")
    median = statistics.median(times)
    return {
        "engine": name, "version": peer.version, "threads": threads, "batch": batch, "runs": len(times),
        "median_ms": median * 1e3, "images_per_s": batch / median, "load_and_first_run_ms": first * 1e3,
        "resident_bytes": resident_bytes(), "resident_bytes_before": before, "file_bytes": model_bytes(name, folder, arch),
        "may_use_amx": may_use_amx(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=PEERS)
    parser.add_argument("--models", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--arch", choices=NETWORKS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--isa", choices=HOLDS, default="default", help="fastest instruction set the peer may use")
    args = parser.parse_args()
    held = hold(args.engine, args.isa)
    print(json.dumps(measure(args.engine, args.models, args.arch, args.threads, args.batch, args.seconds)))
    del held


if __name__ == "__main__":
    main()
