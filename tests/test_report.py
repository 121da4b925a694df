"""The report of runs, whether a PDF is theirs, and the command that trains what it needs."""

import csv
import json
import math
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlpkit import cli, synthetic
from mlpkit.compare import Comparison, train_all
from mlpkit.pdf_curves import PdfError, read_pdf
from mlpkit.progress import EPOCH_LINE
from mlpkit.report import figures, write_report
from mlpkit.report_check import verify_report
from mlpkit.report_runs import gather
from mlpkit.run_files import RunError

EPOCHS, PER_EPOCH = 5, 7
LOSSES = EPOCHS * PER_EPOCH
RECIPES: dict[str, dict[str, object]] = {
    "tinynet": {"net": "tinynet", "optimizer": "sgd", "lr": 0.01, "batch_size": 64},
    "sgd": {"net": "fcn", "optimizer": "sgd", "lr": 0.01, "batch_size": 32},
    "sgdm": {"net": "fcn", "optimizer": "sgdm", "lr": 0.01, "batch_size": 32},
    "rmsprop": {"net": "fcn", "optimizer": "rmsprop", "lr": 0.0005, "batch_size": 32},
    "adam": {"net": "fcn", "optimizer": "adam", "lr": 0.0005, "batch_size": 32},
}
COLUMNS = ["iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"]
Mlpkit = Callable[..., tuple[int, str, str]]


def make_run(folder: Path, recipe: str, **changes: object) -> Path:
    """A run's files, by formulas that differ from recipe to recipe."""
    config: dict[str, object] = {
        "keep_prob": 0.0,
        "val_size": 9,
        "train_size": 500,
        "epochs": EPOCHS,
        "seed": 7,
        "dtype": "float32",
        "backend": "numba",
        "data": "/some/digits",
        "data_sha256": {"train_32x32.mat": "ab" * 32, "test_32x32.mat": "cd" * 32},
    }
    config |= RECIPES[recipe] | changes
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"test_accuracy": 0.4321}))
    order = 1 + list(RECIPES).index(recipe)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(1, LOSSES + 1):
            e = (i - 1) // PER_EPOCH + 1
            scores = (0.01, 2 / e, e / (e + order), 3 / e, e / (e + order + 1))
            lr, *rest = scores if i % PER_EPOCH == 0 else ("",) * 5
            loss = 2.3 / i ** (order / 9) + math.sin(order * i) / 9
            writer.writerow((i, e, lr, loss, *rest))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A finished run of each recipe, in an order that isn't the report's."""
    return [make_run(tmp_path / f"run of {name}", name) for name in reversed(RECIPES)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The report of such runs, wherever they lie."""
    folder = tmp_path_factory.mktemp("runs")
    write_report([make_run(folder / name, name) for name in RECIPES], folder / "report.pdf")
    return (folder / "report.pdf").read_bytes()


@pytest.fixture
def pdf(written: bytes, tmp_path: Path) -> Path:
    """A copy of the report to be changed."""
    out = tmp_path / "report.pdf"
    out.write_bytes(written)
    return out


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_the_four_items_in_their_order(runs: list[Path]) -> None:
    tinynet, two, four, activations = figures(gather(runs))
    panels = ["Training loss", "Training accuracy", "Validation accuracy"]
    assert titles(tinynet) == ["Training loss", "Accuracy"]
    assert titles(two) == titles(four) == panels
    names = ["Sigmoid", "Leaky ReLU, slope 0.1", "ReLU", "ELU, alpha 0.5", "SELU", "Tanh"]
    assert titles(activations) == names
    labels = [f"FullyConnectedNetwork, {name}" for name in ("SGD, lr 0.01", "SGDM, lr 0.01")]
    assert [text.get_text() for text in two.legends[0].get_texts()] == labels
    labels += [
        "FullyConnectedNetwork, RMSProp, lr 0.0005",
        "FullyConnectedNetwork, Adam, lr 0.0005",
    ]
    assert [text.get_text() for text in four.legends[0].get_texts()] == labels


