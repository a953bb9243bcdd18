"""Low-bit neural networks that really run low-bit.

``train`` trains a network at 1 to 8 bits with PACT and gives a ``Run``; ``Model`` is a network with float weights,
trained here or elsewhere, and ``Model.ptq`` quantizes it without training; ``IntegerModel`` is what is shipped: a
network of plain integers that runs exactly, on any thread.

>>> import bitpact, numpy as np
>>> run = bitpact.train(train=(x, y), test=(x_test, y_test), bits="W4A4", epochs=5)    # doctest: +SKIP
>>> run.integers.classes(x_test)                                                       # doctest: +SKIP
>>> run.integers.export("onnx-qcdq", "model.onnx")                                     # doctest: +SKIP

The scikit-learn estimator is ``bitpact.sklearn.Classifier``.
"""

from ._bitpact import IntegerModel, Model, __version__, recipe_keys
from ._errors import BitpactError, BitpactOSError, BitpactRuntimeError, BitpactValueError, BitpactWarning
from ._run import Run, train

__all__ = [
    "BitpactError",
    "BitpactOSError",
    "BitpactRuntimeError",
    "BitpactValueError",
    "BitpactWarning",
    "IntegerModel",
    "Model",
    "Run",
    "__version__",
    "recipe_keys",
    "train",
]
