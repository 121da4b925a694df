"""Curves of one run, comparisons of several, the activations, and samples of a data set.

Figures are made without pyplot, so that nothing here changes a notebook's own state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mlpkit_backends import load

from . import activations
from .datasets import Dataset
from .files import atomic
from .history_file import read_history, stride_of
from .recipes import OPTIMIZERS, network_title
from .run_files import check_place, read_config

Rows = list[dict[str, float]]  # read_history's
FORMATS = ("jpg", "pdf", "png", "svg")


def plot_runs(folders: Sequence[Path], out: Path) -> None:
    """One run: its two-panel curve; several: the three-panel comparison. Written to `out`, in the
    format that its suffix names."""
    if len(folders) == 1:
        figure = curve_figure(read_history(folders[0]), title_of(folders[0]))
    else:
        titles = [title_of(folder) for folder in folders]
        labels = [
            title if titles.count(title) == 1 else f"{title} ({in_letters(folder.name)})"
            for title, folder in zip(titles, folders, strict=True)
        ]
        stride = common_stride([read_history(folder) for folder in folders])
        histories = [read_history(folder, stride) for folder in folders]
        figure = comparison_figure(list(zip(labels, histories, strict=True)))
    save(figure, out)


def in_letters(name: str) -> str:
    """A file's name as matplotlib can draw it: bytes that are no text as ?, dollars as such."""
    return name.encode(errors="replace").decode().replace("$", r"\$")


def title_of(folder: Path) -> str:
    """A run's network and optimizer in words."""
    config = read_config(folder)
    net = network_title(config["net"])
    optimizer = OPTIMIZERS.get(config["optimizer"], config["optimizer"])
    return f"{net}, {optimizer}, lr {config['lr']:g}"


def curve_figure(history: Rows, title: str, upright: bool = False) -> Figure:
    """Training loss by iteration, thinned, and training and validation accuracy by epoch, side by
    side or, upright, one above the other."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    loss_axes, accuracy_axes = figure.subplots(*((2, 1) if upright else (1, 2)))
    plot_loss(loss_axes, history)
    plot_accuracy(accuracy_axes, history, "train_acc", "training")
    plot_accuracy(accuracy_axes, history, "val_acc", "validation")
    loss_axes.set(title="Training loss", xlabel="iteration", ylabel="cross entropy of a batch")
    accuracy_axes.set(title="Accuracy", xlabel="epoch")
    finish(accuracy_axes)
    accuracy_axes.legend()
    loss_axes.grid(alpha=0.3)
    return figure


def comparison_figure(runs: Sequence[tuple[str, Rows]]) -> Figure:
    """Training loss, training accuracy and validation accuracy of several runs, one above the
    other."""
    figure = Figure(figsize=(8, 11), layout="constrained")
    loss_axes, train_axes, val_axes = figure.subplots(3, 1)
    stride = common_stride([history for _, history in runs])
    for label, history in runs:
        plot_loss(loss_axes, history, label, stride)
        plot_accuracy(train_axes, history, "train_acc", label)
        plot_accuracy(val_axes, history, "val_acc", label)
    loss_axes.set(title="Training loss", xlabel="iteration", ylabel="cross entropy of a batch")
    loss_axes.grid(alpha=0.3)
    handles, labels = loss_axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=1 + (len(runs) > 3))
    for axes, title in ((train_axes, "Training accuracy"), (val_axes, "Validation accuracy")):
        axes.set(title=title, xlabel="epoch")
        finish(axes)
    return figure


def common_stride(histories: Sequence[Rows]) -> int:
    """Of how many iterations one loss is drawn, the longest run's for all: a curve of more points
    looks rougher."""
    return max(stride_of(int(history[-1]["iteration"])) for history in histories)


def loss_points(history: Rows, stride: int | None = None) -> list[tuple[float, float]]:
    """Iteration and loss of the first and of every so many iterations after it."""
    stride = stride or common_stride([history])
    return [
        (row["iteration"], row["loss"])
        for row in history
        if "loss" in row and (row["iteration"] - 1) % stride == 0
    ]


def accuracy_points(history: Rows, column: str) -> list[tuple[float, float]]:
    """Epoch and accuracy of every finished epoch."""
    return [(row["epoch"], row[column]) for row in history if column in row]


def plot_loss(
    axes: Axes, history: Rows, label: str | None = None, stride: int | None = None
) -> None:
    """The loss by iteration, thinned."""
    points = loss_points(history, stride)
    marker = "o" if len(points) == 1 else None  # a line of one point would not show
    x, y = [x for x, _ in points], [y for _, y in points]
    axes.plot(x, y, label=label, linewidth=1, marker=marker, markersize=4)


# Of accuracies of a few epochs, which are often the same: each marker shows around the next.
FEW = 5
NESTED_MARKERS = (("o", 12), ("s", 8), ("^", 6), ("D", 3))


def plot_accuracy(axes: Axes, history: Rows, column: str, label: str) -> None:
    """An accuracy by epoch, with markers."""
    points = accuracy_points(history, column)
    nested = NESTED_MARKERS[len(axes.lines) % len(NESTED_MARKERS)]
    marker, size = nested if len(points) <= FEW else ("o", 4)
    x, y = [x for x, _ in points], [y for _, y in points]
    axes.plot(x, y, label=label, marker=marker, markersize=size)


def finish(axes: Axes) -> None:
    """The look of an accuracy panel."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if max(np.size(line.get_xdata()) for line in axes.lines) < 2:  # nothing sets the axes' scale
        axes.set(xlim=(0, 2), ylim=(0, 1))
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)


