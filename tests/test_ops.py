"""The ops against formulas written out, scipy and known answers, on every backend."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import scipy.special

from mlpkit_backends import Backend
from mlpkit_backends.cpu import NumpyBackend
from mlpkit_backends.cuda import CupyBackend

RNG = np.random.default_rng(7)
X = RNG.standard_normal((5, 4))
EDGES = np.array([-800.0, -30.0, -1.0, -1e-300, 0.0, 1e-300, 1.0, 30.0, 800.0])


def logistic_slope(x):
    return scipy.special.expit(x) * scipy.special.expit(-x)


# op, its settings, the value by another library or a formula, the slope by calculus
ACTIVATIONS = {
    "leaky_relu": ((0.1,), lambda x: np.maximum(x, 0) + 0.1 * np.minimum(x, 0),
                   lambda x: 0.1 + 0.9 * np.heaviside(x, 1.0)),
    "relu": ((), lambda x: (x + np.abs(x)) / 2, lambda x: np.heaviside(x, 0.0)),
    "elu": ((0.5,), lambda x: np.maximum(x, 0) + 0.5 * np.expm1(np.minimum(x, 0)),
            lambda x: np.where(x > 0, 1.0, 0.5 * np.exp(np.minimum(x, 0)))),
    "selu": ((1.6732, 1.0507),
             lambda x: 1.0507 * (np.maximum(x, 0) + 1.6732 * np.expm1(np.minimum(x, 0))),
             lambda x: 1.0507 * np.where(x > 0, 1.0, 1.6732 * np.exp(np.minimum(x, 0)))),
    "sigmoid": ((), scipy.special.expit, logistic_slope),
    "tanh": ((), np.tanh, lambda x: 1 / np.cosh(np.clip(x, -350, 350)) ** 2),
}  # fmt: skip


@pytest.mark.parametrize("x", [X, EDGES], ids=["normal", "edges"])
@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activation_and_its_gradient(backend: Backend, op: str, x: np.ndarray) -> None:
    settings, value, slope = ACTIVATIONS[op]
    dy = np.linspace(-1, 2, x.size).reshape(x.shape)
    got = getattr(backend, op)(backend.asarray(x), *settings)
    gradient = getattr(backend, f"{op}_backward")(
        backend.asarray(dy), backend.asarray(x), *settings
    )
    np.testing.assert_allclose(backend.to_numpy(got), value(x), rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(backend.to_numpy(gradient), dy * slope(x), rtol=1e-13, atol=1e-300)


def test_affine_and_its_gradients(backend: Backend) -> None:
    w, b, dy = RNG.standard_normal((4, 3)), RNG.standard_normal(3), RNG.standard_normal((5, 3))
    on = backend.asarray
    y = backend.affine(on(X), on(w), on(b))
    dx = backend.affine_input_gradient(on(dy), on(w))
    dw, db = backend.affine_parameter_gradients(on(dy), on(X))
    expected = [
        np.einsum("nd,dm->nm", X, w) + b,
        np.einsum("nm,dm->nd", dy, w),
        np.einsum("nd,nm->dm", X, dy),
        np.einsum("nm->m", dy),
    ]
    for got, wanted in zip([y, dx, dw, db], expected, strict=True):
        np.testing.assert_allclose(backend.to_numpy(got), wanted, rtol=1e-13, atol=1e-14)


def test_softmax_and_cross_entropy(backend: Backend) -> None:
    scores = np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [-1e4, -1e4, 1.0]])
    labels = np.array([2, 1, 0, 2])
    on = backend.asarray
    losses = backend.to_numpy(backend.softmax_cross_entropy(on(scores), on(labels)))
    log_probabilities = scipy.special.log_softmax(scores, axis=1)
    np.testing.assert_allclose(losses, -log_probabilities[range(4), labels], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(
        backend.to_numpy(backend.softmax(on(scores))), scipy.special.softmax(scores, axis=1), 1e-14
    )
    gradient = backend.to_numpy(backend.softmax_cross_entropy_backward(on(scores), on(labels)))
    onehot = np.eye(3)[labels]
    np.testing.assert_allclose(gradient, scipy.special.softmax(scores, axis=1) - onehot, atol=1e-15)


def test_softmax_is_over_the_last_axis(backend: Backend) -> None:
    x = RNG.standard_normal((2, 3, 4))
    got = backend.to_numpy(backend.softmax(backend.asarray(x)))
    np.testing.assert_allclose(got, scipy.special.softmax(x, axis=-1), rtol=1e-14)


def test_gather_and_normalise(backend: Backend) -> None:
    images = RNG.integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)
    mean = RNG.random((2, 2, 3))
    batch = backend.gather(backend.asarray(images), backend.asarray([4, 0, 4]))
    got = backend.normalise(batch, backend.asarray(mean))
    np.testing.assert_allclose(
        backend.to_numpy(got), images[[4, 0, 4]].astype(np.float64) / 255 - mean, rtol=0, atol=1e-15
    )
    single = backend.normalise(batch, backend.asarray(mean, "float32"))
    assert backend.to_numpy(single).dtype == np.float32


def test_correct_counts_the_first_of_equal_scores(backend: Backend) -> None:
    scores = backend.asarray([[0.0, 1.0], [2.0, 2.0], [3.0, 1.0]])
    assert int(backend.count_correct(scores, backend.asarray([1, 0, 1]))) == 2


def test_scores_that_are_no_numbers_are_not_correct(backend: Backend) -> None:
    scores = backend.asarray([[np.nan, 1.0], [0.0, np.nan], [np.inf, 0.0], [1.0, 0.0]])
    assert int(backend.count_correct(scores, backend.asarray([0, 1, 0, 0]))) == 2


# The numbers of Random123's test-vector file (kat_vectors, philox 4x64 10):
# https://github.com/DEShawResearch/random123/blob/main/tests/kat_vectors
PHILOX_ZERO = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds of Philox4x64, as Salmon et al. 2011 write them, in Python's integers."""
    mask = 2**64 - 1
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_philox_as_written_here_gives_the_published_numbers() -> None:
    assert tuple(philox4x64([0, 0, 0, 0], [0, 0])) == PHILOX_ZERO


