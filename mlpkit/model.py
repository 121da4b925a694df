"""Networks as a sequence of layers, and their parameters by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from mlpkit_backends import Array, Backend, load

from .arrays import check_array, check_returned
from .checks import wrong_kind
from .layers import Dropout, Layer


class Sequential:
    """Layers one after the other, with their parameters and gradients by name.

    Layers of one name, and parameters of one, are a ValueError. `params` and `grads` show the
    layers' own, as they are at the time; what is assigned is kept by the layer, by reference.
    """

    def __init__(self, *layers: Layer) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(
                    "a sequence takes layers, one after the other as in Sequential(a, b); "
                    f"got {type(layer).__name__}"
                )
        self.layers = list(layers)
        seen: set[str] = set()
        owned: set[str] = set()
        for layer in layers:
            if layer.name in seen:
                raise ValueError(
                    f"each layer needs a name of its own; {layer.name!r} came twice: pass name="
                )
            seen.add(layer.name)
            if twice := owned & layer.params.keys():
                raise ValueError(
                    f"each parameter needs a name of its own; {min(twice)!r} is one of layer "
                    f"{layer.name} and of one before it: begin it with the layer's name"
                )
            owned |= layer.params.keys()
        self.place_dropouts()

    def place_dropouts(self) -> None:
        """Tell dropout layers where they stand in this network, which is part of their masks' key.
        Done anew before they are used, as a layer may have been put elsewhere since."""
        for position, layer in enumerate(self.layers):
            if isinstance(layer, Dropout):
                layer.position = position

    @property
    def params(self) -> MutableMapping[str, Array]:
        """Every layer's parameters by name."""
        return ByName(self, "params")

    @property
    def grads(self) -> MutableMapping[str, Array]:
        """Every layer's gradients by their parameter's name, of those that the layers hold: None
        before the first backward, or nothing."""
        return ByName(self, "grads")

    def owner(self, name: str) -> Layer:
        """The layer that has the parameter; KeyError names those there are."""
        for layer in self.layers:
            if name in layer.params:
                return layer
        known = ", ".join(self.params) or "none"
        raise KeyError(f"no parameter {name!r} in this network; it has: {known}")

    def assign(self, name: str, value: Array) -> None:
        """Make value, itself, the parameter of that name."""
        self.params[name] = value

    def assign_grads(self, name: str, value: Array) -> None:
        """Make value, itself, the gradient of that name."""
        self.grads[name] = value

    def get_params(self, name: str) -> Array:
        """The parameter of that name."""
        return self.params[name]

    def get_grads(self, name: str) -> Array:
        """The gradient of that name; None before the first backward."""
        return self.owner(name).grads.get(name)

    def gather_params(self) -> MutableMapping[str, Array]:
        """`params`, by the notebook's name."""
        return self.params

    def gather_grads(self) -> MutableMapping[str, Array]:
        """`grads`, by the notebook's name."""
        return self.grads

    def load(self, params: Mapping[str, Array], report: Callable[[str], None] = print) -> None:
        """Copy arrays into the parameters of the same names, in the parameters' own dtype, and
        report each, and those that stay as they are, as no array has their name. Arrays of other
        names aren't used. ValueError where a shape differs or no name fits.
        """
        if not isinstance(params, Mapping):
            raise TypeError(
                "load takes arrays by name, as mlpkit.load_weights(path) gives; "
                f"got {type(params).__name__}"
            )
        known = [name for name in self.params if name in params]
        if not known:
            raise ValueError(
                f"none of the names fits this network: it has {', '.join(self.params)}; "
                f"got {', '.join(params) or 'none'}"
            )
        for name in known:
            check_array("load", params[name])
            old, new = tuple(self.get_params(name).shape), tuple(params[name].shape)
            if old != new:
                raise ValueError(
                    f"parameter {name} has the shape {old}; got an array of shape {new}"
                )
        converted = []
        for name in known:
            backend, own = self.owner(name).backend, self.params[name]
            new = backend.xp.astype(backend.asarray(params[name]), own.dtype, copy=False)
            converted.append((name, own, new))
        for name, own, value in converted:
            own[...] = value
            report(f"Loading Params: {name} Shape: {tuple(own.shape)}")
        if left := [name for name in self.params if name not in params]:
            report(f"Left as they were: {', '.join(left)}")


