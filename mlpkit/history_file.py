"""history.csv: a row for each iteration, only ever appended to; its digest; and its rows read
back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from .files import atomic, naming, sync
from .history import Epochs, History
from .run_files import RunError, no_run, resuming

COLUMNS = (
    "iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"
)  # fmt: skip
HEAD = ",".join(COLUMNS)
PIECE = 1 << 20  # bytes read at a time
ROWS = 4096  # written at a time
UNSCORED = ",,,,"  # how the rows within an epoch end
STRIDE = 100  # of so many iterations, one loss is drawn
MOST = 100_000  # losses drawn, at most


class HistoryFile:
    """The file, open to append; `length` in bytes and `sha256` of all that was written to it.

    An epoch's last row has its scores: it waits in the History for them.
    """

    def __init__(self, path: Path, per_epoch: int) -> None:
        self.path, self.per_epoch = path, per_epoch
        self.length, self.sum = 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the first `length` bytes, in hexadecimal."""
        return self.sum.hexdigest()

    def start(self) -> None:
        """Make the file anew, with its head."""
        with naming(self.path):
            self.path.write_bytes(b"")
        self.length, self.sum = 0, hashlib.sha256()
        self.write([HEAD])

    def begin_anew(self, history: History, kept: Path) -> None:
        """Make the file anew with a row for each iteration that was written, which lacks its loss:
        what was there, damaged, goes to `kept`."""
        self.length, self.sum = 0, hashlib.sha256()
        with atomic(self.path, previous=kept) as temporary:
            self.write([HEAD], temporary)
            for first in range(1, history.taken + 1, ROWS):
                numbers = range(first, min(first + ROWS, history.taken + 1))
                self.write((self.row(i, None, history.epochs) for i in numbers), temporary)

    def resume(self, length: int, sha256: str) -> bool:
        """Cut the file to the length, where the digest up to there is that; else leave it alone.
        Whether it was."""
        if not self.path.is_file():
            return False
        found, left = hashlib.sha256(), length
        with self.path.open("rb") as file:
            while left and (piece := file.read(min(PIECE, left))):
                found.update(piece)
                left -= len(piece)
        if left or found.hexdigest() != sha256:
            return False
        with self.path.open("r+b") as file:
            file.truncate(length)
        self.length, self.sum = length, found
        return True

    def append(self, history: History) -> None:
        """Take the losses whose rows are complete out of the history, and add these rows."""
        complete = history.iterations
        if complete == (len(history.epochs) + 1) * self.per_epoch:
            complete -= 1
        while n := min(complete - history.taken, ROWS):
            numbers = range(history.taken + 1, history.taken + n + 1)
            losses = zip(numbers, history.take(n), strict=True)
            self.write(self.row(i, loss, history.epochs) for i, loss in losses)

    def append_incomplete(self, history: History) -> None:
        """Add the row that waits for its epoch's scores without them: a record of a run that ended
        there, which the next `resume` cuts away."""
        numbers = range(history.taken + 1, history.iterations + 1)
        losses = zip(numbers, history.losses, strict=True)
        self.write(self.row(i, loss, history.epochs) for i, loss in losses)

    def row(self, iteration: int, loss: float | None, epochs: Epochs) -> str:
        """A row; numbers with the digits that give the same number back. loss: None for one that is
        lost."""
        number, place = divmod(iteration - 1, self.per_epoch)
        known = "" if loss is None else repr(loss)
        if place + 1 < self.per_epoch or number >= len(epochs):
            return f"{iteration},{number + 1},,{known}{UNSCORED}"
        _, lr, *scores = astuple(epochs[number])
        return ",".join([str(iteration), str(number + 1), repr(lr), known, *map(repr, scores)])

    def write(self, rows: Iterable[str], path: Path | None = None) -> None:
        """Add rows, to another file where the path of one is given."""
        content = "".join(f"{row}\r\n" for row in rows).encode()  # as the csv module ends them
        path = path or self.path
        with naming(path), path.open("ab") as file:
            file.write(content)
        self.sum.update(content)
        self.length += len(content)

    def sync(self) -> None:
        """Wait until all is on the disk."""
        sync(self.path)


def stride_of(iterations: int) -> int:
    """Of how many iterations one loss is drawn: STRIDE, fewer in a short run, so that it shows as a
    curve, and more in one so long that there would be more than MOST."""
    return max(1, min(STRIDE, iterations // STRIDE), iterations // MOST)


def read_history(folder: Path, stride: int | None = None) -> list[dict[str, float]]:
    """The rows of a run's history.csv that are drawn, without the empty columns: those of every so
    many iterations (stride; None: `stride_of` it), every epoch's last, and the last. Raises
    RunError."""
    path = folder / "history.csv"
    if not path.is_file():
        if path.exists():
            raise RunError(f"{path} is no ordinary file: remove it; then {begin_anew(folder)}")
        if (folder / "config.json").is_file():
            raise RunError(f"{path} is gone: {begin_anew(folder)}")
        raise no_run(folder, path.name)
    rows = []
    with path.open("rb") as file:
        last = sum(1 for _ in file)
        stride = stride or stride_of(last - 1)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            text = line.decode(errors="replace").rstrip()
            try:
                if number == 1 and text != HEAD:
                    raise ValueError(f"should be {HEAD}; it is {text[:80]!r}")
                drawn = (number - 2) % stride == 0 or not text.endswith(UNSCORED)
                if number > 1 and (drawn or number == last):
                    rows.append(read_row(text))
            except ValueError as error:
                raise RunError(f"{path}, line {number}, {error}: {begin_anew(folder)}") from error
    if not rows:
        raise RunError(
            f"{path} holds no iterations: the run was stopped before its first, or the file is "
            f"damaged; `{resuming(folder)}` resumes it"
        )
    return rows


def begin_anew(folder: Path) -> str:
    """What mends a damaged history.csv, in words."""
    return f"`{resuming(folder)}` begins it anew, without the losses so far"


def read_row(text: str) -> dict[str, float]:
    """A row's numbers by column, without the empty ones. ValueError, which says of the line what it
    should have."""
    fields, row = text.split(","), {}
    if len(fields) != len(COLUMNS):
        raise ValueError(
            f"should have {len(COLUMNS)} columns, {', '.join(COLUMNS)}; it has {len(fields)}"
        )
    for column, field in zip(COLUMNS, fields, strict=True):
        if field:
            try:
                row[column] = float(field)
            except ValueError as error:
                raise ValueError(
                    f"has {field[:40]!r} where the {column}, a number, should be"
                ) from error
    # An epoch's last row has every column, the others the iteration, the epoch and the loss, which
    # may have been lost (HistoryFile.begin_anew).
    if {*row, "loss"} not in ({"iteration", "epoch", "loss"}, set(COLUMNS)):
        raise ValueError(
            "should have the iteration, the epoch and the loss, and at an epoch's end all of "
            f"{', '.join(COLUMNS)}; it has {', '.join(row) or 'none of them'}"
        )
    return row
