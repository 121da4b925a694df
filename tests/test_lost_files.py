"""A run whose files are damaged or gone: what it goes on with, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpkit.checkpoint import CheckpointError
from mlpkit.plotting import plot_runs
from mlpkit.run_files import RunError, read_history
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
        f"Going on with {stopped} after iteration {2 * PER_EPOCH + 32} (last.safetensors)"
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


def test_a_history_begun_anew_is_the_next_starts(data: Path, stopped: Path) -> None:
    (stopped / "history.csv").unlink()
    with pytest.raises(Paused):
        train(data, stopped, Watch(lambda done: True))
    said: list[str] = []
    train(data, stopped, say=said.append)
    assert [line.split(" with ")[0] for line in said] == ["Going on"]
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
