"""Numerical gradients by central differences, and how far analytic ones are from them.

All of it works on any backend's arrays, which it perturbs in place; use float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlpkit_backends import Array, Backend, load

from .arrays import are_floats, dtype_name, floats
from .checks import check_counts, check_positive
from .evaluation import dtype_of
from .layers import Dropout, Layer, gradient_of
from .losses import CrossEntropy, check_value, gradient_of_scores
from .model import Module, check_model, check_parameters, layers_within


def rel_error(x: Array, y: Array, *, backend: str | Backend | None = None) -> float:
    """max |x - y| / max(1e-8, |x| + |y|) over all elements; x and y of one shape."""
    chosen = load(backend)
    xp = chosen.xp
    x, y = (floats(chosen, a) for a in (x, y))
    if x.shape != y.shape:
        raise ValueError(
            f"x and y should be of one shape; got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return float(xp.max(xp.abs(x - y) / xp.maximum(xp.abs(x) + xp.abs(y), 1e-8)))


def check_floating(x: Array) -> None:
    """ValueError for an array that a small step would be lost in."""
    if not are_floats(x):
        raise ValueError(
            f"x should be floats, best float64, to be perturbed; it is {dtype_name(x)}"
        )


def around(
    f: Callable[[Array], Array], x: Array, index: tuple[int, ...], h: float
) -> tuple[Array, Array]:
    """f(x) with x[index] larger by h, and smaller by h; x is as it was, whatever f raises."""
    old = float(x[index])
    try:
        x[index] = old + h
        above = f(x)
        x[index] = old - h
        return above, f(x)
    finally:
        x[index] = old


def eval_numerical_gradient(
    f: Callable[[Array], float],
    x: Array,
    verbose: bool = True,
    h: float = 1e-5,
    *,
    backend: str | Backend | None = None,
) -> Array:
    """df/dx, (f(x + h) - f(x - h)) / 2h along each coordinate of x, for a scalar f.

    x is perturbed in place and restored. verbose prints each index with its derivative.
    """
    check_floating(x)
    gradient = np.empty(x.shape)
    for index in np.ndindex(tuple(x.shape)):
        above, below = (float(y) for y in around(f, x, index, h))
        gradient[index] = (above - below) / (2 * h)
        if verbose:
            print(index, gradient[index])
    return load(backend).asarray(gradient)


def eval_numerical_gradient_array(
    f: Callable[[Array], Array],
    x: Array,
    df: Array,
    h: float = 1e-5,
    *,
    backend: str | Backend | None = None,
) -> Array:
    """The gradient of x for an array-valued f with the upstream gradient df:
    Σ df (f(x + h) - f(x - h)) / 2h along each coordinate of x, perturbed in place and restored."""
    chosen = load(backend)
    check_floating(x)
    gradient = np.empty(x.shape)
    for index in np.ndindex(tuple(x.shape)):
        # A copy, as what f returns may be a view of x.
        above, below = around(lambda x: chosen.copy(chosen.asarray(f(x))), x, index, h)
        gradient[index] = float(chosen.xp.sum((above - below) * df)) / (2 * h)
    return chosen.asarray(gradient)


def check_gradients(
    model: Module,
    x: Array,
    labels: Array,
    *,
    loss_func: CrossEntropy | None = None,
    directions: int = 3,
    seed: int = 0,
    h: float = 1e-5,
) -> dict[str, float]:
    """The relative error of each parameter's gradient along random directions, the worst of
    `directions`, by name: the check for networks too large for every coordinate.

    Right gradients give about 1e-7 or less in float64, wrong ones about 1e-2 or more; a kink near a
    parameter, and gradients that are tiny themselves (up to 5e-4), can give something between.
    x (N, ...), labels (N,) integers, host or device arrays, or nested lists. ValueError for a model
    that isn't float64, whose rounding would hide the difference, and for a gradient that a layer's
    backward leaves out or gives another shape. A parameter whose gradient is None is left out.

    loss_func: the mean cross entropy where it is None. Dropout's masks are those of `seed`, and go
    on afterwards as if nothing had been. Along a unit direction u, (f(w + hu) - f(w - hu)) / 2h is
    compared with <dw, u>.
    """
    check_model(model)
    check_parameters(model)
    check_counts(directions=directions)
    check_positive(h=h)
    backend = model.backend
    if dtype_of(model) != "float64":
        raise ValueError(
            f"gradients are checked in float64; the model is {dtype_of(model)}: build it with "
            'dtype="float64"'
        )
    xp = backend.xp
    x, labels = floats(backend, x), backend.asarray(labels)
    if not x.shape[0]:
        raise ValueError("gradients are checked on one example or more; got none")
    rng = np.random.default_rng(seed)
    loss_func = CrossEntropy(backend=backend) if loss_func is None else loss_func
    dropouts = [layer for layer in layers_within(model) if isinstance(layer, Dropout)]

    def loss() -> float:
        for dropout in dropouts:
            dropout.seed, dropout.step = seed, 0
        found = loss_func.forward(model.forward(x, True, seed), labels)
        check_value(found)
        return float(found)

    def slope(layer: Layer, name: str, direction: Array) -> float:
        """The loss's numerical derivative along a direction of a parameter."""
        w = layer.params[name]
        try:
            layer.params[name] = w + h * direction
            above = loss()
            layer.params[name] = w - h * direction
            return (above - loss()) / (2 * h)
        finally:
            layer.params[name] = w

    masks = [(dropout.seed, dropout.step) for dropout in dropouts]
    try:
        for _ in range(2):  # twice, as a layer that adds to its gradients is wrong the second time
            loss()
            model.backward(gradient_of_scores(loss_func))
        errors = {}
        for layer in model.net.layers:
            for name, w in list(layer.params.items()):
                dw = gradient_of(layer, name)
                if dw is None:
                    continue
                errors[name] = 0.0
                for _ in range(directions):
                    u = rng.standard_normal(w.shape)
                    direction = backend.asarray(u / np.linalg.norm(u))
                    numerical = slope(layer, name, direction)
                    analytic = float(xp.sum(dw * direction))
                    error = rel_error(numerical, analytic, backend=backend)
                    errors[name] = float(np.maximum(errors[name], error))  # NaN where one is
        return errors
    finally:
        for dropout, state in zip(dropouts, masks, strict=True):
            dropout.seed, dropout.step = state
