"""Tasks done in a child: what comes back, what isn't there, and submissions that can't be taken."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mlpkit.grading import jail, packing
from mlpkit.grading.interface import Outcome, Task
from mlpkit.grading.packing import SubmissionError
from mlpkit.grading.sandbox import PRINTED, SandboxRunner, ending, may_become_another
from mlpkit.grading.submissions import entry_of

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


def indented(code: str) -> str:
    """The body of a function."""
    return "".join(f"    {line}\n" for line in code.strip().splitlines())


def answer(tools: Path, code: str, timeout: float = 60.0) -> Outcome:
    """What comes of a submission whose double() has that body."""
    path = tools.parent / "student.py"
    path.write_text(
        "import os, sys, time, socket, signal\nimport numpy as np\ndef double(x):\n"
        + indented(code)
    )
    with SandboxRunner(path, timeout, 600, tasks=tools) as runner:
        return runner.run(Task("double", {"x": X}))


def test_an_honest_one(tools: Path) -> None:
    outcome = answer(tools, "print('hello')\nreturn 2 * x")
    assert outcome.error == ""
    np.testing.assert_array_equal(outcome.arrays["y"], X + X)
    assert outcome.output.startswith("hello\n")


def test_what_new_files_may_be_read_by_is_no_ones_loss(tools: Path) -> None:
    """The copy of the submission is for another user to read."""
    before = os.umask(0o077)
    try:
        assert answer(tools, "return 2 * x").error == ""
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("euid", "rights", "may"),
    [(0, "000001ffffffffff", True), (0, "0000000000000000", False), (1000, "00", False)],
)
def test_root_in_a_container_may_be_no_one_else(
    euid: int, rights: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = f"Name:\tpython\nCapPrm:\tff\nCapEff:\t{rights}\n"
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(Path, "read_text", lambda path: status)
    assert may_become_another() is may


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose what makes it root")
def test_root_without_its_rights_grades_as_itself_and_says_so(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpkit.grading.sandbox.may_become_another", lambda: False)
    path = tools.parent / "student.py"
    path.write_text("def double(x): return 2 * x")
    with SandboxRunner(path, 60.0, 600, tasks=tools) as runner:
        assert runner.run(Task("double", {"x": X})).error == ""
        assert "make the submission another user" in runner.note


@pytest.mark.parametrize("name", ["mlpkit", "mlpkit_backends", "cupy", "cupyx.scipy"])
def test_what_is_not_there(tools: Path, name: str) -> None:
    """Without its sentence an ImportError could come from a machine without CuPy."""
    outcome = answer(tools, f"import {name}")
    assert outcome.error.startswith("ImportError was raised in student.py, line 4")
    assert "use NumPy alone" in outcome.error


def test_no_path_leads_to_the_toolkit(tools: Path) -> None:
    body = """
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Block']
import mlpkit"""
    assert "No module named 'mlpkit'" in answer(tools, body).error


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's own processes count, too")
def test_so_many_processes_and_no_more(tools: Path) -> None:
    body = """
for n in range(1000):
    try: pid = os.fork()
    except BlockingIOError: return np.array(n)
    if pid == 0: time.sleep(30)"""
    outcome = answer(tools, body)
    assert outcome.error == ""
    assert 1 <= outcome.arrays["y"] <= 16


def refused(note: str) -> bool:
    """Whether this machine keeps the grader from giving submissions folders of their own."""
    return "temporary folders of its own" in note


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm"])
def test_temporary_folders_are_the_submission_s_own(tools: Path, folder: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="another-s-") as other:
        Path(other.name).chmod(0o644)
        left = Path(folder, f"left-{os.getpid()}")
        prefixes = (Path(prefix) for prefix in (sys.prefix, sys.base_prefix))
        depth = len(Path(folder).parts)
        python = {path.parts[depth] for path in prefixes if path.is_relative_to(folder)} or "set()"
        body = f"""
ctypes.CDLL(None).umount2(b'{folder}', 2)
open('{left}', 'w').write('x')
for place in ('mine', os.path.join(os.environ['TMPDIR'], 'mine')):
    open(place, 'w').write('x')