def test_captions_give_recipe_seed_backend_data_and_accuracy(runs: list[Path]) -> None:
    captions = [" ".join(figure.get_supxlabel().split()) for figure in figures(gather(runs))]
    assert captions[0] == (
        "1. TinyNet trained with SGD. tinynet: TinyNet, SGD, lr 0.01, batch size 64, 5 epochs, "
        "float32; seed 7; backend numba; best validation accuracy 71.43%, of epoch 5, test "
        "accuracy 43.21%. Data: digits, 500 training and 9 validation images; SHA-256 of "
        "train_32x32.mat begins abababababababab."
    )
    assert "sgdm: FullyConnectedNetwork, SGDM, lr 0.01" in captions[1]
    assert re.findall(r"(\w+): Fully", captions[2]) == ["sgd", "sgdm", "rmsprop", "adam"]
    assert "no recipe, seed, data" in captions[3]


def test_nothing_overlaps_or_leaves_the_page(runs: list[Path]) -> None:
    for figure in figures(gather(runs)):
        width, height = figure.get_size_inches() * figure.dpi
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        boxes += [legend.get_window_extent() for legend in figure.legends]
        boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
        for i, one in enumerate(boxes):
            assert one.x0 >= -1
            assert one.y0 >= -1
            assert one.x1 <= width + 1
            assert one.y1 <= height + 1
            for other in boxes[i + 1 :]:
                apart = np.maximum(one.min - other.max, other.min - one.max).max()
                assert apart > -2


def test_a_report_is_the_same_bytes_whenever_it_is_written(
    runs: list[Path], pdf: Path, tmp_path: Path
) -> None:
    write_report(runs[::-1], tmp_path / "again.pdf")
    raw = pdf.read_bytes()
    assert (tmp_path / "again.pdf").read_bytes() == raw
    assert b"Date" not in raw
    assert b"/Title (Problem 1: " in raw
    pages = re.findall(rb"/MediaBox \[ 0 0 (\d+) (\d+) \]", raw)
    assert pages == [(b"612", b"792")] * 4  # letter, upright
    assert b"/Subtype /Image" not in raw


def test_a_report_is_its_runs(pdf: Path, runs: list[Path]) -> None:
    assert verify_report(pdf, runs) == []
    drawn = [[len(line.points) for line in page] for page in read_pdf(pdf).pages]
    assert drawn == [
        [LOSSES, EPOCHS, EPOCHS] + [3] * 2,  # and those of the legend
        [LOSSES] * 2 + [EPOCHS] * 4 + [3] * 2,
        [LOSSES] * 4 + [EPOCHS] * 8 + [3] * 4,
        [401] * 6,
    ]


