"""What `fit` is given: whether the parts are what they should be, and fit together."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import shapes_of
from .checks import check_counts, check_positive, wrong_kind
from .evaluation import Batches, check_batches, dtype_of
from .history import History
from .losses import CrossEntropy
from .model import Module, check_model, check_parameters


def check_settings(
    n: int, batch_size: int, epochs: int, lr_decay: float, lr_decay_every: int, chunk: int = 1
) -> None:
    """ValueError, naming the setting, for what can't be trained with n images."""
    check_counts(batch_size=batch_size, epochs=epochs, lr_decay_every=lr_decay_every, chunk=chunk)
    check_positive(lr_decay=lr_decay)
    if batch_size > n:
        raise ValueError(
            f"the batch size must be from 1 to the {n} training images; got {batch_size}"
        )


def check_history(history: Any, per_epoch: int, model: Module, optimizer: Any, seed: int) -> None:
    """TypeError for what is no History; ValueError for one that this training, of so many
    iterations an epoch, can't go on from: of another model, optimizer, seed, data or batch size."""
    if not isinstance(history, History):
        raise wrong_kind("history", history, "a History, as fit returns, or left out")
    if history.ahead:
        raise ValueError(
            "this history's training was ended within a chunk of iterations, so that the model and "
            "the optimizer may be ahead of it: go on without history=, or build them anew"
        )
    epochs = len(history.epochs)
    began = history.epochs[-1].iteration if epochs else 0
    if began != epochs * per_epoch or not began <= history.iterations <= began + per_epoch:
        raise ValueError(
            f"this history has {history.iterations} iterations, {began} of them in {epochs} whole "
            f"epochs, and an epoch has {per_epoch} with this data and batch size: give those that "
            "it began with"
        )
    if getattr(optimizer, "t", history.iterations) < history.iterations:
        raise ValueError(
            f"this history has {history.iterations} iterations, and the optimizer has taken "
            f"{optimizer.t} steps: give the model and the optimizer that it was made with, or a "
            "new History"
        )
    if history.seed not in (None, seed):
        raise ValueError(
            f"this history is of seed {history.seed}; got {seed}: the order of the batches would "
            "be another from here on"
        )
    own, best = shapes_of(model.net.params), shapes_of(history.best_params)
    if best and best != own:
        best_said, own_said = (
            ", ".join(f"{name} {shape}" for name, shape in shapes.items()) for shapes in (best, own)
        )
        raise ValueError(
            f"this history is of another model: its best parameters are {best_said}, and this "
            f"model's {own_said}"
        )


def check_parts(
    model: Any, loss_func: Any, optimizer: Any, train: Any, val: Any, watcher: Any
) -> None:
    """TypeError, saying how to make one, for a part of another kind; ValueError unless the
    optimizer is the model's, all arrays are one backend's, and the batches of the model's dtype."""
    check_model(model)
    check_parameters(model)
    check_batches("train", train)
    check_batches("val", val)
    check_has(loss_func, ("forward", "backward"), "loss_func", "a loss, as CrossEntropy()")
    check_has(optimizer, ("step", "net", "lr"), "optimizer", "an optimizer, as Adam(model)")
    if watcher is not None:
        check_has(watcher, ("iterations", "epoch"), "watcher", "a Watcher")
    if optimizer.net is not model.net:
        raise ValueError(
            f"the optimizer should be of the model's own net; this {type(optimizer).__name__} is "
            "of another: build it from the model"
        )
    check_places(model, loss_func, train, val)
    eps = optimizer.eps if "eps" in getattr(optimizer, "setting_names", ()) else 0
    if eps and not np.dtype(train.dtype).type(eps):
        raise ValueError(
            f"eps {eps} is 0 in {train.dtype}, which would divide by 0: give the "
            f"{type(optimizer).__name__} a larger one, as eps=1e-4"
        )


def check_has(part: Any, names: tuple[str, ...], name: str, wanted: str) -> None:
    """TypeError unless the part is an object that has all of those names."""
    missing = [n for n in names if not hasattr(part, n)]
    if isinstance(part, type) or missing:
        having = f"{', '.join(names[:-1])} and {names[-1]}"
        raise wrong_kind(name, part, f"{wanted}, which has {having}")


def check_places(model: Module, loss_func: Any, train: Batches, val: Batches) -> None:
    """ValueError unless all arrays are one backend's, and the batches of the model's dtype."""
    names = {
        "model": model.backend.name,
        "training images": train.backend.name,
        "validation images": val.backend.name,
    }
    if isinstance(loss_func, CrossEntropy):
        names["loss"] = loss_func.backend.name
    if len(set(names.values())) > 1:
        placed = ", ".join(f"the {what} on {name}" for what, name in names.items())
        raise ValueError(
            f"all should be on one backend; got {placed}: give each the same backend=, or set "
            "MLPKIT_BACKEND before any is built"
        )
    wanted, came = dtype_of(model), {train.dtype, val.dtype}
    if came != {wanted}:
        raise ValueError(
            f"batches should be {wanted}, as the model's parameters are; got "
            f"{' and '.join(sorted(came))}: make them with that dtype, or the model with dtype="
        )