seen = {{name for name in os.listdir('{folder}') if not name.startswith('mlpkit-grade-')}}
return np.array([seen == {{'{left.name}'}} | {python}, os.path.exists('{other.name}')])"""
        path = tools.parent / "student.py"
        path.write_text("import ctypes, os\nimport numpy as np\ndef double(x):\n" + indented(body))
        try:
            with SandboxRunner(path, 60.0, 600, tasks=tools) as runner:
                outcome = runner.run(Task("double", {"x": X}))
            if refused(runner.note):
                pytest.skip(runner.note)
            assert outcome.error == ""
            assert outcome.arrays["y"].tolist() == [True, False]
            assert not left.exists()
        finally:
            left.unlink(missing_ok=True)


def test_a_machine_that_refuses_everything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail.libc, "unshare", lambda flags: -1)
    assert jail.close_off(()) == (
        "This machine doesn't let the grader cut off the network, nor give the submission "
        "temporary folders of its own: run it in a container without a network."
    )


def test_the_time_of_all_is_that_of_the_tasks(tools: Path) -> None:
    slow = (tools / "tasks.py").read_text() + "\nimport time; time.sleep(3)\n"
    (tools / "tasks.py").write_text(slow)
    path = tools.parent / "student.py"
    path.write_text("import time\ndef double(x):\n    time.sleep(4 * x[0, 1])\n    return x")
    with SandboxRunner(path, 60.0, 600, total=60.0, tasks=tools) as runner:
        runner.left = 2.0
        assert runner.run(Task("double", {"x": 0 * X})).error == ""  # its start took 3 s
        assert 0 < runner.left < 2
        assert "limit of 60 s for all was reached: it was stopped" in (
            runner.run(Task("double", {"x": X})).error
        )
        assert "limit of 60 s for all was reached: it wasn't run" in runner.run(Task("d")).error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "it was ended by SIGKILL"),
        (-40, "it was ended by signal 40"),
        (-24, "it was ended by SIGXCPU: the CPU limit was reached"),
        (3, "it ended by itself with status 3 and gave no answer"),
    ],
)
def test_how_a_child_ended(code: int, said: str) -> None:
    assert ending(code) == said


@pytest.mark.parametrize(
    ("file", "code", "wrong", "fault"),
    [
        ("submissions.py", "def load(path):\n", "    import gone\n", "infrastructure"),
        ("submissions.py", "    spec.loader.exec_module(module)\n", "    gone\n", "submission"),
        ("tasks.py", "import numpy as np\n", "import gone\n", "infrastructure"),
    ],
)
def test_what_fails_of_the_grader_s_before_the_submission_runs_costs_no_points(
    tools: Path, file: str, code: str, wrong: str, fault: str
) -> None:
    text = (tools / file).read_text()
    assert text.count(code) == 1
    (tools / file).write_text(text.replace(code, code + wrong))
    outcome = answer(tools, "return 2 * x")
    assert outcome.fault == fault
    assert outcome.error.startswith("the grader failed, not the") == (fault == "infrastructure")
    assert "'gone'" in outcome.error


def test_what_is_broken_in_a_submission_is_its_own(tmp_path: Path) -> None:
    """None of these has run anything of it."""
    for text, said in {"def (": "SyntaxError in student.py, line 1", "\0": "", "x": ""}.items():
        (tmp_path / "student.py").write_text(text)
        with SandboxRunner(tmp_path / "student.py") as runner:
            outcome = runner.run(Task("imports"))
        assert outcome.fault == "submission"
        assert outcome.error
        assert said in outcome.error


def test_a_child_that_cannot_be_started_leaves_no_pipe_open(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*arguments: object, **settings: object) -> None:
        raise OSError("no processes left")

    (tools.parent / "student.py").write_text("")
    with SandboxRunner(tools.parent / "student.py", 60.0, 600, tasks=tools) as runner:
        monkeypatch.setattr("mlpkit.grading.sandbox.subprocess.Popen", none_left)
        before = os.listdir("/dev/fd")
        outcome = runner.run(Task("double", {"x": X}))
    assert "no processes left" in outcome.error
    assert os.listdir("/dev/fd") == before


def test_a_flood_is_cut(tools: Path) -> None:
    outcome = answer(tools, "for _ in range(64): os.write(1, b'x' * 65536)\nreturn 2 * x", 60.0)
    assert outcome.error == ""
    assert PRINTED <= len(outcome.output) <= PRINTED + 200


def test_memory_that_the_task_itself_lacks_is_not_laid_to_the_submission(tmp_path: Path) -> None:
    (tmp_path / "student.py").write_text("def train_net(): pass\n")
    with SandboxRunner(tmp_path / "student.py", 60.0, 130) as runner:
        pictures = np.zeros((20000, 3072), np.uint8)
        said = runner.run(Task("train", dict.fromkeys(("train", "val", "test"), pictures))).error
    assert said.startswith("MemoryError: the limit is 130 MB (--memory);")
    assert said.endswith("it was reached by the task's own arrays beside the submission's")


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


LIB = ("lib/optim.py", "lib/mlp/train.py")


def zipped(path: Path, *names: str) -> Path:
    """A zip of empty files with these names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


