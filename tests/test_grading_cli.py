"""`mlpkit grade` as its user meets it: what it writes, what it says, and its exit status."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from mlpkit import synthetic
from mlpkit.grading import sections
from mlpkit.grading.rubric import reweigh
from tests.commands import Mlpkit

ALL = sections.SECTIONS
FORWARD, BACKWARD, TRAINING = "Leaky ReLU forward", "Leaky ReLU backward", "Training to 75 %"
RIGHT = """
import numpy as np


class leaky_relu:
    def __init__(self, negative_slope=0.01, name="leaky_relu"):
        self.slope = negative_slope

    def forward(self, x):
        self.x = x
        return np.where(x >= 0, x, self.slope * x)

    def backward(self, dout):
        return np.where(self.x >= 0, dout, self.slope * dout)
"""
WRONG = RIGHT.replace("return np.where(self.x >= 0, dout", "return np.where(self.x >= 0, 2 * dout")


@pytest.fixture
def mlpkit(mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mlpkit:
    """Grades in tmp_path with two cheap sections; its status, and both streams."""
    cheap = tuple(s for s in sections.SECTIONS if s.name in (FORWARD, BACKWARD))
    monkeypatch.setattr(sections, "SECTIONS", cheap)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    return partial(mlpkit, "grade")


def refused(outcome: tuple[int, str, str], said: str) -> None:
    """One sentence, exit status 2, and nothing else."""
    status, out, err = outcome
    assert (status, out) == (2, "")
    assert err.startswith("mlpkit: ")
    assert err.count("\n") == 1
    assert said in err


def test_the_exit_status(mlpkit: Mlpkit) -> None:
    assert mlpkit()[0] == 0
    assert mlpkit("right.py")[0] == 0
    status, out, _ = mlpkit("wrong.py")
    assert status == 1
    assert f"{BACKWARD}: dx\n    relative error" in out


def test_what_is_written(mlpkit: Mlpkit, tmp_path: Path) -> None:
    for number in "12":
        places = [f"--{name}={name}{number}" for name in ("out", "junit", "markdown", "csv")]
        assert mlpkit("wrong.py", *places)[0] == 1
    first, second = (json.loads((tmp_path / f"out{n}").read_text()) for n in "12")
    assert isinstance(first.pop("execution_time"), float)
    second.pop("execution_time")
    assert first == second
    assert first["score"] == 2
    assert [(t["score"], t["max_score"], t["status"]) for t in first["tests"]] == [
        (2, 2, "passed"),
        (0, 2, "failed"),
    ]
    suite = ElementTree.parse(tmp_path / "junit1").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert f"| {BACKWARD} | 0 | 2 |" in (tmp_path / "markdown1").read_text()
    assert rows(tmp_path / "csv1") == [["wrong.py", "2", "0", "2", "4", ""]]
    assert (tmp_path / "csv1").read_text() == (tmp_path / "csv2").read_text()


def rows(path: Path) -> list[list[str]]:
    """A CSV file's rows below its head, which is checked."""
    head, *found = csv.reader(path.read_text().splitlines())
    assert head == ["submission", FORWARD, BACKWARD, "score", "points", "error"]
    return found


