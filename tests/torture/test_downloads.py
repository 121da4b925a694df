"""Fetching SVHN's files from a server on this machine that fails in every way it can."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpkit import matfile, svhn
from mlpkit.datasets import DataError
from mlpkit.scratch import PREFIX
from mlpkit.svhn import RemoteFile, fetch, verify

NAMES = ("train_32x32.mat", "test_32x32.mat")
BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
FILES = [RemoteFile(name, len(BODY), SHA256) for name in NAMES]
PAGE = b"<html>moved</html>"


class Server(ThreadingHTTPServer):
    """Answers in turn as `faults` say, then well, and counts the questions."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.over = threading.Event()

    def handle_error(self, *_: Any) -> None:
        pass  # a client that goes away in the middle

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Answers(BaseHTTPRequestHandler):
    """The file, or a fault: a number is that status."""

    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path.strip("/"))
        if self.path == "/page":
            return self.send(PAGE, type="text/html")
        match self.server.faults.pop(0) if self.server.faults else "":
            case "":
                self.send(BODY)
            case "404" | "500" | "503" as status:
                self.send_error(int(status))
            case "redirect to HTML":
                self.send(b"", 302, location="/page")
            case "redirect to itself":
                self.server.faults[:0] = ["redirect to itself"]
                self.send(b"", 302, location=self.path)
            case "redirect to a file":
                self.send(b"", 302, location="file:///etc/hostname")
            case "empty":
                self.send(b"")
            case "truncated":
                self.send(BODY[:-1])
            case "zero-filled":
                self.send(bytes(len(BODY)))
            case "HTML":
                self.send(PAGE, type="text/html")
            case "HTML of the same size":
                self.send(PAGE.ljust(len(BODY)), type="text/html")
            case "bit flip":
                self.send(BODY[:200_000] + bytes([BODY[200_000] ^ 16]) + BODY[200_001:])
            case "long":
                self.send(BODY + b"more")
            case "length too small":
                self.send(BODY, length=len(BODY) - 1)
            case "length too large" | "cut in half" as fault:
                self.send(BODY[: len(BODY) // (1 + (fault[0] == "c"))], length=len(BODY) + 9)
            case "no length":
                self.send(BODY[:1000], length=None)
            case "bad chunks":
                self.send(b"ffff\r\nabc", length=None, transfer_encoding="chunked")
            case "no HTTP":
                self.wfile.write(b"220 mail ready\r\n")
            case "reset":
                self.send(BODY[:1000], length=len(BODY))
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
                self.connection.close()
            case "endless":
                self.send(BODY, length=None)
                while not self.server.over.is_set():
                    self.wfile.write(BODY)
            case "stalled before the head":
                self.server.over.wait()
            case "stalled":
                self.send(BODY[:150_000], length=len(BODY))
                self.server.over.wait()
            case "trickle":
                self.send(BODY[:100], length=len(BODY))
                while not self.server.over.wait(0.02):
                    self.wfile.write(b".")
            case unknown:
                raise AssertionError(unknown)
        return None

    def send(self, body: bytes, status: int = 200, length: int | None = -1, **headers: str) -> None:
        """A head and a body; the length is the body's unless it is given, or None for none."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in headers.items():
            name = "Content-Type" if name == "type" else name.replace("_", "-")
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server; waits between retries are left out."""
    monkeypatch.setattr(svhn.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were parsed: none may be before its hash is right."""
    paths: list[Path] = []
    for name in ("read_mat", "variables"):
        monkeypatch.setattr(matfile, name, paths.append)
    return paths


WRONG = "is not SVHN's train_32x32.mat: it has "
OTHER = f"{WRONG}sha256"
# Each fault, and what is said of it where it doesn't go away.
FAULTS = {
    "404": "could not be fetched (HTTP Error 404: Not Found)",
    "500": "could not be fetched (HTTP Error 500: Internal Server Error)",
    "503": "could not be fetched (HTTP Error 503: Service Unavailable)",
    "redirect to HTML": f"{WRONG}18 bytes, expected 300000",
    "redirect to itself": "could not be fetched (HTTP Error 302",
    "redirect to a file": "could not be fetched (HTTP Error 302",
    "empty": f"{WRONG}0 bytes, expected 300000",
    "truncated": f"{WRONG}299999 bytes, expected 300000",
    "zero-filled": OTHER,
    "HTML": f"{WRONG}18 bytes, expected 300000",
    "HTML of the same size": OTHER,
    "bit flip": OTHER,
    "long": f"{WRONG}300004 bytes, expected 300000",
    "length too small": f"{WRONG}299999 bytes, expected 300000",
    "length too large": "",  # all of the file came: it's the length that is wrong
    "cut in half": f"{WRONG}150000 bytes, expected 300000",
    "no length": f"{WRONG}1000 bytes, expected 300000",
    "bad chunks": "could not be fetched (IncompleteRead",
    "no HTTP": "could not be fetched (220 mail ready",
    "reset": "could not be fetched ([Errno 104] Connection reset by peer)",
    "endless": f"{WRONG}3",  # a block more than 300000 bytes, no megabytes
    "stalled before the head": "stalled after 0 of 300000 bytes, for 0.1 s",
    "stalled": "stalled after 150000 of 300000 bytes, for 0.1 s",
    "trickle": "stalled after 1",
}


def test_no_fault_of_a_server_gets_in(
    server: Server, tmp_path: Path, parsed: list[Path], torture: Any
) -> None:
    begun = time.perf_counter()
    for fault, said in FAULTS.items():
        for before in (None, b"what was there before"):
            folder = tmp_path / f"{fault}, {before}"
            folder.mkdir()
            train = folder / NAMES[0]
            if before is not None:
                train.write_bytes(before)
            server.asked, server.faults = [], [fault] * 2
            if said:
                with pytest.raises(DataError) as caught:
                    fetch(folder, url=server.url, files=FILES, retries=1, patience=0.1)
                sentence = str(caught.value)
                assert sentence.startswith(f"{server.url}{NAMES[0]} ")
                assert said in sentence
                assert f"into {folder} and run: mlpkit data verify" in sentence
                assert [path.read_bytes() for path in folder.iterdir()] == (
                    [before] if before else []
                )
            # The next fetch works, and one whose first attempt fails does too.
            server.faults = [fault] if said and "redirect to itself" not in fault else []
            fetch(folder, url=server.url, files=FILES, retries=1, patience=0.1)
            assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
            assert set(verify(folder, FILES).values()) == {"ok"}
    assert parsed == []
    torture.figure(
        f"Downloads: {len(FAULTS)} faults of a server, none let in, none in the way of the next "
        f"fetch, in {time.perf_counter() - begun:.1f} s"
    )


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(DataError, match=r"could not be fetched .*Connection refused"):
        fetch(tmp_path, url=url, files=FILES, retries=0)
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_missing_or_damaged_is_fetched(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "data"
    fetch(folder, url=server.url, files=FILES)
    fetch(folder, url=server.url, files=FILES)
    assert server.asked == list(NAMES)
    (folder / NAMES[1]).write_bytes(BODY[:-1] + b"x")
    fetch(folder, url=server.url, files=FILES)
    assert server.asked == [*NAMES, NAMES[1]]
    assert (folder / NAMES[1]).read_bytes() == BODY
    out, err = capsys.readouterr()
    assert out + err == ""


PROGRAM = """
import functools, resource, sys
from mlpkit import cli, svhn
url, size, sha256, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
files = [svhn.RemoteFile(name, size, sha256) for name in ("train_32x32.mat", "test_32x32.mat")]
svhn.fetch = functools.partial(svhn.fetch, url=url, files=files, retries=0)
sys.argv = ["mlpkit", "data", "fetch"]
cli.main()
"""


def command(server: Server, folder: Path, limit: int = 0) -> Any:
    """`mlpkit data fetch` from the server, begun; its data/ is in the folder."""
    here = {"PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(len(BODY)), SHA256, str(limit)],
        cwd=folder,
        env={name: v for name, v in os.environ.items() if name != "MLPKIT_DATA"} | here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], Any]) -> None:
    """Until something is so; AssertionError after half a minute."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def half_there(folder: Path) -> bool:
    """Whether the first half of the file came, as far as a program writes it through."""
    parts = list((folder / "data").glob(f"{PREFIX}*/*"))
    return bool(parts) and parts[0].stat().st_size > 100_000


def test_a_killed_fetch_leaves_nothing_that_the_next_does_not_mend(
    server: Server, tmp_path: Path, torture: Any
) -> None:
    ends = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    rounds = torture.times(1, 10)
    for i in range(rounds):
        for sent, status in ends.items():
            folder = tmp_path / f"{sent}-{i}"
            folder.mkdir()
            server.faults = ["stalled"]
            process = command(server, folder)
            wait_for(lambda folder=folder: half_there(folder))
            process.send_signal(sent)
            _, err = process.communicate(timeout=30)
            assert process.returncode == status
            left = [path.name for path in (folder / "data").iterdir()]
            if sent != signal.SIGKILL:
                word = "Ctrl-C" if sent == signal.SIGINT else "SIGTERM"
                assert err == f"mlpkit: stopped by {word}\n"
                assert left == []
            assert not set(left) & set(NAMES)
            fetch(folder / "data", url=server.url, files=FILES)
            assert sorted(path.name for path in (folder / "data").iterdir()) == sorted(NAMES)
    torture.figure(
        f"Downloads: {rounds * len(ends)} fetches stopped in the middle (Ctrl-C, SIGTERM, "
        "SIGKILL): no half file, no litter after the next"
    )


def test_two_fetches_at_once(server: Server, tmp_path: Path) -> None:
    server.faults = ["trickle"]
    first = command(server, tmp_path)
    wait_for(lambda: server.asked)
    second = command(server, tmp_path)
    waiting = second.stderr.readline()
    first.kill()
    first.communicate()
    out, err = second.communicate(timeout=30)
    assert waiting == "Waiting for another mlpkit at work in data/\n"
    assert (second.returncode, err) == (0, "")
    assert "hashes checked" in out
    assert server.asked == [NAMES[0], *NAMES]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(NAMES)


def test_a_file_that_may_not_grow(server: Server, tmp_path: Path) -> None:
    process = command(server, tmp_path, limit=100_000)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.startswith("mlpkit: the disk is full for data: make room")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_may_not_be_written_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(PermissionError) as caught:
        fetch(tmp_path, url=server.url, files=FILES)
    assert caught.value.filename == str(tmp_path)
    assert server.asked == []
    for file in FILES:
        (tmp_path / file.name).write_bytes(BODY)
    fetch(tmp_path, url=server.url, files=FILES)  # there is nothing to write


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def blocks(*_: Any) -> Iterator[bytes]:
        yield BODY[:1000]
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(svhn, "received", blocks)
    with pytest.raises(OSError, match=os.strerror(error)) as caught:
        fetch(tmp_path, url=server.url, files=FILES)
    assert (caught.value.errno, caught.value.filename) == (error, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
