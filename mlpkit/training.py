"""The training loop: epochs over fresh permutations, history, learning-rate decay, best parameters.

`fit` is the loop; `train_net` gives it the notebook's signature and `mlpkit train` a run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from mlpkit_backends import Array

from .checks import check_counts, wrong_kind
from .evaluation import EVAL_BATCH, Batches, check_scorable, dtype_of, score_all
from .history import EarlyStopping, Epoch, History, Losses, TrainingDiverged, cause_of
from .losses import CrossEntropy
from .model import Module, check_model
from .optimizers import Optimizer
from .planning import CompiledTraining
from .seeding import check_seed, epoch_order
from .training_checks import check_history, check_parts, check_settings

CHUNK = 32  # iterations handed to the backend at a time
SECONDS = 0.5  # that what is under way may take, so that training can be stopped soon


class Watcher(Protocol):
    """Sees training go by. Reading `losses` waits for the device. The number of iterations in a
    chunk may depend on their speed: if `iterations` changes anything, give `fit` chunk=1, so that
    every run is the same."""

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        """After each chunk of iterations; done and total count from the start of training."""

    def epoch(self, number: int, epochs: int, history: History) -> None:
        """After each epoch's evaluation. What it puts into history.stopped, in words, ends
        training."""


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
    lr_decay_every: int = 1,
    patience: int | None = None,
    min_delta: float = 0.0,
    chunk: int = CHUNK,
    watcher: Watcher | None = None,
    history: History | None = None,
    pause: Callable[[], None] | None = None,
) -> History:
    """Train the model, in place, and return the record.

    One epoch is floor(N / batch_size) iterations over a permutation of the training images that
    seed and the epoch's number decide, counted from 1 in every call. After it the model is scored
    on all of train and val, and after every lr_decay_every epochs the learning rate is multiplied
    by lr_decay. Training ends after so many epochs, or once the validation accuracy has not risen
    by more than min_delta in `patience` epochs.

    chunk: how many iterations the backend is given at a time, at most. Results don't depend on it,
    unless a watcher changes something between chunks.
    watcher: is told after each chunk and each epoch, and may show them, replace parameters, state
    and settings, or end training. Images and labels are to stay as they are: a compiled step may
    have a copy. A compiled step doesn't fill the layers' `grads`: they stay what they were.

    history: of an earlier call, to go on after its last iteration, within an epoch too; parameters,
    optimizer state, its learning rate and dropout's steps must be as they were then, as they are
    after a Ctrl-C, which waits for the end of a chunk.
    pause: is called between chunks and between the batches of an evaluation, when all of these
    agree with the history once the losses are read; what it raises ends training.

    Raises TypeError for a part of another kind; ValueError for settings and labels out of range, an
    optimizer of another network, and parts on different backends or of different dtypes;
    TrainingDiverged where a loss isn't finite.
    """
    check_parts(model, loss_func, optimizer, train, val, watcher)
    check_settings(len(train), batch_size, epochs, lr_decay, lr_decay_every, chunk)
    # Python's numbers: NumPy's would wrap around, or round the learning rate to their dtype.
    batch_size, epochs, chunk = map(int, (batch_size, epochs, chunk))
    lr_decay_every, lr_decay = int(lr_decay_every), float(lr_decay)
    seed = check_seed(seed)
    history = History() if history is None else history
    per_epoch = len(train) // batch_size
    check_history(history, per_epoch, model, optimizer, seed)
    stopping = EarlyStopping(patience, min_delta, history.epochs)
    backend = train.backend
    for batches in (train, val):
        check_scorable(model, batches)
    step = CompiledTraining(model, loss_func, optimizer, train, batch_size)
    history.how, history.stopped, history.seed = step.step.how, "", seed
    losses = Losses(train, history)
    pace = Pace(chunk, backend.synchronize)

    def order_of(number: int) -> Any:
        order = epoch_order(len(train), seed, number)[: per_epoch * batch_size]
        return order.reshape(per_epoch, batch_size)

    order = order_of(len(history.epochs) + 1)
    # What overflows shows as a loss that isn't finite; NumPy's warnings would only repeat it.
    with losses.kept(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        while len(history.epochs) < epochs and not (history.stopped or stopping.reason):
            number = len(history.epochs) + 1
            before = (number - 1) * per_epoch
            with history.timed():
                on_device = backend.asarray(order)
                done = history.iterations - before
                while done < per_epoch:
                    first, done = done, min(done + pace.size, per_epoch)
                    with history.whole():
                        history.ahead = True  # until the step has come to its end
                        with pace.timed(done - first):
                            losses.add(step(on_device[first:done, :]))
                        history.ahead = False
                        if watcher is not None:
                            watcher.iterations(before + done, epochs * per_epoch, losses)
                    if pause is not None:
                        pause()
                if number < epochs:
                    order = order_of(number + 1)  # while the device may still be at this one's
                losses.read()
                pace.wait()
            history.how = step.step.how
            scores = tuple(
                score
                for part in (train, val)
                for score in score_all(model, loss_func, part, EVAL_BATCH, pause)
            )
            if not np.isfinite(scores).all():
                parts = (("training", train, scores[0]), ("validation", val, scores[2]))
                split, part, loss = next(p for p in parts if not np.isfinite(p[2]))
                raise TrainingDiverged(
                    f"the loss over the {split} split became {loss} after iteration "
                    f"{number * per_epoch}: {cause_of(part, trained=True)}",
                    history,
                )
            with history.whole():
                history.record(Epoch(number * per_epoch, optimizer.lr, *scores), model)
                stopping.see(history.epochs[-1])
                if number % lr_decay_every == 0:
                    optimizer.lr *= lr_decay
                if watcher is not None:
                    watcher.epoch(number, epochs, history)
            if pause is not None:
                pause()
    unfinished = len(history.epochs) < epochs
    history.stopped = (history.stopped or stopping.reason) if unfinished else ""
    return history


class Pace:
    """How many iterations are handed over at a time: one, and from then on as many as are done
    within SECONDS, in powers of two, as a backend may run so many as one, prepared. A device is
    waited for after as many, as calls alone would run ahead of it."""

    def __init__(self, most: int, synchronize: Callable[[], None]) -> None:
        self.most, self.synchronize = most, synchronize
        self.size = self.bound = 1
        self.under_way, self.since = 0, 0.0

    @contextmanager
    def timed(self, n: int) -> Iterator[None]:
        """Measure how long n iterations take."""
        began = time.perf_counter()
        if not self.under_way:
            self.since = began
        self.under_way += n
        yield
        if self.under_way + self.size <= self.bound:
            fitting = min(within(began, n), self.bound)
        else:
            self.synchronize()
            fitting = self.bound = within(self.since, self.under_way)
            self.under_way = 0
        fitting = min(fitting, self.most)
        self.size = self.most if fitting == self.most else 1 << (fitting.bit_length() - 1)

    def wait(self) -> None:
        """Wait for all that is under way."""
        self.synchronize()
        self.under_way = 0


def within(began: float, n: int) -> int:
    """How many iterations are done within SECONDS where n took the time since then; at least 1."""
    return max(1, int(SECONDS * n / max(time.perf_counter() - began, 1e-9)))


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
    check_counts(show_every=show_every)
    check_model(model)
    if not isinstance(data_dict, Mapping):
        raise wrong_kind("data_dict", data_dict, "a dict with data_train and data_val")
    backend, dtype = model.backend, dtype_of(model)
    train, val = (
        Batches.of(backend, *pair_of(data_dict, f"data_{split}"), dtype)
        for split in ("train", "val")
    )
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


def pair_of(data_dict: Mapping[str, tuple[Any, Any]], name: str) -> tuple[Any, Any]:
    """data_dict[name], or a ValueError that says what it should be."""
    pair = data_dict.get(name)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        what = "is missing" if pair is None else f"is {type(pair).__name__}"
        raise ValueError(
            f'data_dict["{name}"] should be a pair, (images, labels); it {what}: make data_dict as '
            '{"data_train": (data["data_train"], data["labels_train"]), ...}'
        )
    images, labels = pair
    return images, labels


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
