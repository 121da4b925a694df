"""What tasks.py sees of train_net at work, through functions in place of a submission's methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from .handling import given, taken

Names = Mapping[str, Any]


def watch(
    names: Names, model: Any, loss_func: Any, optimizer: Any, images: Mapping[str, Any], every: int
) -> dict[str, list[Any]]:
    """Lists that fill while these train. rates: the learning rate at each step; computed, for each
    loss: the steps taken before it, the loss, and whether the last forward was one of training;
    train_scores and val_scores after each epoch, of every so many steps; trained, for each forward
    in training: the steps taken before it, how many numbers it gave, and whether a loss followed
    before the next of them."""
    seen: dict[str, list[Any]] = {
        name: [] for name in ("rates", "computed", "train_scores", "val_scores", "trained")
    }
    forward, value, step, training = model.forward, loss_func.forward, optimizer.step, [True]

    def watched_forward(*given: Any, **named: Any) -> Any:
        training[0] = bool(given[1] if len(given) > 1 else named.get("is_training", True))
        scores = forward(*given, **named)
        if training[0]:
            seen["trained"].append([len(seen["rates"]), np.size(scores), False])
        return scores

    def watched_value(*given: Any, **named: Any) -> Any:
        loss = value(*given, **named)
        total = float(np.sum(taken(names, loss)))
        seen["computed"].append((len(seen["rates"]), total, training[0]))
        for latest in seen["trained"][-1:]:
            latest[2] = True
        return loss

    def watched_step() -> None:
        seen["rates"].append(float(optimizer.lr))
        step()
        if len(seen["rates"]) % every == 0:
            for split in ("train", "val"):
                scores = taken(names, forward(given(names, images[split]), False))
                seen[f"{split}_scores"].append(scores)

    override(model, "forward", watched_forward)
    override(loss_func, "forward", watched_value)
    override(optimizer, "step", watched_step)
    return seen


def override(thing: Any, name: str, function: Callable[..., Any]) -> None:
    """Put a function in place of an object's method: in a class of its own where it has __slots__,
    or where its class calls the method __call__ too, so that thing(...) is the function as well."""
    kind = type(thing)
    names = [n for n in (name, "__call__") if getattr(kind, n, None) is getattr(kind, name, None)]
    if "__call__" not in names:
        with suppress(AttributeError):
            setattr(thing, name, function)
            return
    methods = dict.fromkeys(names, lambda self, *given, **named: function(*given, **named))
    thing.__class__ = type(kind.__name__, (kind,), {"__slots__": (), **methods})
