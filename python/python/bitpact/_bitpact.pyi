"""Low-bit neural networks in integers: the compiled part of the package `bitpact`."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Optional, Union, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Path = Union[str, "os.PathLike[str]"]
Format = Literal["onnx-qcdq", "onnx-qdq", "qonnx", "onnx-integer", "npy", "safetensors"]
PixelMeaning = Union[str, tuple[Sequence[float], Sequence[float]]]

__version__: str

class IntegerModel:
    """A network of integers, ready to run from any number of threads."""

    @staticmethod
    def load(path: Path, *, threads: Optional[int] = None) -> IntegerModel: ...
    @staticmethod
    def from_bytes(data: bytes, *, threads: Optional[int] = None) -> IntegerModel: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: Path) -> None: ...
    @overload
    def run(self, images: ArrayLike, *, real: Literal[False] = False) -> dict[str, NDArray[np.int64]]: ...
    @overload
    def run(self, images: ArrayLike, *, real: Literal[True]) -> dict[str, NDArray[np.float64]]: ...
    @overload
    def logits(self, images: ArrayLike, *, real: Literal[False] = False) -> NDArray[np.int64]: ...
    @overload
    def logits(self, images: ArrayLike, *, real: Literal[True]) -> NDArray[np.float64]: ...
    def classes(self, images: ArrayLike) -> NDArray[np.int64]: ...
    def codes(self, layer: str, images: ArrayLike) -> NDArray[np.int64]: ...
    def quantize(self, x: ArrayLike) -> Union[NDArray[np.uint8], NDArray[np.uint16]]: ...
    @overload
    def export(self, format: Format, path: Path, *, rounded_biases: bool = False) -> None: ...
    @overload
    def export(
        self, format: Literal["c", "rust"], path: Path, *, name: Optional[str] = None, images: Optional[ArrayLike] = None
    ) -> dict[str, Any]: ...
    @overload
    def inspect(self, *, frame: Literal[False] = False) -> dict[str, list[Any]]: ...
    @overload
    def inspect(self, *, frame: Literal[True]) -> Any: ...
    def verify(self, images: ArrayLike, *, threads: Optional[int] = None) -> dict[str, Any]: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def input_bits(self) -> int: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def layers(self) -> list[str]: ...
    @property
    def outputs(self) -> list[dict[str, Any]]: ...
    @property
    def arch(self) -> str: ...
    @property
    def threads(self) -> int: ...

class Model:
    """A network with float weights and, where it has them, its quantizers."""

    @staticmethod
    def load(
        path: Path,
        *,
        arch: Optional[str] = None,
        input: Optional[PixelMeaning] = None,
        input_shape: Optional[Sequence[int]] = None,
        class_names: Optional[Sequence[str]] = None,
    ) -> Model: ...
    @staticmethod
    def from_tensors(
        tensors: dict[str, Any],
        *,
        arch: Optional[str] = None,
        input: Optional[PixelMeaning] = None,
        input_shape: Optional[Sequence[int]] = None,
        class_names: Optional[Sequence[str]] = None,
    ) -> Model: ...
    @staticmethod
    def from_torch(
        module: Any,
        *,
        arch: Optional[str] = None,
        example: Any = None,
        input: Optional[PixelMeaning] = None,
        input_shape: Optional[Sequence[int]] = None,
        class_names: Optional[Sequence[str]] = None,
    ) -> Model: ...
    @staticmethod
    def from_bytes(data: bytes) -> Model: ...
    def ptq(
        self,
        images: ArrayLike,
        bits: str = "W8A8",
        *,
        labels: Optional[ArrayLike] = None,
        test: Optional[tuple[ArrayLike, ArrayLike]] = None,
        steps: Optional[str] = None,
        calibrate: str = "auto",
        first_last: Literal["8bit", "same", "float"] = "8bit",
        shortcut: Literal["same", "8bit"] = "same",
        weight_grid: Optional[Literal["zero", "no_zero"]] = None,
        clip_scale: Literal["layer", "channel"] = "layer",
        cora_budget: float = 0.05,
        threads: Optional[int] = None,
        callback: Optional[Callable[[dict[str, Any]], object]] = None,
    ) -> Model: ...
    def convert(self, *, threads: Optional[int] = None) -> IntegerModel: ...
    def save(self, path: Path) -> None: ...
    def tensors(self) -> dict[str, NDArray[np.float32]]: ...
    @property
    def arch(self) -> str: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def rows(self) -> Optional[list[dict[str, Any]]]: ...

def run_training(
    recipe: Union[str, "os.PathLike[str]", dict[str, Any], None],
    keys: Mapping[str, Any],
    *,
    train: Optional[tuple[Any, Any]],
    test: Optional[tuple[Any, Any]],
    data: Optional[Path],
    class_names: Optional[list[str]],
    output: Path,
    resume: bool,
    init_from: Optional[Model],
    threads: Optional[int],
    backend: str,
    callback: Optional[Callable[[dict[str, Any]], object]],
) -> None: ...
def recipe_keys() -> list[str]: ...
