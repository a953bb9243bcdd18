"""Networks of PyTorch. torch is imported only to export a module to ONNX, and then it is there already."""

import os
import tempfile
from collections.abc import Mapping

import numpy as np

from ._arrays import as_array
from ._bitpact import Model
from ._errors import BitpactValueError


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

    with tempfile.TemporaryDirectory(prefix="bitpact-") as folder:
        path = os.path.join(folder, "module.onnx")
        was_training = module.training
        module.eval()
        try:
            args = example if isinstance(example, tuple) else (example,)
            torch.onnx.export(module, args, path, dynamo=False, opset_version=17)
        finally:
            module.train(was_training)
        return Model.load(path, **options)
