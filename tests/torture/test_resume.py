"""A run that is stopped anywhere and resumed leaves the bytes of one that never was."""

from __future__ import annotations

import json
import os
import re
import shutil
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from mlpkit.checkpoint import load_weights
from mlpkit.recording import Every
from mlpkit.resume import is_run, read_run_config
from mlpkit.run_files import RunError
from mlpkit.signals import Paused
from mlpkit_backends import BackendUnavailable, load
from tests.conftest import Torture
from tests.small_runs import Watch, final, train, write_data

PER_EPOCH = 57


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are no part of this, and take longer than the training."""
    monkeypatch.setattr("mlpkit.recording.plot_runs", lambda folders, out: None)


# Where to stop: chunks are 1, 32 and 24 iterations of an epoch of 57 at first, then 32 and 25.
STOPS = {
    "after the first iteration": Watch(lambda done: done == 1),
    "within an epoch": Watch(lambda done: done == PER_EPOCH + 32),
    "before an epoch's scores": Watch(lambda done: done == 2 * PER_EPOCH),
    "at an epoch's end": Watch(stop_epoch=lambda number: number == 2),
    "at the end": Watch(stop_epoch=lambda number: number == 3),
}


@pytest.mark.parametrize("backend", ["numpy", "numba", "cupy"])
def test_stopped_and_resumed(data: Path, tmp_path: Path, torture: Torture, backend: str) -> None:
    try:
        load(backend)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    cases = [*product(("sgd", "sgdm", "rmsprop", "adam"), (0.0, 0.5))]
    starts = 0
    for optimizer, keep_prob in cases:
        settings: dict[str, Any] = {
            "backend": backend, "optimizer": optimizer, "keep_prob": keep_prob
        }  # fmt: skip
        folder = tmp_path / f"{optimizer}-{keep_prob}"
        train(data, folder / "whole", **settings)
        whole = final(folder / "whole")
        for place, watch in STOPS.items():
            with pytest.raises(Paused):
                train(data, folder / place, watch, **settings)
            train(data, folder / place, **settings)
            assert final(folder / place) == whole, (optimizer, keep_prob, place)
        starts += train_by_bits(data, folder / "often", torture.times(2, 1), settings)
        assert final(folder / "often") == whole, (optimizer, keep_prob)
    torture.figure(
        f"resume: {backend}: {len(cases)} optimizers with and without dropout, each stopped at "
        f"{len(STOPS)} places, and again and again, {starts} times in all: the same bytes"
    )


def train_by_bits(data: Path, out: Path, chunks: int, settings: dict[str, Any]) -> int:
    """Train a run that is stopped after every so many chunks; how often it was."""
    for starts in count():
        seen: list[int] = []

        def stop(done: int, seen: list[int] = seen) -> bool:
            seen.append(done)
            return len(seen) == chunks

        try:
            train(data, out, Watch(stop), **settings)
        except Paused:
            continue
        return starts
    raise AssertionError


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    """A run with two checkpoints, stopped within its second epoch."""
    out = tmp_path / "stopped"
    with pytest.raises(Paused):
        train(data, out, Watch(lambda done: done == PER_EPOCH + 32))
    assert (out / "last.1.safetensors").is_file()
    return out


def flip(path: Path) -> None:
    """Change a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    data: Path, tmp_path: Path, stopped: Path
) -> None:
    train(data, tmp_path / "whole")
    flip(stopped / "last.safetensors")
    said: list[str] = []
    train(data, stopped, say=said.append)
    assert "last.safetensors is damaged" in said[0]
    assert said[1] == f"Resuming {stopped} after iteration {PER_EPOCH} (last.1.safetensors)"
    assert final(stopped) == final(tmp_path / "whole")


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_configuration_is_read_from_the_checkpoint(
    data: Path, tmp_path: Path, stopped: Path, content: bytes | None
) -> None:
    path = stopped / "config.json"
    whole = json.loads(path.read_text())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert is_run(stopped)
    config = read_run_config(stopped)
    assert whole == config | {"checkpoint_every": "epoch", "threads_asked": None}
    train(data, stopped)
    assert json.loads(path.read_text()) == whole


def test_two_damaged_checkpoints_are_an_error(data: Path, stopped: Path) -> None:
    for name in ("last.safetensors", "last.1.safetensors"):
        flip(stopped / name)
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(
        RunError,
        match=r"can.t be resumed from last.*mlpkit eval",
    ):
        train(data, stopped)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_a_move_cut_in_two_leaves_the_checkpoint_before(
    data: Path, tmp_path: Path, stopped: Path
) -> None:
    train(data, tmp_path / "whole")
    (stopped / "last.safetensors").unlink()
    (stopped / ".last.safetensors.99.tmp").write_bytes(b"half")
    train(data, stopped)
    assert final(stopped) == final(tmp_path / "whole")
    assert not list(stopped.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "used"),
    [
        (lambda text: text + b"91,2,,0.1,,,,\r\n9", "last.safetensors"),
        (lambda text: text[:-1], "last.1.safetensors"),
        (lambda text: text[:-40] + b"9" + text[-39:], "last.1.safetensors"),
    ],
)
def test_a_history_that_is_longer_is_cut_and_a_changed_one_has_the_checkpoint_before_used(
    data: Path, tmp_path: Path, stopped: Path, damage: Any, used: str
) -> None:
    train(data, tmp_path / "whole")
    path, said = stopped / "history.csv", []  # type: ignore[var-annotated]
    path.write_bytes(damage(path.read_bytes()))
    train(data, stopped, say=said.append)
    assert said[-1].endswith(f"({used})")
    assert final(stopped) == final(tmp_path / "whole")


