"""The points of "Training to 75 %" for weights that a student trained elsewhere."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .interface import Failure, SectionResult

SECTION = "Training to 75 %"
ENOUGH = 0.75
NETWORKS = ("TinyNet", "FullyConnectedNetwork")


def score_weights(path: Path, folder: Path, points: float) -> SectionResult:
    """All the points where the weights reach 75 % on the data's validation split. ValueError for
    files that hold no network of the assignment's."""
    from .. import networks
    from ..checkpoint import load_weights
    from ..datasets import load_dataset
    from ..evaluation import Batches, evaluate
    from ..losses import CrossEntropy

    start = time.perf_counter()
    weights = load_npz(path) if path.suffix == ".npz" else load_weights(path)
    arrays = [a for a in in_order(weights) if a.ndim <= 2]
    for name in NETWORKS:
        model = getattr(networks, name)(backend="numpy", dtype="float32")
        slots = [(layer, key) for layer in model.net.layers for key in layer.params]
        if [layer.params[key].shape for layer, key in slots] == [a.shape for a in arrays]:
            break
    else:
        raise ValueError(
            f"{path} should hold the weights and biases of {' or '.join(NETWORKS)} in order; its "
            f"arrays have the shapes {[a.shape for a in arrays][:12]}"
        )
    for (layer, key), a in zip(slots, arrays, strict=True):
        layer.params[key] = a.astype("float32")
    data = load_dataset(folder)
    mean = next((a for a in weights.values() if a.ndim == 3), data.mean_image)
    loss_func = CrossEntropy(backend=model.backend)
    val, test = (
        evaluate(
            model,
            loss_func,
            Batches.of(model.backend, split.images, split.labels, "float32", mean),
        )[1]
        for split in (data.val, data.test)
    )
    said = f"{name}'s accuracy is {val:.2%} (validation) and {test:.2%} (test)"
    enough = val >= ENOUGH
    wrong = () if enough else (Failure(f"{said}; {ENOUGH:.0%} is expected on validation"),)
    status, score = ("passed", points) if enough else ("failed", 0.0)
    return SectionResult(SECTION, score, points, status, wrong, said, time.perf_counter() - start)


def load_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz, none of them pickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} should be an .npz of plain arrays: {error}") from error


def in_order(weights: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """fc1_w, fc1_b, fc2_w, ... where all these names are there, else as they come."""
    names = [f"fc{n}_{part}" for n in range(1, len(weights) + 1) for part in "wb"]
    found = [weights[name] for name in names if name in weights]
    return found or list(weights.values())
