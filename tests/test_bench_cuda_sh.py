"""bench/cuda.sh with a shell script for an interpreter: what it makes of parts that end in each
way, and of a machine that lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "cuda.sh"


def cuda_sh(
    tmp_path: Path, interpreter: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What it says where the interpreter is a script whose second argument is the part."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{interpreter}\n")
    python.chmod(0o755)
    here = {name: value for name, value in os.environ.items() if name != "CUPY_CACHE_DIR"}
    home = {"HOME": str(tmp_path), "PYTHON": str(python)}
    return subprocess.run(
        [shutil.which("sh") or "sh", str(SCRIPT)],
        env={**here, **home, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_part_is_run_and_told_whatever_became_of_those_before(tmp_path: Path) -> None:
    ends = "case $2 in parity) exit 1;; checks) kill -9 $$;; rates) exit 7;; esac"
    done = cuda_sh(tmp_path, f"{ends}; test $1 != -c")  # which is how it looks for pytest
    assert done.returncode == 1
    summary = done.stdout.partition("== which parts ran\n")[2].splitlines()
    said = dict(line.split(": ", 1) for line in summary)
    assert list(said) == [
        "device",
        "parity",
        "checks",
        "ceilings",
        "rates",
        "torch",
        "jax",
        "tests",
        "slow-torch",
    ]
    assert said["parity"].startswith("FAILED")
    assert said["checks"].startswith("killed")
    assert said["rates"].startswith("not run to its end, status 7")
    assert said["tests"] == "not run: pytest is not installed"
    assert all(said[part].startswith("well") for part in ("device", "ceilings", "torch", "jax"))


def test_without_a_device_nothing_else_is_run(tmp_path: Path) -> None:
    done = cuda_sh(tmp_path, "exit 2")
    assert done.returncode == 2
    assert "== parity" not in done.stdout


def test_all_well_is_status_0(tmp_path: Path) -> None:
    assert cuda_sh(tmp_path, "exit 0").returncode == 0


def test_all_ends_within_its_minutes(tmp_path: Path) -> None:
    """The clock goes on by 50 s each time that it is asked, as each part begins and ends."""
    clock = tmp_path / "date"
    clock.write_text(
        f"#!/bin/sh\necho . >>{tmp_path}/asked\necho $((50 * $(wc -l <{tmp_path}/asked)))\n"
    )
    (tmp_path / "timeout").write_text('#!/bin/sh\necho "limit: $5"\n')
    for tool in ("date", "timeout"):
        (tmp_path / tool).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = cuda_sh(tmp_path, "exit 0", PATH=path, MINUTES="8")
    limits = [int(line[7:]) for line in done.stdout.splitlines() if line.startswith("limit: ")]
    assert limits == [40, 80, 60, 20, 20]  # the last, of rates, is what was left
    assert done.returncode == 1
    *_, torch, jax, tests, slow = done.stdout.splitlines()
    for line, part in ((torch, "torch"), (jax, "jax"), (tests, "tests"), (slow, "slow-torch")):
        assert line == f"{part}: not run: no time was left"


@pytest.mark.parametrize("minutes", ["7.5", "0", "08", "-1", "soon"])
def test_minutes_are_a_whole_number(minutes: str, tmp_path: Path) -> None:
    done = cuda_sh(tmp_path, "exit 0", MINUTES=minutes)
    assert done.returncode == 2
    assert done.stderr == f"MINUTES must be a whole number; got {minutes}\n"


def test_an_interpreter_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = cuda_sh(tmp_path, "", PYTHON="python9")
    assert done.returncode == 2
    assert done.stderr.startswith("python9 is not there: name an interpreter")


@pytest.mark.parametrize("home", ["writable", "none"])
def test_cupy_has_a_folder_for_its_kernels(home: str, tmp_path: Path) -> None:
    scratch = {"HOME": "/dev/null"} if home == "none" else {}
    told = 'echo "cache: $CUPY_CACHE_DIR"; test -z "$CUPY_CACHE_DIR" || ls -d "$CUPY_CACHE_DIR"'
    done = cuda_sh(tmp_path, told, **scratch)
    assert done.returncode == 0, done.stderr
    folders = {line[7:] for line in done.stdout.splitlines() if line.startswith("cache: ")}
    if home == "writable":
        assert folders == {""}  # CuPy knows its own
    else:
        (folder,) = folders
        assert folder
        assert not Path(folder).exists()  # any more


def test_the_tree_is_found_from_any_folder(tmp_path: Path) -> None:
    """Tests start others in folders of their own."""
    done = cuda_sh(
        tmp_path, 'test "$2" = pytest || exit 0; echo "path: $PYTHONPATH"', PYTHONPATH=""
    )
    (path,) = (line[6:] for line in done.stdout.splitlines() if line.startswith("path: "))
    tree = SCRIPT.parents[1]
    assert path.split(":") == [str(tree), str(tree / "backends")]


def test_without_a_timeout_command_there_are_no_limits(tmp_path: Path) -> None:
    for name in ("date", "dirname", "mkdir", "mktemp", "rm"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    done = cuda_sh(tmp_path, "exit 0", PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no timeout command" in done.stdout
