"""A run whose files are damaged or gone: what it goes on with, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from mlpkit.checkpoint import CheckpointError
from mlpkit.history_file import read_history
from mlpkit.plotting import plot_runs
from mlpkit.recipes import Recipe
from mlpkit.run_files import RunError, free_path, make_free_folder
from mlpkit.runs import Run, Settings, train_run
from mlpkit.scoring import load_run
from mlpkit.signals import Paused
from tests.small_runs import Watch, final, train, write_data

PER_EPOCH = 57


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    """A run with two checkpoints, stopped within its third epoch."""
    out = tmp_path / "stopped"
    with pytest.raises(Paused):
        train(data, out, Watch(lambda done: done == 2 * PER_EPOCH + 32))
    return out


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def damage(path: Path) -> None:
    """Change the first byte."""
    path.write_bytes(b"x" + path.read_bytes()[1:])


@pytest.mark.parametrize("lose", [Path.unlink, damage])
def test_a_lost_history_is_begun_anew(
    data: Path, tmp_path: Path, stopped: Path, lose: Callable[[Path], None]
) -> None:
    train(data, tmp_path / "whole")
    path, said = stopped / "history.csv", []  # type: ignore[var-annotated]
    lose(path)
    left = path.read_bytes() if path.exists() else None
    train(data, stopped, say=said.append)
    assert [line.rpartition(" when ")[2] for line in said[:2]] == [
        "last.safetensors was written",
        "last.1.safetensors was written",
    ]
    assert said[2] == "history.csv is begun anew, without the losses so far"
    assert said[3] == (
        f"Resuming {stopped} after iteration {2 * PER_EPOCH + 32} (last.safetensors)"
    )
    kept = stopped / "history.damaged.csv"
    assert (kept.read_bytes() if kept.exists() else None) == left
    # The weights, the scores of every epoch and the losses from there on are those of a whole run.
    assert final(stopped)["best.safetensors"] == final(tmp_path / "whole")["best.safetensors"]
    gap = 2 * PER_EPOCH + 32
    wanted = rows_of(tmp_path / "whole")
    for row in wanted[:gap]:
        row["loss"] = ""
    assert rows_of(stopped) == wanted
    assert len(read_history(stopped)) == 3 * PER_EPOCH
    plot_runs([stopped], tmp_path / "curves.png")


def test_histories_damaged_twice_are_both_kept(data: Path, stopped: Path) -> None:
    left = []
    for _ in range(2):
        damage(stopped / "history.csv")
        left.append((stopped / "history.csv").read_bytes())
        with pytest.raises(Paused):
            train(data, stopped, Watch(lambda done: True))
    kept = [stopped / "history.damaged.csv", stopped / "history.damaged-2.csv"]
    assert [path.read_bytes() for path in kept] == left


def test_a_history_begun_anew_is_the_next_starts(data: Path, stopped: Path) -> None:
    (stopped / "history.csv").unlink()
    with pytest.raises(Paused):
        train(data, stopped, Watch(lambda done: True))
    said: list[str] = []
    train(data, stopped, say=said.append)
    assert [line.split()[0] for line in said] == ["Resuming"]
    assert not (stopped / "history.damaged.csv").exists()


def test_a_run_whose_checkpoints_are_gone_is_left_alone(data: Path, stopped: Path) -> None:
    for name in ("last.safetensors", "last.1.safetensors"):
        (stopped / name).unlink()
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(RunError, match=r"without its last\.safetensors: `mlpkit eval .*--out"):
        train(data, stopped)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_the_first_epoch_has_a_checkpoint_however_rare_they_are(data: Path, tmp_path: Path) -> None:
    from mlpkit.recording import Every

    class Killed(BaseException):
        """As SIGKILL: nothing is saved."""

    def kill(number: int) -> bool:
        raise Killed

    with pytest.raises(Killed):
        train(data, tmp_path / "run", Watch(stop_epoch=kill), every=Every(seconds=3600))
    assert (tmp_path / "run" / "best.safetensors").is_file()
    train(data, tmp_path / "run")
    train(data, tmp_path / "whole")
    assert final(tmp_path / "run") == final(tmp_path / "whole")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to("nowhere"), "a device, a pipe or a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "a device, a pipe or a link that leads nowhere"),
        (lambda path: path.symlink_to("/dev/null"), "a device, a pipe or a link that leads nowher"),
    ],
)
@pytest.mark.parametrize("name", ["last.safetensors", "curves.png"])
def test_what_is_in_a_files_place_is_said_before_training(
    data: Path, stopped: Path, name: str, make: Callable[[Path], None], what: str
) -> None:
    (stopped / name).unlink(missing_ok=True)
    make(stopped / name)
    with pytest.raises(RunError, match=rf"{name} is {what}.*: remove it"):
        train(data, stopped)


def test_without_its_configuration_a_run_says_what_writes_it(data: Path, stopped: Path) -> None:
    (stopped / "config.json").unlink()
    with pytest.raises(RunError, match=rf"is gone: `mlpkit train --resume {stopped}` writes it"):
        load_run(stopped)


def test_fewer_epochs_than_are_trained(data: Path, stopped: Path) -> None:
    with pytest.raises(RunError, match=r"has trained 2 epochs, .* 1: epochs can only be raised"):
        train(data, stopped, epochs=1)


def test_a_folder_that_another_process_made_meanwhile(data: Path, tmp_path: Path) -> None:
    """While the data is read, the same run is begun by another, or has ended."""
    out = tmp_path / "run"

    def train_after(first: Callable[[], object], **settings: Any) -> Run:
        def find() -> Path:
            first()
            return data

        recipe = Recipe("2", "adam", 0.01, 1, 3, lr_decay=0.5, lr_decay_every=1)
        chosen = Settings("noise", recipe, backend="numpy")
        return train_run(chosen, find, out, lambda run: nullcontext(Watch()), **settings)

    with claiming(out) as claim, pytest.raises(RunError, match="being written by another process"):
        train_after(claim, resume=True)
    assert list(out.iterdir()) == []
    out.rmdir()
    with pytest.raises(RunError, match="holds a run already"):
        train_after(lambda: train(data, out))
    whole = final(out)
    train_after(lambda: None, resume=True)
    shutil.rmtree(out)
    train_after(lambda: train(data, out), resume=True)
    assert final(out) == whole


@contextmanager
def claiming(folder: Path) -> Iterator[Callable[[], None]]:
    """What makes the folder and holds its lock, as another process does, until the block ends."""
    fcntl = pytest.importorskip("fcntl")
    handles: list[int] = []

    def claim() -> None:
        folder.mkdir()
        handles.append(os.open(folder, os.O_RDONLY))
        fcntl.flock(handles[0], fcntl.LOCK_EX)

    yield claim
    os.close(handles[0])


def test_a_folder_of_no_name_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the folder between the look and the making."""
    looks: list[Path] = []

    def look(path: Path) -> Path:
        looks.append(free_path(path))
        if len(looks) == 1:
            looks[0].mkdir(parents=True)
        return looks[-1]

    monkeypatch.setattr("mlpkit.run_files.free_path", look)
    made = make_free_folder(tmp_path / "runs", "adam")
    assert [path.name for path in looks] == ["adam", "adam-2"]
    assert made == looks[1]
    assert made.is_dir()


def test_damaged_best_weights_say_what_writes_them_again(data: Path, stopped: Path) -> None:
    damage(stopped / "best.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_run(stopped)
    assert error.value.__notes__ == [
        f"`mlpkit train --resume {stopped}` writes it again from the last checkpoint"
    ]
    train(data, stopped)
    load_run(stopped)


def test_a_schedulers_log_may_lie_in_the_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "slurm-1.out").write_text("started\n")
    with pytest.raises(RunError, match="holds other files: name another folder"):
        train(data, out, resume=False)
    train(data, out)
    assert json.loads((out / "summary.json").read_text())["epochs"] == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "history.csv").write_text("mine")
    with pytest.raises(RunError, match="holds other files: name another folder"):
        train(data, tmp_path / "other")
