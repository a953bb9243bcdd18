"""Training, and the run that it leaves."""

import json
import os
import tempfile

import numpy as np

from . import _bitpact
from ._bitpact import IntegerModel, Model
from ._errors import BitpactValueError


class Run:
    """A run in its folder, which ``bitpact report`` and the other commands read too.

    ``path`` is the folder. Files are read when they are asked for.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._temporary = None

    def __repr__(self):
        return f"<bitpact.Run {self.path!r}: {len(self.epochs)} epochs>"

    @property
    def epochs(self):
        """The record of every epoch, a dictionary each: docs/report.md has the names."""
        return self._lines("epoch")

    @property
    def warnings(self):
        """What looked wrong while the network was trained, a dictionary each."""
        return self._lines("warning")

    @property
    def metrics(self):
        """The record of the last epoch. ``integer_top1`` is the accuracy of the integers on the test set; of other
        tasks ``integer`` lists their metrics."""
        epochs = self.epochs
        return epochs[-1] if epochs else {}

    @property
    def records(self):
        """The numbers of all epochs as arrays: a dictionary from names to float64 arrays with one number an epoch, NaN
        where it was not measured. Metrics of other tasks than classes are ``integer_psnr`` and the like."""
        rows = [_flat(epoch) for epoch in self.epochs]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}

    @property
    def integers(self):
        """The integer network of the last epoch, an ``IntegerModel``; a float run has none."""
        return IntegerModel.load(os.path.join(self.path, "model.bitpact"))

    @property
    def model(self):
        """The network of the last epoch with its float weights, a ``Model``."""
        return Model.load(self.path)

    @property
    def float(self):
        """The run of the float network that was trained beside this one, or ``None``."""
        path = os.path.join(self.path, "float")
        return Run(path) if os.path.isdir(path) else None

    def _lines(self, kind):
        path = os.path.join(self.path, "records.jsonl")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            # The last line of a run under way may be torn.
            records = [json.loads(line) for line in file if line.endswith("\n")]
        return [record for record in records if record["kind"] == kind]


def _flat(epoch):
    row = {name: value for name, value in epoch.items() if isinstance(value, (int, float))}
    for view in ("integer", "simulated", "holdout"):
        row.update({f"{view}_{metric['name']}": metric["value"] for metric in epoch.get(view, ())})
    return row


def train(
    recipe=None,
    train=None,
    test=None,
    *,
    data=None,
    class_names=None,
    output=None,
    callbacks=None,
    threads=None,
    init_from=None,
    resume=False,
    backend="cpu",
    **keys,
):
    """Trains a network and returns its ``Run``; the same recipe and data give the same bytes as ``bitpact train``.

    Args:
        recipe: Name of a built-in recipe, path of a TOML file, or a dictionary of its keys (docs/recipe.md); the recipe
            of the data set where none is given.
        train: ``(X, y)`` to learn from, or the name of a data set, or the path of one's own (a folder or a file).
            X are integers, ``[n, rows, columns, channels]`` (or channels first), ``[n, rows, columns]`` or
            ``[n, width]``; what y is tells the task: integers ``[n]`` classes, numbers ``[n, k]`` regression,
            ``[n, rows, columns]`` masks, images restoration. Arrays of NumPy, and whatever becomes one: tensors of
            torch too.
        test: ``(X, y)`` to measure on; without it, the key ``test_share`` keeps a part of ``train``.
        data: Folder of a data set that ``train`` or the key ``dataset`` names.
        class_names: Names of the classes of ``y``; their numbers where not given.
        output: Folder of the run; a temporary one, which goes with the ``Run``, where not given.
        callbacks: A function, or several, called after every epoch with its record, a dictionary; its key ``float``
            says whether it is the epoch of the float network beside the run. An exception stops the run.
        threads: Threads; all of the machine's where not given. The result does not depend on them.
        init_from: ``Model`` or path of a file whose weights the run starts from. Without a recipe, the network and what
            a pixel means are the file's, and training is short and at a low rate.
        resume: Whether to go on with the run in ``output``, where there is one.
        backend: ``"cpu"``, or ``"reference"``, which is slow.
        **keys: Keys of a recipe, over those of ``recipe``, such as ``bits="W2A2"`` or ``epochs=20``.

    Ctrl-C saves a checkpoint and raises ``KeyboardInterrupt``; ``resume=True`` with the same ``output`` then goes on to
    the same bytes as a run that never stopped.
    """
    if isinstance(train, (str, os.PathLike)):
        if test is not None:
            raise BitpactValueError("test: the data set that train names has its own test half")
        if "dataset" in keys:
            raise BitpactValueError("dataset is given twice: train names one too")
        if os.path.exists(train):
            train, data, keys["dataset"] = None, train, "folder"
        else:
            train, keys["dataset"] = None, os.fspath(train)
    if init_from is not None and not isinstance(init_from, Model):
        init_from = Model.load(init_from, arch=keys.get("arch"), input=keys.get("input"))
    if resume and output is None:
        raise BitpactValueError("resume needs the output of the run to go on with")
    callbacks = [] if callbacks is None else [callbacks] if callable(callbacks) else list(callbacks)

    def called(record):
        for callback in callbacks:
            callback(record)

    path, temporary = output, None
    if output is None:
        temporary = tempfile.TemporaryDirectory(prefix="bitpact-")
        path = os.path.join(temporary.name, "run")
    _bitpact.run_training(
        recipe,
        keys,
        train=_pair(train, "train"),
        test=_pair(test, "test"),
        data=data,
        class_names=None if class_names is None else [str(name) for name in class_names],
        output=path,
        resume=bool(resume),
        init_from=init_from,
        threads=threads,
        backend=backend,
        callback=called if callbacks else None,
    )
    run = Run(path)
    run._temporary = temporary
    return run


def _pair(half, name):
    if half is None:
        return None
    if not isinstance(half, (tuple, list)) or len(half) != 2:
        raise BitpactValueError(f"{name}: expected a pair (X, y)")
    return tuple(half)
