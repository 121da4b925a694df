"""last.safetensors, from which a run goes on: what it holds, and how a run is brought back to it.

Tensors: parameters.NAME; optimizer.STATE.NAME; best.NAME, the parameters of the best epoch;
epochs, float64 (E, 6), every epoch's scores. The text `mlpkit.run` is a JSON object: configuration
and versions, the iterations done, the optimizer's numbers (the decayed learning rate, Adam's t),
and the length and SHA-256 of history.csv, which holds the losses. The order of the batches and the
dropout masks come from the seed, the epoch and the iteration. No time is in it, so that a run that
was stopped and resumed leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpkit_backends import Array

from .checkpoint import CheckpointError, HostArray, TensorFile, reading, save_weights
from .history import FIELDS, Epoch, Epochs
from .layers import Dropout
from .optimizers import Optimizer
from .run_files import (
    CHECKPOINTS,
    LAST,
    PREVIOUS,
    RunError,
    check_config,
    check_files,
    free_path,
    mistyped,
    read_config,
)
from .scoring import BEST

if TYPE_CHECKING:
    from .recording import Every
    from .runs import Run

DAMAGED_HISTORY = "history.damaged.csv"
RUN = "mlpkit.run"
# What a resumed run may change, and of this, what may change the last bits from there on, as the
# packages' versions may, too.
AFFECTS_BITS = ("backend", "device", "threads", "library_threads")
MAY_CHANGE = (
    *("name", "recipe", "epochs", "patience", "min_delta", "data"),
    *(*AFFECTS_BITS, "versions"),
)
RECORD_TYPES: dict[str, tuple[type, ...]] = {
    "config": (dict,),
    "iterations": (int,),
    "best_epoch": (int,),
    "optimizer": (dict,),
    "waiting": (list,),
    "history_bytes": (int,),
    "history_sha256": (str,),
}


def is_run(folder: Path) -> bool:
    """Whether a run has begun in the folder."""
    return (folder / "config.json").is_file() or has_checkpoint(folder)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from, good or not."""
    return any((folder / name).is_file() for name in CHECKPOINTS)


def scalars(optimizer: Optimizer) -> dict[str, float]:
    """The optimizer's numbers by name."""
    return {name: getattr(optimizer, name) for name in ("lr", *optimizer.setting_names)}


def save(run: Run) -> None:
    """Write last.safetensors, once history.csv is on the disk; the one before becomes
    last.1.safetensors."""
    history, file = run.history, run.history_file
    file.sync()
    record = {
        "config": run.config,
        "iterations": history.iterations,
        "best_epoch": history.best_epoch,
        "optimizer": scalars(run.optimizer),
        "waiting": history.losses,  # of an epoch's last iteration, for its scores
        "history_bytes": file.length,
        "history_sha256": file.sha256,
    }
    arrays: dict[str, HostArray] = {"epochs": history.epochs.rows}
    parts = {"parameters": dict(run.model.net.params), "best": history.best_params}
    parts |= {f"optimizer.{name}": state for name, state in run.optimizer.states.items()}
    for part, held in parts.items():
        arrays |= {f"{part}.{name}": run.backend.to_numpy(a) for name, a in held.items()}
    save_weights(
        run.folder / LAST, arrays, {RUN: json.dumps(record)}, previous=run.folder / PREVIOUS
    )


def go_on(run: Run, every: Every, say: Callable[[str], None]) -> bool:
    """Bring the run to its last good checkpoint, and its files with it. Whether there was one.

    One that is damaged, or that history.csv doesn't agree with, is named, and the one before it
    taken. Where history.csv agrees with none, it is kept as history.damaged.csv (or -2, -3, ...),
    and another begun that has the scores of every epoch and lacks the losses. Raises RunError where
    the checkpoints are damaged or gone, and for one of a run of other settings or data.
    """
    check_files(run.folder)
    there = [path for path in (run.folder / LAST, run.folder / PREVIOUS) if path.exists()]
    for anew in (False, True):
        for path in there:
            try:
                with reading(path, checked=True) as file:
                    config = restore(run, file, anew)
            except CheckpointError as error:
                if not anew:
                    say(f"{error}")
                continue
            if path.name == PREVIOUS:  # else the next checkpoint would take its place
                os.replace(path, run.folder / LAST)
            (run.folder / "summary.json").unlink(missing_ok=True)
            run.write_config(every)
            if run.history.best_epoch:
                run.save_best()
            if anew:
                save(run)  # it agrees with the new history.csv
                say("history.csv is begun anew, without the losses so far")
            for line in differences(config, run.config):
                say(line)
            at = f"after iteration {run.history.iterations} ({path.name})"
            say(f"Resuming {run.folder} {at}")
            return True
    check_not_lost(run.folder, there)
    say(f"{run.folder} has no checkpoint: starting from the beginning")
    return False


def check_not_lost(folder: Path, damaged: list[Path]) -> None:
    """RunError where a run without a good checkpoint has finished an epoch or more."""
    learnt = (folder / BEST).is_file()
    if damaged or learnt or (folder / "summary.json").is_file():
        names = " or ".join(path.name for path in damaged)
        why = f"from {names}, as said above" if damaged else f"without its {LAST}"
        scored = f"`mlpkit eval {folder}` scores what it has learnt; " if learnt else ""
        raise RunError(
            f"{folder} can't be resumed {why}: {scored}to train again, name another folder "
            "with --out"
        )


