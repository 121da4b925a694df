"""Multilayer perceptrons from scratch: one seed, one result, on every backend."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; imported when first used, so that `mlpkit --help` answers at once.
# Type checkers and editors read the same in __init__.pyi.
_HOMES = {
    "mlpkit.checkpoint": ["CheckpointError", "load_weights", "save_weights"],
    "mlpkit.datasets": ["DataError", "Dataset", "Split", "SVHN_data", "load_dataset"],
    "mlpkit.evaluation": ["Batches", "compute_acc", "evaluate"],
    "mlpkit.gradcheck": [
        "check_gradients",
        "eval_numerical_gradient",
        "eval_numerical_gradient_array",
        "rel_error",
    ],
    "mlpkit.history": ["Epoch", "History", "TrainingDiverged"],
    "mlpkit.layers": [
        "ELU",
        "SELU",
        "Activation",
        "Dropout",
        "Flatten",
        "FullyConnected",
        "Layer",
        "LeakyReLU",
        "ReLU",
        "Sigmoid",
        "Tanh",
    ],
    "mlpkit.losses": ["CrossEntropy", "softmax"],
    "mlpkit.model": ["Module", "Sequential"],
    "mlpkit.networks": [
        "MLP",
        "DropoutNet",
        "FullyConnectedNetwork",
        "SmallFullyConnectedNetwork",
        "TestFCReLU",
        "TinyNet",
    ],
    "mlpkit.optimizers": ["SGD", "SGDM", "Adam", "Optimizer", "RMSProp"],
    "mlpkit.run_files": ["RunError"],
    "mlpkit.scoring": ["load_run"],
    "mlpkit.training": ["Watcher", "fit", "train_net"],
    "mlpkit_backends": ["Backend", "BackendUnavailable", "available"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mlpkit' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
