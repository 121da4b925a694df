"""Networks as a sequence of layers, and their parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mlpkit_backends import Array, Backend, load

from .layers import Dropout, Layer


class Sequential:
    """Layers one after the other, with their parameters and gradients by name.

    Layers of one name, and parameters of one, are a ValueError. Each layer's own `params` and
    `grads` are what counts; those of the sequence are gathered from them. What is assigned is kept
    by reference.
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
        for position, layer in enumerate(layers):
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
            if isinstance(layer, Dropout):
                layer.position = position  # part of its masks' key
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.gather_params()
        self.gather_grads()

    def owner(self, name: str) -> Layer:
        """The layer that has the parameter; KeyError names those there are."""
        for layer in self.layers:
            if name in layer.params:
                return layer
        known = ", ".join(self.gather_params()) or "none"
        raise KeyError(f"no parameter {name!r} in this network; it has: {known}")

    def assign(self, name: str, value: Array) -> None:
        """Make value, itself, the parameter of that name."""
        self.owner(name).params[name] = value

    def assign_grads(self, name: str, value: Array) -> None:
        """Make value, itself, the gradient of that name."""
        self.owner(name).grads[name] = value

    def get_params(self, name: str) -> Array:
        """The parameter of that name."""
        return self.owner(name).params[name]

    def get_grads(self, name: str) -> Array:
        """The gradient of that name; None before the first backward."""
        return self.owner(name).grads.get(name)

    def gather_params(self) -> dict[str, Array]:
        """Bring `params` up to date with the layers', and return it."""
        self.params.clear()
        self.params.update((n, p) for layer in self.layers for n, p in layer.params.items())
        return self.params

    def gather_grads(self) -> dict[str, Array]:
        """Bring `grads` up to date with the layers', and return it."""
        self.grads.clear()
        self.grads.update((n, g) for layer in self.layers for n, g in layer.grads.items())
        return self.grads

    def load(self, params: Mapping[str, Array], report: Callable[[str], None] = print) -> None:
        """Copy arrays into the parameters of the same names, in the parameters' own dtype, and
        report each. Other names are left alone; ValueError where a shape differs or no name fits.
        """
        own = self.gather_params()
        known = [name for name in own if name in params]
        if not known:
            raise ValueError(
                f"none of the names fits this network: it has {', '.join(own)}; "
                f"got {', '.join(params) or 'none'}"
            )
        for name in known:
            old, new = tuple(self.get_params(name).shape), tuple(params[name].shape)
            if old != new:
                raise ValueError(
                    f"parameter {name} has the shape {old}; got an array of shape {new}"
                )
        for name in known:
            layer = self.owner(name)
            old = layer.params[name]
            new = layer.backend.xp.astype(
                layer.backend.asarray(params[name]), old.dtype, copy=False
            )
            layer.params[name] = layer.backend.copy(new)
            report(f"Loading Params: {name} Shape: {tuple(old.shape)}")
        self.gather_params()


class Module:
    """A network: `net`, a Sequential, run forward and backward on `backend`, its layers' own."""

    def __init__(self, net: Sequential) -> None:
        self.net = net

    @property
    def backend(self) -> Backend:
        """The backend of the first layer; the default one where there is none."""
        return self.net.layers[0].backend if self.net.layers else load()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.net.layers))})"

    def forward(self, x: Array, is_training: bool = True, seed: int | None = None) -> Array:
        """Scores (N, C) for a batch x (N, ...). is_training and seed are the dropout layers'."""
        for layer in self.net.layers:
            x = (
                layer.forward(x, is_training, seed)
                if isinstance(layer, Dropout)
                else layer.forward(x)
            )
        return x

    def backward(self, dout: Array) -> Array:
        """The gradient of x from that of the scores; fills every layer's grads."""
        for layer in reversed(self.net.layers):
            dout = layer.backward(dout)
        return dout

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """(name, array) of each parameter, in the layers' order."""
        for layer in self.net.layers:
            yield from layer.params.items()
