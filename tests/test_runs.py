"""Run folders: what a run writes, that it can be scored again, and what is said of damaged ones."""

import csv
import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.io import loadmat, savemat

from mlpkit import cli
from mlpkit.checkpoint import save_weights
from mlpkit.datasets import DataError
from mlpkit.history import TrainingDiverged
from mlpkit.recipes import RECIPES, Recipe, build_network
from mlpkit.run_files import RunError
from mlpkit.runs import Run, Settings, train_run
from mlpkit.scoring import evaluate_run
from mlpkit.signals import Paused

TRAIN, VAL, TEST = 191, 9, 60  # 4.45 % of 200 is 8.9
BATCH, EPOCHS, LR, DECAY = 20, 5, 0.1, 0.5
PER_EPOCH = TRAIN // BATCH
COLUMNS = ["iteration", "epoch", "lr", "loss", "train_loss", "train_acc", "val_loss", "val_acc"]
FILES = ("train_32x32.mat", "test_32x32.mat")


class Silent:
    """Watches without a word; pauses the run, as Ctrl-C does, once `stop` iterations are done."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def iterations(self, done: int, total: int, losses: Any) -> None:
        if self.stop is not None and done >= self.stop:
            raise Paused(signal.SIGINT)

    def epoch(self, number: int, epochs: int, history: Any) -> None:
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, the brighter the higher its label."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, n in zip(FILES, (TRAIN + VAL, TEST), strict=True):
        y = rng.integers(1, 11, n)
        x = rng.integers(0, 128, (32, 32, 3, n)) + 12 * y
        savemat(folder / name, {"X": x.astype(np.uint8), "y": y.reshape(-1, 1)})
    return folder


def train(data: Path, out: Path | None, stop: int | None = None, **changes: Any) -> Run:
    """Train 3072-8-10 by SGD on the noise, with those settings changed."""
    recipe = {
        "net": "8",
        "optimizer": "sgd",
        "lr": LR,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "lr_decay": DECAY,
        "lr_decay_every": 2,
    }
    recipe |= {key: changes.pop(key) for key in [*changes] if key in Recipe.__annotations__}
    settings = Settings("noise", Recipe(**recipe), backend="numpy", **changes)
    return train_run(settings, lambda: data, out, lambda run: nullcontext(Silent(stop)))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    train(data, folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def rows(folder: Path) -> list[dict[str, str]]:
    """history.csv as it stands."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run."""
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def split(data: Path, file: str, part: slice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) in [0, 1] and digits, read by scipy alone."""
    content = loadmat(data / file)
    x = np.transpose(content["X"], (3, 0, 1, 2)) / 255
    return x[part], content["y"].ravel()[part].astype(np.int64) % 10


def score(weights: dict[str, Any], x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """(loss, accuracy) of 3072-8-10 in plain NumPy: leaky ReLU with slope 0.01 between."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    hidden = (x - w["mean_image"]).reshape(len(x), -1) @ w["fc1_w"] + w["fc1_b"]
    scores = np.where(hidden >= 0, hidden, 0.01 * hidden) @ w["fc2_w"] + w["fc2_b"]
    log_sums = np.log(np.exp(scores).sum(axis=1))
    loss = (log_sums - scores[np.arange(len(y)), y]).mean()
    return float(loss), float((scores.argmax(axis=1) == y).mean())


