"""The estimator, by scikit-learn's own checks."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bitpact.sklearn import Classifier


@parametrize_with_checks([Classifier(hidden=16, epochs=20, batch_size=8)])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_flowers_are_told_apart():
    x, y = load_iris(return_X_y=True)
    assert cross_val_score(Classifier(epochs=30), x, y, cv=3).min() > 0.88


def test_images_are_read_as_they_are():
    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)
    x, x_test, y, y_test = train_test_split(images, digits.target, random_state=0, stratify=digits.target)
    model = Classifier("W2A4", epochs=4).fit(x, y)
    assert model.score(x_test, y_test) > 0.8
    np.testing.assert_array_equal(model.integers_.classes(x_test), model.predict(x_test))
    np.testing.assert_allclose(model.predict_proba(x_test).sum(axis=1), 1.0)


def test_pipelines_and_searches_take_it():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    pipeline = make_pipeline(MinMaxScaler(), Classifier(epochs=15))
    search = GridSearchCV(pipeline, {"classifier__bits": ["W2A2", "W4A4"]}, cv=2)
    assert set(search.fit(x, names).predict(x)) <= set(names)
    assert clone(Classifier("W3A3", hidden=8)).get_params()["bits"] == "W3A3"
