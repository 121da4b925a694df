"""The points of "Training to 75 %" for weights that a student trained elsewhere."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import shapes_of
from ..matfile import IMAGE
from ..model import Module
from .interface import Failure, SectionResult
from .packing import UNREADABLE, check_members, open_member

SECTION = "Training to 75 %"
ENOUGH = 0.75
# An .npz of more than LARGE bytes that is packed RATIO times as small holds no trained weights.
LARGE, RATIO = 32 << 20, 10
NETWORKS = ("TinyNet", "FullyConnectedNetwork")


def score_weights(path: Path, folder: Path, points: float) -> SectionResult:
    """All the points where the weights reach 75 % on the data's validation split. ValueError for
    files that hold no network of the assignment's."""
    from .. import networks
    from ..checkpoint import load_weights
    from ..datasets import load_dataset
    from ..evaluation import evaluate
    from ..losses import CrossEntropy
    from ..scoring import on_device

    start = time.perf_counter()
    weights = load_npz(path) if path.suffix == ".npz" else load_weights(path)
    arrays = in_order({name: a for name, a in weights.items() if a.ndim <= 2})
    models = {n: getattr(networks, n)(backend="numpy", dtype="float32") for n in NETWORKS}
    shapes = [a.shape for a in arrays]
    fitting = (n for n, m in models.items() if [p.shape for p in m.net.params.values()] == shapes)
    name = next(fitting, None)
    if name is None:
        raise ValueError(
            f"{path} should hold the weights and biases of {' or '.join(NETWORKS)} in order; "
            f"{misfit(weights, models)}"
        )
    model = models[name]
    model.net.load(dict(zip(model.net.params, arrays, strict=True)), report=lambda line: None)
    mean = mean_image(path, weights)
    data = load_dataset(folder)
    mean = data.mean_image if mean is None else mean
    loss_func = CrossEntropy(backend=model.backend)
    val, test = (
        evaluate(model, loss_func, on_device(model.backend, split, "float32", mean))[1]
        for split in (data.val, data.test)
    )
    said = f"{name}'s accuracy is {val:.2%} (validation) and {test:.2%} (test)"
    enough = val >= ENOUGH
    expected = f"{said}; {ENOUGH:.0%} is expected on validation"
    wrong = () if enough else (Failure(expected, unusual(weights)),)
    status, score = ("passed", points) if enough else ("failed", 0.0)
    return SectionResult(SECTION, score, points, status, wrong, said, time.perf_counter() - start)


def misfit(weights: Mapping[str, np.ndarray[Any, Any]], models: Mapping[str, Module]) -> str:
    """The first array that differs, by name, from those of a network that shares others with it;
    all shapes where no network does."""
    shapes = {name: shape for name, shape in shapes_of(weights).items() if len(shape) <= 2}
    for network, model in models.items():
        expected = shapes_of(model.net.params)
        differing = [n for n in {**expected, **shapes} if shapes.get(n) != expected.get(n)]
        if differing and shapes.items() & expected.items():
            first = differing[0]
            wanted = f"be {expected[first]}" if first in expected else "not be there"
            came = shapes.get(first, "missing")
            return f"of {network}'s, {first} should {wanted}; it is {came}"
    return f"its arrays have the shapes {list(shapes.values())[:12]}"


def unusual(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """What may have kept the weights from their accuracy, "" where nothing is seen."""
    for name, a in weights.items():
        with np.errstate(over="ignore"):
            finite = np.isfinite(a.astype("float32")).all()
        if not finite:
            return f"{name} holds NaN, or numbers that are infinite in float32"
        if a.dtype.kind != "f" and a.ndim <= 2:
            return f"{name} is {a.dtype}: trained weights are floats"
    return ""


def mean_image(
    path: Path, weights: Mapping[str, np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any] | None:
    """The mean image beside the weights, None where there is none. ValueError for another array."""
    more = {name: a for name, a in weights.items() if a.ndim > 2}
    if not more:
        return None
    if [a.shape for a in more.values()] != [IMAGE]:
        came = ", ".join(f"{name} {a.shape}" for name, a in more.items())
        raise ValueError(
            f"{path} should hold, beside weights and biases, a mean image {IMAGE} or nothing; it "
            f"holds {came}: leave out what is none"
        )
    ((name, mean),) = more.items()
    if not ((mean >= 0) & (mean <= 1)).all():
        raise ValueError(
            f"{path}: {name} should be the mean of images from 0 to 1; it goes from "
            f"{mean.min():.4g} to {mean.max():.4g}: divide it by 255, or leave it out"
        )
    return mean


def load_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz, real numbers all, none of them pickled. ValueError.

    numpy.load believes what an array's header says of its size, and unpacks what it is given.
    """
    if not path.exists():
        raise ValueError(f"there are no weights at {path}: expected an .npz or .safetensors file")
    try:
        check_members(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked, packed = sum(m.file_size for m in members), path.stat().st_size
            if unpacked > max(LARGE, RATIO * packed):
                raise ValueError(f"its {packed} bytes unpack to {unpacked}, as no weights do")
            return {m.filename.removesuffix(".npy"): read_npy(archive, m) for m in members}
    except UNREADABLE as error:
        raise ValueError(f"{path} should be an .npz of plain arrays: {error}") from error


def read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """An array of real numbers. ValueError, and what zipfile raises."""
    with open_member(archive, member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(
                f"{member.filename} has version {version} of NumPy's format, not 1 or 2"
            )
        read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, transposed, dtype = read(file)
        if dtype.kind not in "fiu":
            raise ValueError(f"{member.filename} should hold real numbers; its type is {dtype}")
        content, size = file.read(), math.prod(shape) * dtype.itemsize
    if len(content) != size:
        raise ValueError(f"{member.filename} should have {size} bytes; it has {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if transposed else "C")


def in_order(weights: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """fc1_w, fc1_b, fc2_w, ... where these are the names, else as they come."""
    names = [f"fc{n}_{part}" for n in range(1, len(weights) // 2 + 1) for part in "wb"]
    return [weights[name] for name in (names if {*names} == {*weights} else weights)]
