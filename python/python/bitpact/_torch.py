"""Networks of PyTorch. torch is imported only to export a module to ONNX, and then it is there already."""

import inspect
import os
import tempfile
import warnings
from collections.abc import Mapping

import numpy as np

from ._arrays import as_array
from ._bitpact import Model
from ._errors import BitpactError, BitpactValueError


def from_torch(module, *, arch=None, example=None, input=None, input_shape=None, class_names=None):
    """What ``Model.from_torch`` does."""
    if example is not None:
        if not callable(module):
            raise BitpactValueError("example: a state dict cannot be called; give the module")
        return _exported(module, example, input=input, input_shape=input_shape, class_names=class_names)
    state = module if isinstance(module, Mapping) else getattr(module, "state_dict", None)
    if callable(state):
        state = state()
    if not isinstance(state, Mapping):
        raise BitpactValueError(f"expected a module of torch or its state dict, not {type(module).__name__}")
    tensors = {name: _float32(name, value) for name, value in state.items() if hasattr(value, "shape")}
    return Model.from_tensors(tensors, arch=arch, input=input, input_shape=input_shape, class_names=class_names)


def _float32(name, value):
    # NumPy has no bfloat16.
    array = as_array(value.detach().float() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "fiub":
        raise BitpactValueError(f"tensor `{name}` is {array.dtype}; expected real numbers")
    return np.asarray(array, dtype=np.float32)


def _exported(module, example, **options):
    import torch

    args = example if isinstance(example, tuple) else (example,)
    args = tuple(torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in args)
    # The exporter by tracing, which torch calls the old one: its graphs are those of the module's own layers.
    choices = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with tempfile.TemporaryDirectory(prefix="bitpact-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = os.path.join(folder, "module.onnx")
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            torch.onnx.export(module, args, path, opset_version=17, **choices)
        finally:
            for part, was_training in modes:
                part.training = was_training
        try:
            return Model.load(path, **options)
        except BitpactError as error:
            raise type(error)(str(error).replace(path, "the module as ONNX")) from None
