"""What tasks.py does with a submission's objects: arrays to and from them, their parameters, and a
sentence where they aren't what they should be.

Layers and parameters are found through `net.layers`: their names are the submission's own. A
layer's weights come before its biases, whatever the order of its dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Names = Mapping[str, Any]
Arrays = Mapping[str, Any]
BY_NAME = "opt_params should be a dict of arrays by parameter name"
NOT_PLAIN = "should be a plain dict that the layer computes with"


class WrongResultError(ValueError):
    """A sentence: what was expected of the submission, and what came."""


def given(names: Names, a: Any) -> Any:
    """A copy of an input on the submission's device, that it may change."""
    return names.get("asarray", np.asarray)(np.array(a))


def taken(names: Names, a: Any) -> Any:
    """An answer as a NumPy array of float64, or of int64 where it is whole numbers. Always a copy:
    what comes next may change the original."""
    if a is None:
        raise WrongResultError("an array was expected, and None came: return it, or fill it")
    a = np.array(names.get("to_numpy", np.asarray)(a) if hasattr(a, "shape") else a)
    return a.astype(np.int64 if a.dtype.kind in "biu" else np.float64)


def parameters(net: Any) -> list[tuple[Any, str]]:
    """(layer, key) of each parameter of a network in order, weights before biases."""
    if not isinstance(getattr(net, "layers", None), list | tuple):
        raise WrongResultError("a network's .net should be a sequential with a list of .layers")
    return [(layer, key) for layer in net.layers for key in keys(layer)]


def keys(layer: Any) -> list[str]:
    """A layer's parameter names, the matrices first."""
    params = dict_of(layer, "params")
    return sorted(params, key=lambda key: -len(params[key].shape))


def dict_of(thing: Any, attribute: str) -> dict[str, Any]:
    """A dict by parameter name, empty where there is no such attribute or nothing in it."""
    found = getattr(thing, attribute, None)
    if found is None or (isinstance(found, list | tuple) and not found):
        return {}
    if not isinstance(found, dict):
        raise WrongResultError(
            f"{type(thing).__name__}'s .{attribute} should be a dict of arrays by parameter name; "
            f"it is {type(found).__name__}"
        )
    return found


def put(layer: Any, attribute: str, value: dict[str, Any]) -> None:
    """Make a dict, itself, the layer's params or grads."""
    try:
        setattr(layer, attribute, value)
    except AttributeError as error:  # of a property
        raise WrongResultError(f"{type(layer).__name__}'s .{attribute} {NOT_PLAIN}") from error


def entry(thing: Any, attribute: str, key: str) -> Any:
    """An array of such a dict."""
    found = dict_of(thing, attribute)
    if key not in found:
        raise WrongResultError(
            f"{type(thing).__name__}'s .{attribute} should hold {key!r}; it holds "
            f"{sorted(found, key=str)}"
        )
    return found[key]


def gradients(names: Names, layers: list[Any], labels: list[str]) -> Arrays:
    """The gradients of layers under labels, in the order of `parameters`."""
    found = [entry(layer, "grads", key) for layer in layers for key in keys(layer)]
    return {label: taken(names, a) for label, a in zip(labels, found, strict=True)}


def four_of(returned: Any) -> Any:
    """What train_net returned, of the right number and with a dict first."""
    if not isinstance(returned, tuple | list) or len(returned) != 4:
        came = f"{len(returned)} values" if isinstance(returned, tuple | list) else "one value"
        raise WrongResultError(
            "train_net should return (opt_params, loss_hist, train_acc_hist, val_acc_hist); "
            f"{'None' if returned is None else came} came"
        )
    best = returned[0]
    if not isinstance(best, dict):
        raise WrongResultError(f"{BY_NAME}; {type(best).__name__} came")
    if wrong := {type(a).__name__ for a in best.values() if not hasattr(a, "shape")}:
        raise WrongResultError(f"{BY_NAME}; its values are {', '.join(sorted(wrong))}")
    return returned
