"""A run's best weights: read back, and scored again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpkit_backends import Backend, load

from .arrays import shapes_of
from .checkpoint import CheckpointError, load_weights
from .datasets import Dataset, Split, load_dataset
from .evaluation import Batches, evaluate
from .losses import CrossEntropy
from .matfile import IMAGE
from .model import Module
from .provenance import data_hashes
from .recipes import build_network
from .run_files import RunError, read_config, resuming, run_data

BEST = "best.safetensors"
MEAN_IMAGE = "mean_image"  # beside the weights, so that they can score any data


def on_device(backend: Backend, split: Split, dtype: str, mean: Any) -> Batches:
    """A split as batches on a backend's device, centred on the mean image."""
    return Batches.of(backend, split.images, split.labels, dtype, mean)


def load_run(
    folder: Path | str, backend: str | Backend | None = None
) -> tuple[Module, NDArray[np.float64]]:
    """A run's network with its best weights, and the mean image (32, 32, 3) it was trained with:
    its input is images / 255 less that. Raises RunError, CheckpointError."""
    folder = Path(folder)
    config = read_config(folder)
    model = build_network(config["net"], config["keep_prob"], 0, config["dtype"], load(backend))
    if not (folder / BEST).is_file():
        raise RunError(
            f"{folder} has no {BEST}: it was stopped before the end of its first epoch, or the "
            f"file was removed; `{resuming(folder)}` goes on, or writes it again"
        )
    try:
        weights = load_weights(folder / BEST, checked=True)
    except CheckpointError as error:
        error.add_note(f"`{resuming(folder)}` writes it again from the last checkpoint")
        raise
    expected = shapes_of(model.net.params) | {MEAN_IMAGE: IMAGE}
    for name, shape in expected.items():
        came = f"has the shape {weights[name].shape}" if name in weights else "is missing"
        if name not in weights or weights[name].shape != shape:
            raise RunError(
                f"{folder / BEST} should hold {name} {shape} for the network {config['net']}; "
                f"it {came}: train again"
            )
    model.net.load(weights, report=lambda line: None)
    return model, weights[MEAN_IMAGE]


def evaluate_run(
    folder: Path, data_folder: Path | None, backend: str | Backend | None
) -> tuple[Dataset, dict[str, tuple[float, float]], bool]:
    """The data, (loss, accuracy) of a run's best weights on its validation and test splits, and
    whether the data's files are those that the run was trained with.

    data_folder: other data in SVHN's layout, centred on the run's own mean image and split as
    `load_dataset` does by default; None: the run's. The run's own data, wherever it lies, is split
    as the run did.
    """
    config = read_config(folder)
    model, mean = load_run(folder, backend)
    val_size = config["val_size"] if data_folder is None else None
    data = load_dataset(data_folder or run_data(config), val_size)
    same = data_hashes(data.folder) == config.get("data_sha256")
    if same and len(data.val) != config["val_size"]:
        data = load_dataset(data.folder, config["val_size"])
    loss_func = CrossEntropy(backend=model.backend)
    with model.backend.failures():
        scores = {
            split: evaluate(model, loss_func, on_device(model.backend, part, config["dtype"], mean))
            for split, part in (("val", data.val), ("test", data.test))
        }
    return data, scores, same
