"""What `mlpkit train` and `data make` show on a terminal while they work, and elsewhere."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import HERE, TRAIN, VAL, environment, history, unread


def on_terminal(command: list[str], cwd: Path) -> str:
    """What a command writes to a terminal of 80 columns."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="80", LINES="24"),
    ) as process:
        os.close(theirs)
        written, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's end of a terminal's output
                break
            if not part:
                break
            written += part
        os.close(ours)
        assert process.wait(timeout=30) == 0
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines left on a terminal, of the few controls that a live line takes."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\r":
            lines[row] = "\r" + lines[row].lstrip("\r")
        elif token.endswith("K"):
            lines[row] = ""
        elif token.endswith("A"):
            row -= int(token[2:-1] or 1)
        elif not token.startswith("\x1b"):
            lines[row] = token if lines[row].startswith("\r") else lines[row] + token
    return [line.lstrip("\r") for line in lines]


def test_a_terminal_shows_a_live_line_that_goes(digits: str, tmp_path: Path) -> None:
    code = "import mlpkit.progress as p; p.REDRAW = 0; from mlpkit.cli import main; main()"
    arguments = ["train", "--data", digits, "--net", "4", "--epochs", "2", "--batch-size", "1"]
    written = on_terminal([sys.executable, "-c", code, *arguments, "--out", "run"], tmp_path)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    live = [part for part in re.split(r"[\r\n]+", plain) if "━" in part]
    total = 2 * (TRAIN - VAL)
    first = int(re.findall(r"(\d+)/", live[0])[0])
    assert 1 <= first < total
    for part in live:
        assert re.match(rf"loss \d+\.\d{{4}}  \d+ it/s .*━.* +\d+/{total} ", part), part
        assert len(part.rstrip()) <= 80
    # Nothing pulses before the first loss, and the cursor comes back.
    assert "?" not in plain
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0
    left = screen(written)
    assert not any("━" in line for line in left)
    assert [line.split()[:3] for line in left if " / 2 " in line] == [
        ["1", "/", "2"],
        ["2", "/", "2"],
    ]
    assert left[0].startswith("Device    numpy: ")
    assert left[-2].startswith("In run/: ")


def test_a_terminal_shows_how_far_the_making_is(tmp_path: Path) -> None:
    arguments = ["data", "make", "--out", "new", "--train-size", "600", "--test-size", "300"]
    written = on_terminal([*HERE, *arguments], tmp_path)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"━ +\d+/900 images", plain)
    assert [line for line in screen(written) if line] == [
        "new/ holds 600 training and 300 test images."
    ]


def test_plain_lines_tell_how_far_a_long_epoch_is(digits: str, tmp_path: Path) -> None:
    code = "import mlpkit.progress as p; p.PLAIN_EVERY = 0; from mlpkit.cli import main; main()"
    arguments = ["train", "--data", digits, "--net", "4", "--epochs", "1", "--batch-size", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--out", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    assert done.stderr == ""
    steps = re.findall(
        r"^  iteration (\d+) / 57  loss (\d+\.\d{4})  \d+ it/s  \d+ s left$", done.stdout, re.M
    )
    losses = [float(row["loss"]) for row in history(tmp_path / "run")]
    assert [int(i) for i, _ in steps] == sorted({int(i) for i, _ in steps})
    assert steps[-1][0] == "57"
    for i, loss in steps:
        assert loss == f"{losses[int(i) - 1]:.4f}"
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_training_goes_on_where_nobody_reads(digits: str, tmp_path: Path) -> None:
    arguments = ["train", "--data", digits, "--net", "4", "--epochs", "30", "--out", "run"]
    assert unread([*HERE, *arguments], tmp_path, lines=1) == (0, b"")
    assert (tmp_path / "run" / "summary.json").is_file()
