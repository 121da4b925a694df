"""The networks: each has `.net`, a Sequential, and forward(x, is_training, seed), backward(dout).

`seed` (an integer or a numpy Generator) draws the weights; None: NumPy's global state does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from mlpkit_backends import Backend, load

from .checks import check_counts
from .layers import Dropout, Flatten, FullyConnected, Layer, LeakyReLU
from .model import Module, Sequential
from .seeding import Seed, generator


class MLP(Module):
    """Flatten, then a fully connected layer for each pair of neighbours in widths, with leaky ReLU
    between: (3072, 100, 10) is 3072 -> 100 -> 10.

    The fully connected layers are fc1, fc2, ..., their parameters fc1_w, fc1_b, ...; `net` is the
    Sequential of all layers. init_scale: the standard deviation of the initial weights; None is
    √(2 / inputs) for each layer (He et al. 2015). keep_prob: dropout after every hidden activation,
    0 for none. dropout_seed: of its masks; None is `seed` where that is an integer, and drawn from
    it, before the weights, where it is a generator. seed: of the weights. dtype: "float64", good
    for checking gradients, or "float32", twice as fast.
    """

    def __init__(
        self,
        widths: Sequence[int],
        init_scale: float | None = None,
        keep_prob: float = 0.0,
        dropout_seed: int | None = None,
        *,
        seed: Seed = None,
        dtype: str = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        if not isinstance(widths, Iterable) or len(widths := tuple(widths)) < 2:
            raise ValueError(f"widths needs at least two, input and output; got {widths}")
        check_counts(**{f"widths[{i}]": width for i, width in enumerate(widths)})
        chosen = load(backend)
        rng = generator(seed)
        if isinstance(seed, np.random.Generator):
            if dropout_seed is None and keep_prob:
                dropout_seed = int(seed.integers(2**63))
        elif dropout_seed is None:
            dropout_seed = seed
        layers: list[Layer] = [Flatten(backend=chosen)]
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            if i > 1:
                layers.append(LeakyReLU(name=f"leaky_relu{i - 1}", backend=chosen))
                if keep_prob:
                    layers.append(
                        Dropout(keep_prob, dropout_seed, f"dropout{i - 1}", backend=chosen)
                    )
            scale = math.sqrt(2.0 / inputs) if init_scale is None else init_scale
            layers.append(
                FullyConnected(
                    inputs, outputs, scale, f"fc{i}", seed=rng, dtype=dtype, backend=chosen
                )
            )
        super().__init__(Sequential(*layers))


class TinyNet(MLP):
    """3072 -> 3072 -> 10, weights 0.002 times standard normals."""

    def __init__(
        self,
        *,
        seed: Seed = None,
        dtype: str = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__((3072, 3072, 10), 0.002, seed=seed, dtype=dtype, backend=backend)


class FullyConnectedNetwork(MLP):
    """3072 -> 100 -> 100 -> 100 -> 100 -> 100 -> 10, weights 0.05 times standard normals."""

    def __init__(
        self,
        *,
        seed: Seed = None,
        dtype: str = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        widths = (3072, 100, 100, 100, 100, 100, 10)
        super().__init__(widths, 0.05, seed=seed, dtype=dtype, backend=backend)


class TestFCReLU(Module):
    """Flatten, 15 -> 5 (tiny_fc), leaky ReLU: for checking gradients."""

    __test__ = False  # pytest: a network, no test

    def __init__(self, *, seed: Seed = None, backend: str | Backend | None = None) -> None:
        chosen = load(backend)
        net = Sequential(
            Flatten(backend=chosen),
            FullyConnected(15, 5, name="tiny_fc", seed=seed, backend=chosen),
            LeakyReLU(backend=chosen),
        )
        super().__init__(net)


class SmallFullyConnectedNetwork(Module):
    """4 -> 30 (fc_1), leaky ReLU, 30 -> 7 (fc_2), weights 0.02 times standard normals."""

    def __init__(self, *, seed: Seed = None, backend: str | Backend | None = None) -> None:
        chosen = load(backend)
        rng = generator(seed)
        net = Sequential(
            FullyConnected(4, 30, 0.02, "fc_1", seed=rng, backend=chosen),
            LeakyReLU(backend=chosen),
            FullyConnected(30, 7, 0.02, "fc_2", seed=rng, backend=chosen),
        )
        super().__init__(net)


class DropoutNet(Module):
    """Flatten, 15 -> 20 -> 30 -> 10 with leaky ReLU after each, then dropout; weights 0.05 times
    standard normals. seed is the dropout masks'; weight_seed the weights'."""

    def __init__(
        self,
        keep_prob: float = 0,
        seed: int | None = None,
        *,
        weight_seed: Seed = None,
        backend: str | Backend | None = None,
    ) -> None:
        chosen = load(backend)
        rng = None if weight_seed is None else np.random.default_rng(weight_seed)
        layers: list[Layer] = [Flatten(backend=chosen)]
        for i, (inputs, outputs) in enumerate([(15, 20), (20, 30), (30, 10)], start=1):
            layers += [
                FullyConnected(inputs, outputs, 0.05, f"fc{i}", seed=rng, backend=chosen),
                LeakyReLU(name=f"leaky_relu{i}", backend=chosen),
            ]
        layers.append(Dropout(keep_prob, seed, backend=chosen))
        super().__init__(Sequential(*layers))
