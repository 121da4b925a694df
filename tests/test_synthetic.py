"""The offline digits: SVHN's layout and class frequencies, readable, and the same every time."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat

from mlpkit import synthetic

FILES = ("train_32x32.mat", "test_32x32.mat")


def grey(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    pictures: NDArray[np.float64] = images.mean(axis=3) / 255
    return pictures


def strokes(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far each pixel is from the wall's brightness, lighter or darker alike."""
    pictures = grey(images)
    return np.abs(pictures - np.median(pictures, axis=(1, 2), keepdims=True))


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 3, 1), ("two", 3, 2), ("other", 4, 2)):
        synthetic.make(tmp_path / name, 700, 300, seed, workers=workers)
    for file in FILES:
        one, two, other = (
            (tmp_path / name / file).read_bytes() for name in ("one", "two", "other")
        )
        assert one == two
        assert one != other


def test_files_have_the_layout_of_svhn(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "new" / "folder", 600, 200)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(FILES)
    for file, size in zip(FILES, (600, 200), strict=True):
        content = loadmat(tmp_path / "new" / "folder" / file)
        assert content["X"].shape == (32, 32, 3, size)
        assert content["y"].shape == (size, 1)
        assert content["X"].dtype == content["y"].dtype == np.uint8
        assert set(content["y"].ravel()) == set(range(1, 11))


def test_files_hold_the_rendered_pictures_upright_and_label_0_as_10(tmp_path: Path) -> None:
    synthetic.make(tmp_path, 600, 10, seed=5)
    content = loadmat(tmp_path / FILES[0])
    digits = (content["y"].ravel() % 10).astype(np.uint8)
    np.testing.assert_array_equal(
        content["X"].transpose(3, 0, 1, 2), synthetic.render(digits, seed=5)
    )


def test_pictures_stand_upright_in_the_files(tmp_path: Path) -> None:
    synthetic.make(tmp_path, 4000, 10)
    content = loadmat(tmp_path / FILES[0])
    heaviness = strokes(content["X"].transpose(3, 0, 1, 2))
    seven = heaviness[content["y"].ravel() == 7].mean(axis=0)
    assert seven[6:13, 10:22].mean() > 1.2 * seven[19:26, 10:22].mean()  # its bar is at the top
    six = heaviness[content["y"].ravel() == 6].mean(axis=0)
    assert six[10:22, 8:14].mean() > 1.1 * six[10:22, 18:24].mean()  # its stem is at the left


def test_training_and_test_pictures_differ(tmp_path: Path) -> None:
    synthetic.make(tmp_path, 300, 300)
    seen, unseen = (loadmat(tmp_path / file)["X"].reshape(-1, 300).T for file in FILES)
    assert len(np.unique(np.concatenate([seen, unseen]), axis=0)) == 600


def test_full_size_has_the_class_counts_of_svhn() -> None:
    train = [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659]
    test = [1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595]
    assert synthetic.class_counts(synthetic.TRAIN_COUNTS, 73257).tolist() == train
    assert synthetic.class_counts(synthetic.TEST_COUNTS, 26032).tolist() == test


def test_smaller_sizes_are_shared_out_by_largest_remainder() -> None:
    # 7 x (5, 3, 2) / 10 = 3.5, 2.1, 1.4: the seventh goes to the first.
    assert synthetic.class_counts((5, 3, 2), 7).tolist() == [4, 2, 1]
    for size in (1, 2, 9, 100, 12345):
        shares = synthetic.class_counts(synthetic.TRAIN_COUNTS, size)
        assert shares.sum() == size
        exact = np.array(synthetic.TRAIN_COUNTS) * size / 73257
        assert np.abs(shares - exact).max() < 1


def test_a_picture_depends_on_its_seed_number_and_digit_only() -> None:
    digits = np.random.default_rng(0).integers(0, 10, 700).astype(np.uint8)
    whole = synthetic.render(digits, seed=1)
    np.testing.assert_array_equal(synthetic.render(digits[100:650], 1, first=100), whole[100:650])
    np.testing.assert_array_equal(synthetic.render(digits[600:601], 1, first=600), whole[600:601])
    assert synthetic.render(digits[:0], seed=1).shape == (0, 32, 32, 3)
    changed = np.append(digits[:-1], (digits[-1] + 1) % 10).astype(np.uint8)
    again = synthetic.render(changed, seed=1)
    np.testing.assert_array_equal(again[:-1], whole[:-1])
    assert (again[-1] != whole[-1]).any()


def test_digits_can_be_told_apart_by_their_strokes() -> None:
    """A least-squares classifier of local contrast, which is blind to the contrast's sign."""
    digits = np.resize(np.arange(10, dtype=np.uint8), 6000)
    heaviness = strokes(synthetic.render(digits, seed=2))
    coarse = heaviness.reshape(6000, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(6000, -1)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    features = np.column_stack([coarse, np.ones(6000)])
    weights = np.linalg.lstsq(features[:5000], np.eye(10)[digits[:5000]], rcond=None)[0]
    right = (features[5000:] @ weights).argmax(axis=1) == digits[5000:]
    assert right.mean() > 0.3  # chance is 0.1


def test_contrast_goes_both_ways_and_brightness_varies() -> None:
    # A thin 1 is mostly wall: its middle column is the ink, the picture's median the wall.
    pictures = grey(synthetic.render(np.ones(500, dtype=np.uint8), seed=3))
    contrast = pictures[:, 12:20, 14:18].mean(axis=(1, 2)) - np.median(pictures, axis=(1, 2))
    assert (contrast > 0.1).mean() > 0.2
    assert (contrast < -0.1).mean() > 0.2
    assert pictures.mean(axis=(1, 2)).std() > 0.1


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"train_size": 0}, "train_size must be a whole number, at least 1; got 0"),
        ({"test_size": -5}, "test_size must be a whole number, at least 1; got -5"),
        ({"seed": -1}, "seed must be an integer from 0 .*; got -1"),
        ({"workers": 0}, "workers must be a whole number, at least 1; got 0"),
    ],
)
def test_bad_sizes_are_refused_and_leave_nothing(
    tmp_path: Path, sizes: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        synthetic.make(tmp_path / "folder", **sizes)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    synthetic.make(tmp_path, 600, 100, progress=lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [700] * len(calls)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (700, 700)


@pytest.mark.parametrize("stop_at", [1, 601])
def test_an_interrupt_leaves_what_was_there(tmp_path: Path, stop_at: int) -> None:
    def interrupt(done: int, total: int) -> None:
        if done >= stop_at:
            raise KeyboardInterrupt

    (tmp_path / FILES[0]).write_bytes(b"from before")
    with pytest.raises(KeyboardInterrupt):
        synthetic.make(tmp_path, 600, 100, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == [FILES[0]]
    assert (tmp_path / FILES[0]).read_bytes() == b"from before"
