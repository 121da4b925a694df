"""Activation functions on arrays of any shape; the formulas are the backend's ops.

Each takes arrays of the default backend, or of the one that `backend` names.
"""

from __future__ import annotations

from mlpkit_backends import Array, Backend, load


def sigmoid(x: Array, *, backend: str | Backend | None = None) -> Array:
    """1 / (1 + e⁻ˣ), in (0, 1)."""
    return load(backend).sigmoid(x)


def tanh(x: Array, *, backend: str | Backend | None = None) -> Array:
    """tanh x, in (-1, 1)."""
    return load(backend).tanh(x)


def relu(x: Array, *, backend: str | Backend | None = None) -> Array:
    """max(x, 0)."""
    return load(backend).relu(x)


def leaky_relu(x: Array, alpha: float = 0.01, *, backend: str | Backend | None = None) -> Array:
    """x where x >= 0, else alpha x (Maas et al. 2013)."""
    return load(backend).leaky_relu(x, alpha)


def elu(x: Array, alpha: float = 1.0, *, backend: str | Backend | None = None) -> Array:
    """x where x > 0, else alpha (eˣ - 1) (Clevert et al. 2015)."""
    return load(backend).elu(x, alpha)


def selu(
    x: Array,
    alpha: float = 1.6732632423543772,
    scale: float = 1.0507009873554805,
    *,
    backend: str | Backend | None = None,
) -> Array:
    """scale elu(x, alpha); the defaults keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return load(backend).selu(x, alpha, scale)
