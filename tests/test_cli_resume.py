"""`mlpkit train --resume`, and what ends a training early, as the user meets it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from mlpkit import synthetic
from tests.commands import HERE, SMALL, TEST, TRAIN, VAL, Mlpkit, environment, history


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGTERM, 143, "SIGTERM"),
        (getattr(signal, "SIGHUP", None), 129, "SIGHUP"),
    ],
)
def test_a_signal_keeps_the_record(
    digits: str, tmp_path: Path, number: int, status: int, word: str
) -> None:
    arguments = ["train", "--data", digits, "--net", "4", "--epochs", "1000000", "--out", "run"]
    process = subprocess.Popen(
        [*HERE, *arguments, "--batch-size", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().startswith("3 / 1000000"):
            break
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()  # where it went on: it would train for days
    assert process.returncode == status
    assert err == f"mlpkit: stopped by {word}; go on: mlpkit train --resume run\n"
    rows = history(tmp_path / "run")
    assert [int(row["iteration"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 3 * ((TRAIN - VAL) // 10)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    weights = {"best.safetensors", "last.safetensors", "last.1.safetensors"}
    assert names == {"config.json", "history.csv", "curves.png"} | weights


def test_a_run_resumed_at_its_end_and_longer(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    command = ["train", "--data", digits, *SMALL, "--out", "run", "--resume"]
    for name in ("run", "whole"):
        whole = ["train", "--data", digits, *SMALL, "--epochs", "4", "--out", "whole"]
        assert mlpkit(*(command if name == "run" else whole))[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for again in (command, ["train", "--resume", "run"]):
        status, out, err = mlpkit(*again)
        assert (status, err) == (0, "")
        assert out.startswith("run is finished; --epochs trains it longer. Best epoch ")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    status, out, err = mlpkit("train", "--resume", "run", "--epochs", "4")
    assert (status, err) == (0, "")
    assert out.startswith("Resuming run after iteration 10 (last.safetensors)\n")
    for name in ("best.safetensors", "last.safetensors", "history.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


RESUMED = {
    "--resume run --lr 0.5": "run was started with --lr 0.0005; got 0.5: leave --lr out",
    "--resume run --net 3": "run was started with --net 2; got 3: leave --net out",
    "--resume run --recipe sgd": "run was started with --recipe adam; got sgd",
    "--resume run --epochs 1": "run has --epochs 2, which can only be raised; got 1",
    "--resume run --min-delta 0.1": "min_delta 0.1 counts for patience alone: give that, too",
    "--resume run --epochs 3 --data other": "other holds other data than run was trained with",
    "--resume nowhere": "there is no run in nowhere to resume: a new one is started with --out",
    "--resume": "--resume takes a run's folder: --resume RUN, or --out RUN --resume",
    "--resume run --out other": "--resume run and --out other name two runs: leave one out",
    "run": "run is not for a new run: resume it with --resume, or name --out",
    "--out run": "run holds a run already: name another folder with --out, or resume that one",
    "--resume run/last.safetensors": "run/last.safetensors is a file: --resume takes the run's fol",
    "--out new --checkpoint-every often": "--checkpoint-every takes iterations, as in 500, a time",
    "--out new --checkpoint-every 0": "10m or 2h, both above 0, or epoch; got '0'",
    "--out new --checkpoint-every -3s": "10m or 2h, both above 0, or epoch; got '-3s'",
    "--out new --checkpoint-every=": "10m or 2h, both above 0, or epoch; got ''",
    "--out new --patience 0": "patience must be a whole number, at least 1; got 0",
    "--out new --min-delta -1": "min_delta must be at least 0 and finite; got -1.0",
}


def test_what_cannot_be_resumed(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    assert mlpkit("train", "--data", digits, *SMALL, "--out", "run")[0] == 0
    (tmp_path / "other").mkdir()
    synthetic.make(tmp_path / "other", TRAIN, TEST, seed=1, workers=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for options, said in RESUMED.items():
        status, out, err = mlpkit("train", *options.split())
        assert (status, out) == (2, ""), options
        assert err.startswith(f"mlpkit: {said}") or said in err, options
        assert err.count("\n") == 1
        assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_patience_ends_a_run(mlpkit: Mlpkit, digits: str, tmp_path: Path) -> None:
    options = [*SMALL, "--epochs", "9", "--lr", "1e-30", "--patience", "2"]
    status, out, err = mlpkit("train", "--data", digits, *options, "--out", "run")
    assert (status, err) == (0, "")
    said = "Ended after 3 epochs, as 2 epochs have not raised the validation accuracy. Best epoch 1"
    assert said in out
    assert len(history(tmp_path / "run")) == 3 * ((TRAIN - VAL) // 10)
    longer = f"run is finished; a higher --patience trains it longer. {said}"
    for more in ([], ["--epochs", "20"], ["--patience", "2"]):
        assert mlpkit("train", "--resume", "run", *more)[1].startswith(longer)
    assert mlpkit("eval", "run")[0] == 0
    out = mlpkit("train", "--resume", "run", "--patience", "4")[1]
    assert "Ended after 5 epochs, as 4 epochs have not raised" in out


def test_the_threads_asked_for_are_kept(digits: str, tmp_path: Path) -> None:
    def train(*options: str) -> tuple[str, dict[str, object]]:
        free = {k: v for k, v in environment().items() if k != "MLPKIT_THREADS"}
        done = subprocess.run(
            [*HERE, "train", *options], cwd=tmp_path, env=free, stdout=subprocess.PIPE, text=True
        )
        assert done.returncode == 0
        return done.stdout, json.loads((tmp_path / "run" / "config.json").read_text())

    _, config = train("--data", digits, *SMALL, "--threads", "1", "--out", "run")
    assert (config["threads"], config["threads_asked"]) == (1, 1)
    out, after = train("--resume", "run", "--epochs", "3")
    assert "bits may differ" not in out
    assert after == config | {"epochs": 3}


@pytest.mark.parametrize("name", ["best.safetensors", "summary.json", "config.json"])
@pytest.mark.parametrize("gone", [True, False])
def test_what_a_finished_run_lost_is_written_again(
    mlpkit: Mlpkit, digits: str, tmp_path: Path, name: str, gone: bool
) -> None:
    mlpkit("train", "--data", digits, *SMALL, "--out", "run")
    path = tmp_path / "run" / name
    before = path.read_bytes()
    if gone:
        path.unlink()
    else:
        path.write_bytes(before[:-3])
    if name == "best.safetensors":
        status, _, err = mlpkit("eval", "run")
        assert status == 2
        assert "`mlpkit train --resume run`" in err
        assert err.count("\n") == 1
    status, out, err = mlpkit("train", "--resume", "run")
    assert (status, err) == (0, "")
    if not (gone and name == "summary.json"):
        assert out.startswith(f"run/{name} " if name == "config.json" else ("run/", "there are no"))
        assert name in out.splitlines()[0]
    assert "Resuming run after iteration 10 (last.safetensors)\n" in out
    if name == "best.safetensors":
        assert path.read_bytes() == before
    elif name == "config.json":
        config = json.loads(before)
        threads = config["threads"]  # asked for now, and so BLAS's too
        libraries = dict.fromkeys(config["library_threads"], threads)
        assert json.loads(path.read_text()) == config | {
            "threads_asked": threads,
            "library_threads": libraries,
        }
    else:
        old, new = json.loads(before), json.loads(path.read_text())
        for key in ("val_accuracy", "test_accuracy", "best_epoch", "epochs", "iterations"):
            assert old[key] == new[key]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("lr", float("nan"), "lr must be positive and finite; got nan"),
        ("patience", -4, "patience must be a whole number, at least 1; got -4"),
        ("checkpoint_every", "zz", "--checkpoint-every takes iterations"),
        ("net", "nobody", "nobody"),
    ],
)
def test_a_setting_of_the_configuration_is_said_to_be_its(
    mlpkit: Mlpkit, digits: str, tmp_path: Path, setting: str, value: object, said: str
) -> None:
    mlpkit("train", "--data", digits, *SMALL, "--out", "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: value}))
    status, _, err = mlpkit("train", "--resume", "run", "--epochs", "3")
    assert status == 2
    assert said in err
    assert err.endswith("; settings that no option gave are from run/config.json\n")


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_ctrl_c_while_libraries_are_imported(digits: str, tmp_path: Path) -> None:
    """Wherever it comes, also where what a handler raises is dropped or comes out as another."""
    train = [sys.executable, "-c", INTERRUPTED, "train", "--data", digits, *SMALL, "--out"]
    for fate, module in product(("raised", "dropped", "another"), ("typer", "mlpkit.runs")):
        done = subprocess.run(
            [*train, f"{fate}-{module}"],
            cwd=tmp_path,
            env=environment(AT=module, FATE=fate),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 130, (fate, module)
        assert done.stderr.startswith("mlpkit: stopped by Ctrl-C"), (fate, module)
        assert done.stderr.count("\n") == 1


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("AT"):
            del os.environ["AT"]
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                if os.environ["FATE"] == "raised":
                    raise
                if os.environ["FATE"] == "another":
                    raise RuntimeError
sys.meta_path.insert(0, Finder())
from mlpkit.cli import main
main()
"""


def test_a_signal_while_the_last_curves_are_drawn_is_heard(
    mlpkit: Mlpkit, digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folders: object, out: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("mlpkit.recording.plot_runs", draw)
        status, _, err = mlpkit("train", "--data", digits, *SMALL, "--out", "run")
    assert status == 130
    assert err == "mlpkit: stopped by Ctrl-C; go on: mlpkit train --resume run\n"
    assert not (tmp_path / "run" / "summary.json").exists()
    assert mlpkit("train", "--resume", "run")[0] == 0
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_full_disk_says_how_to_go_on(
    mlpkit: Mlpkit, digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folders: object, out: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    monkeypatch.setattr("mlpkit.recording.plot_runs", full)
    status, _, err = mlpkit("train", "--data", digits, *SMALL, "--out", "run")
    assert (status, err) == (
        2,
        "mlpkit: the disk is full for run/curves.png: make room, or write elsewhere (--out); "
        "go on: mlpkit train --resume run\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_sigterm_ends_any_command_with_a_word(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*HERE, "data", "make", "--out", "new", "--train-size", "400000"],  # it would take long
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    while not (tmp_path / "new").exists():
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, "mlpkit: stopped by SIGTERM\n")