def restore(run: Run, file: TensorFile, anew: bool) -> dict[str, Any]:
    """Bring the run to the checkpoint, and cut history.csv to it, or begin that anew; the
    configuration that it was written with. Raises CheckpointError, and RunError for another run's.
    """
    record = read_record(file)
    check_same(run, record["config"])
    history, optimizer, copy = run.history, run.optimizer, run.backend.copy
    iterations, epochs, waiting = record["iterations"], run_epochs(file), record["waiting"]
    if len(epochs) > run.settings.recipe.epochs:
        raise RunError(
            f"{run.folder} has trained {len(epochs)} epochs, and an option or its config.json says "
            f"{run.settings.recipe.epochs}: epochs can only be raised"
        )
    params = dict(run.model.net.params)
    numbers = record["optimizer"]
    if not 0 <= record["best_epoch"] <= len(epochs) or numbers.keys() != scalars(optimizer).keys():
        raise file.damaged("it holds no such run's numbers")

    def tensors(part: str) -> dict[str, Array]:
        """Those of every parameter, on the device, one at a time."""
        found = {}
        for name, p in params.items():
            key = f"{part}.{name}"
            if key not in file.entries or file.entries[key].shape != tuple(p.shape):
                raise file.damaged(f"it should hold {key} {tuple(p.shape)}")
            found[name] = copy(run.backend.asarray(file.read(key), run.settings.dtype))
        return found

    size, digest = record["history_bytes"], record["history_sha256"]
    if not anew and not run.history_file.resume(size, digest):
        path = run.history_file.path
        wrong = "doesn't begin with" if path.exists() else "is gone; expected were"
        raise CheckpointError(
            f"{path} {wrong} the {size} bytes that were there when {file.path.name} was written"
        )
    for layer in run.model.net.layers:
        if isinstance(layer, Dropout):
            layer.step = iterations
    for name, array in tensors("parameters").items():
        run.model.net.assign(name, array)
    for name, state in optimizer.states.items():
        state.clear()
        state.update(tensors(f"optimizer.{name}"))
    for name, value in numbers.items():
        setattr(optimizer, name, value)
    history.epochs, history.best_epoch = epochs, record["best_epoch"]
    history.best_params = tensors("best") if history.best_epoch else {}
    history.losses, history.taken = waiting, iterations - len(waiting)
    if anew:
        run.history_file.begin_anew(history, free_path(run.folder / DAMAGED_HISTORY))
    config: dict[str, Any] = record["config"]
    return config


def read_run_config(folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """A run's configuration, from config.json, or where that is damaged or gone from a checkpoint,
    which say is told. Raises RunError."""
    try:
        return read_config(folder)
    except RunError:
        for path in (folder / name for name in CHECKPOINTS):
            with suppress(CheckpointError), reading(path, checked=True) as file:
                config: dict[str, Any] = read_record(file)["config"]
                check_config(config, path)
                state = "damaged" if (folder / "config.json").exists() else "gone"
                say(f"{folder}/config.json is {state}: its settings are taken from {path.name}")
                return config
        raise


def read_record(file: TensorFile) -> dict[str, Any]:
    """The JSON object of a checkpoint. Raises CheckpointError."""
    try:
        record = json.loads(file.metadata.get(RUN, "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{file.path} holds weights, not a run to resume")
    if wrong := mistyped(record, RECORD_TYPES):
        raise CheckpointError(f"{file.path}: {wrong}")
    return record


def run_epochs(file: TensorFile) -> Epochs:
    """Every epoch's scores. Raises CheckpointError."""
    entry = file.entries.get("epochs")
    if entry is None or entry.shape[1:] != (FIELDS,) or entry.dtype != "f8":
        raise file.damaged("it should hold epochs, float64 (E, 6)")
    return Epochs(Epoch(int(i), *scores) for i, *scores in file.read("epochs").tolist())


def check_same(run: Run, recorded: dict[str, Any]) -> None:
    """RunError where a run with that configuration is another one than the run."""
    if recorded.get("data_sha256") != run.config["data_sha256"]:  # and so perhaps other sizes
        raise RunError(
            f"{run.data.folder} holds other data than {run.folder} was trained with: name "
            "that data's folder with --data"
        )
    for key, value in run.config.items():
        if key not in MAY_CHANGE and recorded.get(key) != value:
            raise RunError(
                f"{run.folder} was trained with {key} {recorded.get(key)}, and an option or its "
                f"config.json says {value}: take that back, or name another folder with --out"
            )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes other bits from here on, in a line; none where all is as it was."""
    changed = [
        f"{key} {before[key]} before, now {now[key]}"
        for key in AFFECTS_BITS
        if before.get(key, now[key]) != now[key]
    ]
    old, new = before.get("versions", {}), now["versions"]
    changed += [
        f"{package} {old.get(package)} before, now {new.get(package)}"
        for package in sorted({*old, *new})
        if old.get(package) != new.get(package)
    ]
    return [f"The bits may differ from here on: {'; '.join(changed)}"] if changed else []