@pytest.mark.parametrize(
    "names",
    [
        LIB,
        [f"mine/{name}" for name in LIB],
        [f"mine/homework/{name}" for name in LIB],
        [f"a/b/homework/{name}" for name in LIB],
        # As macOS's Finder and Windows's Explorer write them.
        [*LIB, ".DS_Store", "lib/.DS_Store", "__MACOSX/._lib", "__MACOSX/lib/._optim.py"],
        [
            *(f"mine/{name}" for name in LIB),
            *("mine/.DS_Store", ".DS_Store", "__MACOSX/mine/._.DS_Store"),
            *(f"__MACOSX/mine/{name.replace('/', '/._')}" for name in LIB),
        ],
        ["mine\\", *("mine\\" + name.replace("/", "\\") for name in LIB)],
        [*LIB, "notes/r\xe9sum\xe9.txt", "old/notes.py"],
    ],
)
def test_where_the_assignment_lies_in_a_zip(tmp_path: Path, names: Sequence[str]) -> None:
    with SandboxRunner(zipped(tmp_path / "a.zip", *names)) as runner:
        root = entry_of(runner.submission)
        assert all((root / name).is_file() for name in LIB)


@pytest.mark.parametrize(
    "names", [["hw.py", "__MACOSX/._hw.py", ".DS_Store"], ["mine/hw.py", "mine/._hw.py"]]
)
def test_one_module_with_what_macos_leaves_beside_it(tmp_path: Path, names: list[str]) -> None:
    with SandboxRunner(zipped(tmp_path / "a.zip", *names)) as runner:
        assert entry_of(runner.submission).name == "hw.py"


@pytest.mark.parametrize(("one", "two"), [("new", "old"), ("a/new", "old"), ("a/new", "a/old")])
def test_two_of_the_assignment_are_both_named(tmp_path: Path, one: str, two: str) -> None:
    names = [f"{top}/{name}" for top in (one, two) for name in LIB]
    with pytest.raises(SubmissionError, match=r"hand in the one that counts, alone") as refusal:
        SandboxRunner(zipped(tmp_path / "a.zip", "readme.txt", *names))
    assert f"the assignment is in {one} and {two}:" in str(refusal.value)


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """In code page 437, as old programs write them; as bytes on the disk; and a lie."""
    content = zipped(tmp_path / "a.zip", *LIB, "notes/r_sum_.txt").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"r_sum_", b"r\x82sum\x82"))
    with SandboxRunner(tmp_path / "a.zip") as runner:
        assert (runner.submission / "notes" / "r\xe9sum\xe9.txt").is_file()
    folder = tmp_path / os.fsdecode(b"r\xe9sum\xe9")
    for name in LIB:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / os.fsdecode(b"\xff.txt")).write_text("")
    with SandboxRunner(folder) as runner:
        assert runner.run(Task("imports")).error == ""
    lie = zipped(tmp_path / "b.zip", "r\xe9sum\xe9.txt").read_bytes()
    (tmp_path / "b.zip").write_bytes(lie.replace("\xe9".encode(), b"\xff\xff"))
    with pytest.raises(SubmissionError, match=r"b\.zip can't be extracted: .*; zip it again"):
        SandboxRunner(tmp_path / "b.zip")