def test_an_unreadable_one_among_several(mlpkit: Mlpkit, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.write(tmp_path / "right.py", "mine/right.py")
    status, out, err = mlpkit("good.zip", "bad.zip", "gone", "wrong.py", "--csv", "table.csv")
    assert status == 2
    assert "good.zip: 4 of 4 points" in out
    assert "bad.zip could not be graded: " in err
    assert "gone could not be graded: " in err
    assert len(err.splitlines()) == 2
    assert rows(tmp_path / "table.csv") == [
        ["good.zip", "2", "2", "4", "4", ""],
        ["bad.zip", "", "", "", "4", "bad.zip is not a readable zip: zip it again"],
        ["gone", "", "", "", "4", "gone does not exist: name a folder, a .zip or a .py file"],
        ["wrong.py", "2", "0", "2", "4", ""],
    ]


def test_what_cannot_be_graded_is_written_down_too(mlpkit: Mlpkit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert mlpkit("empty", "--out=out", "--junit=junit")[0] == 2
    content = json.loads((tmp_path / "out").read_text())
    assert content["score"] == 0
    assert content["output"].startswith("empty could not be graded: it has none of lib/mlp/")
    assert {test["status"] for test in content["tests"]} == {"failed"}
    suite = ElementTree.parse(tmp_path / "junit").getroot()[0]
    assert (suite.get("tests"), suite.get("errors")) == ("2", "2")
    (tmp_path / "empty" / "hw.ipynb").write_text("{}")
    refused(mlpkit("empty"), "empty could not be graded: a notebook can't be graded")


def test_an_endless_import_costs_one_limit(mlpkit: Mlpkit, tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text("while True: pass")
    status, out, _ = mlpkit("loop.py", "--timeout", "2", "--out", "out")
    assert (status, out.count("the time limit of 2 s was reached")) == (1, 1)
    # Of the sections; each would take a limit.
    assert json.loads((tmp_path / "out").read_text())["execution_time"] < 1


def test_the_limit_for_all(mlpkit: Mlpkit, tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(RIGHT.replace("self.x = x", "while True: pass"))
    status, out, _ = mlpkit("loop.py", "--timeout", "60", "--total", "8")
    assert status == 1
    assert "the limit of 8 s for all was reached: it was stopped" in out
    assert "the limit of 8 s for all was reached: it wasn't run" in out


def test_a_syntax_error_is_said_once_at_its_line(mlpkit: Mlpkit, tmp_path: Path) -> None:
    (tmp_path / "typo.py").write_text("import os\nx = = 1\n")
    status, out, _ = mlpkit("typo.py")
    assert status == 1
    assert out.count("SyntaxError in typo.py, line 2: invalid syntax: x = = 1") == 1


def test_outputs_that_are_no_files_may_be_named_twice(mlpkit: Mlpkit) -> None:
    assert mlpkit("right.py", "--csv", "/dev/null", "--markdown", "/dev/null")[0] == 0


def test_a_pipe_is_no_submission(mlpkit: Mlpkit, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    for name in ("pipe.zip", "pipe.py"):  # nothing ever writes into them
        os.mkfifo(tmp_path / name)
        refused(mlpkit(name), f"{name} could not be graded: ")


def test_names_that_differ(mlpkit: Mlpkit, tmp_path: Path) -> None:
    for course in ("c1", "c2"):
        (tmp_path / course).mkdir()
        (tmp_path / course / "alice.py").write_text(RIGHT)
    assert mlpkit("c1/alice.py", "c2/alice.py", "right.py", "--csv", "table.csv")[0] == 0
    assert [row[0] for row in rows(tmp_path / "table.csv")] == [
        "c1/alice.py", "c2/alice.py", "right.py"
    ]  # fmt: skip


def test_a_rubric(mlpkit: Mlpkit, tmp_path: Path) -> None:
    (tmp_path / "rubric.json").write_text(f'{{"{BACKWARD}": 7}}')
    assert mlpkit("right.py", "--rubric", "rubric.json", "--csv", "table.csv")[0] == 0
    assert rows(tmp_path / "table.csv") == [["right.py", "2", "7", "9", "9", ""]]


def test_a_rubrics_points_are_those_of_its_sections(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.json"
    for points in (1, 3, 7, 39):
        rubric.write_text(json.dumps({section.name: points for section in ALL}))
        assert {section.points for section in reweigh(ALL, rubric)} == {points}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"Drawing": 3}', "Drawing"),
        (f'{{"{FORWARD}": -1}}'.encode(), "points from 0 to 1000000; it has -1"),
        (b'{"\xff": 1}', "should be JSON"),
        (b" " * (1 << 24) + b"{}", "rubric.json has more than 16777216 bytes"),
    ],
)
def test_a_wrong_rubric(mlpkit: Mlpkit, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rubric.json").write_bytes(content)
    refused(mlpkit("right.py", "--rubric", "rubric.json"), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("bad.zip", "bad.zip could not be graded: "),
        ("gone.py", "gone.py could not be graded: "),
        ("right.py --timeout 0", "--timeout should be above 0 s and at most a day"),
        ("right.py --timeout nan", "at most a day, 86400 s; got nan"),
        ("right.py --total -1", "--total should be above 0 s and at most a day, 86400 s; got -1"),
        ("right.py --memory 100", "--memory should be from 500 MB, which a right solution takes"),
        ("right.py --memory 99999999999", "to 1048576; got 99999999999"),
        ("right.py --out gone/results.json", "there is no folder gone"),
        ("right.py --out .", "is a folder"),
        ("right.py wrong.py --out results.json", "of one submission; got 2"),
        ("right.py --csv right.py", "right.py is named twice, and would be written over"),
        ("right.py --rubric r.json --junit ./r.json", "r.json is named twice"),
        ("right.py --csv a.txt --markdown a.txt", "a.txt is named twice"),
        ("right.py --backend numpy", "--backend is for mlpkit itself"),
        ("right.py --weights w.npz", "give both or neither"),
        (
            "right.py wrong.py --weights w.npz --data .",
            "--weights are those of one submission; got",
        ),
        (
            "right.py --rubric gone.json",
            "gone.json can't be read: No such file or directory; --rub",
        ),
        ("right.py --rubric .", "can't be read: Is a directory; --rubric takes a JSON file"),
        ("--starter .", "a new or an empty folder"),
    ],
)
def test_what_cannot_be(mlpkit: Mlpkit, arguments: str, said: str) -> None:
    refused(mlpkit(*arguments.split()), said)


def test_the_starter(mlpkit: Mlpkit, tmp_path: Path) -> None:
    assert mlpkit("--starter", "new")[0] == 0
    assert (tmp_path / "new" / "lib" / "optim.py").is_file()
    assert mlpkit("new", "--csv", "table.csv")[0] == 1
    assert rows(tmp_path / "table.csv") == [["new", "0", "0", "0", "4", ""]]


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("sprung", "w"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"fc1_w": np.zeros((3, 4)), "fc1_b": np.zeros(4)}, "[(3, 4), (4,)]"),
        ({}, "should hold the weights and biases"),
        ({"fc1_w": np.array([Trap()], object)}, "an .npz of plain arrays"),
        ({"fc1_w": np.zeros((3072, 20)), "fc2_w": np.zeros((20, 10))}, "should hold the weights"),
        (  # all are weights, though two alone have the usual names
            {name: np.zeros(len(name)) for name in ("out_w", "fc1_w", "fc1_b", "b")},
            "[(5,), (5,), (5,), (1,)]",
        ),
        ({"fc1_w": np.array("text")}, "should hold real numbers; its type is <U4"),
        (
            {"fc1_w": np.zeros((3072, 100)), "fc1_b": np.zeros(90)},
            "of FullyConnectedNetwork's, fc1_b should be (100,); it is (90,)",
        ),
    ],
)
def test_wrong_weights(
    mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Any, said: str
) -> None:
    training = next(s for s in ALL if s.name == TRAINING)
    monkeypatch.setattr(sections, "SECTIONS", (training,))
    synthetic.make(tmp_path / "digits", 60, 20, workers=1)
    np.savez(tmp_path / "w.npz", **arrays)
    refused(mlpkit("--weights", "w.npz", "--data", "digits"), said)
    assert not (tmp_path / "sprung").exists()


