"""Hostile submissions through the real tasks and sections: each costs the section it is hostile in,
no other, earns nothing, and leaves nothing."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpkit.grading import outputs
from mlpkit.grading.grading import grade
from mlpkit.grading.sandbox import PRINTED, SandboxRunner
from mlpkit.grading.sections import SECTIONS

MARK = f"mlpkit-daemon-{os.getpid()}"
SECRET = "a value of the grader's own environment"
BACKWARD, FORWARD = "Leaky ReLU backward", "Leaky ReLU forward"
FILE = """
import contextlib, os, signal, socket, struct, sys, time
import numpy as np

PARENT, OUT, PORT, SOURCE = {parent}, {out!r}, {port}, {source!r}


class leaky_relu:
    def __init__(self, negative_slope=0.01, name="leaky_relu"):
        self.slope = negative_slope

    def forward(self, x):
        self.x = x
        return np.where(x >= 0, x, self.slope * x)

    def backward(self, dout):
{body}
        return np.zeros_like(dout)
"""
# What backward() does, and what is said of it. Those that go on give a wrong answer in the end.
WRONG, TIME = "relative error", "time limit of 5 s"
HOSTILE = {
    "endless loop": ("while True: pass", TIME),
    "fork bomb": (
        """
        while True:
            with contextlib.suppress(OSError): os.fork()
        """,
        TIME,
    ),
    "exit": ("os._exit(0)", "ended by itself with status 0 and gave no answer"),
    "memory": (
        """
        kept = []
        while True: kept.append(np.ones(1 << 20))
        """,
        "MemoryError was raised in student.py, line",
    ),
    "forged results": (
        """
        for name in ("results.json", "answer.json", OUT, OUT + ".tmp"):
            with contextlib.suppress(OSError), open(name, "w") as file:
                file.write('{"score": 40}')
        """,
        WRONG,
    ),
    "patched NumPy": (
        """
        for name in ("allclose", "array_equal", "isclose"):
            setattr(np, name, lambda *a, **k: True)
        np.max = np.abs = lambda a, *b, **k: np.zeros(())
        """,
        WRONG,
    ),
    "flood": ("while True: os.write(1, b'x' * 65536)", TIME),
    "socket": (
        "socket.create_connection(('127.0.0.1', PORT), 1).sendall(b'x')",
        "Error was raised in student.py",
    ),
    "parent's environment": (
        "print(open(f'/proc/{PARENT}/environ').read())",
        "PermissionError was raised in student.py",
    ),
    "parent's memory": (
        "open(f'/proc/{PARENT}/mem', 'rb').read(1)",
        "PermissionError was raised in student.py",
    ),
    "garbage": (
        """
        for fd in range(3, 64):
            with contextlib.suppress(OSError): os.write(fd, b'garbage')
        """,
        "what came back is no answer",
    ),
    "huge header": (
        """
        sys.path[:0] = [os.path.dirname(sys.modules['tools.protocol'].__file__)]
        from protocol import MAGIC
        for fd in range(3, 64):
            with contextlib.suppress(OSError): os.write(fd, MAGIC + struct.pack('<Q', 2**63 - 1))
        """,
        "what came back is no answer",
    ),
    "killing": (
        """
        for pid in (PARENT, -PARENT, os.getppid(), 0, -1):
            with contextlib.suppress(OSError): os.kill(pid, signal.SIGKILL)
        """,
        f"{WRONG}|SIGKILL",
    ),
    "daemon": (
        f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: os.execvp('sleep', ['{MARK}', '30'])
            os._exit(0)
        time.sleep(0.3)
        """,
        WRONG,
    ),
    "its own files": (
        """
        for path in (__file__, SOURCE):
            for change in (lambda: os.chmod(path, 0o777), lambda: open(path, 'w'),
                           lambda: os.remove(path), lambda: os.rename(path, path + 'x'),
                           lambda: open(os.path.dirname(path) + '/numpy.py', 'w')):
                with contextlib.suppress(OSError): change()
        """,
        WRONG,
    ),
}
# As an ordinary user the child is of the grader's own, which may do these things.
ROOT_ONLY = {"socket", "parent's environment", "parent's memory", "killing", "its own files"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Waits for a submission that gets out; it never should."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where every user may write, with one for the grader's temporary files, and one for
    the instructor's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        (path / "temporary").mkdir()
        (path / "mine").mkdir()
        for each in (path, path / "temporary"):
            each.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", str(path / "temporary"))
        monkeypatch.setenv("MLPKIT_SECRET", SECRET)
        yield path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_one_costs_its_section_alone(
    place: Path, listener: socket.socket, name: str
) -> None:
    if name in ROOT_ONLY and os.geteuid() != 0:
        pytest.skip("the grader takes another user for submissions only as root")
    body, said = HOSTILE[name]
    source, out = place / "mine" / "student.py", place / "results.json"
    text = FILE.format(
        parent=os.getpid(),
        out=str(out),
        port=listener.getsockname()[1],
        source=str(source),
        body=textwrap.indent(textwrap.dedent(body).strip(), " " * 8),
    )
    source.write_text(text)
    sections = {section.name: section for section in SECTIONS}
    limit = 5.0 if said == TIME else 60.0  # time is short for those alone that never end
    start = time.monotonic()
    with SandboxRunner(source, limit, 600) as runner:
        uid = runner.uid
        got = grade(runner, [sections[n] for n in (FORWARD, BACKWARD, FORWARD)], "student.py")
        assert uid is None or processes_of(uid) == []
    assert time.monotonic() - start < 60
    before, hostile, after = got.sections
    assert [section.score for section in got.sections] == [2, 0, 2], got
    assert (before.failures, after.failures) == ((), ())
    assert hostile.status == "failed"
    assert re.search(said, hostile.failures[0].what), hostile
    assert SECRET not in outputs.explain(hostile)
    assert len(hostile.output) <= PRINTED + 200
    with pytest.raises(BlockingIOError):
        listener.accept()
    outputs.write([got], {"out": out})
    assert '"score": 4' in out.read_text()
    assert list((place / "temporary").iterdir()) == []
    assert source.read_text() == text
    assert [line for line in commands() if MARK in line] == []


def test_a_failure_forged_as_the_grader_s_own_earns_nothing(place: Path) -> None:
    source = place / "mine" / "student.py"
    forge = """
    frame = sys.modules["tools.protocol"].pack({"error": "no", "ours": True}, {})
    for fd in range(3, 64):
        with contextlib.suppress(OSError): os.write(fd, frame)
    os._exit(0)
    """
    body = textwrap.indent(textwrap.dedent(forge).strip(), " " * 8)
    source.write_text(FILE.format(parent=0, out="", port=0, source="", body=body))
    sections = {section.name: section for section in SECTIONS}
    with SandboxRunner(source, 60.0, 600) as runner:
        got = grade(runner, [sections[n] for n in (FORWARD, BACKWARD, FORWARD)], "student.py")
    assert [section.score for section in got.sections] == [2, 0, 0]
    assert [section.status for section in got.sections] == ["passed", "error", "error"]
    assert got.error == "the grader failed, not the submission: no; grade again"


def processes_of(uid: int) -> list[str]:
    """The numbers of all processes of a user."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += [entry.name] if entry.stat().st_uid == uid else []
            except OSError:
                continue  # it ended meanwhile
    return found


def commands() -> Iterator[str]:
    """The command lines of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_text()
            except OSError:
                continue
