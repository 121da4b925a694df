"""A submission's child: `python -I -B child.py SETTINGS`, in the folder of the stand-alone files.

It reads a task from standard input, then forks. The parent keeps its rights, waits and cleans up;
the child gives them up, loads the submission, does the task and writes a frame to the answers'
pipe: arrays, or an error as a sentence.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# What submissions and tracebacks import, read while we may: Python may lie where another user can't
# read.
PRELOADED = (
    "abc", "argparse", "builtins", "collections.abc", "copy", "dataclasses", "functools", "glob",
    "itertools", "math", "operator", "pickle", "random", "socket", "string", "subprocess", "sys",
    "time", "timeit", "tokenize", "typing", "warnings", "numpy.random", "numpy.linalg",
    "numpy.testing",
)  # fmt: skip


def main() -> None:
    """Set up, fork, wait, clean up, tell the parent by the status pipe."""
    settings = json.loads(sys.argv[1])
    for name in PRELOADED:
        importlib.import_module(name)
    # Their folder is the package that they are of here.
    sys.path.insert(0, str(HERE.parent))
    jail, protocol, submissions, tasks = (
        importlib.import_module(f"{HERE.name}.{name}")
        for name in ("jail", "protocol", "submissions", "tasks")
    )
    sys.path.remove(str(HERE.parent))

    about, arrays = protocol.unpack(sys.stdin.buffer.read())
    jail.hide_toolkit()
    needed = (settings["place"], sys.prefix, sys.base_prefix)
    note = jail.close_off(needed, as_root=settings["uid"] is None and os.geteuid() == 0)
    jail.supervise()  # after that: a process that is not dumpable can't write its own uid_map
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        jail.give_up(settings)
        os.chdir(settings["scratch"])
        task = tasks.TASKS[about["task"]]
        tell(settings, {"note": note})  # where it is missing, the grader failed
        os.close(settings["status"])
        submit(
            settings,
            lambda: task(submissions.load(settings["submission"]), arrays, about["settings"]),
            protocol,
        )
    os.close(settings["answer"])
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGKILL))
    status = os.waitpid(pid, 0)[1]
    clean = jail.end_all(settings["uid"])
    tell(settings, {"code": os.waitstatus_to_exitcode(status), "clean": clean})


def tell(settings: dict[str, Any], what: dict[str, Any]) -> None:
    """A line on the status pipe, which the submission never has."""
    os.write(settings["status"], json.dumps(what).encode() + b"\n")


class Trail:
    """A profile function that notes where a function of the submission last returned."""

    def __init__(self, submission: str) -> None:
        self.submission, self.last = submission, ("", 0)

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_filename.startswith(self.submission):
            self.last = frame.f_code.co_filename, frame.f_lineno


def submit(settings: dict[str, Any], do: Any, protocol: Any) -> None:
    """Do the task, answer, and end without running what the submission left to be run."""
    trail = Trail(settings["submission"])
    try:
        sys.setprofile(trail)
        frame = protocol.pack({"error": ""}, do())
    except BaseException as error:
        sys.setprofile(None)
        if isinstance(error, MemoryError):
            megabytes = settings["rlimits"]["AS"] >> 20
            said = f"the limit is {megabytes} MB (--memory); {error}"
            error = MemoryError(said).with_traceback(error.__traceback__)
        if not trail.last[0] and is_ours(error):
            about = {"error": traceback.format_exception_only(error)[-1].strip(), "ours": True}
        else:
            about = {"error": describe(error, settings["submission"], trail.last)}
        frame = protocol.pack(about, {})
    sys.stdout.flush()
    sys.stderr.flush()
    view = memoryview(frame)
    while view:
        view = view[os.write(settings["answer"], view) :]
    os._exit(0)


def is_ours(error: BaseException) -> bool:
    """Whether an error is the grader's own, where nothing of the submission has run yet: raised in
    a file beside this one, and none of the sentences about a submission.

    A submission could forge it; that makes its grade an error, and earns nothing.
    """
    about_it = ("MissingNameError", "WrongResultError", "MemoryError")
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ not in about_it and Path(frames[-1].filename).parent == HERE


def describe(error: BaseException, submission: str, last: tuple[str, int] = ("", 0)) -> str:
    """What was raised, and where in the submission; one of the sentences of ours as it is. last:
    the file and line of the submission's that gave what we failed on."""
    giver = f"{short(last[0], submission)}, line {last[1]}," if last[0] else "the submission"
    if type(error).__name__ == "MissingNameError":
        return str(error)
    if type(error).__name__ == "WrongResultError":
        return f"{error}: see what {giver} gives"
    kind, said = type(error).__name__, " ".join(str(error).split())[:1000]
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{short(error.filename, submission)}, line {error.lineno}"
        return f"{kind} in {where}: {error.msg}: {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(submission)]
    if not own and isinstance(error, MemoryError):
        return f"{kind}: {said}; it was reached by the task's own arrays beside the submission's"
    if not own:
        return f"{kind}: {said}; it came of what {giver} gave, which isn't as it should be"
    where = f"{kind} was raised in {short(own[-1].filename, submission)}, line {own[-1].lineno}"
    return f"{where}: {said}" if said else where


def short(file: str, submission: str) -> Path:
    """A file's path within the submission."""
    root, path = Path(submission), Path(file)
    return path.relative_to(root) if path.is_relative_to(root) and path != root else Path(path.name)


if __name__ == "__main__":
    main()
