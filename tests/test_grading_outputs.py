"""Grades written down, read back by the standard library's own readers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlpkit.grading import outputs
from mlpkit.grading.interface import Failure, Grade, Part, Section, SectionResult, Task
from mlpkit.grading.rubric import reweigh

NASTY = "a <b> & ]]> \x1b[31m \x00 \ud800 | `x`"


def graded(seconds: float = 0.5) -> Grade:
    lost = SectionResult("Two", 1.0, 2.0, "failed", (Failure(NASTY, "look"),), NASTY, seconds)
    return Grade(
        "s.zip",
        (
            SectionResult("One", 2.0, 2.0, "passed", seconds=seconds),
            lost,
            SectionResult("Three", 0.0, 5.0, "error", (Failure("no fork"),), seconds=seconds),
        ),
    )


def test_gradescope() -> None:
    content = json.loads(outputs.gradescope(graded()))
    assert content["execution_time"] == 1.5
    assert content["score"] == 3
    tests = content["tests"]
    assert [test["score"] for test in tests] == [2, 1, 0]
    assert [test["max_score"] for test in tests] == [2, 2, 5]
    assert [test["status"] for test in tests] == ["passed", "failed", "failed"]
    assert "Hint: look" in tests[1]["output"]
    assert {test["visibility"] for test in tests} == {"visible"}


def test_twenty_regrades_differ_in_times_alone() -> None:
    contents = [json.loads(outputs.gradescope(graded(i))) for i in range(20)]
    assert len({content.pop("execution_time") for content in contents}) == 20
    assert all(content == contents[0] for content in contents)


def test_junit() -> None:
    suite = ElementTree.fromstring(outputs.junit([graded()]))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"]]
    assert "a <b> & ]]>" in (suite[1][0].text or "")


def test_files(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in outputs.FORMATS}
    outputs.write([graded(), graded()], dict(places))
    rows = list(csv.reader(places["csv"].read_text().splitlines()))
    assert rows[0] == ["submission", "One", "Two", "Three", "score", "points", "error"]
    assert rows[1:] == [["s.zip", "2", "1", "", "", "9", "no fork"]] * 2
    assert places["markdown"].read_text().count("| Two | 1 | 2 |") == 2
    assert {path.name for path in tmp_path.iterdir()} == set(outputs.FORMATS)


def test_a_rubric(tmp_path: Path) -> None:
    parts = tuple(
        Part(name, points, Task("t"), lambda _: []) for name, points in (("a", 1), ("b", 3))
    )
    path = tmp_path / "rubric.json"
    path.write_text('{"One": 8}')
    one, two = reweigh([Section("One", parts), Section("Two", parts)], path)
    assert [part.points for part in one.parts] == [2, 6]
    assert two.points == 4
    for bad in ('{"No": 1}', '{"One": -1}', '{"One": NaN}', '{"One": true}', "[]", "{"):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"rubric\.json"):
            reweigh([Section("One", parts)], path)
