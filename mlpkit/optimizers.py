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

from collections.abc import Iterable
from typing import Any, ClassVar

from mlpkit_backends import Array, Backend

from .checks import check_nonnegative, check_positive
from .layers import gradient_of
from .model import Module, Sequential


class Optimizer:
    """Steps over every parameter that has a gradient. net: a Sequential, or a network that has one.

    lr, the learning rate, must be positive, and may be changed between steps, to 0 too. A subclass
    names its `op`, the base op that updates a parameter in place, and those of its attributes that
    the op takes, in its order: `state_names`, dicts of arrays by parameter name, and
    `setting_names`, numbers that come after the learning rate.
    """

    op: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]] = ()
    setting_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, net: Sequential | Module, lr: float) -> None:
        check_positive(lr=lr)
        if not isinstance(net, Sequential | Module):
            raise TypeError(
                "an optimizer takes a Sequential or a network that has one; "
                f"got {type(net).__name__}"
            )
        self.net: Sequential = net.net if isinstance(net, Module) else net
        self.lr = lr

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        check_nonnegative(lr=lr)  # 0 too, as many decays of a small one come to it
        self._lr = float(lr)

    def __repr__(self) -> str:
        settings = (f"{name}={getattr(self, name)}" for name in ("lr", *self.setting_names))
        return f"{type(self).__name__}({', '.join(settings)})"

    @property
    def states(self) -> dict[str, dict[str, Array]]:
        """What is kept, in the op's order: by the state's name, arrays by parameter name."""
        return {name: getattr(self, name) for name in self.state_names}

    @property
    def settings(self) -> tuple[float, ...]:
        """What the op takes after the learning rate."""
        return tuple(getattr(self, name) for name in self.setting_names)

    def advance(self) -> None:
        """What changes before a step's updates."""

    def step(self) -> None:
        """One update of every parameter from its gradient."""
        self.advance()
        for backend, name, w, dw in self.gradients():
            returned: Any = self.update(backend, name, w, dw)  # type: ignore[func-returns-value]
            if returned is not None and returned is not w:
                raise TypeError(
                    f"{type(self).__name__}'s update should change {name} in place, as w -= ... "
                    "does; it returned another array"
                )

    def gradients(self) -> Iterable[tuple[Backend, str, Array, Array]]:
        """Every parameter that has a gradient, once: with the sum of its gradients where several
        layers have it. ValueError for a gradient that is missing, of another shape than its
        parameter, or no parameter's."""
        found: dict[int, tuple[Backend, str, Array, Array]] = {}
        for layer in self.net.layers:
            if extra := layer.grads.keys() - layer.params.keys():
                known = ", ".join(layer.params) or "none"
                raise ValueError(
                    f"layer {layer.name} has a gradient of {min(extra)!r}, and no such parameter; "
                    f"it has: {known}"
                )
            for name, w in layer.params.items():
                if (dw := gradient_of(layer, name)) is None:
                    continue
                if id(w) in found:
                    backend, first, _, other = found[id(w)]
                    found[id(w)] = backend, first, w, other + dw
                else:
                    found[id(w)] = layer.backend, name, w, dw
        return found.values()

    def update(self, backend: Backend, name: str, w: Array, dw: Array) -> None:
        """Update w, the parameter of that name, in place."""
        state = self.state_of(backend, name, w)
        # Python's floats: NumPy's own would decide the dtype of what they touch.
        settings = map(float, (self.lr, *self.settings))
        getattr(backend, self.op)(w, dw, *state, *settings)

    def state_of(self, backend: Backend, name: str, w: Array) -> tuple[Array, ...]:
        """The state of the parameter of that name, zeros like w at first. ValueError where it has
        been replaced by something of another shape."""
        found = []
        for state in self.states.values():
            if name not in state:
                state[name] = backend.zeros_like(w)
            if state[name].shape != w.shape:
                raise ValueError(
                    f"{type(self).__name__}'s state of {name} should have its shape, "
                    f"{tuple(w.shape)}; got {tuple(state[name].shape)}"
                )
            found.append(state[name])
        return tuple(found)


class SGD(Optimizer):
    """Gradient descent: w ← w - lr dw."""

    op = "sgd_update"

    def __init__(self, net: Sequential | Module, lr: float = 1e-4) -> None:
        super().__init__(net, lr)


class SGDM(Optimizer):
    """Gradient descent with momentum: v ← momentum v - lr dw; w ← w + v. The learning rate is in v,
    where PyTorch multiplies v by it: they differ once lr changes. ValueError for a negative
    momentum."""

    op, state_names, setting_names = "sgdm_update", ("velocity",), ("momentum",)

    def __init__(self, net: Sequential | Module, lr: float = 1e-4, momentum: float = 0.0) -> None:
        super().__init__(net, lr)
        check_nonnegative(momentum=momentum)
        self.momentum = momentum
        self.velocity: dict[str, Array] = {}


class RMSProp(Optimizer):
    """Steps divided by the root of an exponential moving average of the squared gradient:

    c ← decay c + (1 - decay) dw²
    w ← w - lr dw / √(c + eps)

    eps is inside the root, where PyTorch has it outside. ValueError for a decay outside [0, 1) or a
    negative eps.
    """

    op, state_names, setting_names = "rmsprop_update", ("cache",), ("decay", "eps")

    def __init__(
        self, net: Sequential | Module, lr: float = 1e-2, decay: float = 0.99, eps: float = 1e-8
    ) -> None:
        super().__init__(net, lr)
        check_nonnegative(below=1, decay=decay)
        check_nonnegative(eps=eps)
        self.decay, self.eps = decay, eps
        self.cache: dict[str, Array] = {}


class Adam(Optimizer):
    """Exponential moving averages of the gradient and of its square, bias-corrected (Kingma and Ba
    2015):

    m ← beta1 m + (1 - beta1) dw
    v ← beta2 v + (1 - beta2) dw²
    w ← w - lr (m / (1 - beta1ᵗ)) / (√(v / (1 - beta2ᵗ)) + eps)

    t counts the steps taken and is incremented first. ValueError for a beta outside [0, 1), a
    negative eps or t.
    """

    op, state_names = "adam_update", ("mt", "vt")
    setting_names = ("beta1", "beta2", "eps", "t")

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
        check_nonnegative(below=1, beta1=beta1, beta2=beta2)
        check_nonnegative(eps=eps, t=t)
        self.beta1, self.beta2, self.t, self.eps = beta1, beta2, t, eps
        self.mt: dict[str, Array] = {}
        self.vt: dict[str, Array] = {}

    def advance(self) -> None:
        self.t += 1
