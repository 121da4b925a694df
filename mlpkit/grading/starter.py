"""The assignment's skeleton: every name there, every body to be written."""

from __future__ import annotations

from pathlib import Path

LAYERS = '''"""Layers, loss and sequential; a layer's .params and .grads are dicts of arrays.

Their keys are names of your own, of which no two in a network are the same, as name + "_w".
"""

import numpy as np


class sequential:
    """Layers one after the other: .layers, .params, .grads, by name.

    Not graded: assign_grads, get_params, get_grads, gather_params, gather_grads and load.
    """

    def __init__(self, *layers):
        raise NotImplementedError

    def assign(self, name, value):
        """Make value, itself, the parameter of that name."""
        raise NotImplementedError

    def assign_grads(self, name, value):
        """Make value, itself, the gradient of that name."""
        raise NotImplementedError

    def get_params(self, name):
        raise NotImplementedError

    def get_grads(self, name):
        raise NotImplementedError

    def gather_params(self):
        raise NotImplementedError

    def gather_grads(self):
        raise NotImplementedError

    def load(self, params):
        """Copy arrays into the parameters of the same names."""
        raise NotImplementedError


class flatten:
    """(N, d1, ..., dk) to (N, d1 * ... * dk); backward restores the shape."""

    def __init__(self, name="flatten"):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError

    def backward(self, dout):
        raise NotImplementedError


class fc:
    """x w + b: w (input_dim, output_dim), b (output_dim,), both in .params.

    Weights start as init_scale times standard normals, biases as 0. A backward's gradients take the
    place of the last one's.
    """

    def __init__(self, input_dim, output_dim, init_scale=0.002, name="fc"):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError

    def backward(self, dout):
        raise NotImplementedError


class leaky_relu:
    """x where x >= 0, else negative_slope x."""

    def __init__(self, negative_slope=0.01, name="leaky_relu"):
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError

    def backward(self, dout):
        raise NotImplementedError


class dropout:
    """Inverted dropout. keep_prob: the probability to keep an element; 0: no dropout.

    Each forward in training draws a mask, of an element each. A seed given to forward restarts the
    masks: the same seed gives the same mask.
    """

    def __init__(self, keep_prob, seed=None, name="dropout"):
        raise NotImplementedError

    def forward(self, x, is_training=True, seed=None):
        raise NotImplementedError

    def backward(self, dout):
        raise NotImplementedError


def softmax(x):
    """Over the last axis, whatever the shape; stable for scores of 1e4."""
    raise NotImplementedError


class cross_entropy:
    """The mean (size_average) or the sum of -log softmax(scores) at the labels."""

    def __init__(self, size_average=True):
        raise NotImplementedError

    def forward(self, scores, labels):
        """The loss, a number."""
        raise NotImplementedError

    def backward(self):
        """The gradient of the loss by the scores that forward was given, in their shape."""
        raise NotImplementedError
'''

NETWORK = '''class {name}:
    """{layers}"""

    def __init__(self{arguments}):
        raise NotImplementedError

    def forward(self, x, is_training=True, seed=None):
        raise NotImplementedError

    def backward(self, dout):
        raise NotImplementedError
'''
NETWORKS = {
    "TestFCReLU": ("flatten, fc 15 -> 5, leaky_relu.", ""),
    "SmallFullyConnectedNetwork": ("fc 4 -> 30, leaky_relu, fc 30 -> 7; init_scale 0.02.", ""),
    "DropoutNet": (
        "flatten; fc 15 -> 20, 20 -> 30 and 30 -> 10, leaky_relu after each; then one dropout, the "
        "last layer; init_scale 0.05.",
        ", keep_prob=0, seed=None",
    ),
    "TinyNet": ("flatten, fc 3072 -> 3072, leaky_relu, fc 3072 -> 10.", ""),
    "FullyConnectedNetwork": (
        "flatten, fc 3072 -> 100, four of 100 -> 100, 100 -> 10, leaky_relu between; "
        "init_scale 0.05.",
        "",
    ),
}

OPTIMIZER = '''class {name}:
    """{what}"""

    def __init__(self, net, {arguments}):
        raise NotImplementedError

    def step(self):
        """Update every parameter in net.layers from its gradient, in place, by the .lr of now."""
        raise NotImplementedError
'''
OPTIMIZERS = {
    "SGD": ("Gradient descent.", "lr=1e-4"),
    "SGDM": (
        "v = momentum v - lr dw; w += v; .velocity by parameter name.",
        "lr=1e-4, momentum=0.0",
    ),
    "RMSProp": (
        "c = decay c + (1 - decay) dw^2; w -= lr dw / sqrt(c + eps); .cache, c by name.",
        "lr=1e-2, decay=0.99, eps=1e-8",
    ),
    "Adam": (
        "epsilon outside the root; t is incremented first, once a step; .mt and .vt by name, .t.",
        "lr=1e-3, beta1=0.9, beta2=0.999, t=0, eps=1e-8",
    ),
}

