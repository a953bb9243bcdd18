"""A classifier in the style of scikit-learn, whose predictions are those of a network of integers."""

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ._run import train

__all__ = ["Classifier"]

_ZERO = 128
"""The code of the middle of a feature's range."""


class Classifier(ClassifierMixin, BaseEstimator):
    """Trains a network at few bits on rows of numbers or on images, and predicts with its integers.

    A row of numbers becomes codes of 8 bits: each feature's mean is code 128, and four standard deviations on either
    side are the 256 codes, values beyond them being clipped. Two layers with batch norm follow, of ``hidden`` channels,
    and a linear one. Arrays of type uint8 with three or four sides are images and are read as they are, by the network
    ``arch``.

    Parameters
    ----------
    bits : str, default="W4A4"
        Bits of weights and activations.
    hidden : int, default=64
        Channels of each hidden layer, for rows of numbers.
    arch : str, default="cnn"
        Network of the zoo, for images.
    epochs : int, default=60
        Passes through the examples.
    batch_size : int, default=32
        Examples of a step; all of them where there are fewer.
    lr : float, default=0.02
        Highest learning rate.
    first_last : str, default="8bit"
        Bits of the first and last layer: "8bit", "same" or "float".
    threads : int or None, default=1
        Threads; None for all of the machine's. The result does not depend on them.
    random_state : int or None, default=None
        Seed; None is 1: two fits of the same data are the same.
    recipe_keys : dict or None, default=None
        More keys of a recipe (docs/recipe.md).

    Attributes
    ----------
    classes_ : ndarray
        The labels.
    integers_ : IntegerModel
        The network of integers.
    records_ : dict of ndarray
        Numbers of every epoch, as ``Run.records``.
    n_features_in_ : int
        Features of a row.
    """

    def __init__(
        self,
        bits="W4A4",
        *,
        hidden=64,
        arch="cnn",
        epochs=60,
        batch_size=32,
        lr=0.02,
        first_last="8bit",
        threads=1,
        random_state=None,
        recipe_keys=None,
    ):
        self.bits = bits
        self.hidden = hidden
        self.arch = arch
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.first_last = first_last
        self.threads = threads
        self.random_state = random_state
        self.recipe_keys = recipe_keys

    def fit(self, X, y):
        """Trains on the examples ``X`` with the labels ``y``, of any type, and returns the estimator."""
        if _are_images(X):
            y = column_or_1d(y, warn=True)
            if len(y) != len(X):
                raise ValueError(f"X has {len(X)} images, and y {len(y)} labels")
            self._is_tabular = False
        else:
            X, y = validate_data(self, X, y, dtype=np.float64)
            self._is_tabular = True
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier needs examples of two classes; the data have one class: {self.classes_[0]!r}")
        if self._is_tabular:
            self._mean = X.mean(axis=0)
            spread = X.std(axis=0)
            self._step = np.where(spread > 0, spread, 1.0) / 32.0
        codes = self._codes(X) if self._is_tabular else np.asarray(X)
        run = train(
            {**self._recipe(codes), **(self.recipe_keys or {})},
            train=(codes, labels.astype(np.int64)),
            # Nothing is kept out of training: the last epoch's network is taken, whatever its accuracy.
            test=(codes[:256], labels[:256].astype(np.int64)),
            class_names=[str(label) for label in range(len(self.classes_))],
            threads=self.threads,
        )
        self.integers_ = run.integers
        self.records_ = run.records
        return self

    def decision_function(self, X):
        """The logits as real numbers, ``[n, classes]``; of two classes, how much larger the second one's is."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """The softmax of the logits, ``[n, classes]``."""
        return softmax(self._logits(X), axis=1)

    def predict(self, X):
        """The label with the largest logit of every example."""
        logits = self._logits(X)
        return self.classes_[np.argmax(logits, axis=1)]

    def _logits(self, X):
        check_is_fitted(self)
        if self._is_tabular:
            X = self._codes(validate_data(self, X, dtype=np.float64, reset=False))
        return self.integers_.logits(X, real=True)

    def _codes(self, X):
        codes = np.rint((X - self._mean) / self._step) + _ZERO
        return np.clip(codes, 0, 255).astype(np.uint8)

    def _recipe(self, codes):
        recipe = {
            "bits": self.bits,
            "first_last": self.first_last,
            "epochs": self.epochs,
            "batch_size": max(1, min(self.batch_size, len(codes))),
            "lr": self.lr,
            "seed": 1 if self.random_state is None else int(_seed(self.random_state)),
            "clip_init": "calibrate",
            "weight_decay": 1e-4,
            "momentum": 0.9,
            "schedule": "cosine",
            "dataset": "folder",
            "arch": self.arch,
        }
        if self._is_tabular:
            recipe["arch"] = "tabular"
            recipe["graph"] = {"name": "tabular", "nodes": _nodes(codes.shape[1], self.hidden, len(self.classes_))}
            # A standard deviation is one unit.
            recipe["input"] = {"zero_point": [_ZERO], "scale": [1.0 / 32.0]}
        return recipe


def _are_images(X):
    return getattr(X, "dtype", None) == np.uint8 and getattr(X, "ndim", 0) in (3, 4)


def _seed(random_state):
    if isinstance(random_state, np.random.RandomState):
        return random_state.randint(1, 2**31 - 1)
    return random_state


def _nodes(features, hidden, classes):
    nodes = [{"name": "x", "op": "input", "height": 1, "width": features, "channels": 1}]
    for layer in ("1", "2"):
        nodes += [
            {"name": f"linear{layer}", "op": "linear", "out_features": hidden, "bias": False},
            {"name": f"bn{layer}", "op": "batch_norm"},
            {"name": f"act{layer}", "op": "act"},
        ]
    return [*nodes, {"name": "linear", "op": "linear", "out_features": classes}]
