"""The report: the four items of the course notebook's first problem, as a PDF of vector plots.

1. the tinynet recipe's curves; 2. SGD against SGDM; 3. all four optimizers; 4. the six activations.
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends import backend_pdf
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .checkpoint import atomic
from .plotting import (
    OPTIMIZER_NAMES,
    History,
    accuracy_points,
    activations_figure,
    comparison_figure,
    curve_figure,
    loss_points,
    title_of,
)
from .recipes import RECIPES, network_title
from .run_files import RunError, check_place, check_types, read_config, read_history, read_json
from .svhn import FILES

REPORT = "problem_1_solution.pdf"
MARK = "mlpkit report"  # how the keywords of a report's document information begin
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
# Inches: letter, upright for panels one above the other, across for those side by side.
UPRIGHT, ACROSS = (8.5, 11.0), (11.0, 8.5)
MARGIN = 0.5  # on every side
CAPTION_SIZE, CAPTION_PITCH = 9, 15  # points; characters an inch

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class ReportRun:
    """A finished run of a recipe."""

    folder: Path
    recipe: str
    config: dict[str, Any]
    history: History
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


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write the report of the runs, one of each recipe, whole or not at all.

    The same runs give the same bytes. The keywords of its document information hold the digest of
    each run's curves. Raises RunError where a run is missing or can't be used, ValueError for a
    target that can't be written.
    """
    if out.suffix.lower() != ".pdf":
        raise ValueError(f"the report is a PDF; {out} should end in .pdf: rename it")
    check_place(out)
    runs = gather(folders)
    pdf: Any = backend_pdf  # matplotlib leaves it untyped
    information = {
        "Title": "Problem 1: a network trained, optimizers compared, activations",
        "Keywords": "; ".join((MARK, *(f"{k} {v}" for k, v in digests(runs).items()))),
        "CreationDate": None,
    }
    # Every point of the history is to be in the file.
    with (
        rc_context({"path.simplify": False}),
        atomic(out) as temporary,
        pdf.PdfPages(temporary, metadata=information) as pages,
    ):
        for figure in figures(runs):
            pages.savefig(figure, bbox_inches=page_of(figure))


def figures(runs: dict[str, ReportRun]) -> Iterable[Figure]:
    """The four pages."""
    for number, (title, recipes) in enumerate(ITEMS.items(), start=1):
        chosen = [runs[recipe] for recipe in recipes]
        if len(chosen) == 1:
            figure, size = curve_figure(chosen[0].history, title_of(chosen[0].folder)), ACROSS
        else:
            lines = [(title_of(run.folder), run.history) for run in chosen]
            figure, size = comparison_figure(lines), UPRIGHT
        captions = [run.caption() for run in chosen]
        lay_out(figure, size, [f"{number}. {title}.", *captions, chosen[0].data_caption()])
        yield figure
    figure = activations_figure()
    caption = (
        "Sigmoid, leaky ReLU, ReLU, ELU, SELU (alpha 1.6732, scale 1.0507) and tanh on [-10, 10], "
        "computed by the numpy backend; no recipe, seed, data or accuracy has a part in them."
    )
    lay_out(figure, ACROSS, [f"{len(ITEMS) + 1}. Activations.", caption])
    yield figure


def count_epochs(number: int) -> str:
    """So many epochs, in words."""
    return f"{number} epoch{'s' * (number != 1)}"


def lay_out(figure: Figure, size: tuple[float, float], caption: list[str]) -> None:
    """Give a figure the size of such a page within its margins, and the caption's paragraphs below
    its panels."""
    width, height = (side - 2 * MARGIN for side in size)
    figure.set_size_inches(width, height)
    text = "\n".join(textwrap.fill(line, int(width * CAPTION_PITCH)) for line in caption)
    figure.supxlabel(text, x=0, ha="left", fontsize=CAPTION_SIZE)
    # Now, while the figure's edge is where its legend belongs, which on the page is the page's.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)


def page_of(figure: Figure) -> Bbox:
    """The figure with the page's margins around it, in inches."""
    width, height = figure.get_size_inches()
    return Bbox([[-MARGIN, -MARGIN], [width + MARGIN, height + MARGIN]])


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
        f"{OPTIMIZER_NAMES.get(optimizer, optimizer)}, batch size {batch_size}, which is none of "
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
            f"{count_epochs(config['epochs'])}: train it again"
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