def activation_points() -> dict[str, list[tuple[float, float]]]:
    """Points of each of the six activations on [-10, 10], by the activation's title."""
    functions: dict[str, Callable[[Any], Any]] = {
        "Sigmoid": lambda x: activations.sigmoid(x, backend="numpy"),
        "Leaky ReLU, slope 0.1": lambda x: activations.leaky_relu(x, 0.1, backend="numpy"),
        "ReLU": lambda x: activations.relu(x, backend="numpy"),
        "ELU, alpha 0.5": lambda x: activations.elu(x, 0.5, backend="numpy"),
        "SELU": lambda x: activations.selu(x, 1.6732, 1.0507, backend="numpy"),
        "Tanh": lambda x: activations.tanh(x, backend="numpy"),
    }
    x = load("numpy").asarray(np.linspace(-10, 10, 401))
    return {
        title: list(zip(x.tolist(), function(x).tolist(), strict=True))
        for title, function in functions.items()
    }


def activations_figure(aspect: float | None = None) -> Figure:
    """The six activations on [-10, 10], two rows of three; aspect: the panels' height by width."""
    figure = Figure(figsize=(10, 6), layout="constrained" if aspect is None else "compressed")
    curves = activation_points().items()
    for axes, (title, points) in zip(figure.subplots(2, 3).flat, curves, strict=True):
        axes.set_box_aspect(aspect)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.plot(*zip(*points, strict=True))
        axes.set(title=title, xlabel="x", ylabel="f(x)")
        axes.grid(alpha=0.3)
    return figure


def samples_figure(data: Dataset) -> Figure:
    """Ten training images of each digit, a row a digit."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    figure.suptitle(f"Training images of {data.folder}")
    for digit, row in enumerate(figure.subplots(10, 10)):
        chosen = np.flatnonzero(data.train.labels == digit)[: len(row)]
        row[0].set_ylabel(str(digit), rotation=0, labelpad=12)
        for axes in row:
            axes.set(xticks=[], yticks=[])
        for axes, i in zip(row, chosen, strict=False):
            axes.imshow(data.train.images[i])
    return figure


def check_target(out: Path) -> str:
    """The format that a picture's name asks for; ValueError for one that can't be written."""
    kind = out.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"{out} should end in one of {', '.join(FORMATS)}: rename it")
    check_place(out)
    return kind


def save(figure: Figure, out: Path) -> None:
    """Write the figure, whole or not at all; ValueError for another format."""
    kind = check_target(out)
    with atomic(out) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a run's name, drawn as an empty box
        figure.savefig(temporary, format=kind, dpi=120)
