"""Tasks done by an untrusted submission, each in a child of its own with limits.

A child has limits of wall time, CPU, memory, file size, processes and open files; a scratch folder;
a clean environment; no network, processes and temporary folders of its own and another user where
the machine lets us.
It answers in arrays (protocol.py), and never learns what should come out.

This is no container. Nothing here protects against bugs of the kernel, against the reading of files
that all users may read, or against a submission that fills the disk with many files; where started
as an ordinary user of a machine without user namespaces, neither against signals to that user's
other processes. Run the grader in a container for what you don't trust at all.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

from mlpkit_backends.threads import LIBRARIES

from . import MEMORY, TIMEOUT, TOTAL
from .interface import Outcome, Task
from .packing import SubmissionError, bring, remove
from .protocol import LARGEST_FRAME, ProtocolError, pack, unpack
from .submissions import MissingNameError, entry_of

HERE = Path(__file__).resolve().parent
OWN_FILES = ("child.py", "handling.py", "jail.py", "protocol.py", "watching.py")
TASK_FILES = ("tasks.py", "submissions.py")
PRINTED = 64 << 10  # bytes kept of what is printed
START = 60.0  # seconds for a child to be up, before its own time counts
GRACE = 10.0  # seconds to clean up in
TO_BECOME_ANOTHER = 0b11000011  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID and CAP_SETUID
FIRST_UID = 61000  # of unused users; 0..999 of them, by process


@dataclass
class Seen:
    """What came from a child. late: it was stopped at a limit of time; spent: that for all tasks,
    not its own; seconds: how long it was up."""

    answer: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    status: bytearray = field(default_factory=bytearray)
    late: bool = False
    spent: bool = False
    seconds: float = 0.0


class SandboxRunner:
    """Does tasks with a submission (folder, .zip or .py); close() removes its copy.

    timeout: seconds of wall time for a task, total: for all of them, their starts left out.
    memory_mb: address space of a process. tasks: the folder of tasks.py and submissions.py. note:
    what the machine refused, once a task has run. Raises SubmissionError.
    """

    def __init__(
        self,
        submission: Path,
        timeout: float = TIMEOUT,
        memory_mb: int = MEMORY,
        total: float = TOTAL,
        tasks: Path = HERE,
    ) -> None:
        self.timeout, self.memory_mb, self.total = timeout, memory_mb, total
        self.left, self.note = total, ""
        self.uid = FIRST_UID + os.getpid() % 1000 if may_become_another() else None
        self.place = Path(tempfile.mkdtemp(prefix="mlpkit-grade-")).resolve()
        self.place.chmod(0o755)
        try:
            self.tools = self.place / "tools"
            self.tools.mkdir()
            for folder, names in ((HERE, OWN_FILES), (tasks, TASK_FILES)):
                for name in names:
                    (self.tools / name).write_bytes((folder / name).read_bytes())
            self.submission = bring(Path(submission), self.place / "submission")
            entry_of(self.submission)
            for folder in (self.tools, self.place / "submission"):  # whatever the umask is
                for path in (folder, *folder.rglob("*")):
                    path.chmod(0o555 if path.is_dir() else 0o444)
        except MissingNameError as error:
            self.close()
            raise SubmissionError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the copy of the submission."""
        remove(self.place)

    def __enter__(self) -> SandboxRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, task: Task) -> Outcome:
        """Do it in a child, once more where the infrastructure failed; never raises for what the
        submission does."""
        outcome = self.attempt(task)
        return self.attempt(task) if outcome.fault == "infrastructure" else outcome

    def attempt(self, task: Task) -> Outcome:
        """Do it in a child."""
        if self.left <= 0:
            return Outcome(error=f"{self.all_time()}: it wasn't run")
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.place))
        try:
            if self.uid is not None:
                os.chown(scratch, self.uid, self.uid)
            frame = pack({"task": task.name, "settings": dict(task.settings)}, task.arrays)
            seen = self.child(frame, scratch)
            self.left -= seen.seconds
            return self.judge(seen)
        except OSError as error:
            return broken(f"it could not run a task: {error}")
        finally:
            remove(scratch)

    def all_time(self) -> str:
        """What is said where no time is left."""
        return f"the limit of {self.total:g} s for all was reached"

    def child(self, frame: bytes, scratch: Path) -> Seen:
        """Run a child to its end, or until its time is up."""
        pipes = {name: os.pipe() for name in ("answer", "status")}
        try:
            settings = {
                "rlimits": self.rlimits(),
                "uid": self.uid,
                "place": str(self.place),
                "scratch": str(scratch),
                "submission": str(self.submission),
                **{name: ends[1] for name, ends in pipes.items()},
            }
            command = [sys.executable, "-I", "-B", str(self.tools / "child.py")]
            try:
                process = subprocess.Popen(
                    [*command, json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=scratch,
                    env=environment(scratch),
                    pass_fds=[ends[1] for ends in pipes.values()],
                    start_new_session=True,
                )
            finally:
                for ends in pipes.values():
                    os.close(ends[1])
            fds = {name: ends[0] for name, ends in pipes.items()}
            return self.watch(process, frame, fds)
        finally:
            for ends in pipes.values():
                os.close(ends[0])

    def watch(self, process: subprocess.Popen[bytes], frame: bytes, fds: dict[str, int]) -> Seen:
        """Feed it the task, take what it says, and end it when its time is up, which begins when
        it says that it is there: a busy machine's starts aren't the submission's."""
        assert process.stdin is not None
        assert process.stdout is not None
        seen = Seen()
        give(process.stdin, frame)
        up, end = 0.0, time.monotonic() + START
        with selectors.DefaultSelector() as selector:
            kept = {
                fds["answer"]: (seen.answer, LARGEST_FRAME + 1),
                fds["status"]: (seen.status, PRINTED),
                process.stdout.fileno(): (seen.printed, PRINTED),
            }
            for fd in kept:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                if fds["status"] not in selector.get_map():
                    break  # the child's keeper is done; none but it may hold us up
                for key, _ in selector.select(max(0.0, min(1.0, end - time.monotonic()))):
                    take(key.fd, kept, selector)
                now = time.monotonic()
                if seen.status and not up:
                    up, end = now, now + min(self.timeout, self.left)
                elif now >= end:
                    if seen.late:
                        break
                    seen.late, end = True, end + GRACE
                    seen.spent = bool(up) and self.left < self.timeout
                    process.send_signal(signal.SIGTERM)
            drain(kept, selector)
        seen.seconds = time.monotonic() - up if up else 0.0
        process.stdout.close()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return seen

    def rlimits(self) -> dict[str, int]:
        """Limits by the kernel's names."""
        cpu = int(self.timeout) + 1
        return {
            "CPU": cpu, "AS": self.memory_mb << 20, "FSIZE": 16 << 20, "CORE": 0, "NOFILE": 64,
            "NPROC": 16 if self.uid is not None else 4096,
        }  # fmt: skip

    def judge(self, seen: Seen) -> Outcome:
        """What came, as an outcome."""
        printed = bytes(seen.printed).decode(errors="replace")
        lines = [json.loads(line) for line in bytes(seen.status).splitlines()]
        if seen.spent:
            return Outcome(error=f"{self.all_time()}: it was stopped", output=printed)
        if not lines or "note" not in lines[0]:
            said = " ".join(printed.split())[-300:]
            return broken(f"its own child did not start: {said or 'it said nothing'}")
        self.note = lines[0]["note"]
        if seen.late:
            said = f"the time limit of {self.timeout:g} s was reached: it was stopped"
            return Outcome(error=said, output=printed)
        code = lines[-1].get("code", 0)
        if not seen.answer:
            return Outcome(error=ending(code), output=printed)
        try:
            about, arrays = unpack(seen.answer)
        except ProtocolError as error:
            return Outcome(error=f"what came back is no answer: {error}", output=printed)
        wrong = about.get("error")
        if about.get("ours"):
            return broken(str(wrong)[:2000])
        if wrong or not isinstance(wrong, str):
            return Outcome(error=str(wrong)[:2000], output=printed)
        return Outcome(arrays, output=printed)


def may_become_another() -> bool:
    """Whether this process may give files away and become another user: root may, unless a
    container has taken that from it."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    rights = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return int(rights.split()[1], 16) & TO_BECOME_ANOTHER == TO_BECOME_ANOTHER


def broken(how: str) -> Outcome:
    """The outcome of a failure of the grader's own."""
    error = f"the grader failed, not the submission: {how}; grade again"
    return Outcome(error=error, fault="infrastructure")


def ending(code: int) -> str:
    """How a child without an answer ended, as a sentence."""
    if code < 0:
        limits: dict[int, str] = {
            signal.SIGXCPU: ": the CPU limit was reached",
            signal.SIGXFSZ: ": a file too large",
        }
        named = {number.value: number.name for number in signal.Signals}
        name = named.get(-code, f"signal {-code}")  # those of real time have none
        return f"it was ended by {name}{limits.get(-code, '')}"
    return f"it ended by itself with status {code} and gave no answer"


def give(stdin: IO[bytes], frame: bytes) -> None:
    """Write the task; a child that died already shows as such later."""
    try:
        stdin.write(frame)
        stdin.close()
    except BrokenPipeError:
        pass


Kept: TypeAlias = dict[int, tuple[bytearray, int]]  # by pipe: its bytes, and how many at most


def take(fd: int, kept: Kept, selector: selectors.BaseSelector) -> None:
    """Read once from a pipe that is ready, and forget it at its end."""
    data = os.read(fd, 1 << 16)
    if not data:
        selector.unregister(fd)
    into, most = kept[fd]
    into += data[: max(0, most - len(into))]


def drain(kept: Kept, selector: selectors.BaseSelector) -> None:
    """Take what lies in the pipes still, waiting for nothing."""
    while ready := selector.select(0):
        for key, _ in ready:
            take(key.fd, kept, selector)
        if not selector.get_map():
            return


def environment(scratch: Path) -> dict[str, str]:
    """What a child sees of ours: nothing but these."""
    places = {name: str(scratch) for name in ("HOME", "TMPDIR")}
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", **places,
        **dict.fromkeys(LIBRARIES, "1"),
    }  # fmt: skip
