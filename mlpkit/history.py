"""A training's record: losses, scores, the best parameters; and when it has gone on long enough."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field, fields
from typing import Any, overload

import numpy as np

from mlpkit_backends import Array

from .checks import check_counts, check_nonnegative
from .evaluation import Batches
from .model import Module
from .signals import uninterrupted


class TrainingDiverged(ArithmeticError):  # noqa: N818 - the field's word for it
    """The loss became NaN or infinite. `history` holds what was recorded before."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its history, to come out of another process as itself."""
        return type(self), (str(self), self.history)


@dataclass(frozen=True)
class Epoch:
    """What is recorded at the end of an epoch; losses are means, accuracies fractions."""

    iteration: int
    lr: float
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float


FIELDS = len(fields(Epoch))


class Epochs(Sequence[Epoch]):
    """A list of Epoch that takes 48 bytes for each. rows: float64 (E, 6), the epochs' fields."""

    def __init__(self, epochs: Iterable[Epoch] = ()) -> None:
        self.values = array("d")
        for epoch in epochs:
            self.append(epoch)

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(self.values).reshape(-1, FIELDS)

    def append(self, epoch: Epoch) -> None:
        """Add an epoch at the end."""
        self.values.extend(astuple(epoch))

    def __len__(self) -> int:
        return len(self.values) // FIELDS

    @overload
    def __getitem__(self, i: int) -> Epoch: ...
    @overload
    def __getitem__(self, i: slice) -> list[Epoch]: ...
    def __getitem__(self, i: int | slice) -> Epoch | list[Epoch]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        first = FIELDS * range(len(self))[i]
        iteration, *scores = self.values[first : first + FIELDS]
        return Epoch(int(iteration), *scores)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epochs) and self.values == other.values

    def __repr__(self) -> str:
        return f"<{len(self)} epochs>"


@dataclass
class History:
    """A training run's record. Two are equal where losses and scores are.

    losses: every iteration's.
    epochs: every epoch's scores.
    best_epoch: the one of the highest validation accuracy, the first of equals; 0 before the first.
    best_params: copies of its parameters by name.
    seconds: s of wall time in iterations.
    how: how the backend ran them, in words.
    stopped: what ended training before its last epoch, in words; "" where nothing did.
    ahead: whether the model may be ahead of the record, as where an exception ended training within
        a chunk.
    seed: of the batches' order; None before training.
    taken: how many losses, of the first iterations, are no longer in `losses`.
    """

    losses: list[float] = field(default_factory=list, repr=False)
    epochs: Epochs = field(default_factory=Epochs)
    best_epoch: int = 0
    best_params: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)
    seconds: float = field(default=0.0, compare=False)
    how: str = field(default="", compare=False)
    stopped: str = field(default="", compare=False)
    ahead: bool = field(default=False, compare=False)
    seed: int | None = field(default=None, compare=False)
    taken: int = 0

    @property
    def iterations(self) -> int:
        """How many iterations have their loss recorded."""
        return self.taken + len(self.losses)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Ctrl-C waits for the end of the block. A second one doesn't, after which the model may be
        ahead of the record."""
        with uninterrupted():
            try:
                yield
            except KeyboardInterrupt:
                self.ahead = True
                raise

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the block's time to `seconds`, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def take(self, n: int) -> list[float]:
        """Take the first n losses away, so that the record doesn't grow with the iterations."""
        taken = self.losses[:n]
        del self.losses[:n]
        self.taken += len(taken)
        return taken

    def record(self, epoch: Epoch, model: Module) -> None:
        """Add an epoch, and copy the parameters where it is the best so far."""
        self.epochs.append(epoch)
        if not self.best_epoch or epoch.val_acc > self.epochs[self.best_epoch - 1].val_acc:
            self.best_epoch = len(self.epochs)
            self.best_params = {name: model.backend.copy(p) for name, p in model.net.params.items()}


class EarlyStopping:
    """Ends training after `patience` epochs in a row that don't improve; None: never. An epoch
    improves where its validation accuracy is more than min_delta above that of the last one that
    did."""

    def __init__(self, patience: int | None, min_delta: float, epochs: Iterable[Epoch]) -> None:
        if patience is not None:
            check_counts(patience=patience)
        check_nonnegative(min_delta=min_delta)
        if min_delta and patience is None:
            raise ValueError(f"min_delta {min_delta} counts for patience alone: give that, too")
        self.patience, self.min_delta = patience, min_delta
        self.highest, self.waited = -math.inf, 0
        for epoch in epochs:
            self.see(epoch)

    def see(self, epoch: Epoch) -> None:
        """Count an epoch."""
        self.waited += 1
        if epoch.val_acc > self.highest + self.min_delta:
            self.highest, self.waited = epoch.val_acc, 0

    @property
    def reason(self) -> str:
        """Why training ends now; "" where it goes on."""
        if self.patience is None or self.waited < self.patience:
            return ""
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        many = "epochs have" if self.patience > 1 else "epoch has"
        return f"{self.patience} {many} not raised the validation accuracy{margin}"


class Losses:
    """The losses of an epoch's chunks, brought to the host when asked for. A watcher may take those
    that it has read out of the history."""

    def __init__(self, train: Batches, history: History) -> None:
        self.train, self.history = train, history
        self.pending: list[Array] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the losses of every finished chunk into the history before an exception leaves the
        block, so that training can go on from between two chunks."""
        try:
            yield
        except BaseException:
            ahead, self.history.ahead = self.history.ahead, True  # until they are read
            with suppress(Exception):  # what ended it is the one to be said
                self.read()
                self.history.ahead = ahead
            raise

    def add(self, losses: Array) -> None:
        """Note a chunk's losses, without waiting for them."""
        self.pending.append(losses)

    def read(self) -> list[float]:
        """The losses that are in the history, with all noted so far. Raises TrainingDiverged."""
        with self.history.whole():
            while self.pending:
                self.record(self.train.backend.to_numpy(self.pending[0]))
                del self.pending[0]
        return self.history.losses

    def record(self, values: Any) -> None:
        """Put a chunk's losses into the history. Raises TrainingDiverged."""
        bad = np.flatnonzero(~np.isfinite(values))
        self.history.losses += map(float, values[: bad[0]] if bad.size else values)
        if bad.size:
            self.pending.clear()
            self.history.ahead = True
            done = self.history.iterations
            raise TrainingDiverged(
                f"the loss became {values[bad[0]]} at iteration {done + 1}: "
                f"{cause_of(self.train, trained=done > 0)}",
                self.history,
            )


def cause_of(batches: Batches, trained: bool) -> str:
    """Why a loss of these isn't finite, and what to do, in words. trained: whether the parameters
    have been updated."""
    if not batches.are_finite():
        return "the images hold numbers that are too large, infinite or NaN; mend those"
    if not trained:
        return (
            "before any update: the images or the initial parameters hold numbers that are too "
            "large, or parameters are infinite or NaN; mend those"
        )
    return "training diverged; lower the learning rate (lr)"
