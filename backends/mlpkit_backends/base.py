"""Every op of the toolkit in plain array-API code: the specification of a backend.

The ops are written in the array API standard (https://data-apis.org/array-api/2024.12), so any
namespace that follows it runs them as they are. A backend overrides an op only to make it faster
and keeps its signature, result and side effects.

Shapes: N images in a batch, D inputs and M outputs of a layer, C classes. An op computes in the
dtype of its arrays and returns new arrays, except the updates, which work in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .errors import BackendUnavailable
from .plan import Array, Plan

__all__ = ["Array", "Backend", "EagerStep", "Step"]


class Step(Protocol):
    """What `Backend.compile` gives: a function of batches' indices (K, N) that trains on them in
    turn and returns the K losses, as an array that may still be under way on the device.

    how: in words, how the step runs, and why not in a faster way.
    """

    @property
    def how(self) -> str: ...

    def __call__(self, order: Array) -> Array: ...


class EagerStep:
    """A step run op by op. why: what keeps it from being compiled; "" where the backend compiles no
    steps."""

    def __init__(self, backend: Backend, plan: Plan, why: str = "") -> None:
        self.backend, self.plan = backend, plan
        self.how = f"op by op ({why})" if why else "op by op"

    def __call__(self, order: Array) -> Array:
        losses = self.backend.zeros((order.shape[0],), self.plan.dtype)
        for k in range(order.shape[0]):
            losses[k] = self.plan.eager(order[k, :])
        return losses


class Backend:
    """The ops over one array namespace.

    name: what `load` calls it; xp: the namespace. Backends hold no other state.
    """

    def __init__(self, name: str, xp: Any) -> None:
        self.name = name
        self.xp = xp

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by name, as modules can't be: models with it. TypeError for one that
        isn't what `load` gives for its name."""
        from . import load

        try:
            own = type(load(self.name)) is type(self)
        except (BackendUnavailable, TypeError, ValueError):
            own = False
        if not own:
            raise TypeError(
                f"backend {self.name!r} is copied and pickled by its name, and load doesn't give "
                "it for that: add it to mlpkit_backends/__init__.py"
            )
        return load, (self.name,)

    # Arrays: between host and device.

    def asarray(self, a: Any, dtype: str | None = None) -> Array:
        """`a` (array, nested sequence or scalar) as this backend's array, on its device.

        Copies only where the place or the dtype ("float32", "int64", ...) differs.
        """
        return self.xp.asarray(a, dtype=None if dtype is None else getattr(self.xp, dtype))

    def to_numpy(self, a: Array) -> np.ndarray[Any, Any]:
        """`a` as a NumPy array on the host; waits for the device."""
        return np.asarray(a)

    def synchronize(self) -> None:
        """Return when the device has done all it was asked."""

    def device_name(self) -> str:
        """The device in words, for a person."""
        return "the array library's default device"

    def library_threads(self) -> dict[str, int]:
        """How many threads each library has on whose number the bits depend, by its name; the base
        has none."""
        return {}

    def details(self) -> dict[str, str]:
        """What there is to know about the device, for a person: by name, in words."""
        return {"device": self.device_name()}

    @contextmanager
    def failures(self) -> Iterator[None]:
        """A context in which what the device's library raises becomes a DeviceError."""
        yield

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A new array of zeros."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype))

    def zeros_like(self, a: Array) -> Array:
        """A new array of zeros, of a's shape and dtype."""
        return self.xp.zeros_like(a)

    def arange(self, n: int) -> Array:
        """The integers 0 to n - 1, int64."""
        return self.xp.arange(n, dtype=self.xp.int64)

    def copy(self, a: Array) -> Array:
        """A copy that shares nothing with `a`."""
        return self.xp.asarray(a, copy=True)

    # Batches.

    def gather(self, rows: Array, index: Array) -> Array:
        """rows[index]: rows (K, ...), index (N,) integers; result (N, ...)."""
        return self.xp.take(rows, index, axis=0)

    def normalise(self, images: Array, mean: Array) -> Array:
        """images / 255 - mean: uint8 (N, ...) to the dtype of mean (...), in [-1, 1]."""
        return self.xp.astype(images, mean.dtype) / 255 - mean

    def count_correct(self, scores: Array, labels: Array) -> Array:
        """How many rows of scores (N, C) have their largest entry at labels (N,): 0-d int64. A row
        with a NaN has none."""
        numbers = ~self.xp.any(self.xp.isnan(scores), axis=1)
        hits = numbers & (self.xp.argmax(scores, axis=1) == labels)
        return self.xp.sum(self.xp.astype(hits, self.xp.int64))

    # Fully connected: y = x w + b, x (N, D), w (D, M), b (M,), y (N, M).

    def affine(self, x: Array, w: Array, b: Array) -> Array:
        """x w + b."""
        return x @ w + b

    def affine_input_gradient(self, dy: Array, w: Array) -> Array:
        """dx = dy wᵀ, (N, D), from dy (N, M)."""
        return dy @ w.T

    def affine_parameter_gradients(self, dy: Array, x: Array) -> tuple[Array, Array]:
        """dw = xᵀ dy, (D, M), and db = Σ_n dy_n, (M,)."""
        return x.T @ dy, self.xp.sum(dy, axis=0)

    # Activations, elementwise, any shape. f_backward(dy, x, ...) is dy f'(x).

    def leaky_relu(self, x: Array, alpha: float) -> Array:
        """x where x >= 0, else alpha x (Maas et al. 2013)."""
        return self.xp.where(x >= 0, x, alpha * x)

    def leaky_relu_backward(self, dy: Array, x: Array, alpha: float) -> Array:
        """dy where x >= 0, else alpha dy."""
        return self.xp.where(x >= 0, dy, alpha * dy)

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        return self.xp.maximum(x, 0.0)

    def relu_backward(self, dy: Array, x: Array) -> Array:
        """dy where x > 0, else 0."""
        return self.xp.where(x > 0, dy, 0.0)

    def elu(self, x: Array, alpha: float) -> Array:
        """x where x > 0, else alpha (eˣ - 1) (Clevert et al. 2015)."""
        return self.xp.where(x > 0, x, alpha * self.xp.expm1(self.xp.minimum(x, 0.0)))

    def elu_backward(self, dy: Array, x: Array, alpha: float) -> Array:
        """dy where x > 0, else dy alpha eˣ."""
        return self.xp.where(x > 0, dy, dy * (alpha * self.xp.exp(self.xp.minimum(x, 0.0))))

    def selu(self, x: Array, alpha: float, scale: float) -> Array:
        """scale elu(x, alpha) (Klambauer et al. 2017)."""
        return scale * self.elu(x, alpha)

    def selu_backward(self, dy: Array, x: Array, alpha: float, scale: float) -> Array:
        """scale elu_backward(dy, x, alpha)."""
        return scale * self.elu_backward(dy, x, alpha)

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + e⁻ˣ), from e to the -|x|, which cannot overflow."""
        e = self.xp.exp(-self.xp.abs(x))
        return self.xp.where(x >= 0, 1.0, e) / (1.0 + e)

    def sigmoid_backward(self, dy: Array, x: Array) -> Array:
        """dy e / (1 + e)², e = e to the -|x|: s (1 - s), s = sigmoid(x), without the digits that
        1 - s loses where s is near 1."""
        e = self.xp.exp(-self.xp.abs(x))
        return dy * (e / ((1.0 + e) * (1.0 + e)))

    def tanh(self, x: Array) -> Array:
        """tanh x."""
        return self.xp.tanh(x)

    def tanh_backward(self, dy: Array, x: Array) -> Array:
        """dy (1 - tanh² x), as 4 sigmoid_backward(dy, 2x), which keeps all digits."""
        return 4.0 * self.sigmoid_backward(dy, 2.0 * x)

    # Dropout.

    def keep_mask(
        self, shape: tuple[int, ...], keep_prob: float, key: tuple[int, int, int]
    ) -> Array:
        """Which elements stay: bool, each True with probability keep_prob, alike on every backend.

        key is (seed, layer, step). Element i is True where the i-th 32-bit half, low half first, of
        Philox4x64-10's output with key words (seed, layer) and counter words (0, step, 0, 0), as
        numpy.random.Philox steps it, is below keep_prob 2³² (Salmon et al. 2011,
        doi:10.1145/2063384.2063405).
        """
        seed, layer, step = key
        size = math.prod(shape)
        bits = np.random.Philox(
            key=np.array([seed, layer], dtype=np.uint64),
            counter=np.array([0, step, 0, 0], dtype=np.uint64),
        )
        words = bits.random_raw((size + 1) // 2).astype("<u8").view("<u4")[:size]
        return self.asarray((words < keep_prob * 2.0**32).reshape(shape))

    def dropout(self, x: Array, mask: Array, keep_prob: float) -> Array:
        """x / keep_prob where mask, else 0 (inverted dropout, Srivastava et al. 2014); its own
        gradient with dy for x."""
        return self.xp.where(mask, x / keep_prob, 0.0)

    # Loss.

    def softmax(self, x: Array) -> Array:
        """eˣ / Σ eˣ over the last axis, shifted by the largest entry so that it cannot overflow."""
        e = self.xp.exp(x - self.xp.max(x, axis=-1, keepdims=True))
        return e / self.xp.sum(e, axis=-1, keepdims=True)

    def softmax_cross_entropy(self, scores: Array, labels: Array) -> Array:
        """-log softmax(scores)[n, labels[n]], (N,), from scores (N, C) and integer labels (N,)."""
        shifted = scores - self.xp.max(scores, axis=1, keepdims=True)
        at_label = self.xp.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
        return self.xp.log(self.xp.sum(self.xp.exp(shifted), axis=1)) - at_label

    def softmax_cross_entropy_backward(self, scores: Array, labels: Array) -> Array:
        """softmax(scores) - onehot(labels), (N, C): the gradient of the sum over the batch."""
        onehot = self.arange(scores.shape[1])[None, :] == labels[:, None]
        return self.softmax(scores) - self.xp.astype(onehot, scores.dtype)

    # Updates, in place on w and the state, never on the gradient dw; all of one shape.

    def sgd_update(self, w: Array, dw: Array, lr: float) -> None:
        """w ← w - lr dw."""
        w -= lr * dw

    def sgdm_update(self, w: Array, dw: Array, velocity: Array, lr: float, momentum: float) -> None:
        """v ← momentum v - lr dw; w ← w + v (Polyak 1964)."""
        velocity *= momentum
        velocity -= lr * dw
        w += velocity

    def rmsprop_update(
        self, w: Array, dw: Array, cache: Array, lr: float, decay: float, eps: float
    ) -> None:
        """c ← decay c + (1 - decay) dw²; w ← w - lr dw / √(c + eps): eps inside the root
        (Tieleman & Hinton 2012, lecture 6.5)."""
        cache *= decay
        cache += (1.0 - decay) * (dw * dw)
        w -= lr * dw / self.xp.sqrt(cache + eps)

    def adam_update(
        self,
        w: Array,
        dw: Array,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
    ) -> None:
        """m ← β₁ m + (1 - β₁) dw; v ← β₂ v + (1 - β₂) dw²;
        w ← w - lr m̂ / (√v̂ + eps), m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ): eps outside the root,
        t counts from 1 (Kingma & Ba 2015, algorithm 1)."""
        m *= beta1
        m += (1.0 - beta1) * dw
        v *= beta2
        v += (1.0 - beta2) * (dw * dw)
        m_hat = m / (1.0 - beta1**t)
        v_hat = v / (1.0 - beta2**t)
        w -= lr * m_hat / (self.xp.sqrt(v_hat) + eps)

    # A whole training step.

    def compile(self, plan: Plan) -> Step:
        """The step of a plan. This one runs it op by op; a backend's own must give the same losses
        and parameters."""
        return EagerStep(self, plan)
