"""Softmax and its cross entropy; the formulas are the backend's ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlpkit_backends import Array, Backend, load

from .arrays import are_integers, check_floats, check_returned, dtype_name, floats

CONVERT = "convert whole numbers with astype(int), and one-hot rows with argmax(axis=1)"


def softmax(x: Array, *, backend: str | Backend | None = None) -> Array:
    """eˣ / Σ eˣ over the last axis, stable for scores of any size."""
    chosen = load(backend)
    return chosen.softmax(floats(chosen, x))


def check_labels(backend: Backend, labels: Array, classes: int) -> None:
    """ValueError unless labels (N,) are integers in 0..classes - 1."""
    if not are_integers(labels):
        raise ValueError(f"labels must be integers; got {dtype_name(labels)}: {CONVERT}")
    if labels.shape[0]:
        low, high = int(backend.xp.min(labels)), int(backend.xp.max(labels))
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels must be in 0..{classes - 1}, one for each column of the scores; "
                f"got {low}..{high}: subtract where they begin, or give the network more outputs"
            )


def check_shapes(scores: Array, labels: Array) -> None:
    """ValueError unless scores are floats (N, C) and labels an array (N,)."""
    check_floats("the loss", scores)
    if scores.ndim != 2 or tuple(labels.shape) != (scores.shape[0],):
        raise ValueError(
            "the loss takes scores of shape (N, C) and labels of shape (N,); "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )


def check_value(loss: Any) -> None:
    """TypeError unless a loss is one number."""
    if loss is None or getattr(loss, "shape", ()) != ():
        raise TypeError(
            "the loss's forward should return one number, over the batch; "
            f"got {'None' if loss is None else f'shape {tuple(loss.shape)}'}"
        )


def gradient_of_scores(loss_func: Any) -> Array:
    """The loss's gradient of the scores. TypeError for what is no array."""
    dscores = loss_func.backward()
    check_returned("the loss's backward", dscores)
    return dscores


def value_of(loss_func: Any) -> Callable[[Array, Array], Any]:
    """The loss's function of scores and labels. One of the user's own has forward alone, which may
    wait for the device."""
    own = getattr(loss_func.forward, "__func__", None) is not CrossEntropy.forward
    value: Callable[[Array, Array], Any] = loss_func.forward if own else loss_func.value
    return value


class CrossEntropy:
    """The cross entropy of softmax(scores) and labels, over the batch: its mean, or its sum where
    size_average is False."""

    def __init__(self, size_average: bool = True, *, backend: str | Backend | None = None) -> None:
        if not isinstance(size_average, bool):
            raise TypeError(
                "size_average is True for the mean over the batch, or False for the sum; "
                f"got {size_average!r}"
            )
        self.size_average = size_average
        self.backend = load(backend)
        self._kept: tuple[Array, Array] | None = None

    def value(self, scores: Array, labels: Array) -> Array:
        """The loss as a 0-d array on the device, for loops that must not wait for it.

        scores (N, C); labels (N,) integers in 0..C-1, which are not checked.
        """
        check_shapes(scores, labels)
        self._kept = (scores, labels)
        return self.scale(scores) * self.backend.xp.sum(
            self.backend.softmax_cross_entropy(scores, labels)
        )

    def forward(self, scores: Array, labels: Array) -> float:
        """The loss as a float; ValueError where a label is none of the integers 0..C-1."""
        if not hasattr(labels, "dtype"):  # a list
            labels = self.backend.asarray(labels)
        check_shapes(scores, labels)
        check_labels(self.backend, labels, scores.shape[1])
        return float(self.value(scores, labels))

    def backward(self) -> Array:
        """The gradient of the scores, (N, C)."""
        if self._kept is None:
            raise ValueError("the loss's backward needs a forward before it; call forward")
        (scores, labels), self._kept = self._kept, None
        return self.scale(scores) * self.backend.softmax_cross_entropy_backward(scores, labels)

    def scale(self, scores: Array) -> float:
        """What the sum over the batch is multiplied by."""
        return 1.0 / max(scores.shape[0], 1) if self.size_average else 1.0
