"""A training run as a folder: its configuration, history, best weights, summary and curves."""

from __future__ import annotations

import csv
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpkit_backends import Backend, load
from mlpkit_backends.threads import processors

from .checkpoint import load_weights, save_weights
from .datasets import TEST_FILE, TRAIN_FILE, Dataset, Split, load_dataset
from .evaluation import Batches, evaluate
from .losses import CrossEntropy
from .matfile import IMAGE
from .model import Module
from .optimizers import Optimizer
from .recipes import Recipe, build_network, build_optimizer, check_dtype
from .run_files import COLUMNS, RunError, check_free, free_folder, read_config, write_json
from .seeding import check_seed
from .svhn import sha256
from .training import History, Losses, TrainingDiverged, Watcher, check_settings, fit

BEST = "best.safetensors"
MEAN_IMAGE = "mean_image"  # beside the weights, so that they can score any data


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, but the data and the versions.

    train_size, val_size: of the splits; None: the recipe's and the data set's own. ValueError for a
    setting out of range.
    """

    name: str
    recipe: Recipe
    keep_prob: float = 0.0
    train_size: int | None = None
    val_size: int | None = None
    backend: str | None = None
    dtype: str = "float32"
    seed: int = 123

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_seed(self.seed)
        for setting in ("train_size", "val_size"):
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ValueError(f"{setting} must be at least 1; got {value}")

    def load(self, folder: Path) -> Dataset:
        """The data with its splits as the settings ask for them."""
        data = load_dataset(folder, self.val_size)
        if self.train_size is not None:
            return data.first(self.train_size)
        if self.recipe.train_size is not None:
            return data.first(min(self.recipe.train_size, len(data.train)))
        return data


def train_run(
    settings: Settings,
    find_folder: Callable[[], Path],
    out: Path | None,
    watch: Callable[[Run], AbstractContextManager[Watcher]],
) -> Run:
    """Train by the settings, into a new run folder (out, or the next free one below runs/).

    find_folder, which may make the data, is called once all that needs no data has been checked;
    nothing is written to the run's folder before the data has been, too. Where training diverges
    or is stopped, the folder keeps what was recorded, and the error goes on to the caller.
    """
    backend = load(settings.backend)
    folder = out or free_folder(Path("runs"), settings.name)
    check_free(folder)
    with backend.failures():
        return train_on(backend, settings, find_folder, folder, watch)


def train_on(
    backend: Backend,
    settings: Settings,
    find_folder: Callable[[], Path],
    folder: Path,
    watch: Callable[[Run], AbstractContextManager[Watcher]],
) -> Run:
    """`train_run` on a backend, into a folder that can take it."""
    recipe = settings.recipe
    model = build_network(recipe.net, settings.keep_prob, settings.seed, settings.dtype, backend)
    optimizer = build_optimizer(recipe.optimizer, model, recipe.lr)
    data = settings.load(find_folder())
    check_settings(
        len(data.train), recipe.batch_size, recipe.epochs, recipe.lr_decay, recipe.lr_decay_every
    )
    run = Run(folder, settings, backend, model, optimizer, data)
    run.start()
    loss_func = CrossEntropy(backend=backend)
    began = time.perf_counter()
    with watch(run) as watcher, Recorder(run, watcher) as recorder:
        history = fit(
            model,
            loss_func,
            optimizer,
            run.batches("train"),
            run.batches("val"),
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            seed=settings.seed,
            lr_decay=recipe.lr_decay,
            lr_decay_every=recipe.lr_decay_every,
            watcher=recorder,
        )
    run.finish(history, loss_func, time.perf_counter() - began)
    return run


class Run:
    """A run under way: its folder and what it is made of."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        backend: Backend,
        model: Module,
        optimizer: Optimizer,
        data: Dataset,
    ) -> None:
        self.folder, self.settings, self.backend = folder, settings, backend
        self.model, self.optimizer, self.data = model, optimizer, data
        self.summary: dict[str, Any] = {}

    def batches(self, split: str) -> Batches:
        """A split of the data on the run's device."""
        part = getattr(self.data, split)
        return on_device(self.backend, part, self.settings.dtype, self.data.mean_image)

    def start(self) -> None:
        """Make the folder, with its config.json and the head of history.csv."""
        config = self.config()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", config)
        with (self.folder / "history.csv").open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def config(self) -> dict[str, Any]:
        """Everything resolved."""
        settings, data = self.settings, self.data
        return {
            "name": settings.name,
            **asdict(settings.recipe),
            "optimizer_settings": {
                name: value
                for name, value in vars(self.optimizer).items()
                if isinstance(value, int | float)
            },
            "parameters": {name: list(p.shape) for name, p in self.model.parameters()},
            "train_size": len(data.train),
            "val_size": len(data.val),
            "test_size": len(data.test),
            "keep_prob": settings.keep_prob,
            "seed": settings.seed,
            "dtype": settings.dtype,
            "backend": self.backend.name,
            "device": self.backend.device_name(),
            "threads": processors(),
            "data": str(data.folder.resolve()),
            "data_sha256": data_hashes(data.folder),
            "versions": versions(),
        }

    def finish(self, history: History, loss_func: CrossEntropy, seconds: float) -> None:
        """Score the test split with the best parameters and write summary.json."""
        self.model.net.load(history.best_params, report=lambda line: None)
        test_loss, test_acc = evaluate(self.model, loss_func, self.batches("test"))
        best = history.epochs[history.best_epoch - 1]
        self.summary = {
            "val_accuracy": best.val_acc,
            "test_accuracy": test_acc,
            "test_loss": test_loss,
            "best_epoch": history.best_epoch,
            "epochs": len(history.epochs),
            "iterations": len(history.losses),
            "iterations_per_second": len(history.losses) / history.seconds,
            "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes(),
            "backend": self.backend.name,
            "device": self.backend.device_name(),
            "steps": history.how,
        }
        write_json(self.folder / "summary.json", self.summary)


