"""Training from arrays: the same bytes as the command, callbacks, stops, every task."""

import os
import shutil
import signal
import subprocess
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import bitpact
from conftest import SHORT

COMMAND = os.environ.get("BITPACT_COMMAND")
RESULTS = ["config.toml", "last.safetensors", "best.safetensors", "model.bitpact"]


def results(path):
    return {name: (path / name).read_bytes() for name in RESULTS if (path / name).exists()}


@pytest.mark.skipif(not COMMAND, reason="BITPACT_COMMAND names no bitpact")
def test_the_command_gives_the_same_bytes(data, run, tmp_path):
    (x_train, y_train), (x_test, y_test) = data
    np.savez(tmp_path / "rows.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    recipe = Path(run.path) / "config.toml"
    subprocess.run([COMMAND, "train", recipe, "--data", "rows.npz", "--output", "run"], cwd=tmp_path, check=True)
    theirs, own = results(tmp_path / "run"), results(Path(run.path))
    assert own.keys() == theirs.keys() == set(RESULTS)
    assert own == theirs


def test_a_run_says_what_it_measured(run, data):
    assert len(run.epochs) == 2 and run.metrics["epoch"] == 2
    records = run.records
    np.testing.assert_array_equal(records["epoch"], [1, 2])
    assert records["loss"].dtype == np.float64 and records["loss"].shape == (2,)
    x, y = data[1]
    assert run.metrics["integer_top1"] == np.mean(run.integers.classes(x) == y)
    assert run.float is None and "2 epochs" in repr(run)
    assert run.model.arch == "cnn" and run.model.class_names == ["0", "1", "2", "3"]


def test_threads_and_the_form_of_the_recipe_do_not_change_the_bytes(run, data, tmp_path):
    train, test = data
    again = bitpact.train(Path(run.path) / "config.toml", train, test, output=tmp_path / "again", threads=2)
    assert again.metrics["loss"] == run.metrics["loss"]
    assert results(tmp_path / "again") == results(Path(run.path))


def test_callbacks_hear_of_every_epoch(data, tmp_path):
    train, test = data
    heard, other = [], []
    keys = {**SHORT, "compare_float": True}
    run = bitpact.train(train=train, test=test, output=tmp_path / "run", callbacks=[heard.append, other.append], **keys)
    assert heard == other
    assert [(record["epoch"], record["float"]) for record in heard] == [(1, False), (2, False), (1, True), (2, True)]
    assert heard[1] == {**run.metrics, "float": False} or heard[1]["loss"] == run.metrics["loss"]
    assert len(run.float.epochs) == 2


class Enough(Exception):
    pass


@pytest.mark.parametrize("stop", ["exception", "interrupt"])
def test_a_stopped_run_goes_on_to_the_same_bytes(run, data, tmp_path, stop):
    train, test = data
    calls = []

    def callback(record):
        calls.append(record["epoch"])
        if stop == "exception":
            raise Enough
        os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "run"
    with pytest.raises(Enough if stop == "exception" else KeyboardInterrupt):
        bitpact.train(train=train, test=test, output=path, callbacks=callback, **SHORT)
    assert calls == [1] and (path / "last.safetensors").exists()
    resumed = bitpact.train(train=train, test=test, output=path, resume=True, **SHORT)
    assert results(path) == results(Path(run.path))
    assert [record["epoch"] for record in resumed.epochs] == [1, 2]


def test_an_interrupt_within_an_epoch_stops_a_run(run, data, tmp_path):
    train, test = data
    path = tmp_path / "run"
    # The thread comes to its turn when training lets go of the interpreter's lock.
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        bitpact.train(train=train, test=test, output=path, **SHORT)
    thread.join()
    bitpact.train(train=train, test=test, output=path, resume=True, **SHORT)
    assert results(path) == results(Path(run.path))


def test_a_finished_run_can_go_on_for_more_epochs(run, data, tmp_path):
    train, test = data
    shutil.copytree(run.path, tmp_path / "run")
    keys = {"output": tmp_path / "run", "resume": True, "threads": 1}
    assert len(bitpact.train(train=train, test=test, **{**SHORT, **keys, "epochs": 3}).epochs) == 3
    with pytest.raises(bitpact.BitpactValueError, match="`bits` is .*W4A4.* in it, not .*W2A2"):
        bitpact.train("builtin", train=train, test=test, **{**SHORT, **keys, "epochs": 3, "bits": "W2A2"})


def test_a_folder_is_not_trained_in_twice(run, data):
    train, test = data
    with pytest.raises(bitpact.BitpactRuntimeError, match="holds a run already"):
        bitpact.train(train=train, test=test, output=run.path, **SHORT)


def test_a_run_without_a_folder_goes_with_its_value(data):
    train, test = data
    run = bitpact.train(train=train, test=test, **{**SHORT, "epochs": 1})
    path = run.path
    assert run.integers.classes(test[0]).shape == (48,)
    run._temporary.cleanup()
    assert not os.path.exists(path)


def images(count):
    return np.random.default_rng(5).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


CONV = [
    {"name": "image", "op": "input", "height": 8, "width": 8, "channels": 3},
    {"name": "conv1", "op": "conv", "out_channels": 8, "kernel": 3, "padding": 1},
    {"name": "bn1", "op": "batch_norm"},
    {"name": "act1", "op": "act"},
]


def network(*nodes):
    return {"arch": "own", "graph": {"name": "own", "nodes": [*CONV, *nodes]}}


@pytest.mark.parametrize(
    ("task", "y", "nodes", "shape"),
    [
        (
            "segment",
            np.random.default_rng(6).integers(0, 3, (32, 8, 8)),
            [{"name": "classes", "op": "conv", "out_channels": 3, "kernel": 1, "bias": True}],
            (32, 8, 8, 3),
        ),
        (
            "restore",
            images(32),
            [{"name": "image2", "op": "conv", "out_channels": 3, "kernel": 1, "bias": True}],
            (32, 8, 8, 3),
        ),
        (
            "regress",
            np.random.default_rng(7).normal(size=(32, 2)),
            [{"name": "pool", "op": "global_avg_pool"}, {"name": "numbers", "op": "linear", "out_features": 2}],
            (32, 2),
        ),
    ],
)
def test_every_task_is_trained_by_the_shape_of_y(tmp_path, task, y, nodes, shape):
    x = images(32)
    recipe = {"dataset": "folder", "epochs": 1, "batch_size": 16, "lr": 0.01, **network(*nodes)}
    run = bitpact.train(recipe, (x, y), (x, y), output=tmp_path / "run")
    assert f'task = "{task}"' in (tmp_path / "run" / "config.toml").read_text()
    assert run.integers.logits(x, real=True).shape == shape
    metrics = run.metrics["integer"]
    assert metrics and f"integer_{metrics[0]['name']}" in run.records


def test_sets_by_name_and_files_of_ones_own(tmp_path):
    keys = {"limit_train": 64, "limit_test": 10, "batch_size": 32, "epochs": 1, "warmup_epochs": 0}
    run = bitpact.train(train="builtin", output=tmp_path / "a", **keys)
    assert run.metrics["test_images"] == 10 and len(run.integers.class_names) == 10
    x, y = images(40), np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x=x, y=y)
    keys = {**keys, "test_share": 0.25, "batch_size": 16}
    run = bitpact.train("builtin", tmp_path / "own.npz", output=tmp_path / "b", **keys)
    assert run.metrics["test_images"] == 10