WIDTHS = [(3072, 100), *[(100, 100)] * 4, (100, 10)]
FULLY_CONNECTED = {
    name: np.zeros(shape)
    for n, (rows, columns) in enumerate(WIDTHS, start=1)
    for name, shape in ((f"fc{n}_w", (rows, columns)), (f"fc{n}_b", (columns,)))
}


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (np.zeros((3, 32, 32)), "a mean image (32, 32, 3) or nothing; it holds mean (3, 32, 32)"),
        (np.full((32, 32, 3), 117.0), "mean should be the mean of images from 0 to 1"),
        (np.full((32, 32, 3), np.nan), "mean should be the mean of images from 0 to 1"),
    ],
)
def test_a_mean_image_that_is_none(
    mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: Any, said: str
) -> None:
    monkeypatch.setattr(sections, "SECTIONS", ALL)
    np.savez(tmp_path / "w.npz", **FULLY_CONNECTED, mean=mean)
    refused(mlpkit("--weights", "w.npz", "--data", "."), said)


def test_a_mean_image_is_used(
    mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = next(s for s in ALL if s.name == TRAINING)
    monkeypatch.setattr(sections, "SECTIONS", (training,))
    synthetic.make(tmp_path / "digits", 60, 20, workers=1)
    np.savez(tmp_path / "w.npz", **FULLY_CONNECTED, mean=np.full((32, 32, 3), 0.5))
    status, out, _ = mlpkit("--weights", "w.npz", "--data", "digits")
    assert status == 1
    assert "FullyConnectedNetwork's accuracy is " in out
    assert "Hint" not in out


@pytest.mark.parametrize(
    ("spoilt", "hint"),
    [
        (
            np.full((3072, 100), np.nan),
            "Hint: fc1_w holds NaN, or numbers that are infinite in float32\n",
        ),
        (np.zeros((3072, 100), np.int32), "Hint: fc1_w is int32: trained weights are floats\n"),
    ],
)
def test_what_may_have_spoilt_weights_is_said(
    mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: Any, hint: str
) -> None:
    both = tuple(s for s in ALL if s.name in (FORWARD, TRAINING))
    monkeypatch.setattr(sections, "SECTIONS", both)
    synthetic.make(tmp_path / "digits", 60, 20, workers=1)
    np.savez(tmp_path / "w.npz", **FULLY_CONNECTED | {"fc1_w": spoilt})
    status, out, _ = mlpkit("right.py", "--weights", "w.npz", "--data", "digits")
    assert status == 1
    assert "\nTraining to 75 %\n    FullyConnectedNetwork's accuracy is " in out
    assert hint in out


def test_weights_that_are_no_file_of_arrays(
    mlpkit: Mlpkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "SECTIONS", ALL)
    (tmp_path / "w.npz").write_bytes(b"nothing")
    (tmp_path / "w.npy").write_bytes(b"nothing")
    for name, said in {
        "w.npz": "w.npz should be an .npz of plain arrays: ",
        "w.npy": "w.npy is damaged or no safetensors file",
        "gone.npz": "there are no weights at gone.npz",
    }.items():
        refused(mlpkit("--weights", name, "--data", "."), said)
