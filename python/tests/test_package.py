"""The package: help, types and exceptions."""

import inspect
import pathlib

import pytest

import bitpact
from bitpact import _bitpact


def test_everything_public_has_help():
    for name in bitpact.__all__:
        value = getattr(bitpact, name)
        if inspect.isclass(value) or callable(value):
            assert value.__doc__, name
        if inspect.isclass(value) and not issubclass(value, Exception):
            for member, own in vars(value).items():
                if not member.startswith("_"):
                    assert inspect.getdoc(getattr(value, member, own)), f"{name}.{member}"


def test_the_stubs_name_what_there_is():
    stubs = (pathlib.Path(bitpact.__file__).parent / "_bitpact.pyi").read_text()
    assert (pathlib.Path(bitpact.__file__).parent / "py.typed").exists()
    for name in ("IntegerModel", "Model"):
        text = stubs.split(f"class {name}:")[1].split("\nclass ")[0].split("\ndef ")[0]
        stubbed = {line.split("def ")[1].split("(")[0] for line in text.splitlines() if "def " in line}
        there = {member for member in vars(getattr(_bitpact, name)) if not member.startswith("_")}
        assert stubbed == there, name


def test_exceptions_are_pythons_own_too():
    for class_, base in (
        (bitpact.BitpactValueError, ValueError),
        (bitpact.BitpactOSError, OSError),
        (bitpact.BitpactRuntimeError, RuntimeError),
    ):
        assert issubclass(class_, base) and issubclass(class_, bitpact.BitpactError)


def test_keys_of_recipes_are_listed():
    assert {"bits", "epochs", "seed"} <= set(bitpact.recipe_keys())


def test_classes_are_made_by_their_functions():
    for class_ in (bitpact.Model, bitpact.IntegerModel):
        with pytest.raises(TypeError):
            class_()