def test_a_long_run_is_drawn_with_every_point(runs: list[Path], tmp_path: Path) -> None:
    # From 128 points on, matplotlib would leave out those that are hardly seen.
    rows = (runs[0] / "history.csv").read_text().splitlines()
    ends = [row for row in rows if row.count(",,") == 0][1:]
    with (runs[0] / "history.csv").open("w") as file:
        print(rows[0], file=file)
        for i in range(1, 196):
            end = ends[i // 39 - 1].split(",") if i % 39 == 0 else [""] * 8
            fields = [str(i), str((i - 1) // 39 + 1), end[2], f"{1 / i:.3f}", *end[4:]]
            print(",".join(fields), file=file)
    write_report(runs, tmp_path / "long.pdf")
    assert verify_report(tmp_path / "long.pdf", runs) == []
    assert max(len(line.points) for line in read_pdf(tmp_path / "long.pdf").pages[2]) == 195


@pytest.mark.parametrize(
    ("recipe", "line", "column", "name", "pages"),
    [
        ("tinynet", 4, 3, "training loss", [1]),
        ("sgd", 2 * PER_EPOCH, 5, "training accuracy", [2, 3]),
        ("adam", EPOCHS * PER_EPOCH, 7, "validation accuracy", [3]),
    ],
)
def test_a_digit_of_the_history_is_edited(
    pdf: Path, runs: list[Path], recipe: str, line: int, column: int, name: str, pages: list[int]
) -> None:
    run = next(run for run in runs if run.name.endswith(f" {recipe}"))
    rows = [row.split(",") for row in (run / "history.csv").read_text().splitlines()]
    digits = rows[line][column].rstrip("\r")
    # The fourth digit after the point.
    where = digits.index(".") + 4
    digits = digits.ljust(where + 1, "0")
    rows[line][column] = f"{digits[:where]}{(int(digits[where]) + 5) % 10}{digits[where + 1 :]}"
    (run / "history.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    said = f"{recipe}'s {name} ({run})"
    assert verify_report(pdf, runs) == [
        f"{said}: history.csv has other points than the PDF's digest",
        *(f"page {n}: {said} is drawn otherwise than history.csv has it" for n in pages),
    ]


def test_a_change_of_scale_alone_is_laid_to_its_run(pdf: Path, runs: list[Path]) -> None:
    run = next(run for run in runs if run.name.endswith(" sgd"))
    head, *rows = (run / "history.csv").read_text().splitlines()
    fields = [row.split(",") for row in rows]
    higher = [",".join((*f[:3], f"{1.5 * float(f[3])}", *f[4:])) for f in fields]
    (run / "history.csv").write_text("\n".join((head, *higher)) + "\n")
    said = f"sgd's training loss ({run})"
    assert verify_report(pdf, runs) == [
        f"{said}: history.csv has other points than the PDF's digest",
        *(f"page {n}: {said} is drawn otherwise than history.csv has it" for n in (2, 3)),
    ]


def test_histories_are_swapped(pdf: Path, runs: list[Path]) -> None:
    one, two = runs[0] / "history.csv", runs[1] / "history.csv"
    first, second = one.read_text(), two.read_text()
    one.write_text(second)
    two.write_text(first)
    found = verify_report(pdf, runs)
    assert {line.split("'")[0] for line in found if "digest" in line} == {"adam", "rmsprop"}
    assert sum("digest" in line for line in found) == 6
    assert sum(line.startswith("page 3: ") for line in found) == 6


def edit_page(pdf: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """Change a page's instructions, and the PDF's table of objects with them."""
    raw = pdf.read_bytes()
    stream = re.compile(
        rb"<< /Length (\d+) 0 R /Filter /FlateDecode >>\nstream\n(.*?)\nendstream", re.DOTALL
    )
    pages = [found for found in stream.finditer(raw) if b" RG" in zlib.decompress(found[2])]
    page = pages[number - 1]
    before = zlib.decompress(page[2])
    after = change(before)
    assert after != before
    packed = zlib.compress(after)
    raw = raw[: page.start(2)] + packed + raw[page.end(2) :]
    raw = re.sub(rb"(\n%s 0 obj\n)\d+" % page[1], rb"\g<1>%d" % len(packed), raw)
    for found in re.finditer(rb"\n(\d+) 0 obj", raw):
        entry = re.search(rb"xref\n0 \d+\n(?:.{19}\n){%s}" % found[1], raw)
        assert entry is not None
        place = b"%010d" % (found.start() + 1)
        raw = raw[: entry.end()] + place + raw[entry.end() + len(place) :]
    raw = re.sub(rb"startxref\n\d+", b"startxref\n%d" % raw.rindex(b"\nxref\n"), raw)
    pdf.write_bytes(raw.replace(b"startxref\n%d" % raw.rindex(b"\nxref\n"),
                                b"startxref\n%d" % (raw.rindex(b"\nxref\n") + 1)))  # fmt: skip


def paths(content: bytes, length: int) -> list[re.Match[bytes]]:
    """The lines of so many points."""
    pattern = rb"(?<=\n)[\d.]+ [\d.]+ m\n(?:[\d.]+ [\d.]+ l\n){%d}(?![\d.])" % (length - 1)
    return list(re.finditer(pattern, content))


def edit_path(nth: int, length: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of a page's nth line of so many points."""

    def edit(content: bytes) -> bytes:
        path = paths(content, length)[nth]
        return content[: path.start()] + change(path[0]) + content[path.end() :]

    return edit


def raised(path: bytes) -> bytes:
    """The third point, a hundredth of a point higher."""
    points = path.splitlines(keepends=True)
    x, y, end = points[2].split()
    points[2] = b"%s %.6f %s\n" % (x, float(y) + 0.01, end)
    return b"".join(points)


def stretched(path: bytes) -> bytes:
    """Half again as high; its shape is the same."""
    return re.sub(rb" ([\d.]+) ([ml])", lambda m: b" %.6f %s" % (float(m[1]) * 1.5, m[2]), path)


def swapped(content: bytes) -> bytes:
    one, two = paths(content, LOSSES)[:2]
    between = content[one.end() : two.start()]
    return content[: one.start()] + two[0] + between + one[0] + content[two.end() :]


def moved_marker(content: bytes) -> bytes:
    marks = list(re.finditer(rb"1 0 0 1 ([\d.]+) [\d.]+ cm /M0 Do", content))
    return content[: marks[1].start(1)] + b"9.5" + content[marks[1].end(1) :]


def squeezed(content: bytes) -> bytes:
    """The first loss, drawn under a matrix that makes it smaller and shears it."""
    return edit_path(0, LOSSES, lambda path: b"1 0.1 0 0.5 0 0 cm\n" + path)(content)


@pytest.mark.parametrize(
    ("page", "change", "said"),
    [
        (1, edit_path(0, LOSSES, raised), r"tinynet's training loss \(.*\) is drawn otherwise"),
        (1, moved_marker, r"tinynet's training accuracy \(.*\) is drawn otherwise"),
        (1, edit_path(1, EPOCHS, stretched), r"tinynet's validation accuracy .* drawn otherwise"),
        (2, edit_path(0, LOSSES, stretched), r"sgd's .* and sgdm's .* are not drawn on one scale"),
        (1, squeezed, r"tinynet's training loss \(.*\) is drawn otherwise"),
        (2, edit_path(1, LOSSES, raised), r"sgdm's training loss \(.*\) is drawn otherwise"),
        (2, swapped, r"sgd's training loss \(.*\) is drawn otherwise"),
        (3, edit_path(7, EPOCHS, raised), r"adam's validation accuracy \(.*\) is drawn otherwise"),
        (3, edit_path(2, LOSSES, lambda path: b""), r"15 coloured lines .* 12 curves and 4 lines"),
        (3, lambda page: page + b"1 0 0 RG 9 9 m 99 9 l S", "17 coloured lines are drawn"),
        (4, edit_path(5, 401, raised), "Tanh is drawn otherwise"),
    ],
)
def test_a_page_is_edited(
    pdf: Path, runs: list[Path], page: int, change: Callable[[bytes], bytes], said: str
) -> None:
    edit_page(pdf, page, change)
    found = verify_report(pdf, runs)
    assert found
    assert re.search(rf"page {page}: .*{said}", found[0])


def test_an_unchanged_page_survives_the_tests_own_editing(pdf: Path, runs: list[Path]) -> None:
    edit_page(pdf, 2, lambda page: page + b"\n% nothing more\n")
    assert verify_report(pdf, runs) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_item_is_left_out(runs: list[Path], tmp_path: Path, recipe: str) -> None:
    left = [run for run in runs if not run.name.endswith(f" {recipe}")]
    with pytest.raises(
        RunError, match=f"lacks a run of {recipe}: `mlpkit train --recipe {recipe}`"
    ):
        write_report(left, tmp_path / "new.pdf")
    assert not (tmp_path / "new.pdf").exists()


def without_end(run: Path) -> None:
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[:-1]))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"batch_size": 64}, r"FullyConnectedNetwork with Adam, batch size 64, which is none of"),
        ({"net": "512"}, r"MLP 512 with Adam, batch size 32, which is none of the recipes tinynet"),
        ({"optimizer": "sgd"}, r"are both sgd's: leave one out"),
        (
            {"epochs": 9},
            r"adam, adam's run, was stopped early, after 5 of 9 epochs, or its history.csv is "
            "damaged: `mlpkit train --resume",
        ),
        (
            {"train_size": 400},
            r"have different numbers of training images, 500 and 400: to compare",
        ),
        ({"val_size": 8}, r"have different numbers of validation images, 9 and 8"),
        (
            {"data_sha256": {}},
            r"sgd and .*adam have different data: to compare sgd and adam, train",
        ),
        ({"seed": "one"}, r"seed should be a whole number; it is 'one'"),
        ({"batch_size": None}, r"batch_size should be a whole number; it is None"),
        ({"data_sha256": "ab"}, r"data_sha256 should be an object; it is 'ab'"),
        (without_end, r"adam's run, was stopped early, after 4 of 5 epochs"),
        (lambda run: (run / "summary.json").unlink(), r"was stopped early, after 5 of 5 epochs"),
        (lambda run: (run / "summary.json").write_text("{}"), r"test_accuracy should be a number"),
        (lambda run: (run / "history.csv").unlink(), r"history\.csv is gone: `mlpkit train"),
        (lambda run: (run / "config.json").unlink(), r"is no run: it has no config\.json"),
    ],
)
def test_runs_that_a_report_refuses(
    runs: list[Path], tmp_path: Path, spoil: dict[str, object] | Callable[[Path], object], said: str
) -> None:
    run = tmp_path / "adam"
    make_run(run, "adam", **(spoil if isinstance(spoil, dict) else {}))
    if not isinstance(spoil, dict):
        spoil(run)
    with pytest.raises(RunError, match=said):
        write_report([run, *runs[1:]], tmp_path / "new.pdf")
    assert not (tmp_path / "new.pdf").exists()