def test_codes_of_16_bits_mean_what_pixels_mean(data, run, tmp_path):
    (x, y), (x_test, y_test) = data
    wide, wide_test = (257 * images.astype(np.uint16) for images in (x, x_test))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = tmp_path / "run"
        sixteen = bitpact.train(train=(wide, y), test=(wide_test, y_test.astype(np.uint16)), output=output, **SHORT)
    integers = sixteen.integers
    assert integers.input_bits == 16
    np.testing.assert_allclose(sixteen.records["loss"], run.records["loss"], rtol=1e-3)
    np.testing.assert_array_equal(integers.quantize(np.float32([[[1.0] * 8] * 8])), 257 * 192)
    assert sixteen.metrics["integer_top1"] == np.mean(integers.classes(wide_test) == y_test)
    frozen = wide_test.copy()
    frozen.setflags(write=False)
    every_layout = (frozen, wide_test[:, None], wide_test.astype(">u2"), np.asfortranarray(wide_test))
    for same in every_layout:
        np.testing.assert_array_equal(integers.logits(same), integers.logits(wide_test))
    with pytest.raises(ValueError, match="the images are uint8; expected uint16"):
        integers.logits(x_test)
    assert integers.verify(wide_test[:3], threads=1)["different"] == 0
    more = bitpact.train(
        "builtin", (wide, y), (wide_test, y_test), output=output, resume=True, **{**SHORT, "epochs": 3}
    )
    assert len(more.epochs) == 3
    narrow = {**SHORT, "epochs": 1, "output": tmp_path / "narrow"}
    with pytest.warns(bitpact.BitpactWarning, match=f"reach {x.max()} of 65535"):
        bitpact.train(train=(x.astype(np.uint16), y), test=(x_test.astype(np.uint16), y_test), **narrow)
    with pytest.raises(ValueError, match="halves differ in shape or bits"):
        bitpact.train(train=(wide, y), test=(x_test, y_test), **{**narrow, "output": tmp_path / "none"})