def test_what_a_run_leaves(run: Path) -> None:
    weights = {"best.safetensors", "last.safetensors", "last.1.safetensors"}
    names = {"config.json", "history.csv", "summary.json", "curves.png"}
    assert {path.name for path in run.iterdir()} == names | weights
    # The checkpoints are of the last epoch and the one before it.
    for name, epochs in (("last.safetensors", EPOCHS), ("last.1.safetensors", EPOCHS - 1)):
        checkpoint = load_file(run / name)
        assert checkpoint["epochs"][:, 0].tolist() == [PER_EPOCH * e for e in range(1, epochs + 1)]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_is_complete(run: Path, data: Path) -> None:
    config = read(run, "config.json")
    expected = {
        "name": "noise",
        "net": "8",
        "optimizer": "sgd",
        "lr": LR,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "lr_decay": DECAY,
        "lr_decay_every": 2,
        "train_size": TRAIN,
        "val_size": VAL,
        "test_size": TEST,
        "keep_prob": 0.0,
        "optimizer_settings": {"lr": LR},
        "parameters": {"fc1_w": [3072, 8], "fc1_b": [8], "fc2_w": [8, 10], "fc2_b": [10]},
        "recipe": None,
        "patience": None,
        "min_delta": 0.0,
        "checkpoint_every": "epoch",
        "threads_asked": None,
        "seed": 123,
        "dtype": "float32",
        "backend": "numpy",
        "data": str(data),
        "data_sha256": {
            name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in FILES
        },
    }
    assert {key: config[key] for key in expected} == expected
    assert config.keys() - expected.keys() == {"device", "threads", "library_threads", "versions"}
    assert config["device"]
    assert config["versions"]["numpy"] == np.__version__
    assert {"python", "mlpkit", "scipy"} <= config["versions"].keys()


def test_the_history_has_every_iteration_and_every_epoch(run: Path) -> None:
    table = rows(run)
    assert list(table[0]) == COLUMNS
    assert [int(row["iteration"]) for row in table] == list(range(1, EPOCHS * PER_EPOCH + 1))
    assert [int(row["epoch"]) for row in table] == [
        epoch for epoch in range(1, EPOCHS + 1) for _ in range(PER_EPOCH)
    ]
    losses = [float(row["loss"]) for row in table]
    assert np.isfinite(losses).all()
    assert abs(losses[0] - np.log(10)) < 1.5  # ten classes, before anything is learnt
    ends = table[PER_EPOCH - 1 :: PER_EPOCH]
    assert [row for row in table if row["lr"]] == ends
    # Halved after every second epoch.
    assert [float(row["lr"]) for row in ends] == [LR, LR, LR / 2, LR / 2, LR / 4]
    for row in ends:
        for column, n in (("train_acc", TRAIN), ("val_acc", VAL)):
            hits = float(row[column]) * n
            assert 0 <= hits <= n
            assert hits == pytest.approx(round(hits))
        assert all(float(row[column]) > 0 for column in ("train_loss", "val_loss"))
    for row in table:
        if row not in ends:
            assert [row[column] for column in COLUMNS if not row[column]] == [""] * 5


def test_the_summary(run: Path, data: Path) -> None:
    summary = read(run, "summary.json")
    accuracies = [float(row["val_acc"]) for row in rows(run) if row["val_acc"]]
    assert summary["val_accuracy"] == max(accuracies)
    assert summary["best_epoch"] == accuracies.index(max(accuracies)) + 1
    assert (summary["epochs"], summary["iterations"]) == (EPOCHS, EPOCHS * PER_EPOCH)
    assert summary["backend"] == "numpy"
    assert summary["device"] == read(run, "config.json")["device"]
    assert summary["seconds"] * summary["iterations_per_second"] >= EPOCHS * PER_EPOCH
    assert 2**24 < summary["peak_rss_bytes"] < 2**36


def test_the_best_weights_give_the_scores_in_plain_numpy(run: Path, data: Path) -> None:
    summary, weights = read(run, "summary.json"), load_file(run / "best.safetensors")
    best = [row for row in rows(run) if row["lr"]][summary["best_epoch"] - 1]
    x, y = split(data, FILES[0], slice(TRAIN))
    np.testing.assert_allclose(weights["mean_image"], x.mean(axis=0), rtol=1e-12)
    loss, accuracy = score(weights, x, y)
    assert accuracy == pytest.approx(float(best["train_acc"]))
    assert loss == pytest.approx(float(best["train_loss"]), rel=1e-4)
    loss, accuracy = score(weights, *split(data, FILES[0], slice(TRAIN, None)))
    assert accuracy == pytest.approx(summary["val_accuracy"])
    assert loss == pytest.approx(float(best["val_loss"]), rel=1e-4)
    loss, accuracy = score(weights, *split(data, FILES[1], slice(None)))
    assert accuracy == pytest.approx(summary["test_accuracy"])
    assert loss == pytest.approx(summary["test_loss"], rel=1e-4)


