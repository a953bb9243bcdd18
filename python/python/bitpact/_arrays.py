"""Arrays of other libraries as arrays of NumPy, without importing those libraries."""

import numpy as np


def as_array(value):
    """``value`` as an array of NumPy, without a copy where the memory can be shared.

    Taken are sequences of numbers and everything with ``__array__`` or ``__dlpack__``. Tensors of torch that are on
    another device or part of a graph are brought here first.
    """
    if isinstance(value, np.ndarray):
        return value
    for method in ("detach", "cpu"):
        if callable(getattr(value, method, None)):
            value = getattr(value, method)()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)
