"""What is written while a run trains, and when."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .history import History, Losses, TrainingDiverged
from .plotting import plot_runs  # now, as who stops a training waits for no import
from .resume import save
from .run_files import LAST
from .signals import Paused
from .training import Watcher

if TYPE_CHECKING:
    from .runs import Run


@dataclass(frozen=True)
class Every:
    """When a checkpoint is due, beside those after the first epoch and at the end: after so many
    iterations, or so many seconds; neither: after every epoch. Chunks of iterations are not
    interrupted for it."""

    iterations: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Every:
        """As `--checkpoint-every` takes it: 500, 30s, 10m, 2h or epoch. ValueError for anything
        else."""
        if text == "epoch":
            return EVERY_EPOCH
        with suppress(ValueError):
            if text[-1:] in UNITS and 0 < float(text[:-1]) < math.inf:
                return cls(seconds=float(text[:-1]) * UNITS[text[-1]])
            if int(text) > 0:
                return cls(iterations=int(text))
        raise ValueError(
            "--checkpoint-every takes iterations, as in 500, a time, as in 30s, 10m or 2h, both "
            f"above 0, or epoch; got {text!r}"
        )

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return "epoch" if self.iterations is None else str(self.iterations)

    def due(self, iterations: int, seconds: float) -> bool:
        """Whether a checkpoint is due so long after the last one, within an epoch."""
        return iterations >= (self.iterations or math.inf) or seconds >= (self.seconds or math.inf)


EVERY_EPOCH = Every()
UNITS = {"s": 1, "m": 60, "h": 3600}  # in seconds


class Recorder:
    """Writes history.csv, best.safetensors and checkpoints as training goes, and passes on to the
    watcher.

    A context manager: where training ends, or pauses for a signal, a checkpoint and the curves are
    written; where it diverges, the history and the curves alone, as the checkpoint before is what
    can be resumed.
    """

    def __init__(self, run: Run, watcher: Watcher, every: Every) -> None:
        self.run, self.watcher, self.every = run, watcher, every
        self.saved, self.saved_at = self.place(), time.perf_counter()
        self.losses: Losses | None = None

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        self.losses = losses
        self.watcher.iterations(done, total, losses)
        if self.every.due(done - self.saved[0], time.perf_counter() - self.saved_at):
            self.save()

    def epoch(self, number: int, epochs: int, history: History) -> None:
        self.run.history_file.append(history)
        # The first comes before best.safetensors: where that is and no checkpoint, one was lost.
        if self.every == EVERY_EPOCH or not (self.run.folder / LAST).exists():
            self.save()
        if history.best_epoch == number:
            self.run.save_best()
        self.watcher.epoch(number, epochs, history)

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this very point."""
        if self.losses is not None:
            self.losses.read()
        if self.place() != self.saved:
            self.run.history_file.append(self.run.history)
            save(self.run)
        self.saved, self.saved_at = self.place(), time.perf_counter()

    def place(self) -> tuple[int, int]:
        """How far training is: iterations and scored epochs."""
        return self.run.history.iterations, len(self.run.history.epochs)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        history, file = self.run.history, self.run.history_file
        if kind is None or issubclass(kind, Paused):
            with suppress(TrainingDiverged):
                self.save()
        elif not issubclass(kind, Exception) or issubclass(kind, OSError):
            return  # to end at once; or nothing can be written
        file.append(history)
        file.append_incomplete(history)
        if history.iterations:
            plot_runs([self.run.folder], self.run.folder / "curves.png")