def test_a_wider_bias_makes_a_wider_result(backend: Backend) -> None:
    x, w = (backend.asarray(np.ones(shape), "float32") for shape in ((2, 3), (3, 4)))
    y = backend.affine(x, w, backend.asarray(np.full(4, 1e-9)))
    assert np.array_equal(backend.to_numpy(y), np.full((2, 4), 3 + 1e-9))


@pytest.mark.parametrize("key", [(0, 0, 0), (1234, 7, 3), (2**64 - 1, 2, 2**40)])
def test_keep_mask_is_philox_from_the_key(backend: Backend, key: tuple[int, int, int]) -> None:
    seed, layer, step = key
    halves = []
    for block in range(1, 5):
        for word in philox4x64([block, step, 0, 0], [seed, layer]):
            halves += [word & 0xFFFFFFFF, word >> 32]
    expected = (np.array(halves[:30]) / 2**32 < 0.6).reshape(5, 6)
    mask = backend.keep_mask((5, 6), 0.6, key)
    assert np.array_equal(backend.to_numpy(mask), expected)


def test_dropout_keeps_and_scales(backend: Backend) -> None:
    mask = X > 0
    got = backend.dropout(backend.asarray(X), backend.asarray(mask), 0.25)
    np.testing.assert_array_equal(backend.to_numpy(got), np.where(mask, X * 4, 0.0))


UPDATES = {
    "sgd_update": ((), (0.1,), lambda w, g: (w - 0.1 * g,)),
    "sgdm_update": (
        (0.5,), (0.1, 0.9),
        lambda w, g, v: (w + 0.9 * v - 0.1 * g, 0.9 * v - 0.1 * g),
    ),
    "rmsprop_update": (
        (0.5,), (0.1, 0.9, 1e-2),
        lambda w, g, c: (
            w - 0.1 * g / math.sqrt(0.9 * c + 0.1 * g**2 + 1e-2), 0.9 * c + 0.1 * g**2
        ),
    ),
    "adam_update": (
        (0.5, 0.7), (0.1, 0.9, 0.99, 1e-2, 3),
        lambda w, g, m, v: (
            w - 0.1 * ((0.9 * m + 0.1 * g) / (1 - 0.9**3))
            / (math.sqrt((0.99 * v + 0.01 * g**2) / (1 - 0.99**3)) + 1e-2),
            0.9 * m + 0.1 * g,
            0.99 * v + 0.01 * g**2,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", UPDATES)
def test_update_in_place_and_never_on_the_gradient(backend: Backend, op: str, dtype: str) -> None:
    state, settings, formula = UPDATES[op]
    w, dw = np.linspace(-1, 1, 6).reshape(2, 3), np.linspace(2, -3, 6).reshape(2, 3)
    arrays = [backend.asarray(w.copy(), dtype), backend.asarray(dw.copy(), dtype)]
    arrays += [backend.asarray(np.full((2, 3), s), dtype) for s in state]
    getattr(backend, op)(*arrays, *settings)
    expected = [formula(*values) for values in zip(w.flat, dw.flat, *[[s] * 6 for s in state])]  # noqa: B905
    after = [arrays[0], *arrays[2:]]
    for array, wanted in zip(after, np.transpose(expected), strict=True):
        assert backend.to_numpy(array).dtype == dtype
        tolerance = 1e-13 if dtype == "float64" else 1e-5
        np.testing.assert_allclose(backend.to_numpy(array), wanted.reshape(2, 3), tolerance)
    np.testing.assert_array_equal(backend.to_numpy(arrays[1]), dw.astype(dtype))


def test_ops_keep_the_dtype_and_their_inputs(backend: Backend) -> None:
    x = backend.asarray(X, "float32")
    for op, (settings, _, _) in ACTIVATIONS.items():
        assert backend.to_numpy(getattr(backend, op)(x, *settings)).dtype == np.float32, op
    np.testing.assert_array_equal(backend.to_numpy(x), X.astype(np.float32))


@pytest.mark.parametrize("subclass", [NumpyBackend, CupyBackend])
def test_an_override_keeps_the_base_ops_signature(subclass: type[Backend]) -> None:
    overrides = [name for name in vars(subclass) if hasattr(Backend, name) and name[0] != "_"]
    assert overrides
    for name in overrides:
        base, own = getattr(Backend, name), getattr(subclass, name)
        assert inspect.signature(own) == inspect.signature(base), name
