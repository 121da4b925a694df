"""Integers and lists where floats are wanted: computed as numbers, or refused in words."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from mlpkit import MLP, CrossEntropy, Flatten, ReLU, Sigmoid, activations, softmax
from mlpkit_backends import Backend

NUMBERS = [[0, 3], [1, 2]]
FUNCTIONS = {
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
}


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "bool"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_of_integers(backend: Backend, name: str, dtype: str) -> None:
    x = np.array(NUMBERS, dtype)
    got = backend.to_numpy(getattr(activations, name)(backend.asarray(x)))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, FUNCTIONS[name](x.astype(np.float64)), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_softmax_of_integers(backend: Backend, dtype: str) -> None:
    expected = scipy.special.softmax(np.array(NUMBERS, np.float64), axis=-1)
    for x in (backend.asarray(np.array(NUMBERS, dtype)), NUMBERS):
        np.testing.assert_allclose(backend.to_numpy(softmax(x)), expected, rtol=1e-14)


def test_float32_stays_what_it_is(backend: Backend) -> None:
    x = backend.asarray(np.array(NUMBERS, np.float32))
    for function in (softmax, *(getattr(activations, name) for name in FUNCTIONS)):
        assert backend.to_numpy(function(x)).dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_layers_and_the_loss_refuse_integers(backend: Backend, dtype: str) -> None:
    x = backend.asarray(np.ones((2, 4), dtype))
    takes = f"takes floats; got {dtype}: scale images first"
    for layer in (ReLU(), Sigmoid(), MLP((4, 3), seed=1)):
        with pytest.raises(ValueError, match=f"layer .* {takes}"):
            layer.forward(x)
    with pytest.raises(ValueError, match=f"the loss {takes}"):
        CrossEntropy().forward(x, backend.asarray([0, 1]))


def test_layers_and_the_loss_refuse_lists() -> None:
    for call in (
        Flatten().forward,
        ReLU().forward,
        MLP((2, 3), seed=1).forward,
        lambda x: CrossEntropy().forward(x, [0, 1]),
    ):
        with pytest.raises(ValueError, match=r"takes an array; got list: make one with"):
            call([[1.0, 2.0], [3.0, 4.0]])
