"""A training run as a folder: its configuration, history, checkpoints, best weights, summary and
curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlpkit_backends import Backend, load
from mlpkit_backends.threads import thread_count

from .checkpoint import save_weights
from .checks import check_counts
from .datasets import Dataset, load_dataset
from .evaluation import Batches, evaluate
from .history import EarlyStopping, History
from .history_file import HistoryFile
from .losses import CrossEntropy
from .model import Module
from .optimizers import Optimizer
from .provenance import data_hashes, peak_rss_bytes, versions
from .recipes import Recipe, build_network, build_optimizer, check_dtype
from .recording import EVERY_EPOCH, Every, Recorder
from .resume import go_on, is_run, scalars
from .run_files import check_free, claimed, free_path, make_free_folder, resuming, write_json
from .scoring import BEST, MEAN_IMAGE, on_device
from .seeding import check_seed
from .signals import Stopped, hold
from .training import Watcher, fit
from .training_checks import check_settings


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, but the data and the versions.

    base: the name of the recipe that it started from. train_size, val_size: of the splits; None:
    the recipe's and the data set's own. patience, min_delta: `fit`'s. threads: as they were asked
    for, to be asked for again when the run goes on. ValueError for a setting out of range.
    """

    name: str
    recipe: Recipe
    keep_prob: float = 0.0
    train_size: int | None = None
    val_size: int | None = None
    backend: str | None = None
    dtype: str = "float32"
    seed: int = 123
    patience: int | None = None
    min_delta: float = 0.0
    base: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        check_seed(self.seed)
        EarlyStopping(self.patience, self.min_delta, ())
        sizes = {"train_size": self.train_size, "val_size": self.val_size}
        check_counts(**{name: size for name, size in sizes.items() if size is not None})

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
    *,
    every: Every = EVERY_EPOCH,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """Train by the settings, into a new run folder (out, or the next free one below runs/).

    find_folder, which may make the data, is called once all that needs no data has been checked;
    nothing is written to the run's folder before the data has been, too. Where training diverges
    or is stopped, the folder keeps what was recorded, and the error goes on to the caller.

    every: when a checkpoint is written. resume: go on with the run that is in `out`, from its last
    good checkpoint, or from the beginning where there is none; say is told which. Raises RunError
    for a folder that can't take the run or that another process writes, and for a run of other
    settings or data.
    """
    backend = load(settings.backend)
    with ExitStack() as stack, backend.failures():
        there = out is not None and out.is_dir()
        folder = out or free_path(Path("runs") / settings.name)
        if there:
            stack.enter_context(claimed(folder))
        if not (resume and is_run(folder)):
            check_free(folder, beside=resume)
        parts = prepare(backend, settings, find_folder)
        if not there:  # before, but another process may have begun meanwhile
            folder = out or make_free_folder(Path("runs"), settings.name)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(folder))
        begun = resume and is_run(folder)
        if not begun:
            check_free(folder, beside=resume)
        run = Run(folder, settings, backend, *parts)
        try:
            if not (begun and go_on(run, every, say)):
                run.start(every)
            train_on(run, every, watch)
        except (Stopped, OSError, RuntimeError, MemoryError) as error:
            if is_run(folder):
                error.add_note(f"go on: {resuming(folder)}")
            raise
    return run


def prepare(
    backend: Backend, settings: Settings, find_folder: Callable[[], Path]
) -> tuple[Module, Optimizer, Dataset]:
    """What a run is made of, as it begins."""
    recipe = settings.recipe
    model = build_network(recipe.net, settings.keep_prob, settings.seed, settings.dtype, backend)
    optimizer = build_optimizer(recipe.optimizer, model, recipe.lr)
    data = settings.load(find_folder())
    check_settings(
        len(data.train), recipe.batch_size, recipe.epochs, recipe.lr_decay, recipe.lr_decay_every
    )
    return model, optimizer, data


