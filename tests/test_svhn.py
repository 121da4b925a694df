"""Fetching and verifying SVHN's files, over a server on this machine."""

import gc
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpkit.datasets import DataError
from mlpkit.svhn import FILES, RemoteFile, fetch, verify


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
