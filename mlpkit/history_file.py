"""history.csv: a row for each iteration, only ever appended to, and the digest of what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from .files import atomic, naming, sync
from .history import Epochs, History

COLUMNS = (
    "iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"
)  # fmt: skip
HEAD = ",".join(COLUMNS)
PIECE = 1 << 20  # bytes read at a time
ROWS = 4096  # written at a time


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
            return f"{iteration},{number + 1},,{known},,,,"
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
