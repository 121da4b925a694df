"""What should come out, written out in NumPy: no code of mlpkit's own is asked."""

from __future__ import annotations

import numpy as np

from .interface import Array

SLOPE = 0.01


def random(seed: int, *shape: int) -> Array:
    """Standard normals of that shape, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape)


def spaced(low: float, high: float, *shape: int) -> Array:
    """Evenly spaced numbers of that shape."""
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape)


def leaky(x: Array, slope: float = SLOPE) -> Array:
    """x where x >= 0, else slope x."""
    return np.where(x >= 0, x, slope * x)


def leaky_gradient(dout: Array, x: Array, slope: float = SLOPE) -> Array:
    """dout where x >= 0, else slope dout."""
    return np.where(x >= 0, dout, slope * dout)


def softmax(x: Array) -> Array:
    """eˣ / Σ eˣ over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p: Array = e / e.sum(axis=-1, keepdims=True)
    return p


def summed_loss(scores: Array, labels: Array) -> float:
    """-Σ log p of the labels, of scores near each other."""
    return float(-np.log(softmax(scores)[np.arange(len(labels)), labels]).sum())


def summed_loss_gradient(scores: Array, labels: Array) -> Array:
    """p less 1 at the label, for each example."""
    return softmax(scores) - np.eye(scores.shape[1])[labels]


def chain(x: Array, params: list[Array], slope: float = SLOPE, active: bool = False) -> list[Array]:
    """What each layer of a network of w, b, w, b, ... gives before its leaky ReLU; then the
    output, after it where active."""
    h, given = x.reshape(len(x), -1), []
    for w, b in zip(params[::2], params[1::2], strict=True):
        given.append(h @ w + b)
        h = leaky(given[-1], slope)
    return [*given, h if active else given[-1]]


def chain_gradients(
    x: Array,
    params: list[Array],
    dout: Array,
    slope: float = SLOPE,
    active: bool = False,
    axis: int = 0,
) -> tuple[Array, list[Array]]:
    """The gradients of x and of each parameter of `chain`; axis: the one that biases' are summed
    over, 0 where they are right."""
    *given, _ = chain(x, params, slope, active)
    inputs = [x.reshape(len(x), -1), *(leaky(z, slope) for z in given[:-1])]
    gradients: list[Array] = []
    for i in reversed(range(len(given))):
        if active or i < len(given) - 1:
            dout = leaky_gradient(dout, given[i], slope)
        gradients = [inputs[i].T @ dout, dout.sum(axis), *gradients]
        dout = dout @ params[2 * i].T
    return dout.reshape(x.shape), gradients
