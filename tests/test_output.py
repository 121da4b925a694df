"""What is printed goes to a full disk, or to nobody; and a working folder that is gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlpkit.run_files import resuming
from tests.commands import HERE, SMALL, environment

FULL = Path("/dev/full")
TOLD = (
    "mlpkit: its output can't be written (No space left on device): training goes on without it\n"
)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_training_outlives_its_log(digits: str, tmp_path: Path, unbuffered: str) -> None:
    def train(*options: str) -> subprocess.CompletedProcess[str]:
        with FULL.open("w") as full:
            return subprocess.run(
                [*HERE, "train", "--data", digits, *SMALL, *options],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env=environment(PYTHONUNBUFFERED=unbuffered),
                check=False,
            )

    begun, longer = train("--out", "run"), train("--resume", "run", "--epochs", "3")
    for done in (begun, longer):
        assert (done.returncode, done.stderr) == (0, TOLD)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert lines[-1].startswith("15,3,")  # 57 images are 5 batches of 10


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_another_command_says_that_it_told_nobody(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*HERE, "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(),
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("mlpkit: the disk that the output goes to is full: make room")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_where_nobody_reads_the_status_is_none_of_the_commands_own(
    tmp_path: Path, unbuffered: str
) -> None:
    """`grade` and others have 1 for something else."""
    with subprocess.Popen(
        [*HERE, "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13  # SIGPIPE, as a shell has it


def test_a_comparison_goes_on_where_nobody_reads(tmp_path: Path) -> None:
    code = """
import sys
from mlpkit.progress import RecipesDisplay
with RecipesDisplay() as display:
    for line in range(3):
        display.say(f"{line}")
print("to its end", file=sys.stderr)
"""
    with subprocess.Popen(
        [HERE[0], "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"to its end\n"
    assert process.returncode == 0


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import os; os.rmdir({str(tmp_path / 'gone')!r}); {HERE[-1]}"
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
