"""Splits as batches on a device, and a network's loss and accuracy over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from mlpkit_backends import Array, Backend, load

from .arrays import are_floats, are_integers, check_array, dtype_name, float_dtype
from .checks import check_counts, wrong_kind
from .losses import CONVERT, CrossEntropy, check_labels, value_of
from .model import Module, check_model

EVAL_BATCH = 512
Pause: TypeAlias = Callable[[], None] | None


@dataclass(frozen=True, eq=False)
class Batches:
    """A split on a backend's device: images (N, ...), labels (N,) and the dtype of its batches.

    Where a mean image is given, images are uint8, and batches are scaled to [0, 1] less the mean.
    """

    backend: Backend
    images: Array = field(repr=False)
    labels: Array = field(repr=False)
    dtype: str
    mean: Array | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, backend: str | Backend, images: Any, labels: Any, dtype: str, mean: Any = None
    ) -> Batches:
        """From host or device arrays, or nested lists, moved to the backend's device as they are.

        mean: of an image's shape, or one that broadcasts to it, as (3,) for three channels.
        ValueError for labels that aren't one whole number an image, and for a mean image that is
        missing (uint8 images), has no use (any others: they are taken as they are) or numbers
        outside [0, 1].
        """
        chosen, dtype = load(backend), float_dtype(dtype)
        images, labels = (a if hasattr(a, "dtype") else np.asarray(a) for a in (images, labels))
        if not (are_floats(images) or are_integers(images) or dtype_name(images) == "bool"):
            raise ValueError(
                f"images should be numbers; got {dtype_name(images)}: convert them with astype"
            )
        pixels = dtype_name(images) == "uint8"
        if pixels and mean is None:
            raise ValueError(
                "uint8 images are scaled to [0, 1] and centred, which needs a mean image: give "
                "images as floats, or their mean to Batches.of (mean=data.mean_image)"
            )
        if mean is not None and not pixels:
            raise ValueError(
                "a mean image is for uint8 images, which are scaled to [0, 1] and centred; these "
                f"are {images.dtype}: leave mean= out, or give them as uint8"
            )
        if len(labels.shape) != 1 or not are_integers(labels):
            raise ValueError(
                "labels should be whole numbers (N,), one for each example; "
                f"got {labels.dtype} {tuple(labels.shape)}: "
                f"{'take labels.ravel()' if labels.shape[1:] == (1,) else CONVERT}"
            )
        if tuple(images.shape[:1]) != tuple(labels.shape) or labels.shape[0] == 0:
            raise ValueError(
                "images (N, ...) and labels (N,) should be as many, and at least one; "
                f"got {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if mean is not None:
            mean = chosen.asarray(mean, dtype)
            low, high = float(chosen.xp.min(mean)), float(chosen.xp.max(mean))
            if not -0.001 <= low <= high <= 1.001:  # a sum's rounding may end outside
                raise ValueError(
                    "a mean image is of images scaled to [0, 1]; this one has numbers outside: "
                    "divide it by 255"
                )
            shape = tuple(images.shape[1:])
            try:
                mean = chosen.copy(chosen.xp.broadcast_to(mean, shape))
            except ValueError as error:
                raise ValueError(
                    f"a mean image has the shape of an image, {shape}, or one that broadcasts to "
                    f"it; got {tuple(mean.shape)}"
                ) from error
        return cls(chosen, chosen.asarray(images), chosen.asarray(labels, "int64"), dtype, mean)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def prepare(self, images: Array) -> Array:
        """Images as a network's input."""
        if self.mean is not None:
            return self.backend.normalise(images, self.mean)
        return self.backend.xp.astype(images, getattr(self.backend.xp, self.dtype), copy=False)

    def take(self, index: Array) -> tuple[Array, Array]:
        """The batch of those indices (N,): images and labels. ValueError for what are no
        integers, as a mask."""
        check_array("take", index)
        if not are_integers(index):
            raise ValueError(
                f"take takes the integers of the examples; got {dtype_name(index)}: of a mask, "
                "flatnonzero gives them"
            )
        images = self.backend.gather(self.images, index)
        return self.prepare(images), self.backend.gather(self.labels, index)

    def in_order(self, batch_size: int) -> Iterator[tuple[Array, Array]]:
        """Every image once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            part = slice(start, min(start + batch_size, len(self)))
            yield self.prepare(self.images[part, ...]), self.labels[part]

    def are_finite(self) -> bool:
        """Whether no number of the batches is infinite or NaN."""
        xp = self.backend.xp
        return all(bool(xp.all(xp.isfinite(x))) for x, _ in self.in_order(EVAL_BATCH))


def evaluate(
    model: Module,
    loss_func: CrossEntropy,
    batches: Batches,
    batch_size: int = EVAL_BATCH,
) -> tuple[float, float]:
    """The mean loss of an example and the accuracy over a split.

    The loss may average over its batch or sum, as its `size_average` says; one that has none
    averages. ValueError for a batch size below 1, and for labels that are no columns of the scores.
    """
    check_model(model)
    check_batches("batches", batches)
    check_counts(batch_size=batch_size)
    check_scorable(model, batches)
    return score_all(model, loss_func, batches, batch_size)


def score_all(
    model: Module, loss_func: Any, batches: Batches, batch_size: int, pause: Pause = None
) -> tuple[float, float]:
    """`evaluate` of what has been checked already. pause: is called after each batch, and may raise
    to stop."""
    backend = batches.backend
    losses, hits = [], []
    value = value_of(loss_func)
    for x, labels in batches.in_order(batch_size):
        scores = model.forward(x, False)
        averaged = getattr(loss_func, "size_average", True)
        losses.append(value(scores, labels) * (labels.shape[0] if averaged else 1))
        hits.append(backend.count_correct(scores, labels))
        if pause is not None:
            pause()
    return sum(map(float, losses)) / len(batches), sum(map(int, hits)) / len(batches)


def compute_acc(
    model: Module,
    data: Any,
    labels: Any,
    num_samples: int | None = None,
    batch_size: int = 100,
) -> float:
    """The fraction of images whose highest score is at their label.

    data (N, ...) and labels (N,), host or device arrays, or nested lists. num_samples: score that
    many, drawn from NumPy's global state, where there are more. ValueError for numbers below 1, for
    what `Batches.of` refuses, and for labels that are no columns of the scores.
    """
    check_model(model)
    check_counts(batch_size=batch_size)
    if num_samples is not None:
        check_counts(num_samples=num_samples)
    backend = model.backend
    batches = Batches.of(backend, data, labels, dtype_of(model))
    check_scorable(model, batches)
    if num_samples is not None and num_samples < len(batches):
        chosen = np.random.choice(len(batches), num_samples, replace=False)
        parts = batches.take(backend.asarray(chosen))
        batches = replace(batches, images=parts[0], labels=parts[1])
    hits = [
        backend.count_correct(model.forward(x, False), y) for x, y in batches.in_order(batch_size)
    ]
    return sum(map(int, hits)) / len(batches)


def check_batches(name: str, split: Any) -> None:
    """TypeError, naming the argument, for what is no Batches."""
    if not isinstance(split, Batches):
        raise wrong_kind(name, split, "made with Batches.of(backend, images, labels, dtype)")


def check_scorable(model: Module, batches: Batches) -> None:
    """ValueError unless every label is a column of the scores, which a forward of one example
    gives."""
    x, _ = batches.take(batches.backend.arange(1))
    check_labels(batches.backend, batches.labels, int(model.forward(x, False).shape[-1]))


def dtype_of(model: Any) -> str:
    """The dtype of a network's first parameter, by name."""
    for layer in model.net.layers:
        for p in layer.params.values():
            return dtype_name(p)
    return "float64"
