"""`python -m mlpkit`, with the tree on PYTHONPATH alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlpkit
from mlpkit import __version__

ROOT = Path(__file__).parents[1]


def run_as_module(*words: str, lacking: str = "") -> subprocess.CompletedProcess[str]:
    """What it prints. lacking: a library that isn't installed."""
    code = "import runpy, sys\n"
    if lacking:
        code += f"sys.modules[{lacking!r}] = None\n"
    code += "runpy.run_module('mlpkit', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_the_command() -> None:
    pytest.importorskip("typer")
    done = run_as_module("--version")
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_a_library_that_is_lacking_is_a_sentence() -> None:
    done = run_as_module("doctor", lacking="typer")
    assert done.returncode == 2
    assert done.stderr == "mlpkit: typer is not installed: pip install typer\n"


def test_type_checkers_read_the_names_that_there_are() -> None:
    stub = ast.parse(Path(mlpkit.__file__).with_suffix(".pyi").read_text())
    told = {
        name.asname: getattr(sys.modules[mlpkit._HOME[name.name]], name.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if getattr(mlpkit, name.name)  # which imports where it lives
    }
    assert told == {name: getattr(mlpkit, name) for name in mlpkit.__all__}
