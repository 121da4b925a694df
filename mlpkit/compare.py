"""The runs that a report needs, each trained by `mlpkit train` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlpkit_backends import load
from mlpkit_backends.threads import VARIABLE, thread_count

from .datasets import load_dataset
from .progress import EPOCH_LINE
from .provenance import data_hashes
from .recipes import RECIPES, Recipe
from .report_runs import read_run
from .resume import is_run, read_run_config
from .run_files import RunError, check_free

TRAIN = (sys.executable, "-m", "mlpkit", "train")
GRACE = 5.0  # seconds for a training that is told to stop, to save what it has

# The recipe, the epochs that are done and that there are, and the last validation accuracy.
Report = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Comparison:
    """What `mlpkit compare` trains. epochs, train_size: None for each recipe's own."""

    data: Path
    out: Path
    epochs: int | None = None
    train_size: int | None = None
    backend: str | None = None
    seed: int = 123

    def recipe(self, name: str) -> Recipe:
        """A recipe with the epochs that are asked for."""
        recipe = RECIPES[name]
        return recipe if self.epochs is None else replace(recipe, epochs=self.epochs)

    def command(self, name: str) -> list[str]:
        """The command that trains a recipe."""
        options = {
            "--recipe": name,
            "--data": self.data,
            "--out": self.out / name,
            "--epochs": self.epochs,
            "--train-size": self.train_size,
            "--backend": self.backend,
            "--seed": self.seed,
        }
        given = [(option, str(value)) for option, value in options.items() if value is not None]
        return [*TRAIN, "--resume", *(word for pair in given for word in pair)]

    def missing(self) -> list[str]:
        """The recipes that have no finished run yet. RunError where a folder holds anything but a
        run with these settings."""
        there = [name for name in RECIPES if is_run(self.out / name)]
        if there:
            images, hashes = len(load_dataset(self.data).train), data_hashes(self.data)
        for name in RECIPES:
            if name in there:
                self.check_run(name, images, hashes)
            else:
                check_free(self.out / name)
        finished = [name for name in there if (self.out / name / "summary.json").is_file()]
        for name in finished:
            read_run(self.out / name, name)
        return [name for name in RECIPES if name not in finished]

    def check_run(self, name: str, images: int, hashes: dict[str, str]) -> None:
        """RunError where a recipe's run has other settings than these."""
        folder, recipe = self.out / name, self.recipe(name)
        config = read_run_config(folder)
        wanted: dict[str, Any] = asdict(recipe) | {
            "train_size": self.train_size or min(recipe.train_size or images, images),
            "seed": self.seed,
            "backend": load(self.backend).name,
            "dtype": "float32",
            "data_sha256": hashes,
        }
        for key, value in wanted.items():
            if config.get(key) != value:
                what = "other data" if key == "data_sha256" else f"{key} {config.get(key)}"
                asked = "" if key == "data_sha256" else f", not {value}"
                raise RunError(
                    f"{folder} holds a run with {what}{asked}: name another folder with --out"
                )


def train_all(comparison: Comparison, names: Sequence[str], jobs: int, report: Report) -> None:
    """Train the recipes, so many at a time, with the processors shared out among them.

    report is called as each one's epochs end. Where one fails, or a signal comes, the others are
    stopped, and go on where they were when asked for again. Raises RunError with what the failed
    one said.
    """
    threads = max(1, thread_count() // jobs)
    environment = os.environ | {VARIABLE: str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    children: list[subprocess.Popen[str]] = []
    over = threading.Event()  # no other is begun; set before the pool takes up the next

    def train(name: str) -> None:
        if over.is_set():
            return
        with subprocess.Popen(
            comparison.command(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,  # or Ctrl-C would reach it, and `stop` be the second signal
        ) as child:
            children.append(child)
            if over.is_set():  # since it was asked; `stop` may have seen no child yet
                child.terminate()
            try:
                follow(name, child, report)
            except BaseException:
                over.set()
                raise

    with ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(train, name) for name in names]
        try:
            for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                task.result()
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            stop(children)


def follow(name: str, child: subprocess.Popen[str], report: Report) -> None:
    """Pass on the epochs that a training prints, until it ends. RunError where it fails."""
    assert child.stdout is not None
    line = ""
    for line in child.stdout:
        if epoch := EPOCH_LINE.fullmatch(line):
            report(name, int(epoch[1]), int(epoch[2]), f"{epoch[3]}%")
    if child.wait():
        said = line.strip().removeprefix("mlpkit: ") or f"it ended with status {child.returncode}"
        raise RunError(f"the training of {name} failed: {said}")


def stop(children: Sequence[subprocess.Popen[str]]) -> None:
    """End the trainings that still go on; they save what they have, in GRACE seconds at most."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        child.kill()
