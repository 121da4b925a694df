"""Optimizers: each step reads the layers' params and grads and updates in place.

The formulas are the backend's ops; which epsilon, and where it stands, is said there. State
(velocity, cache, moments) is held by parameter name, starts at 0 and may be replaced as a whole.

| class | state | op |
|---|---|---|
| SGD | | sgd_update |
| SGDM | velocity | sgdm_update |
| RMSProp | cache | rmsprop_update |
| Adam | mt, vt, t | adam_update |
"""

from __future__ import annotations

from mlpkit_backends import Array, Backend

from .model import Module, Sequential


class Optimizer:
    """Steps over every parameter that has a gradient. net: a Sequential, or a network that has one.

    lr, the learning rate, must be positive, and may be changed between steps.
    """

    def __init__(self, net: Sequential | Module, lr: float) -> None:
        if not lr > 0:
            raise ValueError(f"lr, the learning rate, must be positive; got {lr}")
        self.net: Sequential = net.net if isinstance(net, Module) else net
        self.lr = lr

    def step(self) -> None:
        """One update of every parameter from its gradient."""
        for layer in self.net.layers:
            for name, w in layer.params.items():
                dw = layer.grads.get(name)
                if dw is not None:
                    self.update(layer.backend, name, w, dw)

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        """Update w, the parameter of that name, in place."""
        raise NotImplementedError


def held(state: dict[str, Array], name: str, w: Array, backend: Backend) -> Array:
    """The state of the parameter of that name, zeros like w at first."""
    if name not in state:
        state[name] = backend.xp.zeros_like(w)
    return state[name]


class SGD(Optimizer):
    """Gradient descent: w ← w - lr dw."""

    def __init__(self, net: Sequential | Module, lr: float = 1e-4) -> None:
        super().__init__(net, lr)

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        backend.sgd_update(w, dw, self.lr)


class SGDM(Optimizer):
    """Gradient descent with momentum: v ← momentum v - lr dw; w ← w + v."""

    def __init__(self, net: Sequential | Module, lr: float = 1e-4, momentum: float = 0.0) -> None:
        super().__init__(net, lr)
        self.momentum = momentum
        self.velocity: dict[str, Array] = {}

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        velocity = held(self.velocity, name, w, backend)
        backend.sgdm_update(w, dw, velocity, self.lr, self.momentum)


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradient, eps inside the root."""

    def __init__(
        self, net: Sequential | Module, lr: float = 1e-2, decay: float = 0.99, eps: float = 1e-8
    ) -> None:
        super().__init__(net, lr)
        self.decay, self.eps = decay, eps
        self.cache: dict[str, Array] = {}

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        cache = held(self.cache, name, w, backend)
        backend.rmsprop_update(w, dw, cache, self.lr, self.decay, self.eps)


class Adam(Optimizer):
    """Running means of the gradient and its square, both corrected for their start at 0; eps
    outside the root. t counts the steps taken and is incremented first."""

    def __init__(
        self,
        net: Sequential | Module,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        t: int = 0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(net, lr)
        self.beta1, self.beta2, self.t, self.eps = beta1, beta2, t, eps
        self.mt: dict[str, Array] = {}
        self.vt: dict[str, Array] = {}

    def step(self) -> None:
        self.t += 1
        super().step()

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        m, v = held(self.mt, name, w, backend), held(self.vt, name, w, backend)
        backend.adam_update(w, dw, m, v, self.lr, self.beta1, self.beta2, self.eps, self.t)
