"""Every call that writes may fail: the run ends with a sentence, and goes on to the same bytes."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpkit.checkpoint import load_weights, save_weights
from mlpkit.cli import describe
from tests.conftest import Torture
from tests.small_runs import final, train, write_data

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


class Faults:
    """Fails the n-th of the calls that change files, once, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.count, self.at, self.error = str(folder), 0, 0, 0
        for name in ("replace", "fsync", "mkdir", "unlink"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))
        monkeypatch.setattr(os, "open", self.failing(os.open))
        monkeypatch.setattr(io, "open", self.opening(io.open))

    def arm(self, at: int, error: int) -> None:
        """Fail the call of that number, from 1; 0 for none."""
        self.count, self.at, self.error = 0, at, error

    def step(self, path: Any = None) -> None:
        """Count a call."""
        self.count += 1
        if self.count == self.at:
            named = () if path is None else (str(path),)
            raise OSError(self.error, os.strerror(self.error), *named)

    def failing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **settings: Any) -> Any:
            if isinstance(first, int) or str(first).startswith(self.folder):
                self.step(None if isinstance(first, int) else first)
            return function(first, *rest, **settings)

        return call

    def opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *rest: Any, **settings: Any) -> Any:
            writes = (str(path).startswith(self.folder) and not set(mode) & {"r"}) or "+" in mode
            if not writes:
                return function(path, mode, *rest, **settings)
            self.step(path)
            file = function(path, mode, *rest, **settings)
            return Writing(file, self) if "b" in mode else file

        return call


class Writing:
    """A file whose writes may fail, once half is written."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self.file, self.faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: Any) -> int:
        try:
            self.faults.step()
        except OSError:
            self.file.write(memoryview(content)[: len(content) // 2])
            raise
        return int(self.file.write(content))


@pytest.mark.parametrize("error", ERRORS)
def test_weights_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    old, new = ({"w": np.full(5, value), "v": np.full(3, value)} for value in (1.0, 2.0))
    folder = tmp_path / "weights"
    folder.mkdir()
    path, before = folder / "w.safetensors", folder / "before.safetensors"
    faults = Faults(monkeypatch, folder)
    save_weights(path, old)
    whole = path.read_bytes()
    for at in range(1, 99):
        faults.arm(at, error)
        failed = None
        try:
            save_weights(path, new, previous=before)
        except OSError as raised:
            failed = raised
        if failed is None:
            break
        assert failed.errno == error
        assert failed.filename in (str(path), str(folder))
        faults.arm(0, error)
        last = path if path.exists() else before
        assert last.read_bytes() == whole or load_weights(path)["w"].tolist() == [2.0] * 5
        assert {p.name for p in folder.iterdir()} <= {path.name, before.name}
        save_weights(path, old)
    assert at > 7  # open, the header, two tensors, two to sync, two moves, ...


def test_a_run_with_a_fault_at_any_call(
    tmp_path: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpkit.recording.plot_runs", lambda folders, out: None)
    (tmp_path / "data").mkdir()
    data, runs = write_data(tmp_path / "data"), tmp_path / "runs"
    faults = Faults(monkeypatch, runs)
    faults.arm(0, 0)
    train(data, runs / "whole", epochs=2)
    calls, whole = faults.count, final(runs / "whole")
    names = {path.name for path in (runs / "whole").iterdir()}
    step = max(1, calls // torture.times(8, calls))
    tried = 0
    for error in ERRORS:
        for at in range(1 + tried % step, calls + 1, step):
            out = runs / f"{error}-{at}"
            faults.arm(at, error)
            try:
                train(data, out, epochs=2)
                failed = False
            except (OSError, ValueError) as raised:
                failed = True
                said = describe(raised)
                assert "\n" not in said
                assert str(out) in said or "disk is full" in said
            faults.arm(0, 0)
            tried += 1
            if failed:
                train(data, out, epochs=2)
            assert final(out) == whole, (error, at)
            assert {path.name for path in out.iterdir()} == names, (error, at)
    torture.figure(
        f"write faults: {tried} of ENOSPC, EIO and EACCES over the {calls} file operations of a "
        f"run: a sentence each, and the same bytes after going on"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    data, out = write_data(tmp_path), tmp_path / "run"
    out.mkdir(mode=0o500)
    with pytest.raises(ValueError, match="can't be written to; name another folder"):
        train(data, out)
    assert list(out.iterdir()) == []
