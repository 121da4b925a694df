"""Every name that the course notebook uses: `from mlpkit.notebook import *`.

`np` is the default backend's array namespace: numpy, or cupy, on which the same cells run.
"""

from mlpkit_backends import load as _load

from .datasets import SVHN_data
from .evaluation import compute_acc
from .gradcheck import eval_numerical_gradient, eval_numerical_gradient_array, rel_error
from .layers import Dropout as dropout  # noqa: N813 - the notebook's names
from .layers import Flatten as flatten  # noqa: N813
from .layers import FullyConnected as fc  # noqa: N813
from .layers import LeakyReLU as leaky_relu  # noqa: N813
from .losses import CrossEntropy as cross_entropy  # noqa: N813
from .losses import softmax
from .model import Module
from .model import Sequential as sequential  # noqa: N813
from .networks import (
    DropoutNet,
    FullyConnectedNetwork,
    SmallFullyConnectedNetwork,
    TestFCReLU,
    TinyNet,
)
from .optimizers import SGD, SGDM, Adam, RMSProp
from .training import train_net

np = _load().xp

__all__ = [
    "SGD",
    "SGDM",
    "Adam",
    "DropoutNet",
    "FullyConnectedNetwork",
    "Module",
    "RMSProp",
    "SVHN_data",
    "SmallFullyConnectedNetwork",
    "TestFCReLU",
    "TinyNet",
    "compute_acc",
    "cross_entropy",
    "dropout",
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "fc",
    "flatten",
    "leaky_relu",
    "np",
    "rel_error",
    "sequential",
    "softmax",
    "train_net",
]
