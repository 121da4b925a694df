"""What the tests of the command line share."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# The images of the `digits` fixture's files; of the training file's, 4.45 % are for validation.
TRAIN, TEST = 60, 20
VAL = 3
HERE = [sys.executable, "-m", "mlpkit"]
SMALL = ["--net", "2", "--epochs", "2", "--batch-size", "10"]
Mlpkit = Callable[..., tuple[int, str, str]]  # the `mlpkit` fixture


def environment(**changes: str) -> dict[str, str]:
    """A process of its own finds what this one does."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return os.environ | {"PYTHONPATH": path, "MLPKIT_BACKEND": "numpy"} | changes


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def unread(command: list[str], cwd: Path, lines: int = 0, **changes: str) -> tuple[int, bytes]:
    """The status and the standard error of a command whose output nobody reads after its first
    lines."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(**changes),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, said
