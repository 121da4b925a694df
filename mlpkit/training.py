"""The training loop: epochs over fresh permutations, history, learning-rate decay, best parameters.

`fit` is the loop; `train_net` gives it the notebook's signature and `mlpkit train` a run folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlpkit_backends import Array, Backend, load

from .losses import CrossEntropy
from .model import Module
from .optimizers import Optimizer
from .seeding import check_seed, epoch_order

EVAL_BATCH = 512
CHUNK = 32  # iterations handed to the backend at a time


class TrainingDiverged(ArithmeticError):  # noqa: N818 - the field's word for it
    """The loss became NaN or infinite. `history` holds what was recorded before."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True)
class Batches:
    """A split on a backend's device: images (N, ...), labels (N,) and the dtype of its batches.

    Where a mean image is given, images are uint8, and batches are scaled to [0, 1] less the mean.
    """

    backend: Backend
    images: Array
    labels: Array
    dtype: str
    mean: Array | None = None

    @classmethod
    def of(
        cls, backend: Backend, images: Any, labels: Any, dtype: str, mean: Any = None
    ) -> Batches:
        """From host or device arrays, moved to the backend's device as they are."""
        if images.shape[0] != labels.shape[0] or images.shape[0] == 0:
            raise ValueError(
                "images and labels should be as many, and at least one; "
                f"got {images.shape[0]} and {labels.shape[0]}"
            )
        on_device = None if mean is None else backend.asarray(mean, dtype)
        return cls(
            backend, backend.asarray(images), backend.asarray(labels, "int64"), dtype, on_device
        )

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def prepare(self, images: Array) -> Array:
        """Images as a network's input."""
        if self.mean is not None:
            return self.backend.normalise(images, self.mean)
        return self.backend.xp.astype(images, getattr(self.backend.xp, self.dtype), copy=False)

    def take(self, index: Array) -> tuple[Array, Array]:
        """The batch of those indices (N,): images and labels."""
        images = self.backend.gather(self.images, index)
        return self.prepare(images), self.backend.gather(self.labels, index)

    def in_order(self, batch_size: int) -> Iterator[tuple[Array, Array]]:
        """Every image once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            part = slice(start, min(start + batch_size, len(self)))
            yield self.prepare(self.images[part, ...]), self.labels[part]


@dataclass(frozen=True)
class Plan:
    """A training step in parts, for `Backend.compile`: what is trained, on what, and how."""

    model: Module
    loss_func: CrossEntropy
    optimizer: Optimizer
    batches: Batches

    @property
    def dtype(self) -> str:
        """The dtype of the losses."""
        return self.batches.dtype

    def step(self, index: Array) -> Array:
        """One eager iteration on the batch of those indices; returns its loss, on the device."""
        x, labels = self.batches.take(index)
        # A loss of the user's own has forward alone, which may wait for the device.
        value = getattr(self.loss_func, "value", self.loss_func.forward)
        loss = value(self.model.forward(x, True), labels)
        self.model.backward(self.loss_func.backward())
        self.optimizer.step()
        return loss


@dataclass(frozen=True)
class Epoch:
    """What is recorded at the end of an epoch; losses are means, accuracies fractions."""

    iteration: int
    lr: float
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float


@dataclass
class History:
    """A training run's record: every iteration's loss, every epoch's scores, the best parameters
    (copies, from the epoch of the highest validation accuracy, the first of equals) and the seconds
    spent in iterations."""

    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_params: dict[str, Array] = field(default_factory=dict)
    seconds: float = 0.0


class Watcher(Protocol):
    """Sees training go by. Reading `losses` waits for the device."""

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        """After each chunk of iterations; done and total count from the start of training."""

    def epoch(self, number: int, epochs: int, history: History) -> None:
        """After each epoch's evaluation."""