def test_a_folder_whose_run_was_killed_before_its_first_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "whole")
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / ".config.json.123.tmp").write_text("{")
    train(data, killed)
    assert final(killed) == final(tmp_path / "whole")
    shutil.rmtree(killed)
    killed.mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", killed)
    (killed / "history.csv").write_text("iteration,ep")
    said: list[str] = []
    train(data, killed, say=said.append)
    assert said == [f"{killed} has no checkpoint: starting from the beginning"]
    assert final(killed) == final(tmp_path / "whole")


@pytest.mark.parametrize("every", [Every(iterations=1), Every(iterations=70), Every(seconds=1e-9)])
def test_when_checkpoints_are_written_changes_nothing(
    data: Path, tmp_path: Path, every: Every
) -> None:
    train(data, tmp_path / "whole")
    train(data, tmp_path / "run", every=every)
    assert final(tmp_path / "run") == final(tmp_path / "whole")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["checkpoint_every"] == str(every)


def test_a_finished_run_trains_longer(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "whole", epochs=4)
    train(data, tmp_path / "run", epochs=2)
    train(data, tmp_path / "run", epochs=4)
    assert final(tmp_path / "run") == final(tmp_path / "whole")


def test_early_stopping_counts_on_over_a_stop(data: Path, tmp_path: Path) -> None:
    # A learning rate of nothing raises no accuracy after the first epoch.
    settings: dict[str, Any] = {"epochs": 9, "lr": 1e-30, "patience": 3}
    whole = train(data, tmp_path / "whole", **settings)
    assert (whole.summary["epochs"], whole.summary["best_epoch"]) == (4, 1)
    assert whole.summary["stopped"] == "3 epochs have not raised the validation accuracy"
    with pytest.raises(Paused):
        train(data, tmp_path / "run", Watch(stop_epoch=lambda number: number == 2), **settings)
    run = train(data, tmp_path / "run", **settings)
    assert run.summary["stopped"] == whole.summary["stopped"]
    assert final(tmp_path / "run") == final(tmp_path / "whole")


def test_patience_given_anew(data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 9, "lr": 1e-30}
    train(data, tmp_path / "whole", **settings, patience=5)
    short = train(data, tmp_path / "run", **settings, patience=2)
    assert short.summary["epochs"] == 3
    run = train(data, tmp_path / "run", **settings, patience=5)
    assert run.summary["epochs"] == 6
    assert final(tmp_path / "run") == final(tmp_path / "whole")
    again = train(data, tmp_path / "run", **settings, patience=1)  # it has waited for longer
    assert (again.summary["epochs"], again.history.epochs) == (6, run.history.epochs)


@pytest.mark.skipif(os.cpu_count() == 1, reason="BLAS has no second thread here")
def test_other_threads_of_a_library_are_said(data: Path, tmp_path: Path) -> None:
    """As where OMP_NUM_THREADS is set when a run is resumed."""
    said: list[str] = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            train(data, tmp_path, backend="numpy", epochs=threads, say=said.append)
    expected = r"bits may differ from here on: library_threads {'\w+': 1} before, now {'\w+': 2}$"
    assert any(re.search(expected, line) for line in said)


def test_another_backend_is_said(data: Path, tmp_path: Path, stopped: Path) -> None:
    try:
        load("numba")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    said: list[str] = []
    train(data, stopped, backend="numba", say=said.append)
    assert said[0].startswith("The bits may differ from here on: backend numpy before, now numba")
    best = load_weights(stopped / "best.safetensors", checked=True)
    assert {name: a.shape for name, a in best.items()} == {
        "fc1_w": (3072, 2), "fc1_b": (2,), "fc2_w": (2, 10), "fc2_b": (10,),
        "mean_image": (32, 32, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.5}, r"trained with lr 0.01, and an option or its config.json says 0.5"),
        ({"seed": 4}, r"trained with seed 123, and an option .* says 4"),
        ({"net": "3"}, r"trained with net 2, and an option .* says 3"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    data: Path, stopped: Path, changes: dict[str, Any], said: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(RunError, match=said):
        train(data, stopped, **changes)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_other_data_is_refused(data: Path, tmp_path: Path, stopped: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    content = bytearray((other / "test_32x32.mat").read_bytes())
    content[5] ^= 1  # in the header's free text
    (other / "test_32x32.mat").write_bytes(content)
    with pytest.raises(RunError, match=r"other data than .* was trained with: name that data's"):
        train(other, stopped)


def test_a_folder_that_another_process_writes(data: Path, stopped: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(stopped, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="is being written by another process"):
            train(data, stopped)
    finally:
        os.close(handle)
    train(data, stopped)
