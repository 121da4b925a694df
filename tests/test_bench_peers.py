"""What bench/peers.py and bench/scaling.py refuse before they measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")
BENCH = Path(__file__).parents[1] / "bench"


def refused(script: str, *arguments: str) -> str:
    """What is said in the end, where nothing is measured."""
    command = [sys.executable, str(BENCH / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("peers.py --rounds 0", "--rounds: must be a whole number, at least 1; got 0"),
        ("peers.py --seconds inf", "--seconds: must be positive and finite; got inf"),
        ("scaling.py --seconds -1", "--seconds: must be positive and finite; got -1.0"),
        ("peers.py --out /dev/null", "/dev/null can't be made (File exists): name another folder"),
        ("scaling.py --out /dev/null/x", "can't be made (Not a directory): name another folder"),
        ("scaling.py --backend foo", "backend must be one of auto, cupy, numba, numpy; got 'foo'"),
    ],
)
def test_what_cannot_be_measured(arguments: str, said: str) -> None:
    assert refused(*arguments.split()).endswith(said)


@pytest.mark.parametrize("differing", ["blas", "seconds", "versions"])
def test_figures_of_another_machine_are_not_mixed(tmp_path: Path, differing: str) -> None:
    from bench.peers import found_before
    from mlpkit.benchmark import machine

    target, cases = tmp_path / "cpu.json", [("fcn", "sgd")]
    rows = [{"workload": "fcn", "optimizer": rule} for rule in ("sgd", "adam")]
    about: dict[str, Any] = machine() | {"seconds": 2.0}
    assert found_before(target, about, cases) == []
    target.write_text(json.dumps({**about, "results": rows}))
    assert found_before(target, about, cases) == rows[1:]
    target.write_text(json.dumps({**about, differing: "other", "results": rows}))
    with pytest.raises(SystemExit, match=f"measured with another {differing}: name another folder"):
        found_before(target, about, cases)
    assert found_before(target, about, [*cases, ("fcn", "adam")]) == []  # all are measured anew


@pytest.mark.parametrize("content", ["[]", "{bad", "{}", '{"results": [1]}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    from bench.peers import found_before

    (tmp_path / "cpu.json").write_text(content)
    with pytest.raises(SystemExit, match=r"is no file of bench/peers\.py's"):
        found_before(tmp_path / "cpu.json", {}, [])
