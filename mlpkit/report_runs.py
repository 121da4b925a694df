"""The runs that a report shows: told by their recipes, and refused where they can't stand there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .history_file import read_history
from .plotting import Rows, accuracy_points, loss_points, title_of
from .recipes import OPTIMIZERS, RECIPES, count_epochs, network_title
from .run_files import RunError, check_types, read_config, read_json, resuming
from .svhn import FILES

# The comparisons' panels, and columns of history.csv.
CURVES = {
    "loss": "training loss",
    "train_acc": "training accuracy",
    "val_acc": "validation accuracy",
}
ITEMS: dict[str, tuple[str, ...]] = {
    "TinyNet trained with SGD": ("tinynet",),
    "SGD against SGDM": ("sgd", "sgdm"),
    "SGD, SGDM, RMSProp and Adam": ("sgd", "sgdm", "rmsprop", "adam"),
}
ALIKE = {
    "data_sha256": "data",
    "train_size": "numbers of training images",
    "val_size": "numbers of validation images",
    "epochs": "numbers of epochs",
}
# What a caption gives of config.json, beyond what every run is read by.
REPORT_TYPES: dict[str, tuple[type, ...]] = {
    "epochs": (int,),
    "train_size": (int,),
    "seed": (int,),
    "backend": (str,),
    "data_sha256": (dict,),
}

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class ReportRun:
    """A finished run of a recipe."""

    folder: Path
    recipe: str
    config: dict[str, Any]
    history: Rows
    test_accuracy: float

    def curves(self) -> dict[str, Points]:
        """What a report draws of the run, by column of history.csv."""
        return {
            "loss": loss_points(self.history),
            "train_acc": accuracy_points(self.history, "train_acc"),
            "val_acc": accuracy_points(self.history, "val_acc"),
        }

    def caption(self) -> str:
        """The recipe, seed, backend and accuracies in words."""
        config = self.config
        best, epoch = max((y, -x) for x, y in accuracy_points(self.history, "val_acc"))
        return (
            f"{self.recipe}: {title_of(self.folder)}, batch size {config['batch_size']}, "
            f"{count_epochs(config['epochs'])}, {config['dtype']}; seed {config['seed']}; backend "
            f"{config['backend']}; best validation accuracy {best:.2%}, of epoch {-epoch:.0f}, "
            f"test accuracy {self.test_accuracy:.2%}."
        )

    def data_caption(self) -> str:
        """The data in words."""
        config = self.config
        digest = str(config["data_sha256"].get(FILES[0].name))
        name = "SVHN" if digest == FILES[0].sha256 else Path(config["data"]).name
        return (
            f"Data: {name}, {config['train_size']} training and {config['val_size']} validation "
            f"images; SHA-256 of {FILES[0].name} begins {digest[:16]}."
        )


def digests(runs: dict[str, ReportRun]) -> dict[str, str]:
    """The SHA-256 of the points of each curve, as float64, by recipe.column."""
    return {
        f"{recipe}.{column}": hashlib.sha256(np.asarray(points, "<f8").tobytes()).hexdigest()
        for recipe, run in runs.items()
        for column, points in run.curves().items()
    }


def gather(folders: Sequence[Path]) -> dict[str, ReportRun]:
    """The runs by recipe, in the recipes' order. RunError where a recipe has no run or two, where a
    run is of no recipe or unfinished, and where those that are compared have not the same data,
    sizes and epochs."""
    found: dict[str, Path] = {}
    for folder in folders:
        recipe = recipe_of(folder)
        if recipe in found:
            raise RunError(
                f"the report takes one run of each recipe; {found[recipe]} and {folder} are both "
                f"{recipe}'s: leave one out"
            )
        found[recipe] = folder
    missing = [recipe for recipe in RECIPES if recipe not in found]
    if missing:
        raise RunError(
            f"the report lacks a run of {', '.join(missing)}: `mlpkit train --recipe "
            f"{missing[0]}` makes one, and `mlpkit compare` all that it needs"
        )
    runs = {recipe: read_run(found[recipe], recipe) for recipe in RECIPES}
    for recipes in ITEMS.values():
        check_alike([runs[recipe] for recipe in recipes])
    return runs


def recipe_of(folder: Path) -> str:
    """The recipe that a run followed, told by its network, optimizer and batch size."""
    config = read_config(folder)
    check_types(config, {"batch_size": (int,)}, folder / "config.json")
    settings = tuple(config[key] for key in ("net", "optimizer", "batch_size"))
    for name, recipe in RECIPES.items():
        if settings == (recipe.net, recipe.optimizer, recipe.batch_size):
            return name
    net, optimizer, batch_size = settings
    raise RunError(
        f"{folder} is a run of {network_title(net)} with "
        f"{OPTIMIZERS.get(optimizer, optimizer)}, batch size {batch_size}, which is none of "
        f"the recipes {', '.join(RECIPES)}: leave it out"
    )


def read_run(folder: Path, recipe: str) -> ReportRun:
    """A run that a report can show. RunError where it isn't finished, or its files are damaged."""
    config = read_config(folder)
    check_types(config, REPORT_TYPES, folder / "config.json")
    history = read_history(folder)
    epochs = len(accuracy_points(history, "val_acc"))
    if epochs != config["epochs"] or not (folder / "summary.json").is_file():
        raise RunError(
            f"{folder}, {recipe}'s run, was stopped early, after {epochs} of "
            f"{count_epochs(config['epochs'])}, or its history.csv is damaged: "
            f"`{resuming(folder)}` resumes it"
        )
    if not all("loss" in row for row in history):
        raise RunError(
            f"{folder / 'history.csv'} lacks losses, of iterations before it was begun anew: "
            f"train {recipe} again"
        )
    summary = read_json(folder / "summary.json", {"test_accuracy": (float, int)})
    run = ReportRun(folder, recipe, config, history, summary["test_accuracy"])
    for column, points in run.curves().items():
        if not all(math.isfinite(value) for point in points for value in point):
            raise RunError(
                f"{folder / 'history.csv'}: the {CURVES[column]} should be finite numbers: train "
                "again"
            )
    return run


def check_alike(runs: Sequence[ReportRun]) -> None:
    """RunError where runs to be compared differ in more than the optimizer."""
    first = runs[0]
    for run in runs[1:]:
        for key, what in ALIKE.items():
            mine, others = first.config[key], run.config[key]
            if mine != others:
                values = "" if key == "data_sha256" else f", {mine} and {others}"
                raise RunError(
                    f"{first.folder} and {run.folder} have different {what}{values}: to compare "
                    f"{first.recipe} and {run.recipe}, train both with the same"
                )
