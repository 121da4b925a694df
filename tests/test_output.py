"""What is printed goes to a full disk, or to nobody; and a working folder that is gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlpkit.run_files import resuming
from tests.commands import HERE, SMALL, environment, unread

FULL = Path("/dev/full")
TOLD = (
    "mlpkit: its output can't be written (No space left on device): training goes on without it\n"
)


def on_full_disk(*words: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """A command whose output goes to a full disk."""
    with FULL.open("w") as full:
        return subprocess.run(
            [*HERE, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**changes),
            check=False,
        )


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_training_outlives_its_log(digits: str, tmp_path: Path, unbuffered: str) -> None:
    train = ("train", "--data", digits, *SMALL)
    for options in (("--out", "run"), ("--resume", "run", "--epochs", "3")):
        done = on_full_disk(*train, *options, cwd=tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stderr) == (0, TOLD)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert lines[-1].startswith("15,3,")  # 57 images are 5 batches of 10


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_another_command_says_that_it_told_nobody(tmp_path: Path) -> None:
    done = on_full_disk("doctor", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mlpkit: the disk that the output goes to is full: make room")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_where_nobody_reads_the_status_is_none_of_the_commands_own(
    tmp_path: Path, unbuffered: str
) -> None:
    """`grade` and others have 1 for something else."""
    status, said = unread([*HERE, "doctor"], tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (status, said) == (128 + 13, b"")  # SIGPIPE, as a shell has it


def test_a_comparison_goes_on_where_nobody_reads(tmp_path: Path) -> None:
    code = """
import sys
from mlpkit.progress import RecipesDisplay
with RecipesDisplay() as display:
    for line in range(3):
        display.say(f"{line}")
print("to its end", file=sys.stderr)
"""
    assert unread([HERE[0], "-c", code], tmp_path) == (0, b"to its end\n")


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import os; os.rmdir({str(tmp_path / 'gone')!r}); import mlpkit.__main__ as m; m.main()"
    done = subprocess.run(
        [HERE[0], "-P", "-c", code, "train"],
        capture_output=True,
        text=True,
        cwd=tmp_path / "gone",
        env=environment(MLPKIT_DATA=""),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "mlpkit: the folder that this runs in is gone: change to another\n"


def test_a_command_to_paste_is_quoted() -> None:
    assert resuming(Path("a $b")) == "mlpkit train --resume 'a $b'"
