"""The exceptions of bitpact, with the texts that the command shows."""


class BitpactError(Exception):
    """Something that bitpact cannot do; the text names the place and what was expected there."""


class BitpactValueError(BitpactError, ValueError):
    """Something that was given cannot be used: an array, a recipe's key, the contents of a file."""


class BitpactOSError(BitpactError, OSError):
    """A file or folder cannot be read or written."""


class BitpactRuntimeError(BitpactError, RuntimeError):
    """What was asked for is right and still cannot be done: another process trains in the folder, memory is short."""


class BitpactWarning(UserWarning):
    """Something looks wrong: a key without effect, a layer of a run that clips or is dead."""


for _class in (BitpactError, BitpactValueError, BitpactOSError, BitpactRuntimeError, BitpactWarning):
    _class.__module__ = "bitpact"
