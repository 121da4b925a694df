"""The figures: what their panels, lines, labels and legends hold, and the files they end in."""

import csv
import json
import math
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from mlpkit import plotting
from mlpkit.datasets import Dataset, Split
from mlpkit.history_file import read_history
from mlpkit.plotting import (
    activations_figure,
    comparison_figure,
    curve_figure,
    in_letters,
    plot_runs,
    samples_figure,
    save,
    title_of,
)

COLUMNS = ["iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"]


def loss_at(i: int) -> float:
    return 2.3 / math.sqrt(i)


def make_run(folder: Path, epochs: int = 3, per_epoch: int = 7, **changes: object) -> Path:
    """A run's configuration and history, by formulas: accuracies e / 10 and e / 20 at epoch e."""
    config: dict[str, object] = {
        "net": "tinynet",
        "optimizer": "sgd",
        "lr": 0.01,
        "keep_prob": 0.0,
        "val_size": 9,
        "dtype": "float32",
        "data": "d",
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(1, epochs * per_epoch + 1):
            e = (i - 1) // per_epoch + 1
            scores = (2 / e, e / 10, 3 / e, e / 20) if i % per_epoch == 0 else ("",) * 4
            writer.writerow((i, e, 0.01 if scores[0] else "", loss_at(i), *scores))
    return folder


def points(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """x and y of each line."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


# Iterations of an epoch, of which there are three, and those whose loss is drawn: every 100th of
# 10000 and more, else about 100 of them.
@pytest.mark.parametrize(
    ("per_epoch", "drawn"),
    [
        (1, range(1, 4)),
        (33, range(1, 100)),
        (66, range(1, 199)),
        (67, range(1, 202, 2)),
        (3333, range(1, 10000, 99)),
        (3334, range(1, 10003, 100)),
        (7000, range(1, 21001, 100)),
    ],
)
def test_one_runs_panels(tmp_path: Path, per_epoch: int, drawn: range) -> None:
    run = make_run(tmp_path / "run", per_epoch=per_epoch)
    figure = curve_figure(read_history(run), "the title")
    loss, accuracy = figure.axes
    assert figure.get_suptitle() == "the title"
    assert points(loss) == [(list(drawn), [loss_at(i) for i in drawn])]
    assert points(accuracy) == [([1, 2, 3], [0.1, 0.2, 0.3]), ([1, 2, 3], [0.05, 0.1, 0.15])]
    assert legend(accuracy) == ["training", "validation"]
    assert [line.get_marker() for line in accuracy.get_lines()] == ["o", "s"]
    assert [axes.get_title() for axes in figure.axes] == ["Training loss", "Accuracy"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["iteration", "epoch"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross entropy of a batch", "accuracy"]


def test_several_runs_panels(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", epochs=5, per_epoch=4)
    runs = [("first", read_history(one)), ("second", read_history(two))]
    figure = comparison_figure(runs)
    loss, train, val = figure.axes
    assert points(loss) == [
        (list(range(1, n + 1)), [loss_at(i) for i in range(1, n + 1)]) for n in (21, 20)
    ]
    for axes, unit in ((train, 10), (val, 20)):
        assert points(axes) == [
            (list(range(1, n + 1)), [e / unit for e in range(1, n + 1)]) for n in (3, 5)
        ]
    (shared,) = figure.legends  # one for all three
    assert [text.get_text() for text in shared.get_texts()] == ["first", "second"]
    titles = ["Training loss", "Training accuracy", "Validation accuracy"]
    assert [axes.get_title() for axes in figure.axes] == titles
    assert [axes.get_xlabel() for axes in figure.axes] == ["iteration", "epoch", "epoch"]
    tops = [axes.get_position().y0 for axes in figure.axes]
    assert tops == sorted(tops, reverse=True)


def test_a_run_stopped_in_its_first_epoch_has_a_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[:5]))
    loss, accuracy = curve_figure(read_history(run), "").axes
    assert points(loss) == [([1, 2, 3, 4], [loss_at(i) for i in (1, 2, 3, 4)])]
    assert points(accuracy) == [([], []), ([], [])]
    plot_runs([run], run / "curves.png")
    assert imread(run / "curves.png").ndim == 3


def test_a_run_stopped_within_an_epoch_keeps_its_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", per_epoch=3334)
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[:9901]))
    loss, _ = curve_figure(read_history(run), "").axes
    assert points(loss) == [(list(range(1, 9901, 99)), [loss_at(i) for i in range(1, 9901, 99)])]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "TinyNet, SGD, lr 0.01"),
        ({"net": "fcn", "optimizer": "adam", "lr": 5e-4}, "FullyConnectedNetwork, Adam, lr 0.0005"),
        ({"net": "512,256", "optimizer": "rmsprop", "lr": 1}, "MLP 512,256, RMSProp, lr 1"),
        ({"optimizer": "lion"}, "TinyNet, lion, lr 0.01"),
    ],
)
def test_a_runs_title(tmp_path: Path, changes: dict[str, object], title: str) -> None:
    assert title_of(make_run(tmp_path / "run", **changes)) == title


def texts(svg: Path) -> set[str]:
    """The texts of an SVG file, which matplotlib leaves in comments beside their outlines."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(svg, parser).getroot()
    return {str(node.text).strip() for node in root.iter(ElementTree.Comment)}


def test_files_of_one_and_of_several_runs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two")]
    runs.append(make_run(tmp_path / "three", optimizer="adam"))
    plot_runs(runs[:1], tmp_path / "one.svg")
    said = texts(tmp_path / "one.svg")
    assert {"TinyNet, SGD, lr 0.01", "training", "validation", "Accuracy"} <= said
    plot_runs(runs, tmp_path / "all.svg")
    said = texts(tmp_path / "all.svg")
    # Two of one kind are told apart by their folders.
    labels = {
        "TinyNet, SGD, lr 0.01 (one)",
        "TinyNet, SGD, lr 0.01 (two)",
        "TinyNet, Adam, lr 0.01",
    }
    assert {*labels, "Validation accuracy"} <= said
    assert "TinyNet, SGD, lr 0.01" not in said


@pytest.mark.parametrize("kind", ["png", "PNG", "pdf", "svg", "jpg"])
def test_formats(tmp_path: Path, kind: str) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().set_title("a title")
    out = tmp_path / f"figure.{kind}"
    save(figure, out)
    content = out.read_bytes()
    if kind == "pdf":
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
    elif kind == "svg":
        assert "a title" in texts(out)
    else:
        pixels = imread(out, format=kind.lower())
        assert pixels.shape[:2] == (120, 240)  # 120 dots an inch
        assert pixels.min() < pixels.max()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_name_that_the_font_lacks_is_drawn_without_a_warning(tmp_path: Path) -> None:
    figure = Figure()
    figure.suptitle("runs/漢字")
    save(figure, tmp_path / "figure.png")  # the tests make errors of warnings
    assert (tmp_path / "figure.png").stat().st_size


@pytest.mark.parametrize("name", ["figure", "figure.docx", ".png", "figure.png.bak"])
def test_no_such_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"should end in one of .*pdf, .*png, .*svg.*: rename it"):
        save(Figure(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*new for a\.png: make it first"):
        save(Figure(), tmp_path / "new" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_activations() -> None:
    x = np.linspace(-10, 10, 401)
    expected = {
        "Sigmoid": 1 / (1 + np.exp(-x)),
        "Leaky ReLU, slope 0.1": np.where(x >= 0, x, 0.1 * x),
        "ReLU": np.maximum(x, 0),
        "ELU, alpha 0.5": np.where(x > 0, x, 0.5 * (np.exp(x) - 1)),
        "SELU": 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(x) - 1)),
        "Tanh": np.tanh(x),
    }
    figure = activations_figure()
    assert [axes.get_title() for axes in figure.axes] == list(expected)
    for axes in figure.axes:
        drawn_x, drawn_y = points(axes)[-1]
        np.testing.assert_allclose(drawn_x, x, atol=1e-12)
        np.testing.assert_allclose(drawn_y, expected[axes.get_title()], atol=1e-12)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "f(x)")


def test_samples_are_ten_of_each_digit() -> None:
    labels = np.array([0] * 12 + [3] * 4 + [9, 0, 9])
    images = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    part = Split(images, labels)
    figure = samples_figure(Dataset(Path("the/folder"), part, part[:1], part[:1]))
    assert "the/folder" in figure.get_suptitle()
    assert len(figure.axes) == 100
    shown = {i: axes.get_images() for i, axes in enumerate(figure.axes)}
    # Row by row, a row a digit: the first ten 0s, four 3s, two 9s.
    expected = {**{i: i for i in range(10)}, **{30 + i: 12 + i for i in range(4)}, 90: 16, 91: 18}
    assert {i for i, found in shown.items() if found} == set(expected)
    for place, image in expected.items():
        (picture,) = shown[place]
        np.testing.assert_array_equal(picture.get_array(), images[image])
    assert [figure.axes[10 * digit].get_ylabel() for digit in range(10)] == list("0123456789")


def test_a_run_of_one_epoch_beside_a_longer_one_hides_nothing(tmp_path: Path) -> None:
    short, long = make_run(tmp_path / "one", epochs=1), make_run(tmp_path / "two", epochs=5)
    figure = comparison_figure([("short", read_history(short)), ("long", read_history(long))])
    for axes in figure.axes[1:]:
        low, high = axes.get_xlim()
        assert low <= 1
        assert high >= 5


def test_a_shorter_runs_loss_is_drawn_as_often_as_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plotting, "save", lambda figure, out: figures.append(figure))
    runs = [make_run(tmp_path / str(n), epochs=1, per_epoch=n) for n in (3300, 7000)]
    plot_runs(runs, tmp_path / "both.png")
    loss = figures[0].axes[0]
    assert [x for x, _ in points(loss)] == [list(range(1, n, 70)) for n in (3300, 7000)]


@pytest.mark.parametrize("epochs", [1, 2])
def test_accuracies_of_few_epochs_show_where_they_are_the_same(epochs: int) -> None:
    scores = {"train_acc": 0.5, "val_acc": 0.5}
    history = [dict.fromkeys(COLUMNS, float(e + 1)) | scores for e in range(epochs)]
    figure = comparison_figure([(str(n), history) for n in range(4)])
    for axes in figure.axes[1:]:
        assert len({line.get_marker() for line in axes.lines}) == 4
        sizes = [line.get_markersize() for line in axes.lines]
        assert sizes == sorted(set(sizes), reverse=True)  # those drawn later are smaller


def test_names_of_folders_are_drawn_as_they_are() -> None:
    assert in_letters("a$b_c$") == r"a\$b_c\$"
    assert in_letters(os.fsdecode(b"byte\xff")) == "byte?"
