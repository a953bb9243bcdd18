"""Networks with float weights: files, state dicts, quantization without training."""

import os
import pickle
import signal

import numpy as np
import pytest

import bitpact


def test_files_bytes_and_pickles_hold_the_network(run, tmp_path):
    model = run.model
    model.save(tmp_path / "model.safetensors")
    expected = model.convert().to_bytes()
    assert expected == run.integers.to_bytes()
    for same in (
        bitpact.Model.load(tmp_path / "model.safetensors"),
        bitpact.Model.load(run.path),
        pickle.loads(pickle.dumps(model)),
    ):
        assert same.convert().to_bytes() == expected
    assert model.rows is None and model.notes == [] and "cnn" in repr(model)


def test_state_dicts_are_matched_to_the_zoo(float_run):
    model = float_run.model
    tensors = model.tensors()
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert sum(tensor.size for name, tensor in tensors.items() if "running" not in name) == model.parameters
    wrapped = {f"module.{name}": tensor.astype(np.float64) for name, tensor in tensors.items()}
    again = bitpact.Model.from_torch(wrapped, arch="cnn", input_shape=(8, 8, 1), input="unit")
    assert again.input_shape == (8, 8, 1) and again.parameters == model.parameters
    for name, tensor in again.tensors().items():
        np.testing.assert_array_equal(tensor, tensors[name])


class Module:
    """What torch's modules look like from outside."""

    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors


def test_modules_give_their_state_dicts(float_run):
    module = Module(float_run.model.tensors())
    names = ["a", "b", "c", "d"]
    model = bitpact.Model.from_torch(module, arch="cnn", input_shape=[8, 8, 1], class_names=names)
    assert model.class_names == names
    assert any("what a pixel means" in note for note in model.notes)


@pytest.mark.parametrize(
    ("wrong", "options", "text"),
    [
        ({}, {}, None),
        ({"x": np.zeros(3)}, {}, None),
        ({"conv1.weight": np.zeros((1, 1, 3, 3), complex)}, {}, "complex"),
        (3, {}, "expected a module of torch or its state dict, not int"),
        ({}, {"example": np.zeros(3)}, "a state dict cannot be called"),
        ({}, {"arch": "resnet21"}, "resnet21"),
        ({}, {"input": "imagenett"}, "imagenet"),
        ({}, {"input": 3}, "means and deviations"),
        ({}, {"input_shape": (8, 8)}, "rows, columns and channels"),
    ],
)
def test_what_is_no_network_is_told(wrong, options, text):
    with pytest.raises((bitpact.BitpactError, TypeError), match=text):
        bitpact.Model.from_torch(wrong, **options)


def test_networks_are_quantized_without_training(float_run, data):
    (x, y), (x_test, y_test) = data
    rows = []
    model = float_run.model.ptq(x[:64], "W8A8", test=(x_test, y_test), threads=1, callback=rows.append)
    assert model.rows == rows and [row["step"] for row in rows][:2] == ["float", "rounding"]
    integers = model.convert()
    assert rows[-1]["top1"] == np.mean(integers.classes(x_test) == y_test)
    again = float_run.model.ptq(x[:64], bits="W8A8", labels=y[:64], threads=2)
    assert again.convert().to_bytes() == integers.to_bytes()
    assert again.rows[-1]["images"] == 64
    plain = float_run.model.ptq(x[:64], bits="W8A8", steps="none")
    assert "top1" not in plain.rows[-1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": "W0A8"}, "W0A8"),
        ({"bits": "float"}, "expected a form like W8A8"),
        ({"steps": "magic"}, "steps = `magic`: expected clip"),
        ({"calibrate": "magic"}, "calibrate = `magic`: expected auto"),
        ({"first_last": "4bit"}, "first_last = \"4bit\""),
        ({"cora_budget": -1.0}, "cora_budget"),
        ({"labels": np.zeros(3, int)}, "X has 8 examples, and y 3"),
    ],
)
def test_wrong_options_of_quantization_are_told(float_run, data, options, text):
    with pytest.raises(bitpact.BitpactError, match=text):
        float_run.model.ptq(data[0][0][:8], **options)


def test_only_float_networks_are_quantized_and_only_others_converted(run, float_run, data):
    with pytest.raises(bitpact.BitpactError, match="quantized"):
        run.model.ptq(data[0][0][:8])
    with pytest.raises(bitpact.BitpactError, match="float"):
        float_run.model.convert()
    with pytest.raises(OSError, match="model.bitpact"):
        float_run.integers


@pytest.mark.parametrize("stop", ["exception", "interrupt"])
def test_quantization_is_stopped(float_run, data, stop):
    def callback(row):
        if stop == "exception":
            raise LookupError(row["step"])
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(LookupError if stop == "exception" else KeyboardInterrupt):
        float_run.model.ptq(data[0][0][:64], callback=callback)
