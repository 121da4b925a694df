"""The recipes of `mlpkit train`, and the networks and optimizers that it builds by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checks import check_counts, check_positive

if TYPE_CHECKING:
    from mlpkit_backends import Backend

    from .model import Module
    from .optimizers import Optimizer


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained. train_size: at most so many training images, the first ones;
    None: all. ValueError for a setting out of range."""

    net: str
    optimizer: str
    lr: float
    batch_size: int
    epochs: int
    train_size: int | None = None
    lr_decay: float = 1.0
    lr_decay_every: int = 1000

    def __post_init__(self) -> None:
        check_positive(lr=self.lr, lr_decay=self.lr_decay)
        check_counts(
            batch_size=self.batch_size, epochs=self.epochs, lr_decay_every=self.lr_decay_every
        )


RECIPES = {
    "tinynet": Recipe("tinynet", "sgd", 1e-2, 64, 24, None, 0.99, 50),
    "sgd": Recipe("fcn", "sgd", 1e-2, 32, 15, 50000),
    "sgdm": Recipe("fcn", "sgdm", 1e-2, 32, 15, 50000),
    "rmsprop": Recipe("fcn", "rmsprop", 5e-4, 32, 15, 50000),
    "adam": Recipe("fcn", "adam", 5e-4, 32, 15, 50000),
}
# What the command line calls a network or an optimizer, and its class.
NETWORKS = {"tinynet": "TinyNet", "fcn": "FullyConnectedNetwork"}
OPTIMIZERS = {"sgd": "SGD", "sgdm": "SGDM", "rmsprop": "RMSProp", "adam": "Adam"}
DTYPES = ("float32", "float64")
DEFAULT_RECIPE = "adam"
MOMENTUM = 0.9


def check_dtype(dtype: str) -> None:
    """ValueError for a dtype that networks aren't trained in."""
    if dtype not in DTYPES:
        raise ValueError(f"the dtype must be {' or '.join(DTYPES)}; got {dtype!r}")


def count_epochs(number: int) -> str:
    """So many epochs, in words."""
    return f"{number} epoch{'s' * (number != 1)}"


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or a ValueError that lists them."""
    if name not in RECIPES:
        raise ValueError(f"the recipe must be one of {', '.join(RECIPES)}; got {name!r}")
    return RECIPES[name]


def network_title(net: str) -> str:
    """The network that `--net` names, for a person."""
    return NETWORKS.get(net, f"MLP {net}")


def build_network(
    net: str, keep_prob: float, seed: int, dtype: str, backend: str | Backend | None
) -> Module:
    """The network that `--net` names: tinynet, fcn, or the hidden widths of an MLP, as in 512,256.

    keep_prob: dropout after every hidden activation of an MLP by widths; 0 for none.
    """
    from . import networks

    if net in NETWORKS:
        if keep_prob:
            raise ValueError(
                f"the network {net} has no dropout; got a keep_prob of {keep_prob}: name hidden "
                "widths instead, as in --net 3072 or --net 100,100,100,100,100"
            )
        named: Module = getattr(networks, NETWORKS[net])(seed=seed, dtype=dtype, backend=backend)
        return named
    try:
        hidden = [int(width) for width in net.split(",")]
    except ValueError:
        hidden = [0]
    if min(hidden) < 1:
        raise ValueError(
            "the network must be tinynet, fcn, or positive hidden widths as in 512,256; "
            f"got {net!r}"
        )
    widths = (3072, *hidden, 10)
    return networks.MLP(widths, None, keep_prob, seed=seed, dtype=dtype, backend=backend)


def build_optimizer(name: str, model: Module, lr: float) -> Optimizer:
    """The optimizer of that name; SGDM with a momentum of 0.9, the rest with their defaults."""
    from . import optimizers

    if name not in OPTIMIZERS:
        raise ValueError(f"the optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
    settings = {"momentum": MOMENTUM} if name == "sgdm" else {}
    optimizer: Optimizer = getattr(optimizers, OPTIMIZERS[name])(model, lr, **settings)
    return optimizer