def test_a_loss_that_is_no_number_is_refused(runs: list[Path], tmp_path: Path) -> None:
    text = (runs[0] / "history.csv").read_text()
    (runs[0] / "history.csv").write_text(re.sub(r"\n3,1,,[\d.]+", "\n3,1,,nan", text))
    with pytest.raises(RunError, match="the training loss should be finite numbers"):
        write_report(runs, tmp_path / "new.pdf")


@pytest.fixture
def mlpkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Mlpkit:
    """Runs a command in tmp_path; returns its status, and what it said on either stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPKIT_TRACEBACK", raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mlpkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        status = ended.value.code
        return (status if isinstance(status, int) else 0, *capfd.readouterr())

    return run


def test_commands_and_their_status(mlpkit: Mlpkit, runs: list[Path], tmp_path: Path) -> None:
    name = "problem_1_solution.pdf"
    assert mlpkit("report", *runs) == (0, f"{name}\n", "")
    status, out, _ = mlpkit("verify-report", name, *runs)
    assert (status, out.startswith(f"{name}: every curve is that of its run")) == (0, True)
    edit_page(tmp_path / name, 1, edit_path(0, LOSSES, raised))
    status, out, err = mlpkit("verify-report", name, *runs)
    assert (status, err) == (1, "")
    assert out.startswith("page 1: tinynet's training loss (")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["report", "RUNS", "--pdf", "a.png"], "the report is a PDF; a.png should end in .pdf"),
        (["report", "RUNS", "--pdf", "new/a.pdf"], "there is no folder new for a.pdf"),
        (["report", "RUNS", "--pdf", "folder.pdf"], "folder.pdf is a folder; a file is to be"),
        (["report", "nowhere"], "there is no folder nowhere: name a run's"),
        (["verify-report", "none.pdf", "RUNS"], "none.pdf can't be read"),
        (["verify-report", "folder.pdf", "RUNS"], "folder.pdf can't be read"),
        (["verify-report", "text.pdf", "RUNS"], "text.pdf is no PDF: name the file that"),
        (["verify-report", "figure.pdf", "RUNS"], "figure.pdf is a PDF, but no report"),
        (["compare", "--jobs", "0"], "--jobs must be a whole number, at least 1; got 0"),
        (["compare", "--epochs", "0"], "--epochs must be a whole number, at least 1; got 0"),
        (["compare", "--data", "none"], "--data takes svhn, synthetic or a folder"),
    ],
)
def test_what_a_user_can_mend(
    mlpkit: Mlpkit, runs: list[Path], tmp_path: Path, command: list[str], said: str
) -> None:
    (tmp_path / "folder.pdf").mkdir()
    (tmp_path / "text.pdf").write_text("a text")
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    figure.savefig(tmp_path / "figure.pdf")
    words = [w for word in command for w in (map(str, runs) if word == "RUNS" else [word])]
    status, out, err = mlpkit(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"mlpkit: {said}")
    assert err.count("\n") == 1


def test_every_truncation_is_said(pdf: Path, runs: list[Path]) -> None:
    raw = pdf.read_bytes()
    for end in range(0, len(raw) - 7, len(raw) // 40):
        pdf.write_bytes(raw[:end])
        with pytest.raises(PdfError, match=r"is no PDF|is cut short"):
            verify_report(pdf, runs)


def test_the_report_from_training_on(mlpkit: Mlpkit, tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    synthetic.make(digits, 200, 40, workers=1)
    command = ["compare", "--data", digits, "--epochs", "1", "--backend", "numpy", "--out", "all"]
    status, out, err = mlpkit(*command, "--jobs", "2", "--train-size", "150", "--seed", "5")
    assert (status, err) == (0, "")
    *lines, last = out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(RECIPES)
    for line in lines:
        assert re.fullmatch(r"\w+ +validation accuracy [\d.]+% after epoch 1, \d+ s", line)
    assert last == "all/problem_1_solution.pdf"
    folders = [Path("all", name) for name in RECIPES]
    assert verify_report(Path(last), folders) == []
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        assert RECIPES[folder.name].items() <= config.items()
        assert (config["epochs"], config["train_size"], config["seed"]) == (1, 150, 5)
    # What is there is used again, and only that.
    written = (folders[0] / "history.csv").stat().st_mtime_ns
    report = Path(last).read_bytes()
    status, out, _ = mlpkit(*command, "--train-size", "150", "--seed", "5")
    assert (status, out.count(" already\n")) == (0, 5)
    assert (folders[0] / "history.csv").stat().st_mtime_ns == written
    assert Path(last).read_bytes() == report
    # What was stopped is resumed.
    (folders[1] / "summary.json").unlink()
    status, out, _ = mlpkit(*command, "--train-size", "150", "--seed", "5")
    assert (status, out.count(" already\n")) == (0, 4)
    assert (folders[1] / "summary.json").is_file()
    assert Path(last).read_bytes() == report
    status, _, err = mlpkit(*command, "--train-size", "150", "--seed", "6")
    assert (status, err.split(":")[1]) == (2, " all/tinynet holds a run with seed 5, not 6")
    # A training that fails is said, with why.
    status, _, err = mlpkit(*command, "--out", "new", "--train-size", "1000")
    assert status == 2
    assert re.match(r"mlpkit: the training of \w+ failed: the training split of .* holds 191", err)


def test_where_a_training_fails_no_other_is_begun(tmp_path: Path) -> None:
    class Scripts(Comparison):
        """Of two recipes the first fails, and the second says that it was begun."""

        def command(self, name: str) -> list[str]:
            begun = f"import pathlib, time; pathlib.Path({name!r}).touch(); time.sleep(1)"
            code = "raise SystemExit('mlpkit: no')" if name == "one" else begun
            return [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}"]

    with pytest.raises(RunError, match="the training of one failed: no"):
        train_all(Scripts(tmp_path, tmp_path), ["one", "two"], 1, lambda *done: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", ["", "   1774 it/s"])
def test_compare_reads_an_epoch_that_was_resumed_at_its_end_too(rate: str) -> None:
    line = f"   1 / 15     1.0665     1.1231      64.2%      61.6%{rate}\n"
    epoch = EPOCH_LINE.fullmatch(line)
    assert epoch is not None
    assert epoch.groups() == ("1", "15", "61.6")