class Losses:
    """The losses of an epoch's chunks, brought to the host when asked for."""

    def __init__(self, backend: Backend, history: History) -> None:
        self.backend, self.history = backend, history
        self.pending: list[Array] = []

    def add(self, losses: Array) -> None:
        """Note a chunk's losses, without waiting for them."""
        self.pending.append(losses)

    def read(self) -> list[float]:
        """The history's losses with all noted so far. Raises TrainingDiverged."""
        recorded = self.history.losses
        for chunk in self.pending:
            values = self.backend.to_numpy(chunk)
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                recorded += map(float, values[: bad[0]])
                raise TrainingDiverged(
                    f"the loss became {values[bad[0]]} at iteration {len(recorded) + 1}: training "
                    "diverged; lower the learning rate (lr)",
                    self.history,
                )
            recorded += map(float, values)
        self.pending.clear()
        return recorded


def fit(
    model: Module,
    loss_func: CrossEntropy,
    optimizer: Optimizer,
    train: Batches,
    val: Batches,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    lr_decay: float = 1.0,
    lr_decay_every: int = 1000,
    chunk: int = CHUNK,
    watcher: Watcher | None = None,
) -> History:
    """Train the model, in place, and return the record.

    One epoch is floor(N / batch_size) iterations over a permutation that seed and the epoch's
    number decide. After every lr_decay_every epochs the learning rate is multiplied by lr_decay.
    Raises ValueError for settings out of range, TrainingDiverged where a loss isn't finite.
    """
    check_settings(len(train), batch_size, epochs, lr_decay, lr_decay_every)
    backend = train.backend
    step = backend.compile(Plan(model, loss_func, optimizer, train))
    per_epoch = len(train) // batch_size
    history = History()
    losses = Losses(backend, history)
    # What overflows shows as a loss that isn't finite; NumPy's warnings would only repeat it.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for number in range(1, epochs + 1):
            started = time.perf_counter()
            order = epoch_order(len(train), seed, number)[: per_epoch * batch_size]
            on_device = backend.asarray(order.reshape(per_epoch, batch_size))
            for first in range(0, per_epoch, chunk):
                last = min(first + chunk, per_epoch)
                losses.add(step(on_device[first:last, :]))
                if watcher is not None:
                    done = (number - 1) * per_epoch + last
                    watcher.iterations(done, epochs * per_epoch, losses)
            losses.read()
            backend.synchronize()
            history.seconds += time.perf_counter() - started
            scores = (*evaluate(model, loss_func, train), *evaluate(model, loss_func, val))
            history.epochs.append(Epoch(number * per_epoch, optimizer.lr, *scores))
            keep_best(history, model)
            if number % lr_decay_every == 0:
                optimizer.lr *= lr_decay
            if watcher is not None:
                watcher.epoch(number, epochs, history)
    return history


def check_settings(
    n: int, batch_size: int, epochs: int, lr_decay: float, lr_decay_every: int
) -> None:
    """ValueError, naming the setting, for what can't be trained with n images."""
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"the batch size must be from 1 to the {n} training images; got {batch_size}"
        )
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}")
    if not lr_decay > 0 or lr_decay_every < 1:
        raise ValueError(
            "lr_decay must be positive and lr_decay_every at least 1 epoch; "
            f"got {lr_decay} and {lr_decay_every}"
        )


def keep_best(history: History, model: Module) -> None:
    """Copy the parameters where the last epoch is the best so far."""
    accuracies = [epoch.val_acc for epoch in history.epochs]
    if accuracies[-1] > max(accuracies[:-1], default=-1.0):
        history.best_epoch = len(accuracies)
        params = ((n, p) for layer in model.net.layers for n, p in layer.params.items())
        history.best_params = {name: backend_of(model).copy(p) for name, p in params}


def evaluate(
    model: Module, loss_func: CrossEntropy, batches: Batches, batch_size: int = EVAL_BATCH
) -> tuple[float, float]:
    """The loss (the mean of the batches', by size) and the accuracy over a split."""
    backend = batches.backend
    losses, hits = [], []
    value = getattr(loss_func, "value", loss_func.forward)
    for x, labels in batches.in_order(batch_size):
        scores = model.forward(x, False)
        averaged = getattr(loss_func, "size_average", True)
        losses.append(value(scores, labels) * (labels.shape[0] if averaged else 1))
        hits.append(backend.correct(scores, labels))
    return sum(map(float, losses)) / len(batches), sum(map(int, hits)) / len(batches)