class Recorder:
    """Writes history.csv and best.safetensors as training goes, and passes on to the watcher.

    A context manager: however training ends, what was recorded is written, with its curves.
    """

    def __init__(self, run: Run, watcher: Watcher) -> None:
        self.run, self.watcher = run, watcher
        self.written = 0
        self.saved_epoch = 0
        self.history = History()
        self.losses: Losses | None = None

    def iterations(self, done: int, total: int, losses: Losses) -> None:
        self.losses, self.history = losses, losses.history
        self.watcher.iterations(done, total, losses)

    def epoch(self, number: int, epochs: int, history: History) -> None:
        self.append_rows()
        if history.best_epoch > self.saved_epoch:
            host = {n: self.run.backend.to_numpy(p) for n, p in history.best_params.items()}
            host[MEAN_IMAGE] = self.run.data.mean_image
            save_weights(self.run.folder / BEST, host)
            self.saved_epoch = history.best_epoch
        self.watcher.epoch(number, epochs, history)

    def append_rows(self) -> None:
        """Add the rows of the iterations that history.csv lacks."""
        recipe = self.run.settings.recipe
        per_epoch = len(self.run.data.train) // recipe.batch_size
        ends = {epoch.iteration: epoch for epoch in self.history.epochs}
        with (self.run.folder / "history.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            for i in range(self.written + 1, len(self.history.losses) + 1):
                end = ends.get(i)
                scores = (
                    (end.lr, end.train_loss, end.train_acc, end.val_loss, end.val_acc)
                    if end
                    else ("",) * 5
                )
                row = (i, (i - 1) // per_epoch + 1, scores[0], self.history.losses[i - 1])
                writer.writerow((*row, *scores[1:]))
                self.written = i  # row by row: where this is interrupted, __exit__ goes on

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt and self.losses is not None:
            with suppress(TrainingDiverged):
                self.losses.read()
        self.append_rows()
        if self.history.losses:
            from .plotting import plot_runs

            plot_runs([self.run.folder], self.run.folder / "curves.png")


def data_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of a data set's files."""
    return {name: sha256(folder / name) for name in (TRAIN_FILE, TEST_FILE)}


def on_device(backend: Backend, split: Split, dtype: str, mean: Any) -> Batches:
    """A split as batches on a backend's device, centred on the mean image."""
    return Batches.of(backend, split.images, split.labels, dtype, mean)


def load_run(
    folder: Path | str, backend: str | Backend | None = None
) -> tuple[Module, NDArray[np.float64]]:
    """A run's network with its best weights, and the mean image (32, 32, 3) it was trained with:
    its input is images / 255 less that. Raises RunError, CheckpointError."""
    folder = Path(folder)
    config = read_config(folder)
    model = build_network(config["net"], config["keep_prob"], 0, config["dtype"], load(backend))
    if not (folder / BEST).is_file():
        raise RunError(
            f"{folder} has no {BEST}: it was stopped before the end of its first epoch; train again"
        )
    weights = load_weights(folder / BEST)
    expected = {name: tuple(p.shape) for name, p in model.parameters()} | {MEAN_IMAGE: IMAGE}
    for name, shape in expected.items():
        came = f"has the shape {weights[name].shape}" if name in weights else "is missing"
        if name not in weights or weights[name].shape != shape:
            raise RunError(
                f"{folder / BEST} should hold {name} {shape} for the network {config['net']}; "
                f"it {came}: train again"
            )
    model.net.load(weights, report=lambda line: None)
    return model, weights[MEAN_IMAGE]


def evaluate_run(
    folder: Path, data_folder: Path | None, backend: str | Backend | None
) -> tuple[Dataset, dict[str, tuple[float, float]], bool]:
    """The data, (loss, accuracy) of a run's best weights on its validation and test splits, and
    whether the data's files are those that the run was trained with.

    data_folder: other data in SVHN's layout, centred on the run's own mean image; None: the run's.
    """
    config = read_config(folder)
    model, mean = load_run(folder, backend)
    if data_folder is None and not Path(config["data"]).is_dir():
        raise RunError(
            f"the run's data is no longer in {config['data']}: name its folder with --data"
        )
    val_size = config["val_size"] if data_folder is None else None
    data = load_dataset(data_folder or Path(config["data"]), val_size)
    loss_func = CrossEntropy(backend=model.backend)
    with model.backend.failures():
        scores = {
            split: evaluate(model, loss_func, on_device(model.backend, part, config["dtype"], mean))
            for split, part in (("val", data.val), ("test", data.test))
        }
    return data, scores, data_hashes(data.folder) == config.get("data_sha256")


def versions(others: Sequence[str] = ()) -> dict[str, str]:
    """Python's version, and those of the libraries that decide results and rates."""
    found = {"python": platform.python_version()}
    own = ("mlpkit", "numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x")
    for package in (*own, *others):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def peak_rss_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system doesn't say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
