"""Contenders in turns: each round, each has its own, so that what else a machine does falls on all
alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.workload import Run
from mlpkit import benchmark


def figures(rates: Sequence[float], ours: Sequence[float] = ()) -> dict[str, Any]:
    """A contender's rates by round and their median, and where mlpkit has some too, how many times
    as fast it was, by the median of the rounds' ratios."""
    found: dict[str, Any] = {
        "iterations_per_second": statistics.median(rates),
        "rounds": [round(rate, 2) for rate in rates],
    }
    if ours:
        ratios = [a / b for a, b in zip(ours, rates, strict=True)]
        found["mlpkit_is_times_as_fast"] = round(statistics.median(ratios), 3)
    return found


def largest_relative_error(a: Any, b: Any) -> float:
    """The largest relative difference of two numbers in the same place."""
    return float(np.max(np.abs(a - b) / np.abs(b)))


class Turns:
    """Contenders in this process. One that fails is left out from then on, with what it said."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.runs: dict[str, tuple[Run, Iterator[Any], list[float]]] = {}
        self.losses: dict[str, Any] = {}  # the first that each had: of the same steps
        self.left_out: dict[str, str] = {}

    def add(self, name: str, make: Any, steps: int = benchmark.CHUNK) -> None:
        """Make a contender by make(), and let it warm up. steps: how many at a time."""
        try:
            run, batches = make(), benchmark.orders(self.batch_size, steps)
            self.losses[name] = np.asarray(run(next(batches)))
        except Exception as error:  # whatever it is, the others go on
            self.leave_out(name, error)
        else:
            self.runs[name] = run, batches, []

    def leave_out(self, name: str, error: Exception) -> None:
        """Go on without it."""
        self.runs.pop(name, None)
        said = str(error).strip().splitlines()
        self.left_out[name] = f"{type(error).__name__}: {said[0] if said else ''}"

    def go(self, rounds: int, seconds: float) -> None:
        """So many rounds of turns of so many seconds."""
        for _ in range(rounds):
            for name, (run, batches, rates) in list(self.runs.items()):
                try:
                    rates.append(benchmark.rate(run, batches, seconds))
                except Exception as error:
                    self.leave_out(name, error)

    def how(self, name: str) -> str:
        """In words, how mlpkit's own contender of that name runs its steps."""
        return self.runs[name][0].how if name in self.runs else "not at all"

    def row(self, ours: str = "") -> dict[str, Any]:
        """Everyone's figures, beside those of the contender `ours`, or why there are none."""
        base = self.runs[ours][2] if ours in self.runs else ()
        found = {name: figures(rates, base) for name, (_, _, rates) in self.runs.items()}
        return found | {name: {"left_out": why} for name, why in self.left_out.items()}

    def apart(self, ours: str) -> dict[str, float]:
        """How far each one's first CHUNK losses are from those of the contender `ours`, relative to
        them, at most: nobody wins by computing something else. Later ones differ by rounding."""
        base = self.losses[ours][: benchmark.CHUNK] if ours in self.losses else np.nan
        return {
            name: largest_relative_error(losses[: benchmark.CHUNK], base)
            for name, losses in self.losses.items()
            if name != ours
        }
