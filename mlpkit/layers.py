"""Layers: forward keeps what backward needs; the formulas are the backend's ops.

Every layer has `name`, `params` and `grads` (dicts of arrays by parameter name), `forward(x)` and
`backward(dout)`, which returns the gradient of x and fills `grads`. A backward takes back what its
forward kept: without a forward before it, it raises ValueError. `backend=` overrides the default
backend, read when the layer is built.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from mlpkit_backends import Array, Backend, load

from .activations import SELU_ALPHA, SELU_SCALE
from .arrays import check_array, check_floats, float_dtype
from .checks import check_counts, check_nonnegative, number
from .seeding import Seed, check_seed, normal


class Layer:
    """A layer without parameters; subclasses write forward and backward.

    name: unique in a network; params, grads: dicts of arrays by parameter name, a gradient being
    None before the first backward; backend: where its arrays live; is_training: whether the network
    is being trained, as its forward says, for layers that then do otherwise.
    """

    setting_names: ClassVar[tuple[str, ...]] = ()  # attributes that a repr shows

    def __init__(self, name: str, *, backend: str | Backend | None = None) -> None:
        self.name = name
        self.backend = load(backend)
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.is_training = True
        self._kept: Any = None

    def __repr__(self) -> str:
        shapes = "".join(f", {name} {tuple(p.shape)}" for name, p in self.params.items())
        settings = "".join(f", {name}={getattr(self, name)}" for name in self.setting_names)
        return f"{type(self).__name__}({self.name!r}{settings}{shapes})"

    def __getstate__(self) -> dict[str, Any]:
        """A pickle has no part of the last batch in it."""
        return self.__dict__ | {"_kept": None}

    def forward(self, x: Array) -> Array:
        """The layer's output for a batch x, which it must not write: it may be the data's own."""
        raise NotImplementedError(f"{type(self).__name__} needs a forward(self, x) of its own")

    def backward(self, dout: Array) -> Array:
        """The gradient of x, from the gradient of the output."""
        raise NotImplementedError(f"{type(self).__name__} needs a backward(self, dout) of its own")

    def keep(self, value: Any) -> None:
        """Hold a value of this forward for the backward that follows."""
        self._kept = value

    def take_kept(self) -> Any:
        """What the last forward kept, once."""
        if self._kept is None:
            raise ValueError(
                f"layer {self.name}: backward needs a forward before it, which keeps what it takes "
                "with self.keep(...); call forward"
            )
        value, self._kept = self._kept, None
        return value


def gradient_of(layer: Layer, name: str) -> Array:
    """The gradient that the layer's backward left for its parameter, None for one that isn't
    trained; ValueError where it left none."""
    if name not in layer.grads:
        raise ValueError(
            f"layer {layer.name}'s backward left no gradient of {name}: it should put it into "
            f"self.grads[{name!r}], or None where it isn't trained"
        )
    dw, shape = layer.grads[name], tuple(layer.params[name].shape)
    if dw is not None and not hasattr(dw, "shape"):
        raise ValueError(f"the gradient of {name} should be an array; got {type(dw).__name__}")
    if dw is not None and tuple(dw.shape) != shape:
        raise ValueError(
            f"the gradient of {name} should have its shape, {shape}; got {tuple(dw.shape)}"
        )
    return dw


def check_gradient(layer: Layer, dout: Array, shape: tuple[int, ...]) -> None:
    """ValueError unless dout has the shape of the layer's output: it would be broadcast."""
    check_array(f"layer {layer.name}'s backward", dout)
    if tuple(dout.shape) != tuple(shape):
        raise ValueError(
            f"layer {layer.name}'s backward takes the gradient of its output, of shape "
            f"{tuple(shape)}; got {tuple(dout.shape)}"
        )


class Flatten(Layer):
    """(N, d1, ..., dk) to (N, d1·...·dk); backward restores the shape."""

    def __init__(self, name: str = "flatten", *, backend: str | Backend | None = None) -> None:
        super().__init__(name, backend=backend)

    def forward(self, x: Array) -> Array:
        check_array(f"layer {self.name}", x)
        if not x.shape:
            raise ValueError(f"layer {self.name} takes a batch (N, ...); got one number")
        self.keep(x.shape)
        return self.backend.xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    def backward(self, dout: Array) -> Array:
        return self.backend.xp.reshape(dout, self.take_kept())


