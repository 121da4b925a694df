"""SVHN and other data in its layout: read, split, centre.

A data set is a folder with train_32x32.mat and test_32x32.mat, as SVHN's "cropped digits" come
(http://ufldl.stanford.edu/housenumbers/, Netzer et al. 2011): X uint8 (32, 32, 3, N) and y (N, 1)
with labels 1..10, where 10 stands for the digit 0. Images stay uint8.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matfile import DataError, read_mat

__all__ = ["DataError", "Dataset", "SVHN_data", "Split", "load_dataset"]

TRAIN_FILE, TEST_FILE = "train_32x32.mat", "test_32x32.mat"
SVHN_TRAINING_IMAGES = 73257
SVHN_VALIDATION_IMAGES = 3257
VALIDATION_SHARE = 0.0445  # SVHN's 3257 of 73257


@dataclass(frozen=True, eq=False)
class Split:
    """images uint8 (N, 32, 32, 3); labels int64 (N,) in 0..9, the digit shown."""

    images: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> Split:
        return Split(self.images[part], self.labels[part])


@dataclass(frozen=True, eq=False)
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
    whole = Split(*read_mat(folder / TRAIN_FILE))
    test = Split(*read_mat(folder / TEST_FILE))
    n = len(whole)
    if n < 2:
        raise DataError(
            f"{folder / TRAIN_FILE} holds 1 image; training and validation need at least 2: "
            "make it larger"
        )
    if val_size is None:
        svhn = n == SVHN_TRAINING_IMAGES
        val_size = SVHN_VALIDATION_IMAGES if svhn else max(1, round(VALIDATION_SHARE * n))
    if not 1 <= val_size < n:
        raise DataError(
            f"{folder / TRAIN_FILE} holds {n} images; got a validation size of {val_size}: "
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
    images, labels = read_mat(folder / TRAIN_FILE)
    if num_training < 1 or num_validation < 1 or num_training + num_validation > len(labels):
        raise DataError(
            f"{folder / TRAIN_FILE} holds {len(labels)} images; got num_training="
            f"{num_training} and num_validation={num_validation}: ask for at least 1 each and at "
            f"most {len(labels)} together"
        )
    train = Split(images, labels)[:num_training]
    val = Split(images, labels)[num_training : num_training + num_validation]
    data = Dataset(folder, train, val, Split(*read_mat(folder / TEST_FILE)))
    mean = data.mean_image.astype(np.float32)
    result: dict[str, NDArray[Any]] = {}
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        centred = split.images.astype(np.float32)
        centred /= 255
        centred -= mean
        result[f"data_{name}"], result[f"labels_{name}"] = centred, split.labels
    return result
