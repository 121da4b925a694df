"""history.csv: a row for each iteration, only ever appended to, and the digest of what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .files import naming, sync
from .history import Epoch, History

COLUMNS = (
    "iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"
)  # fmt: skip
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
        self.write([",".join(COLUMNS)])

    def resume(self, length: int, sha256: str) -> bool:
        """Cut the file to the length, where the digest up to there is that; else leave it alone.
        Whether it was."""
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
        scored = len(history.epochs) * self.per_epoch
        while history.losses:
            first = history.taken + 1
            number = (first - 1) // self.per_epoch + 1
            end = number * self.per_epoch
            complete = end if end <= scored else end - 1
            n = min(history.iterations, complete) - history.taken
            if n <= 0:
                return
            n = min(n, ROWS)
            epoch = history.epochs[number - 1] if first + n - 1 == end else None
            rows = list(self.rows(first, number, history.losses[:n], epoch))
            self.write(rows)
            history.take(n)

    def append_incomplete(self, history: History) -> None:
        """Add the row that waits for its epoch's scores without them: a record of a run that ended
        there, which the next `resume` cuts away."""
        for loss in history.losses:
            number = history.iterations // self.per_epoch
            self.write(self.rows(history.iterations, number, [loss], None))

    @staticmethod
    def rows(
        first: int, number: int, losses: Iterable[float], epoch: Epoch | None
    ) -> Iterable[str]:
        """The rows of losses within an epoch of that number; the last one's scores are epoch's."""
        *others, last = losses
        for i, loss in enumerate(others, start=first):
            yield f"{i},{number},,{loss!r},,,,"
        if epoch is None:
            yield f"{first + len(others)},{number},,{last!r},,,,"
        else:
            e = epoch
            yield (
                f"{e.iteration},{number},{e.lr!r},{last!r},"
                f"{e.train_loss!r},{e.train_acc!r},{e.val_loss!r},{e.val_acc!r}"
            )

    def write(self, rows: Iterable[str]) -> None:
        """Add rows."""
        content = "".join(f"{row}\r\n" for row in rows).encode()  # as the csv module ends them
        with naming(self.path), self.path.open("ab") as file:
            file.write(content)
        self.sum.update(content)
        self.length += len(content)

    def sync(self) -> None:
        """Wait until all is on the disk."""
        sync(self.path)
