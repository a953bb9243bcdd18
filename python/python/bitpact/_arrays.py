"""Arrays of other libraries as arrays of NumPy, without importing those libraries."""

import numpy as np


def as_array(value):
    """``value`` as an array of NumPy in this machine's order of bytes, without a copy where the memory can be shared.

    Taken are sequences of numbers and everything with ``__array__`` or ``__dlpack__``. Tensors of torch that are on
    another device or part of a graph are brought here first.
    """
    if isinstance(value, np.ndarray):
        return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))
    for method in ("detach", "cpu"):
        if callable(getattr(value, method, None)):
            value = getattr(value, method)()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)