class ByName(MutableMapping[str, Array]):
    """A network's arrays of one kind, "params" or "grads", by name: those of its layers, not a
    copy. What is assigned becomes the layer's own."""

    def __init__(self, net: Sequential, kind: str) -> None:
        self.net, self.kind = net, kind

    def of(self, layer: Layer) -> dict[str, Array]:
        """The layer's part."""
        part: dict[str, Array] = getattr(layer, self.kind)
        return part

    def __getitem__(self, name: str) -> Array:
        layer = self.net.owner(name)
        if name not in self.of(layer):
            raise KeyError(f"layer {layer.name} has {name}, and no gradient of it")
        return self.of(layer)[name]

    def __setitem__(self, name: str, value: Array) -> None:
        self.of(self.net.owner(name))[name] = value

    def __delitem__(self, name: str) -> None:
        del self.of(self.net.owner(name))[name]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(map(self.of, self.net.layers))

    def __len__(self) -> int:
        return sum(len(self.of(layer)) for layer in self.net.layers)

    def copy(self) -> dict[str, Array]:
        """A dict of the same arrays, which stays as it is."""
        return dict(self)

    def __repr__(self) -> str:
        return repr(dict(self))


class Module:
    """A network: `net`, a Sequential, run forward and backward on `backend`, its layers' own."""

    def __init__(self, net: Sequential) -> None:
        if not isinstance(net, Sequential):
            raise TypeError(
                f"a network takes its layers as Module(Sequential(a, b)); got {type(net).__name__}"
            )
        self.net = net

    @property
    def backend(self) -> Backend:
        """The backend of the first layer; the default one where there is none."""
        return self.net.layers[0].backend if self.net.layers else load()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.net.layers))})"

    def forward(self, x: Array, is_training: bool = True, seed: int | None = None) -> Array:
        """Scores (N, C) for a batch x (N, ...). Every layer's is_training becomes what is given;
        seed is the dropout layers'."""
        self.net.place_dropouts()
        for layer in self.net.layers:
            layer.is_training = is_training
            x = (
                layer.forward(x, is_training, seed)
                if isinstance(layer, Dropout)
                else layer.forward(x)
            )
            check_returned(f"layer {layer.name}'s forward", x)
        return x

    def backward(self, dout: Array) -> Array:
        """The gradient of x from that of the scores; fills every layer's grads. It is that of the
        last forward, of an evaluation's where one came between."""
        check_array("backward", dout)
        for layer in reversed(self.net.layers):
            dout = layer.backward(dout)
            check_returned(f"layer {layer.name}'s backward", dout)
        return dout


def check_parameters(model: Module) -> None:
    """TypeError for a parameter that isn't an array, which updates could not reach in place;
    ValueError for parameters of a layer that the network doesn't have, as those of a layer that is
    another's attribute alone."""
    for layer in model.net.layers:
        for name, p in layer.params.items():
            if not hasattr(p, "shape") or isinstance(p, np.generic):
                raise TypeError(
                    f"parameter {name} of layer {layer.name} should be an array, which updates "
                    f"change in place; got {type(p).__name__}: make it with backend.asarray"
                )
    own = {id(p) for p in model.net.params.values()}
    for layer in layers_within(model):
        if any(id(p) not in own for p in layer.params.values()):
            raise ValueError(
                f"the network lacks the parameters of layer {layer.name}, "
                f"{', '.join(layer.params)}, and would neither train nor save them: put that layer "
                "into the Sequential, or share its params and grads with the layer that uses it; "
                "if it isn't to be trained, wrap it in a Module"
            )


def layers_within(model: Module) -> Iterator[Layer]:
    """The layers of a network, and those that they and it are made of: attributes, also in lists,
    tuples, dicts and Sequentials."""
    seen: set[int] = set()
    waiting: list[Any] = list(vars(model).values())
    while waiting:
        part = waiting.pop()
        if isinstance(part, Layer) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += vars(part).values()
        elif isinstance(part, Sequential):
            waiting += part.layers
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part


def check_model(model: Any) -> None:
    """TypeError for what is no network."""
    if not isinstance(model, Module):
        raise wrong_kind("model", model, "a Module, as MLP(...) or Module(Sequential(...)) gives")
