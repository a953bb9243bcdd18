"""What pickles call to make networks again."""

from ._bitpact import IntegerModel, Model


def integer_model(data, threads):
    """The integer network in ``data``, on so many threads."""
    return IntegerModel.from_bytes(data, threads=threads)


def model(data):
    """The network in ``data``."""
    return Model.from_bytes(data)
