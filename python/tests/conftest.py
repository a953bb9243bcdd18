"""Small data and one small run for all tests."""

import signal

import numpy as np
import pytest

import bitpact

# Whoever runs the tests in the background may have SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHORT = {"epochs": 2, "warmup_epochs": 0, "batch_size": 16, "compare_float": False, "augment": {"pad": 0, "flip": False}, "threads": 1}


def rows(count, seed, classes=4):
    """Grey images of 8 x 8 with one bright row; its number is the class."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 60, (count, 8, 8), dtype=np.uint8)
    y = random.integers(0, classes, count)
    x[np.arange(count), y] += 180
    return x, y


@pytest.fixture(scope="session")
def data():
    return rows(160, 1), rows(48, 2)


@pytest.fixture(scope="session")
def run(data, tmp_path_factory):
    train, test = data
    return bitpact.train(train=train, test=test, output=tmp_path_factory.mktemp("runs") / "run", **SHORT)


@pytest.fixture(scope="session")
def float_run(data, tmp_path_factory):
    train, test = data
    output = tmp_path_factory.mktemp("runs") / "float"
    return bitpact.train(train=train, test=test, output=output, bits="float", **SHORT)


@pytest.fixture
def integers(run):
    return run.integers