def test_networks_of_16_bits_are_quantized_without_training(data, tmp_path):
    (x, y), (x_test, y_test) = data
    wide, wide_test = (257 * images.astype(np.uint16) for images in (x, x_test))
    run = bitpact.train(
        train=(wide, y), test=(wide_test, y_test), output=tmp_path / "run", bits="float", **{**SHORT, "epochs": 1}
    )
    model = run.model.ptq(wide[:64], "W8A8", test=(wide_test, y_test), steps="none", threads=1)
    assert model.rows[-1]["top1"] == np.mean(model.convert().classes(wide_test) == y_test)


def test_arrays_that_cannot_be_written_or_are_views_train_the_same(run, data, tmp_path):
    def other(array):
        array = np.repeat(np.asfortranarray(array), 2, axis=0)[::2]
        array.setflags(write=False)
        return array

    train, test = (tuple(map(other, half)) for half in data)
    again = bitpact.train(train=train, test=[half.tolist() for half in test], output=tmp_path / "run", **SHORT)
    assert results(Path(again.path)) == results(Path(run.path))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": "W9A9"}, "bits"),
        ({"bist": "W4A4"}, "unknown key `bist` .*did you mean `bits`"),
        ({"epochs": "many"}, "expected a whole number"),
        ({"epochs": 2**70}, "too large"),
        ({"augment": object()}, "expected a bool, a number"),
        ({"recipe": "no-such"}, "neither a built-in recipe nor a file"),
        ({"recipe": {"bits": "W4A4"}}, "the key `arch` is missing"),
        ({"recipe": {1: 2}}, "a key that is no text"),
        ({"backend": "gpu"}, "backend"),
        ({"threads": 0}, "threads"),
        ({"train": None}, "test is given without train"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), np.zeros(5, int))}, "X has 4 examples, and y 5"),
        ({"train": (np.zeros((4, 8, 8)), np.zeros(4, int))}, "X of train holds floats"),
        ({"train": (np.zeros((4, 8, 8), complex), np.zeros(4, int))}, "X of train is complex128"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), np.array(["a"] * 4))}, "y of train is <U1"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), np.array([0, 1, -1, 0]))}, "holds -1"),
        ({"train": np.zeros((4, 8, 8), np.uint8)}, r"train: expected a pair \(X, y\)"),
        ({"train": "builtin"}, "has its own test half"),
        ({"test": None}, "no test half"),
        ({"class_names": ["one"]}, "names 1 classes"),
        ({"resume": True, "output": None}, "resume needs the output"),
        ({"init_from": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_wrong_arguments_are_told(data, tmp_path, arguments, text):
    train, test = data
    given = {"train": train, "test": test, "output": tmp_path / "run", **SHORT, **arguments}
    with pytest.raises(bitpact.BitpactError, match=text):
        bitpact.train(**given)
    assert not (tmp_path / "run").exists()


def test_keys_without_effect_are_warned_of(data, tmp_path):
    train, test = data
    with pytest.warns(bitpact.BitpactWarning, match="changes nothing"):
        bitpact.train(train=train, test=test, output=tmp_path / "run", **{**SHORT, "epochs": 1, "betas": [0.9, 0.99]})


def test_weights_are_started_from(float_run, data, tmp_path):
    train, test = data
    model = float_run.model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = bitpact.train(
            train=train, test=test, init_from=model, bits="W4A4", epochs=1, batch_size=16, output=tmp_path / "run"
        )
    assert run.model.arch == "cnn" and len(run.epochs) == 1
    six = (train[0], np.arange(160) % 6), (test[0], np.arange(48) % 6)
    with pytest.warns(bitpact.BitpactWarning, match="has 4 outputs in the file and 6 here"):
        bitpact.train(
            train=six[0], test=six[1], init_from=model, epochs=1, batch_size=16, output=tmp_path / "six"
        )