def train_on(
    run: Run, every: Every, watch: Callable[[Run], AbstractContextManager[Watcher]]
) -> None:
    """Train the run from where it is to its end, into its folder."""
    settings, recipe = run.settings, run.settings.recipe
    loss_func = CrossEntropy(backend=run.backend)
    began, iterations = time.perf_counter(), run.history.iterations
    with hold() as held, watch(run) as watcher, Recorder(run, watcher, every) as recorder:
        fit(
            run.model,
            loss_func,
            run.optimizer,
            run.batches("train"),
            run.batches("val"),
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            seed=settings.seed,
            lr_decay=recipe.lr_decay,
            lr_decay_every=recipe.lr_decay_every,
            patience=settings.patience,
            min_delta=settings.min_delta,
            watcher=recorder,
            history=run.history,
            pause=held.check,
        )
    held.check()  # a signal that came since the last pause
    run.finish(loss_func, run.history.iterations - iterations, time.perf_counter() - began)


class Run:
    """A run under way: its folder, what it is made of, and how far it is."""

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
        per_epoch = len(data.train) // settings.recipe.batch_size
        self.history = History()
        self.history_file = HistoryFile(folder / "history.csv", per_epoch)
        self.config = self.configuration()
        self.summary: dict[str, Any] = {}

    def batches(self, split: str) -> Batches:
        """A split of the data on the run's device."""
        part = getattr(self.data, split)
        return on_device(self.backend, part, self.settings.dtype, self.data.mean_image)

    def start(self, every: Every) -> None:
        """Write config.json and the head of history.csv."""
        self.write_config(every)
        self.history_file.start()

    def write_config(self, every: Every) -> None:
        """Write config.json: the configuration, with what decides no result and is kept for the
        next start."""
        kept = {"checkpoint_every": str(every), "threads_asked": self.settings.threads}
        write_json(self.folder / "config.json", self.config | kept)

    def configuration(self) -> dict[str, Any]:
        """The run's settings as config.json has them, every default filled in, with the device, the
        data's hashes and the versions."""
        settings, data = self.settings, self.data
        return {
            "name": settings.name,
            "recipe": settings.base,
            **asdict(settings.recipe),
            "optimizer_settings": scalars(self.optimizer),
            "parameters": {name: list(p.shape) for name, p in self.model.net.params.items()},
            "train_size": len(data.train),
            "val_size": len(data.val),
            "test_size": len(data.test),
            "keep_prob": settings.keep_prob,
            "patience": settings.patience,
            "min_delta": settings.min_delta,
            "seed": settings.seed,
            "dtype": settings.dtype,
            "backend": self.backend.name,
            "device": self.backend.device_name(),
            "threads": thread_count(),
            "library_threads": self.backend.library_threads(),
            "data": str(data.folder.resolve()),
            "data_sha256": data_hashes(data.folder),
            "versions": versions(),
        }

    def save_best(self) -> None:
        """Write the best parameters so far."""
        host = {n: self.backend.to_numpy(p) for n, p in self.history.best_params.items()}
        save_weights(self.folder / BEST, host | {MEAN_IMAGE: self.data.mean_image})

    def finish(self, loss_func: CrossEntropy, iterations: int, seconds: float) -> None:
        """Score the test split with the best parameters and write summary.json. iterations,
        seconds: what this process has trained and took."""
        history = self.history
        self.model.net.load(history.best_params, report=lambda line: None)
        test_loss, test_acc = evaluate(self.model, loss_func, self.batches("test"))
        best = history.epochs[history.best_epoch - 1]
        self.summary = {
            "val_accuracy": best.val_acc,
            "test_accuracy": test_acc,
            "test_loss": test_loss,
            "best_epoch": history.best_epoch,
            "epochs": len(history.epochs),
            "stopped": history.stopped,
            "iterations": history.iterations,
            "iterations_per_second": iterations / history.seconds if iterations else None,
            "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes(),
            "backend": self.backend.name,
            "device": self.backend.device_name(),
            "steps": history.how,
        }
        write_json(self.folder / "summary.json", self.summary)