def compute_acc(
    model: Module,
    data: Any,
    labels: Any,
    num_samples: int | None = None,
    batch_size: int = 100,
) -> float:
    """The fraction of images whose highest score is at their label.

    data (N, ...) and labels (N,), host or device arrays. num_samples: score that many, drawn from
    NumPy's global state, where there are more.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1; got {batch_size}")
    backend = backend_of(model)
    if num_samples is not None and num_samples < data.shape[0]:
        chosen = np.random.choice(data.shape[0], num_samples, replace=False)
        data = backend.gather(backend.asarray(data), backend.asarray(chosen))
        labels = backend.gather(backend.asarray(labels), backend.asarray(chosen))
    batches = Batches.of(backend, data, labels, dtype_of(model))
    hits = [backend.correct(model.forward(x, False), y) for x, y in batches.in_order(batch_size)]
    return sum(map(int, hits)) / len(batches)


def train_net(
    data_dict: Mapping[str, tuple[Any, Any]],
    model: Module,
    loss_func: CrossEntropy,
    optimizer: Optimizer,
    batch_size: int,
    max_epochs: int,
    lr_decay: float = 1.0,
    lr_decay_every: int = 1000,
    show_every: int = 10,
    verbose: bool = False,
) -> tuple[dict[str, Array], list[float], list[float], list[float]]:
    """Train the model, in place; the notebook's signature.

    data_dict: "data_train" and "data_val", each (images (N, ...), labels (N,)), host or device
    arrays. The order of the batches comes from NumPy's global state. verbose prints the loss every
    show_every iterations and the accuracies of every epoch.

    Returns (parameters of the best validation epoch, copied; loss of every iteration; training and
    validation accuracy of every epoch). Raises as `fit` does.
    """
    if show_every < 1:
        raise ValueError(f"show_every must be at least 1 iteration; got {show_every}")
    backend, dtype = backend_of(model), dtype_of(model)
    train, val = (Batches.of(backend, *data_dict[f"data_{s}"], dtype) for s in ("train", "val"))
    history = fit(
        model,
        loss_func,
        optimizer,
        train,
        val,
        batch_size=batch_size,
        epochs=max_epochs,
        seed=check_seed(None),
        lr_decay=lr_decay,
        lr_decay_every=lr_decay_every,
        chunk=min(show_every, CHUNK) if verbose else CHUNK,
        watcher=Printer(show_every) if verbose else None,
    )
    accuracies = [(epoch.train_acc, epoch.val_acc) for epoch in history.epochs]
    train_acc_hist, val_acc_hist = map(list, zip(*accuracies, strict=True))
    return history.best_params, history.losses, train_acc_hist, val_acc_hist


class Printer:
    """train_net's verbose lines."""

    def __init__(self, show_every: int) -> None:
        self.show_every = show_every
        self.shown = 0

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        """Print every show_every-th loss, from the first."""
        for i in range(self.shown, done):
            if i % self.show_every == 0:
                print(f"(Iteration {i + 1} / {total}) loss: {losses.read()[i]}")
        self.shown = done

    def epoch(self, number: int, epochs: int, history: History) -> None:
        """Print the epoch's accuracies."""
        last = history.epochs[-1]
        print(
            f"(Epoch {number} / {epochs}) Training Accuracy: {last.train_acc}, "
            f"Validation Accuracy: {last.val_acc}"
        )


def backend_of(model: Any) -> Backend:
    """The backend that a network was built on; the default one where it doesn't say."""
    return load(getattr(model, "backend", None))


def dtype_of(model: Any) -> str:
    """The dtype of a network's first parameter, by name."""
    for layer in model.net.layers:
        for p in layer.params.values():
            return str(p.dtype).rpartition(".")[2]
    return "float64"