def test_a_run_scored_again_is_as_good(run: Path) -> None:
    summary = read(run, "summary.json")
    _, scores, same = evaluate_run(run, None, "numpy")
    assert same
    assert list(scores) == ["val", "test"]
    assert scores["val"][1] == summary["val_accuracy"]
    assert scores["test"] == (summary["test_loss"], summary["test_accuracy"])


def test_other_data_is_centred_on_the_runs_own_mean(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(1, 11, (40, 1))
    x = (rng.integers(0, 99, (32, 32, 3, 40)) + 15 * y.ravel()).astype(np.uint8)
    for name in FILES:
        savemat(tmp_path / name, {"X": x, "y": y})
    weights = load_file(run / "best.safetensors")
    expected = {
        "val": score(weights, *split(tmp_path, FILES[0], slice(38, None))),  # 4.45 % of 40 is 1.8
        "test": score(weights, *split(tmp_path, FILES[1], slice(None))),
    }
    _, scores, same = evaluate_run(run, tmp_path, "numpy")
    assert not same
    for part, found in scores.items():
        assert found == pytest.approx(expected[part], rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"keep_prob": 0.5}, {"dtype": "float64"}])
def test_a_seed_decides_every_byte(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        train(data, tmp_path / name, seed=seed, epochs=2, **changes)
    for file in ("history.csv", "best.safetensors"):
        one, two, other = ((tmp_path / n / file).read_bytes() for n in ("one", "two", "other"))
        assert one == two
        assert one != other


def test_sizes_asked_for(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "a", train_size=50, val_size=30, epochs=1)
    config = read(tmp_path / "a", "config.json")
    assert (config["train_size"], config["val_size"]) == (50, 30)
    assert len(rows(tmp_path / "a")) == 50 // BATCH
    assert evaluate_run(tmp_path / "a", None, "numpy")[1]["val"][1] == pytest.approx(
        read(tmp_path / "a", "summary.json")["val_accuracy"]
    )
    # A recipe's own size is at most so many; one that is asked for must be there.
    for size, used in ((40, 40), (5000, TRAIN)):
        settings = Settings("a", Recipe("8", "sgd", LR, BATCH, 1, train_size=size))
        assert len(settings.load(data).train) == used
    with pytest.raises(DataError, match="holds 191 images; got a train size of 192"):
        Settings("a", RECIPES["adam"], train_size=192).load(data)


def test_a_folder_of_ones_own_and_the_next_free_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "noise-3").mkdir(parents=True)
    folders = [str(train(data, None, epochs=1).folder) for _ in range(3)]
    assert folders == ["runs/noise", "runs/noise-2", "runs/noise-4"]
    (tmp_path / "empty").mkdir()
    assert train(data, Path("empty"), epochs=1).summary["epochs"] == 1


def test_a_run_that_diverges_keeps_its_record(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingDiverged) as caught:
        train(data, folder, lr=1e25, lr_decay=1.0)
    table = rows(folder)
    assert f"at iteration {len(table) + 1}:" in str(caught.value)
    assert len(table) >= 1
    assert np.isfinite([float(row["loss"]) for row in table]).all()
    assert (folder / "curves.png").is_file()
    assert not (folder / "summary.json").exists()


# The first chunk is one iteration, the others an epoch's rest, seen before the epoch has scores.
@pytest.mark.parametrize(("stop", "kept"), [(1, 1), (2, PER_EPOCH), (PER_EPOCH + 1, 2 * PER_EPOCH)])
def test_a_run_that_is_stopped_keeps_every_iteration(
    data: Path, tmp_path: Path, run: Path, stop: int, kept: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Paused):
        train(data, folder, stop)
    whole, stopped = rows(run)[:kept], rows(folder)
    assert [row["loss"] for row in stopped] == [row["loss"] for row in whole]
    # The epoch that was stopped has no scores yet.
    assert stopped[:-1] == whole[:-1]
    assert [row["lr"] for row in stopped[-1:]] == [""]
    assert (folder / "curves.png").is_file()
    assert (folder / "best.safetensors").is_file() == (kept > PER_EPOCH)
    assert not (folder / "summary.json").exists()


def nowhere() -> Path:
    raise AssertionError("the data is asked for before the settings are checked")