TRAINING = '''"""The training loop."""

import numpy as np


def train_net(
    data_dict,
    model,
    loss_func,
    optimizer,
    batch_size,
    max_epochs,
    lr_decay=1.0,
    lr_decay_every=1000,
    show_every=10,
    verbose=False,
):
    """Return (opt_params, loss_hist, train_acc_hist, val_acc_hist).

    data_dict: "data_train" and "data_val", each (images, labels). Each iteration takes a batch
    through model.forward in training, loss_func, model.backward and optimizer.step; examples that
    fill no batch are one more, or left out. optimizer.lr is multiplied by lr_decay every
    lr_decay_every epochs, as they end. opt_params: a dict by parameter name, copies of the
    parameters of the best validation epoch. loss_hist: the loss of each iteration, as loss_func
    gave it; the accuracies, from 0 to 1: over all training and all validation data, as each epoch
    ends.
    """
    raise NotImplementedError


def compute_acc(model, data, labels, num_samples=None, batch_size=100):
    """The fraction of data whose highest score is at its label, with is_training=False.

    num_samples: score so many alone, drawn at random.
    """
    raise NotImplementedError
'''

DATA = '''"""The data: the course provides SVHN_data; the grader never calls it."""


def SVHN_data(num_training=70000, num_validation=3257):
    """data_train, labels_train, data_val, labels_val, data_test, labels_test."""
    raise NotImplementedError
'''

CHECKS = '''"""Numerical gradients, for checks of your own: not graded."""

import numpy as np


def rel_error(x, y):
    """max of |x - y| / max(1e-8, |x| + |y|)."""
    raise NotImplementedError


def eval_numerical_gradient(f, x, verbose=True, h=1e-5):
    """Central differences of a scalar f along each coordinate of x."""
    raise NotImplementedError


def eval_numerical_gradient_array(f, x, df, h=1e-5):
    """The same for an array-valued f with the upstream gradient df."""
    raise NotImplementedError
'''

ACTIVATION = '''def {name}({arguments}):
    """{formula}"""
    raise NotImplementedError
'''
ACTIVATIONS = {
    "sigmoid": ("x", "1 / (1 + exp(-x))"),
    "leaky_relu": ("x, alpha=0.01", "x where x >= 0, else alpha x"),
    "relu": ("x", "max(x, 0)"),
    "elu": ("x, alpha=1.0", "x where x > 0, else alpha (exp(x) - 1)"),
    "selu": ("x, alpha=1.6732, scale=1.0507", "scale elu(x, alpha)"),
    "tanh": ("x", "tanh x"),
}


def files() -> dict[str, str]:
    """The skeleton's files: path and text."""
    networks = [
        NETWORK.format(name=name, layers=layers, arguments=arguments)
        for name, (layers, arguments) in NETWORKS.items()
    ]
    optimizers = [
        OPTIMIZER.format(name=name, what=what, arguments=arguments)
        for name, (what, arguments) in OPTIMIZERS.items()
    ]
    activations = [
        ACTIVATION.format(name=name, arguments=arguments, formula=formula)
        for name, (arguments, formula) in ACTIVATIONS.items()
    ]
    heads = {
        "networks": '"""Networks: each has .net, a sequential."""\n\n'
        "from lib.mlp.layer_utils import *",
        "optimizers": '"""Optimizers over net.layers, net being a sequential."""\n\n'
        "import numpy as np",
        "activations": '"""Activation functions of arrays of any shape."""\n\nimport numpy as np',
    }
    return {
        "lib/__init__.py": "",
        "lib/mlp/__init__.py": "",
        "lib/mlp/layer_utils.py": LAYERS,
        "lib/mlp/fully_conn.py": "\n\n\n".join((heads["networks"], *networks)),
        "lib/mlp/train.py": TRAINING,
        "lib/mlp/datasets.py": DATA,
        "lib/mlp/activations.py": "\n\n\n".join((heads["activations"], *activations)),
        "lib/optim.py": "\n\n\n".join((heads["optimizers"], *optimizers)),
        "lib/grad_check.py": CHECKS,
    }


def write_starter(folder: Path) -> None:
    """Write the skeleton into a folder that doesn't exist or is empty. ValueError for any other."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} should be a new or an empty folder; it isn't: name another")
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
