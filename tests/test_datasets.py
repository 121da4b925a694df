"""Splits, the mean image, and SVHN_data."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from mlpkit import datasets, svhn
from mlpkit.datasets import (
    DataError,
    Dataset,
    Split,
    SVHN_data,
    load_dataset,
)
from mlpkit.svhn import RemoteFile, sha256


def make(folder: Path, train: int, test: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write both files; the training images (N, 32, 32, 3) and digits, from the arrays saved."""
    rng = np.random.default_rng(train)
    x = rng.integers(0, 256, (32, 32, 3, train), dtype=np.uint8)
    y = rng.integers(1, 11, (train, 1))
    folder.mkdir(exist_ok=True)
    savemat(folder / "train_32x32.mat", {"X": x, "y": y})
    savemat(folder / "test_32x32.mat", {"X": x[..., :test] // 2, "y": y[:test]})
    return np.transpose(x, (3, 0, 1, 2)), np.where(y[:, 0] == 10, 0, y[:, 0])


# Images in the training file, the validation size asked for, and the one it should have: 4.45 % of
# 10 is 0.4, where a split still needs an image.
@pytest.mark.parametrize(
    ("n", "asked", "val"),
    [
        (400, None, 18),
        (100, None, 4),
        (200, None, 9),
        (10, None, 1),
        (2, None, 1),
        (100, 1, 1),
        (100, 37, 37),
        (100, 99, 99),
    ],
)
def test_validation_images_are_the_last(
    tmp_path: Path, n: int, asked: int | None, val: int
) -> None:
    images, digits = make(tmp_path, n, test=2)
    data = load_dataset(tmp_path, asked)
    assert (len(data.train), len(data.val), len(data.test)) == (n - val, val, 2)
    np.testing.assert_array_equal(data.train.images, images[: n - val])
    np.testing.assert_array_equal(data.train.labels, digits[: n - val])
    np.testing.assert_array_equal(data.val.images, images[n - val :])
    np.testing.assert_array_equal(data.val.labels, digits[n - val :])
    np.testing.assert_array_equal(data.test.images, images[:2] // 2)
    np.testing.assert_array_equal(data.test.labels, digits[:2])
    assert data.train.images.dtype == data.val.images.dtype == data.test.images.dtype == np.uint8


def test_svhn_has_a_validation_split_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert datasets.SVHN_TRAINING_IMAGES == 73257
    assert datasets.SVHN_VALIDATION_IMAGES == 73257 - 70000
    # The rule on files of a size that a test can write: 4.45 % of 50 would be 2.
    monkeypatch.setattr(datasets, "SVHN_TRAINING_IMAGES", 50)
    monkeypatch.setattr(datasets, "SVHN_VALIDATION_IMAGES", 7)
    for n, asked, val in ((50, None, 7), (49, None, 2), (51, None, 2), (50, 3, 3)):
        make(tmp_path, n, test=1)
        assert len(load_dataset(tmp_path, asked).val) == val


@pytest.mark.parametrize("val_size", [0, -1, 20, 21])
def test_a_validation_size_that_leaves_nothing(tmp_path: Path, val_size: int) -> None:
    make(tmp_path, 20)
    with pytest.raises(DataError, match=rf"holds 20 images; got .* {val_size}: ask for 1 to 19$"):
        load_dataset(tmp_path, val_size)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    make(tmp_path, 1, test=1)
    with pytest.raises(DataError, match=r"holds 1 image.* at least 2"):
        load_dataset(tmp_path)


def dataset(images: NDArray[np.uint8]) -> Dataset:
    """A data set of those training images."""
    part = Split(images, np.zeros(len(images), np.int64))
    return Dataset(Path("folder"), part, part[:1], part[:1])


@pytest.mark.parametrize("n", [1, 3, 4096, 4097, 9000])
def test_mean_image(n: int) -> None:
    images = np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = 255
    mean = dataset(images).mean_image
    assert mean.dtype == np.float64
    assert mean[0, 0, 0] == 1.0
    np.testing.assert_allclose(mean, images.mean(axis=0, dtype=np.float64) / 255, rtol=1e-14)


def test_the_first_images_are_centred_on_the_mean_of_all() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    data = dataset(images)
    cut = data.first(7)
    np.testing.assert_array_equal(cut.train.images, images[:7])
    np.testing.assert_allclose(cut.mean_image, images.mean(axis=0) / 255, rtol=1e-14)
    assert len(data.first(30).train) == 30
    for n in (0, -1, 31):
        with pytest.raises(DataError, match=rf"holds 30 images; got a train size of {n}: ask for"):
            data.first(n)


def test_svhn_data_as_the_notebook_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, digits = make(tmp_path, 30, test=4)
    monkeypatch.setenv("MLPKIT_DATA", str(tmp_path))
    files = [RemoteFile(p.name, p.stat().st_size, sha256(p)) for p in tmp_path.iterdir()]
    monkeypatch.setattr(svhn, "FILES", files)
    data = SVHN_data(20, 6)
    assert set(data) == {f"{kind}_{s}" for kind in ("data", "labels") for s in SPLITS}
    parts = {"train": images[:20], "val": images[20:26], "test": images[:4] // 2}
    labels = {"train": digits[:20], "val": digits[20:26], "test": digits[:4]}
    mean = images[:20].astype(np.float64).mean(axis=0) / 255
    for split in SPLITS:
        assert data[f"data_{split}"].dtype == np.float32
        np.testing.assert_allclose(data[f"data_{split}"], parts[split] / 255 - mean, atol=2e-7)
        assert data[f"labels_{split}"].dtype == np.int64
        np.testing.assert_array_equal(data[f"labels_{split}"], labels[split])
    np.testing.assert_allclose(data["data_train"].mean(axis=0), 0, atol=1e-6)


SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(("training", "validation"), [(0, 3), (3, 0), (-1, 3), (28, 3), (31, 1)])
def test_svhn_data_of_sizes_that_do_not_fit(tmp_path: Path, training: int, validation: int) -> None:
    make(tmp_path, 30)
    with pytest.raises(
        DataError, match=r"holds 30 images; got num_training=.* at most 30 together"
    ):
        SVHN_data(training, validation, folder=tmp_path)


def test_svhn_data_asks_for_the_notebooks_split_of_all(tmp_path: Path) -> None:
    make(tmp_path, 30)
    with pytest.raises(DataError, match="num_training=70000 and num_validation=3257"):
        SVHN_data(folder=tmp_path)
