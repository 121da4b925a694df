"""SVHN and other data in its layout: fetch, verify, read, split.

A data set is a folder with train_32x32.mat and test_32x32.mat, as SVHN's "cropped digits" come
(http://ufldl.stanford.edu/housenumbers/, Netzer et al. 2011): X uint8 (32, 32, 3, N) and y (N, 1)
with labels 1..10, where 10 stands for the digit 0. Images stay uint8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matfile import DataError, read_mat

__all__ = ["FILES", "DataError", "Dataset", "SVHN_data", "Split", "fetch", "load_dataset", "verify"]

URL = "http://ufldl.stanford.edu/housenumbers/"


@dataclass(frozen=True)
class RemoteFile:
    """A file of SVHN's: its name, bytes and hash, as published files measure."""

    name: str
    size: int
    sha256: str


FILES = (
    RemoteFile(
        "train_32x32.mat",
        182040794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    RemoteFile(
        "test_32x32.mat",
        64275384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)
SVHN_TRAINING_IMAGES = 73257
SVHN_VALIDATION_IMAGES = 3257
VALIDATION_SHARE = 0.0445  # SVHN's 3257 of 73257


@dataclass(frozen=True)
class Split:
    """images uint8 (N, 32, 32, 3); labels int64 (N,) in 0..9, the digit shown."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> Split:
        return Split(self.images[part], self.labels[part])


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test splits, with the folder they come from."""

    folder: Path
    train: Split
    val: Split
    test: Split

    @cached_property
    def mean_image(self) -> NDArray[np.float64]:
        """The mean training image in [0, 1], (32, 32, 3), from exact integer sums."""
        total = np.zeros(self.train.images.shape[1:], dtype=np.int64)
        for start in range(0, len(self.train), 4096):  # small enough that uint32 can't overflow
            total += self.train.images[start : start + 4096].sum(axis=0, dtype=np.uint32)
        return total / (255.0 * len(self.train))

    def first(self, n: int) -> Dataset:
        """The same with the first n training images only, centred on the same mean image."""
        if not 1 <= n <= len(self.train):
            raise DataError(
                f"the training split of {self.folder} holds {len(self.train)} images; "
                f"got a train size of {n}: ask for 1 to {len(self.train)}"
            )
        cut = replace(self, train=self.train[:n])
        cut.__dict__["mean_image"] = self.mean_image
        return cut


def load_dataset(folder: Path | str, val_size: int | None = None) -> Dataset:
    """Read both files of a folder.

    The last val_size images of the training file are the validation split; None is SVHN's own
    3257 where the file holds SVHN's 73257 images, else the last 4.45 %. Raises DataError.
    """
    folder = Path(folder)
    whole = Split(*read_mat(folder / FILES[0].name))
    test = Split(*read_mat(folder / FILES[1].name))
    n = len(whole)
    if n < 2:
        raise DataError(
            f"{folder / FILES[0].name} holds 1 image; training and validation need at least 2: "
            "make it larger"
        )
    if val_size is None:
        svhn = n == SVHN_TRAINING_IMAGES
        val_size = SVHN_VALIDATION_IMAGES if svhn else max(1, round(VALIDATION_SHARE * n))
    if not 1 <= val_size < n:
        raise DataError(
            f"{folder / FILES[0].name} holds {n} images; got a validation size of {val_size}: "
            f"ask for 1 to {n - 1}"
        )
    return Dataset(folder, whole[: n - val_size], whole[n - val_size :], test)


def SVHN_data(  # noqa: N802 - the notebook's name
    num_training: int = 70000, num_validation: int = 3257, *, folder: Path | str | None = None
) -> dict[str, NDArray[Any]]:
    """SVHN, or its offline stand-in where data/ holds no SVHN, as the notebook takes it.

    data_train (num_training, 32, 32, 3), data_val, data_test: float32 in [0, 1] less the training
    mean image; labels_train, labels_val, labels_test: int64. The validation images are the
    num_validation after the first num_training of the training file. Raises DataError.
    """
    from .sources import find_data

    folder = Path(folder) if folder is not None else find_data()
    images, labels = read_mat(folder / FILES[0].name)
    if num_training < 1 or num_validation < 1 or num_training + num_validation > len(labels):
        raise DataError(
            f"{folder / FILES[0].name} holds {len(labels)} images; got num_training="
            f"{num_training} and num_validation={num_validation}: ask for at least 1 each and at "
            f"most {len(labels)} together"
        )
    train = Split(images, labels)[:num_training]
    val = Split(images, labels)[num_training : num_training + num_validation]
    data = Dataset(folder, train, val, Split(*read_mat(folder / FILES[1].name)))
    mean = data.mean_image.astype(np.float32)
    result: dict[str, NDArray[Any]] = {}
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        centred = split.images.astype(np.float32)
        centred /= 255
        centred -= mean
        result[f"data_{name}"], result[f"labels_{name}"] = centred, split.labels
    return result


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path, files: Iterable[RemoteFile] = FILES) -> dict[str, str]:
    """Each of SVHN's files and "ok", or in words what differs from the published one."""
    states = {}
    for file in files:
        path = folder / file.name
        if not path.is_file():
            states[file.name] = f"missing from {folder}: mlpkit data fetch"
        elif path.stat().st_size != file.size:
            states[file.name] = (
                f"has {path.stat().st_size} bytes, expected {file.size}: mlpkit data fetch"
            )
        elif (digest := sha256(path)) != file.sha256:
            states[file.name] = f"has sha256 {digest}, expected {file.sha256}: mlpkit data fetch"
        else:
            states[file.name] = "ok"
    return states


def fetch(
    folder: Path, *, url: str = URL, files: Iterable[RemoteFile] = FILES, retries: int = 3
) -> None:
    """Download SVHN's files into folder; what is there and whole is not fetched again.

    pooch downloads to a temporary name, and moves a file into place only once its hash is right.
    Raises DataError where the server can't be reached or sends something else.
    """
    import pooch

    registry = pooch.create(
        path=folder,
        base_url=url,
        registry={file.name: f"sha256:{file.sha256}" for file in files},
        retry_if_failed=retries,
    )

    def download(address: str, target: Any, mirror: Any) -> None:
        bar = progress_bar()
        try:
            pooch.HTTPDownloader(progressbar=bar, timeout=60)(address, target, mirror)
        finally:
            bar.close()  # a bar left open would hide the terminal's cursor

    for file in files:
        try:
            registry.fetch(file.name, downloader=download)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            what = (
                f"could not be fetched ({error})"
                if isinstance(error, OSError)
                else f"is not SVHN's {file.name}: its SHA-256 should be {file.sha256}"
            )
            raise DataError(
                f"{url}{file.name} {what}: try again, or download it by other means into {folder} "
                "and run: mlpkit data verify"
            ) from error


def progress_bar() -> Any:
    """rich's bar with the interface that pooch asks of a progress bar; only on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    class Bar:
        def __init__(self) -> None:
            console = Console(stderr=True)  # where pooch's lines go
            self.shown = Progress(
                BarColumn(bar_width=30),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
                disable=not console.is_terminal,
            )
            self.task = self.shown.add_task("", total=None)

        @property
        def total(self) -> float | None:
            return self.shown.tasks[0].total

        @total.setter
        def total(self, size: int) -> None:
            self.shown.update(self.task, total=size, completed=0)
            self.shown.start()

        def update(self, n: int) -> None:
            self.shown.advance(self.task, n)

        def reset(self) -> None:
            self.shown.update(self.task, completed=0)

        def close(self) -> None:
            self.shown.stop()

    return Bar()