def under_a_file(folder: Path) -> Path:
    (folder / "file").write_text("kept")
    return folder / "file" / "below" / "run"


def a_file(folder: Path) -> Path:
    return under_a_file(folder).parents[1]


def another_run(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    return folder


def other_files(folder: Path) -> Path:
    (folder / "thesis.tex").write_text("all of it")
    return folder


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (under_a_file, "below/run can't be made: .*file is a file; name another folder with --out"),
        (a_file, "file is a file; a run needs a folder: name another with --out"),
        (another_run, "holds a run already: name another folder with --out, or resume"),
        (other_files, "holds other files: name another folder with --out"),
    ],
)
def test_folders_that_cannot_take_a_run(
    tmp_path: Path, place: Callable[[Path], Path], said: str
) -> None:
    out = place(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=said):
        train_run(
            Settings("a", RECIPES["adam"], backend="numpy"), nowhere, out, lambda run: nullcontext()
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by its mode, which does not stop root.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(
        RunError, match=r"new can't be made: .* can't be written to; name another folder"
    ):
        train_run(
            Settings("a", RECIPES["adam"], backend="numpy"),
            nowhere,
            tmp_path / "new",
            lambda run: nullcontext(),
        )
    assert list(tmp_path.iterdir()) == []


def test_networks_by_name() -> None:
    def widths(net: str) -> list[int]:
        layers = build_network(net, 0.0, 1, "float32", "numpy").net.params
        return [3072, *(int(layers[f"fc{i}_b"].shape[0]) for i in range(1, len(layers) // 2 + 1))]

    assert widths("tinynet") == [3072, 3072, 10]
    assert widths("fcn") == [3072, 100, 100, 100, 100, 100, 10]
    assert widths("7") == [3072, 7, 10]
    assert widths("6, 5,4") == [3072, 6, 5, 4, 10]


def config(**changes: Any) -> Callable[[Path], None]:
    """What changes config.json; None takes a key out."""

    def change(folder: Path) -> None:
        content = read(folder, "config.json") | changes
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    """What puts other bytes into a file."""
    return lambda folder: (folder / name).write_bytes(content) and None


def removed(name: str) -> Callable[[Path], None]:
    """What takes a file away."""
    return lambda folder: (folder / name).unlink()


def cut(name: str, length: int) -> Callable[[Path], None]:
    """What keeps the first bytes of a file alone."""
    return lambda folder: (
        (folder / name).write_bytes((folder / name).read_bytes()[:length]) and None
    )


def weights(**changes: Any) -> Callable[[Path], None]:
    """What changes the best weights; None takes one out."""

    def change(folder: Path) -> None:
        content = load_file(folder / "best.safetensors") | changes
        kept = {name: array for name, array in content.items() if array is not None}
        save_weights(folder / "best.safetensors", kept)

    return change


WEIGHTS = "best.safetensors"
HEAD = b"iteration,epoch,lr,loss,train_loss,train_acc,val_loss,val_acc\n"

# The command, how its run is damaged, and what is said: the file, what came, what to do.
OH = ("history.csv, line 2, has 'oh' where the loss, a number, should be: `mlpkit train --resume ",)
WIDE = ("line 2, should have 8 columns, iteration, epoch,", "it has 9")
OTHERS = ("history.csv, line 1, should be iteration,epoch,lr,", "it is 'a,b'")
DAMAGED: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "no config": ("eval", removed("config.json"), ("config.json is gone", "writes it again")),
    "no config to plot": ("plot", removed("config.json"), ("is gone", "writes it again")),
    "config no JSON": ("eval", written("config.json", b"{"), ("should be JSON", "writes it again")),
    "config no text": ("eval", written("config.json", b"\xff\xfe{"), ("JSON", "writes it again")),
    "config empty": ("plot", written("config.json", b""), ("should be JSON", "writes it again")),
    "config a list": ("eval", written("config.json", b"[]"), ("object", "it holds list")),
    "no net": ("eval", config(net=None), ("net should be text; it is missing", "writes it again")),
    "net a number": ("plot", config(net=8), ("net should be text; it is 8", "writes it again")),
    "net unknown": ("eval", config(net="deep"), ("the network must be", "got 'deep'")),
    "no lr": ("plot", config(lr=None), ("lr should be a number; it is missing", "writes it again")),
    "lr text": ("plot", config(lr="fast"), ("lr should be a number; it is 'fast'", "mend it")),
    "lr true": ("plot", config(lr=True), ("lr should be a number; it is True", "mend it")),
    "optimizer": ("plot", config(optimizer=[]), ("optimizer should be text; it is []", "mend it")),
    "val_size": ("eval", config(val_size=2.5), ("val_size should be a whole number", "2.5")),
    "val_size large": ("eval", config(val_size=999), ("holds 200 images", "ask for 1 to 199")),
    "dtype": ("eval", config(dtype="float16"), ("float32 or float64", "'float16'", "mend it")),
    "keep_prob": ("eval", config(keep_prob="x"), ("keep_prob should be a number; it is 'x'",)),
    "no data": (
        "eval",
        config(data="/no/such"),
        ("no longer in /no/such", "with --data"),
    ),
    "no weights": (
        "eval",
        removed(WEIGHTS),
        ("has no best.safetensors", "its first epoch"),
    ),
    "weights empty": ("eval", written(WEIGHTS, b""), ("is damaged or no safetensors file",)),
    "weights cut": ("eval", cut(WEIGHTS, 5000), ("is damaged or no safetensors file",)),
    "weights cut early": ("eval", cut(WEIGHTS, 20), ("is damaged or no safetensors file",)),
    "weights zeros": ("eval", written(WEIGHTS, bytes(5000)), ("is damaged or no safetensors",)),
    "weights text": ("eval", written(WEIGHTS, b"<html>" * 99), ("is damaged or no safetensors",)),
    "no mean": ("eval", weights(mean_image=None), ("mean_image (32, 32, 3)", "is missing")),
    "mean": ("eval", weights(mean_image=np.zeros((3, 32))), ("has the shape (3, 32)", "again")),
    "one missing": ("eval", weights(fc2_b=None), ("fc2_b (10,)", "is missing", "train again")),
    "wrong shape": ("eval", weights(fc1_w=np.zeros((8, 3072))), ("fc1_w (3072, 8)", "(8, 3072)")),
    "other net": ("eval", config(net="9"), ("fc1_w (3072, 9)", "network 9", "(3072, 8)")),
    "deeper net": ("eval", config(net="8,10"), ("fc3_w (10, 10)", "is missing")),
    "no history": (
        "plot",
        removed("history.csv"),
        ("history.csv is gone: `mlpkit train --resume ",),
    ),
    "history empty": (
        "plot",
        written("history.csv", b""),
        ("holds no iterations", "resumes it"),
    ),
    "history head": (
        "plot",
        written("history.csv", HEAD),
        ("holds no iterations", "resumes it"),
    ),
    "history text": ("plot", written("history.csv", HEAD + b"1,1,,oh,,,,\n"), OH),
    "history zeros": (
        "plot",
        written("history.csv", bytes(500)),
        ("history.csv, line 1, should be iteration,",),
    ),
    "history columns": ("plot", written("history.csv", b"a,b\n1,2\n"), OTHERS),
    "history wide": ("plot", written("history.csv", HEAD + b"1,1,,2,,,,,9\n"), WIDE),
    "history cut": (
        "plot",
        written("history.csv", HEAD + b"1,1,,2.5,,,,\n2,1"),
        (
            "history.csv, line 3, should have 8 columns, iteration,",
            "it has 2: `mlpkit train --resume ",
        ),
    ),
    "history short": (
        "plot",
        written("history.csv", HEAD + b"1,1,0.1,2.5,,,,\n"),
        ("line 2, should have the iteration", "it has iteration, epoch, lr, loss: `mlpkit train"),
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_is_said_on_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    command, damage, said = DAMAGED[case]
    damage(copy)
    before = {path: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setenv("MLPKIT_BACKEND", "numpy")
    monkeypatch.setattr("sys.argv", ["mlpkit", command, str(copy)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("mlpkit: ")
    assert err.count("\n") == 1
    for part in said:
        assert part in err
    assert out == ""
    assert {path: path.read_bytes() for path in copy.iterdir()} == before
