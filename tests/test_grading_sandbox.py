"""Untrusted submissions: what each hostile one costs, and that nothing of it is left."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlpkit.grading import packing
from mlpkit.grading.interface import Outcome, Task
from mlpkit.grading.packing import SubmissionError
from mlpkit.grading.sandbox import PRINTED, SandboxRunner

TASKS = """
import numpy as np
TASKS = {"double": lambda names, arrays, settings: {"y": np.asarray(names["double"](arrays["x"]))}}
"""
SUBMISSIONS = """
import importlib.util
def load(path):
    spec = importlib.util.spec_from_file_location("submission", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)
"""
X = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "tasks.py").write_text(TASKS)
    (folder / "submissions.py").write_text(SUBMISSIONS)
    return folder


def answer(tools: Path, code: str, timeout: float = 10.0) -> Outcome:
    """What comes of a submission whose double() has that body."""
    path = tools.parent / "student.py"
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    path.write_text(
        f"import os, sys, time, socket, signal\nimport numpy as np\ndef double(x):\n{body}"
    )
    with SandboxRunner(path, timeout, 600, tools) as runner:
        return runner.run(Task("double", {"x": X}))


def test_an_honest_one(tools: Path) -> None:
    outcome = answer(tools, "print('hello')\nreturn 2 * x")
    assert outcome.error == ""
    np.testing.assert_array_equal(outcome.arrays["y"], X + X)
    assert outcome.output.startswith("hello\n")


# What a body does, and what is said of it.
HOSTILE = {
    "loop": ("while True: pass", "time limit of 2 s"),
    "fork bomb": ("while True: os.fork()", ""),
    "exit": ("os._exit(0)", "ended by itself with status 0 and gave no answer"),
    "memory": ("return np.ones(1 << 29)", "MemoryError"),
    "socket": ("socket.create_connection(('192.0.2.1', 80), 1)", "Error was raised in student.py"),
    "parent": (
        "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
        "was raised in student.py, line 4",
    ),
    "garbage": (
        "from contextlib import suppress\n"
        "for fd in range(3, 30):\n"
        "    with suppress(OSError): os.write(fd, b'x' * 99)",
        "what came back is no answer",
    ),
    "own file": ("open(__file__, 'w')", "was raised in student.py, line 4"),
    "group": ("os.killpg(0, 9); time.sleep(20)", ""),
    "toolkit": ("import mlpkit", "use NumPy alone"),
    "cupy": ("import cupy", "use NumPy alone"),
}
ROOT_ONLY = {"own file", "parent", "socket"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ones(tools: Path, name: str) -> None:
    if name in ROOT_ONLY and os.geteuid() != 0:
        pytest.skip("the grader takes another user, and cuts the network, for sure only as root")
    body, said = HOSTILE[name]
    before = set(os.listdir(tools.parent))
    start = time.monotonic()
    outcome = answer(tools, body, 2.0)
    assert time.monotonic() - start < 8
    assert outcome.error
    assert (outcome.fault, said in outcome.error, dict(outcome.arrays)) == ("submission", True, {})
    assert set(os.listdir(tools.parent)) == before | {"student.py"}


def test_a_flood_is_cut(tools: Path) -> None:
    outcome = answer(tools, "while True: os.write(1, b'x' * 65536)", 2.0)
    assert "time limit of 2 s" in outcome.error
    assert PRINTED <= len(outcome.output) <= PRINTED + 200


def test_a_daemon_ends_with_its_child(tools: Path) -> None:
    mark = f"mlpkit-daemon-{os.getpid()}"
    body = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp('sleep', ['{mark}', '30'])
    os._exit(0)
time.sleep(0.5)
return 2 * x"""
    answer(tools, body)
    assert [line for line in commands() if mark in line] == []


def commands() -> Iterator[str]:
    """The command lines of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_text()
            except OSError:
                continue


@pytest.mark.parametrize("member", ["../out.py", "/out.py", "a/../../out.py", "a\\..\\out.py"])
def test_a_zip_stays_in_its_folder(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(SubmissionError, match="leaves its folder"):
        packing.bring(tmp_path / "a.zip", tmp_path / "place")
    assert not list(tmp_path.rglob("out.py"))


def test_zip_bombs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", bytes(packing.TOTAL_BYTES + 1))
    with pytest.raises(SubmissionError, match="it takes more"):
        packing.bring(tmp_path / "a.zip", tmp_path / "one")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for i in range(packing.MEMBERS + 1):
            archive.writestr(str(i), "")
    with pytest.raises(SubmissionError, match="it has more"):
        packing.bring(tmp_path / "b.zip", tmp_path / "two")


def test_a_zips_only_folder_is_entered(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("mine/lib/optim.py", "x = 1")
    root = packing.bring(tmp_path / "a.zip", tmp_path / "place")
    assert (root / "lib" / "optim.py").read_text() == "x = 1"
