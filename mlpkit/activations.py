"""Activation functions on arrays of any shape; the formulas are the backend's ops.

Each takes arrays of the default backend, or of the one that `backend` names; numbers that aren't
floats are computed in float64.
"""

from __future__ import annotations

from mlpkit_backends import Array, Backend, load

from .arrays import floats

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


def sigmoid(x: Array, *, backend: str | Backend | None = None) -> Array:
    """1 / (1 + e⁻ˣ), in (0, 1)."""
    chosen = load(backend)
    return chosen.sigmoid(floats(chosen, x))


def tanh(x: Array, *, backend: str | Backend | None = None) -> Array:
    """tanh x, in (-1, 1)."""
    chosen = load(backend)
    return chosen.tanh(floats(chosen, x))


def relu(x: Array, *, backend: str | Backend | None = None) -> Array:
    """max(x, 0)."""
    chosen = load(backend)
    return chosen.relu(floats(chosen, x))


def leaky_relu(x: Array, alpha: float = 0.01, *, backend: str | Backend | None = None) -> Array:
    """x where x >= 0, else alpha x (Maas et al. 2013)."""
    chosen = load(backend)
    return chosen.leaky_relu(floats(chosen, x), alpha)


def elu(x: Array, alpha: float = 1.0, *, backend: str | Backend | None = None) -> Array:
    """x where x > 0, else alpha (eˣ - 1) (Clevert et al. 2015)."""
    chosen = load(backend)
    return chosen.elu(floats(chosen, x), alpha)


def selu(
    x: Array,
    alpha: float = SELU_ALPHA,
    scale: float = SELU_SCALE,
    *,
    backend: str | Backend | None = None,
) -> Array:
    """scale elu(x, alpha); the defaults keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    chosen = load(backend)
    return chosen.selu(floats(chosen, x), alpha, scale)
