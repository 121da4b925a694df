"""What the command line shows while it works: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from .datasets import Dataset
from .history import History, Losses
from .output import tell
from .recipes import count_epochs, network_title
from .signals import Stopped
from .sources import find_data

if TYPE_CHECKING:
    from .runs import Run  # which brings matplotlib

REDRAW = 0.5  # seconds between looks at the loss, each of which waits for the device
PLAIN_EVERY = 10.0  # seconds between lines within an epoch, where the output is no terminal


@contextmanager
def counting(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows how far the work is."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()  # only now: there may be nothing to do

    try:
        yield show
    finally:
        bar.stop()


def making_data(choice: str | None) -> Path:
    """`sources.find_data`, with a bar while the offline stand-in is made."""
    with counting("images") as progress:
        return find_data(choice, progress=progress)


class LastingConsole(Console):
    """A console that leaves broken pipes to `tell`."""

    def on_broken_pipe(self) -> None:
        raise  # the error that this is called for


# A line of TrainingDisplay.epoch's, which has no rate where nothing was left of the epoch to train.
EPOCH_LINE = re.compile(r" *(\d+) / (\d+) .* ([\d.]+)%(?: +[\d.]+ it/s)?\n")


class TrainingDisplay:
    """The lines of `mlpkit train`: what runs where, then each epoch; between them the loss, the
    rate and the time left. A context manager, which takes the live line away at its end."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.console = LastingConsole(highlight=False, soft_wrap=True)
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.live.add_task("", total=None)
        self.seen = (0.0, 0)  # when the loss was last shown, and the iterations by then
        # The seconds and iterations of the epochs before.
        self.before = (0.0, run.history.iterations)

    def __enter__(self) -> TrainingDisplay:
        run, data, recipe = self.run, self.run.data, self.run.settings.recipe
        self.say(f"Device    {run.backend.name}: {run.backend.device_name()}")
        self.say(
            f"Data      {data.folder}: {len(data.train)} training, {len(data.val)} validation, "
            f"{len(data.test)} test images"
        )
        self.say(
            f"Training  {network_title(recipe.net)} with {recipe.optimizer}, lr {recipe.lr:g}, "
            f"batch size {recipe.batch_size}, {count_epochs(recipe.epochs)}, {run.settings.dtype}, "
            f"seed {run.settings.seed}"
        )
        self.say(f"Run       {run.folder}")
        self.say("")
        self.say("                    loss                accuracy")
        self.say("    epoch   training validation   training validation")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.live.stop()
        # A signal has a line of its own, and in a folder that was moved nothing is recorded.
        if kind and not issubclass(kind, Stopped) and self.run.folder.is_dir():
            self.say(f"Stopped early: what was recorded is in {self.run.folder}/")

    def say(self, line: str) -> None:
        """A line that stays, above the live one."""
        tell(line, partial(self.console.print, markup=False))

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        """The loss, the rate and the time left, now and then."""
        now = time.perf_counter()
        if not self.seen[1]:  # the first may have waited for a compiler
            self.seen = (now, done)
            return
        then, before = self.seen
        if now - then < (REDRAW if self.console.is_terminal else PLAIN_EVERY):
            return
        loss = f"loss {losses.read()[-1]:.4f}"
        now = time.perf_counter()  # the device may have been behind
        self.seen = (now, done)
        rate = f"{(done - before) / (now - then):.0f} it/s"
        if self.console.is_terminal:
            self.live.update(self.task, completed=done, total=total, description=f"{loss}  {rate}")
            self.live.start()
            self.live.refresh()
        else:
            left = (now - then) / (done - before) * (total - done)
            self.say(f"  iteration {done} / {total}  {loss}  {rate}  {left:.0f} s left")

    def epoch(self, number: int, epochs: int, history: History) -> None:
        """An epoch's scores."""
        last, (seconds, iterations) = history.epochs[-1], self.before
        trained, took = last.iteration - iterations, history.seconds - seconds
        rate = f"   {trained / took:.0f} it/s" if trained else ""  # resumed at the epoch's end
        self.before = (history.seconds, last.iteration)
        self.seen = (time.perf_counter(), last.iteration)
        self.say(
            f"{f'{number} / {epochs}':>9}   {last.train_loss:8.4f} {last.val_loss:10.4f}"
            f"   {last.train_acc:8.1%} {last.val_acc:10.1%}{rate}"
        )


class RecipesDisplay:
    """A line for each recipe of `mlpkit compare`: its epochs while they go on, on a terminal, and
    its validation accuracy at its end. A context manager; it may be told from several threads."""

    def __init__(self) -> None:
        self.console = LastingConsole(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
        self.live = Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        self.tasks: dict[str, TaskID] = {}
        self.began = time.perf_counter()

    def __enter__(self) -> RecipesDisplay:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        """A line that stays, above the live ones."""
        tell(line, partial(self.console.print, markup=False))

    def wait_for(self, name: str, epochs: int) -> None:
        """Show a recipe that is to be trained."""
        self.tasks[name] = self.live.add_task(name, total=epochs)

    def epoch(self, name: str, done: int, total: int, accuracy: str) -> None:
        """A recipe's epoch has ended with that validation accuracy."""
        self.live.update(self.tasks[name], completed=done, description=f"{name:8} {accuracy}")
        if done == total:
            self.live.update(self.tasks[name], visible=False)
            seconds = time.perf_counter() - self.began
            self.say(
                f"{name:8}  validation accuracy {accuracy} after epoch {done}, {seconds:.0f} s"
            )


def print_rates(title: str, results: list[dict[str, Any]]) -> None:
    """Print a benchmark's title and table: the median and the range of the rounds."""
    console = Console(highlight=False)
    console.print(title, markup=False)
    table = Table("workload", "optimizer", "batch", "backend")
    table.add_column("iterations/s", justify="right")
    table.add_column("lowest - highest", justify="right")
    for r in results:
        spread = f"{min(r['rounds']):.1f} - {max(r['rounds']):.1f}"
        rate = f"{r['iterations_per_second']:.1f}"
        names = (r["workload"], r["optimizer"], str(r["batch_size"]), r["backend"])
        table.add_row(*names, rate, spread)
    console.print(table)
    for name, how in dict.fromkeys((r["backend"], r["steps"]) for r in results):
        console.print(f"{name} runs its steps {how}", markup=False)
    if any(max(r["rounds"]) > 1.25 * min(r["rounds"]) for r in results):
        console.print("Some rounds differ by a quarter: something else ran beside them.")


def class_table(data: Dataset) -> None:
    """Print the shapes and each class's count in each split."""
    console = Console(highlight=False)
    console.print(
        f"{data.folder}: images uint8 (N, 32, 32, 3), labels (N,); N by digit and split:",
        soft_wrap=True,
        markup=False,
    )
    table = Table()
    table.add_column("digit")
    counts = []
    for split in ("train", "val", "test"):
        part = getattr(data, split)
        table.add_column(split, justify="right")
        counts.append([*np.bincount(part.labels, minlength=10), len(part)])
    for name, *row in zip([*range(10), "all"], *counts, strict=True):
        table.add_row(str(name), *map(str, row))
    console.print(table)