class FullyConnected(Layer):
    """y = x w + b: x (N, input_dim), w (input_dim, output_dim), b (output_dim,).

    w starts as init_scale times standard normals, drawn on the host in float64 from `seed` (an
    integer or a numpy Generator; None: NumPy's global state), so it is the same on every backend;
    b starts at 0. `w_name` and `b_name` are their keys in params and grads.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        init_scale: float = 0.002,
        name: str = "fc",
        *,
        seed: Seed = None,
        dtype: str = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(name, backend=backend)
        check_counts(input_dim=input_dim, output_dim=output_dim)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.w_name, self.b_name = f"{name}_w", f"{name}_b"
        dtype = float_dtype(dtype)
        check_nonnegative(init_scale=init_scale)
        w = init_scale * normal((input_dim, output_dim), seed)
        self.params[self.w_name] = self.backend.asarray(w, dtype)
        self.params[self.b_name] = self.backend.zeros((output_dim,), dtype)
        self.grads = {self.w_name: None, self.b_name: None}

    def forward(self, x: Array) -> Array:
        check_floats(f"layer {self.name}", x)
        w = self.params[self.w_name]
        if x.ndim != 2 or x.shape[1] != w.shape[0]:
            raise ValueError(
                f"layer {self.name} takes inputs of shape (N, {w.shape[0]}); got {tuple(x.shape)}: "
                f"give it {w.shape[0]} values an example, flattened, or build it with another width"
            )
        b = self.params[self.b_name]
        if b.shape != w.shape[1:]:
            raise ValueError(
                f"layer {self.name}: {self.b_name} should have the shape {tuple(w.shape[1:])}, a "
                f"number for each column of {self.w_name}; got {tuple(b.shape)}"
            )
        self.keep(x)
        return self.backend.affine(x, w, b)

    def backward(self, dout: Array) -> Array:
        x = self.take_kept()
        check_gradient(self, dout, (x.shape[0], self.params[self.w_name].shape[1]))
        dw, db = self.backend.affine_parameter_gradients(dout, x)
        self.grads[self.w_name], self.grads[self.b_name] = dw, db
        return self.backend.affine_input_gradient(dout, self.params[self.w_name])


class Dropout(Layer):
    """Inverted dropout: each element stays with probability keep_prob and is divided by it.

    keep_prob 0 and 1 change nothing; outside [0, 1] is a ValueError. The mask depends on the seed,
    the layer's position in the network that it runs in and the number of training forwards since
    the seed was set, and on nothing else: the same on every backend. Without a seed, one is drawn
    from NumPy's global state.
    """

    setting_names = ("keep_prob",)

    def __init__(
        self,
        keep_prob: float,
        seed: int | None = None,
        name: str = "dropout",
        *,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(name, backend=backend)
        self.keep_prob = number("keep_prob", keep_prob)
        if not 0 <= keep_prob <= 1:
            raise ValueError(
                f"layer {name}: keep_prob is the probability to keep an element, in [0, 1]; "
                f"got {keep_prob}"
            )
        self.seed = check_seed(seed)
        self.position = 0
        self.step = 0

    def forward(self, x: Array, is_training: bool = True, seed: int | None = None) -> Array:
        """x with elements dropped, or x itself where is_training is False.

        A seed restarts the masks: the same seed gives the same mask.
        """
        if seed is not None:
            self.seed, self.step = check_seed(seed), 0
        if not is_training or self.keep_prob in (0, 1):
            self.keep(())
            return x
        mask = self.backend.keep_mask(
            tuple(x.shape), self.keep_prob, (self.seed, self.position, self.step)
        )
        self.step += 1
        self.keep((mask,))
        return self.backend.dropout(x, mask, float(self.keep_prob))

    def backward(self, dout: Array) -> Array:
        for mask in self.take_kept():
            check_gradient(self, dout, mask.shape)
            dout = self.backend.dropout(dout, mask, float(self.keep_prob))
        return dout


class Activation(Layer):
    """An elementwise layer. A subclass names the backend's op, `op`, and those of its attributes
    that the op takes after x, `setting_names`.

    name: by default the op's.
    """

    op: ClassVar[str]

    def __init__(self, name: str | None = None, *, backend: str | Backend | None = None) -> None:
        super().__init__(self.op if name is None else name, backend=backend)
        ops = (self.op, f"{self.op}_backward")
        if not all(hasattr(self.backend, op) for op in ops):
            raise ValueError(
                f"{type(self).__name__}'s op, {self.op!r}, is none of the backend's: write "
                f"{' and '.join(ops)} in base.py, or a Layer with forward and backward"
            )

    @property
    def settings(self) -> tuple[float, ...]:
        """What the op takes after x."""
        # Python's, as NumPy's float64 would make float32 arrays float64.
        return tuple(float(getattr(self, name)) for name in self.setting_names)

    def forward(self, x: Array) -> Array:
        check_floats(f"layer {self.name}", x)
        self.keep(x)
        return getattr(self.backend, self.op)(x, *self.settings)

    def backward(self, dout: Array) -> Array:
        x = self.take_kept()
        check_gradient(self, dout, x.shape)
        return getattr(self.backend, f"{self.op}_backward")(dout, x, *self.settings)


class LeakyReLU(Activation):
    """x where x >= 0, else negative_slope x."""

    op, setting_names = "leaky_relu", ("negative_slope",)

    def __init__(
        self,
        negative_slope: float = 0.01,
        name: str = "leaky_relu",
        *,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(name, backend=backend)
        self.negative_slope = number("negative_slope", negative_slope)


class ReLU(Activation):
    """max(x, 0)."""

    op = "relu"


class ELU(Activation):
    """x where x > 0, else alpha (eˣ - 1)."""

    op, setting_names = "elu", ("alpha",)

    def __init__(
        self, alpha: float = 1.0, name: str = "elu", *, backend: str | Backend | None = None
    ) -> None:
        super().__init__(name, backend=backend)
        self.alpha = number("alpha", alpha)


class SELU(Activation):
    """scale elu(x, alpha); the defaults keep mean 0 and variance 1."""

    op, setting_names = "selu", ("alpha", "scale")

    def __init__(
        self,
        alpha: float = SELU_ALPHA,
        scale: float = SELU_SCALE,
        name: str = "selu",
        *,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(name, backend=backend)
        self.alpha, self.scale = number("alpha", alpha), number("scale", scale)


class Sigmoid(Activation):
    """1 / (1 + e⁻ˣ)."""

    op = "sigmoid"


class Tanh(Activation):
    """tanh x."""

    op = "tanh"
