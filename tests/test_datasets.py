"""Splits, the mean image, SVHN_data, and fetching and verifying over a server on this machine."""

import gc
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from mlpkit import datasets
from mlpkit.datasets import (
    FILES,
    DataError,
    Dataset,
    RemoteFile,
    Split,
    SVHN_data,
    fetch,
    load_dataset,
    verify,
)


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


def test_the_published_files() -> None:
    assert [(file.name, file.size) for file in FILES] == [
        ("train_32x32.mat", 182040794),
        ("test_32x32.mat", 64275384),
    ]
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in FILES)


BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PAGE = b"<html>moved</html>"

# requests leaves the closing of a broken connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


class Server(ThreadingHTTPServer):
    """Answers on this machine alone, in the way that the path names, and counts the questions."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Answers(BaseHTTPRequestHandler):
    """whole: the file; page: a web page; cut: half of it the first time; gone: 404."""

    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        if name == "gone":
            return self.send_error(404)
        body = PAGE if name == "page" else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        halve = name == "broken" or (name == "cut" and self.server.asked.count("cut") == 1)
        self.wfile.write(body[: len(body) // 2] if halve else body)
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server; waits between retries, pooch's alone, are left out."""
    pooch_core = pytest.importorskip("pooch.core")

    class NoWait:
        @staticmethod
        def sleep(seconds: float) -> None:
            pass

    monkeypatch.setattr(pooch_core, "time", NoWait)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()
    gc.collect()  # the broken connections, while their warnings are ignored


def test_fetch_gets_what_is_missing_and_keeps_what_is_whole(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "data"
    files = [RemoteFile("whole", len(BODY), SHA256), RemoteFile("again", len(BODY), SHA256)]
    fetch(folder, url=server.url, files=files)
    assert (folder / "whole").read_bytes() == (folder / "again").read_bytes() == BODY
    assert sorted(path.name for path in folder.iterdir()) == ["again", "whole"]
    assert verify(folder, files) == {"whole": "ok", "again": "ok"}
    fetch(folder, url=server.url, files=files)
    assert server.asked == ["whole", "again"]
    out, err = capsys.readouterr()
    assert not set("\x1b\r━") & set(out + err)


def test_fetch_replaces_a_damaged_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(BODY[:-1])
    fetch(tmp_path, url=server.url, files=[RemoteFile("whole", len(BODY), SHA256)])
    assert (tmp_path / "whole").read_bytes() == BODY


def test_fetch_tries_again_where_the_connection_breaks(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path, url=server.url, files=[RemoteFile("cut", len(BODY), SHA256)], retries=1)
    assert server.asked == ["cut", "cut"]
    assert (tmp_path / "cut").read_bytes() == BODY


@pytest.mark.parametrize(
    ("name", "sha256", "said"),
    [
        ("gone", SHA256, "could not be fetched (404"),
        ("broken", SHA256, "could not be fetched ("),
        ("page", SHA256, f"is not SVHN's page: its SHA-256 should be {SHA256}"),
        ("whole", "0" * 64, f"is not SVHN's whole: its SHA-256 should be {'0' * 64}"),
    ],
)
@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_fetch_keeps_nothing_that_is_not_the_file(
    server: Server, tmp_path: Path, name: str, sha256: str, said: str, before: bytes | None
) -> None:
    if before is not None:
        (tmp_path / name).write_bytes(before)
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, url=server.url, files=[RemoteFile(name, 9, sha256)], retries=2)
    for part in (f"{server.url}{name}", said, f"into {tmp_path} and run: mlpkit data verify"):
        assert part in str(caught.value)
    assert server.asked == [name] * 3
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_fetch_from_no_server(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(DataError, match="could not be fetched"):
        fetch(tmp_path, url=server.url, files=[RemoteFile("whole", 9, SHA256)], retries=0)
    assert list(tmp_path.iterdir()) == []


def test_verify_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(b"abc")
    (tmp_path / "short").write_bytes(b"ab")
    (tmp_path / "other").write_bytes(b"abd")
    (tmp_path / "folder").mkdir()
    # The hash of "abc" in FIPS 180-2, appendix B.1.
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    names = ("right", "short", "other", "folder", "none")
    states = verify(tmp_path, [RemoteFile(name, 3, known) for name in names])
    assert list(states) == list(names)
    assert states["right"] == "ok"
    assert states["short"].startswith("has 2 bytes, expected 3")
    assert states["other"].startswith("has sha256 ")
    assert f"expected {known}" in states["other"]
    assert states["folder"].startswith(f"missing from {tmp_path}")
    assert states["none"].startswith(f"missing from {tmp_path}")
    assert all(s.endswith(": mlpkit data fetch") for n, s in states.items() if n != "right")
    assert set(verify(tmp_path / "nowhere").values()) == {
        f"missing from {tmp_path / 'nowhere'}: mlpkit data fetch"
    }
