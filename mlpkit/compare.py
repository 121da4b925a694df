"""The runs that a report needs, each trained by `mlpkit train` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlpkit_backends import load
from mlpkit_backends.threads import VARIABLE, processors

from .datasets import load_dataset
from .recipes import RECIPES, Recipe
from .report_runs import read_run
from .run_files import RunError, check_free
from .runs import data_hashes

TRAIN = (sys.executable, "-c", "from mlpkit.cli import main; main()", "train")
EPOCH = re.compile(r" *(\d+) / (\d+) .* ([\d.]+)% +[\d.]+ it/s\n")  # a line of TrainingDisplay's
GRACE = 3.0  # seconds for a training that Ctrl-C has reached, too, to write what it has

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
        return [*TRAIN, *(word for pair in given for word in pair)]

    def missing(self) -> list[str]:
        """The recipes that have no run yet. RunError where a folder holds anything but a finished
        run with these settings."""
        there = [name for name in RECIPES if (self.out / name / "config.json").is_file()]
        if there:
            images, hashes = len(load_dataset(self.data).train), data_hashes(self.data)
        for name in RECIPES:
            if name in there:
                self.check_run(name, images, hashes)
            else:
                check_free(self.out / name)
        return [name for name in RECIPES if name not in there]

    def check_run(self, name: str, images: int, hashes: dict[str, str]) -> None:
        """RunError where a recipe's run isn't finished, or has other settings than these."""
        folder, recipe = self.out / name, self.recipe(name)
        config = read_run(folder, name).config
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
                    f"{folder} holds a run with {what}{asked}: name another folder with --out, or "
                    "remove it"
                )


def train_all(comparison: Comparison, names: Sequence[str], jobs: int, report: Report) -> None:
    """Train the recipes, so many at a time, with the processors shared out among them.

    report is called as each one's epochs end. Where one fails, or Ctrl-C comes, the others are
    stopped, and keep what they have recorded. Raises RunError with what the failed one said.
    """
    threads = max(1, processors() // jobs)
    environment = os.environ | {VARIABLE: str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    children: list[subprocess.Popen[str]] = []

    def train(name: str) -> None:
        with subprocess.Popen(
            comparison.command(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as child:
            children.append(child)
            follow(name, child, report)

    with ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(train, name) for name in names]
        try:
            for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                stop(child)


def follow(name: str, child: subprocess.Popen[str], report: Report) -> None:
    """Pass on the epochs that a training prints, until it ends. RunError where it fails."""
    assert child.stdout is not None
    line = ""
    for line in child.stdout:
        if epoch := EPOCH.fullmatch(line):
            report(name, int(epoch[1]), int(epoch[2]), f"{epoch[3]}%")
    if child.wait():
        said = line.strip().removeprefix("mlpkit: ") or f"it ended with status {child.returncode}"
        raise RunError(f"the training of {name} failed: {said}")


def stop(child: subprocess.Popen[str]) -> None:
    """End a training, as by Ctrl-C, where it doesn't end by itself."""
    for number in (None, signal.SIGINT, signal.SIGTERM):  # started with &, it hears no Ctrl-C
        if number is not None:
            child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return
