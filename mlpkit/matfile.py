"""Reading a .mat file of SVHN's layout, or saying in a sentence what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = (32, 32, 3)
LAYOUT = "X uint8 (32, 32, 3, N) and y (N, 1) with labels 1..10"


class DataError(ValueError):
    """The data can't be used; the message says what was expected, what came and what to do."""


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 (N, 32, 32, 3) and labels int64 (N,) in 0..9, the file's 10 as 0.

    The file's head is looked at before scipy parses it, and its shapes before X is read. Takes
    little more memory than the images. Raises DataError.
    """
    import scipy.io

    check_head(path)
    try:
        listing = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
        check_listing(path, listing)
        content = scipy.io.loadmat(path, variable_names=["X", "y"])
    except DataError:
        raise
    except Exception as error:  # scipy's parser fails in many ways on a damaged file
        raise DataError(
            f"{path} is damaged or cut short ({type(error).__name__}: {error}): fetch or make it "
            "again"
        ) from error
    return images_first(content["X"]), digits(path, content["y"])


def check_head(path: Path) -> None:
    """DataError unless the file starts as MATLAB 5 files do."""
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: `mlpkit data fetch` downloads SVHN, `mlpkit data make` makes "
            "its offline stand-in"
        )
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path} is a MATLAB 7.3 (HDF5) file; expected version 5: save it with -v7")
    if len(head) == 128 and head[126:128] in (b"IM", b"MI"):
        return
    if not head.strip(b"\0"):
        what = "an empty file" if not head else "filled with zeros"
    elif head.lstrip().startswith(b"<"):
        what = "a web page (HTML)"
    else:
        what = f"something else (it starts with {head[:12]!r})"
    raise DataError(f"{path} should be a MATLAB 5 file with {LAYOUT}; it is {what}: fetch it again")


def check_listing(path: Path, listing: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """DataError unless X and y are there with shapes and types that fit."""
    for key in ("X", "y"):
        if key not in listing:
            raise DataError(
                f"{path} should hold {LAYOUT}; it lacks {key}: it has "
                f"{', '.join(listing) or 'nothing'}"
            )
    (x_shape, x_kind), (y_shape, y_kind) = listing["X"], listing["y"]
    if len(x_shape) != 4 or x_shape[:3] != IMAGE or x_kind != "uint8":
        raise DataError(f"{path}: X should be uint8 (32, 32, 3, N); it is {x_kind} {x_shape}")
    n = x_shape[3]
    if n < 1:
        raise DataError(f"{path} holds no images: X is {x_shape}")
    numeric = y_kind.startswith(("int", "uint", "single", "double"))
    if tuple(y_shape) not in ((n, 1), (1, n)) or not numeric:
        raise DataError(f"{path}: y should be {n} numbers ({n}, 1); it is {y_kind} {y_shape}")


def images_first(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32, 32, 3, N) in MATLAB's order to (N, 32, 32, 3) in C's, in the same memory, so that the
    whole set is never held twice."""
    planes = np.ascontiguousarray(x.T)  # (N, 3, 32, 32): channel, column, row; no copy
    flat = planes.reshape(len(planes), -1)
    for start in range(0, len(planes), 1024):
        part = slice(start, start + 1024)
        flat[part] = planes[part].transpose(0, 3, 2, 1).reshape(-1, flat.shape[1])
    return flat.reshape(-1, *IMAGE)


def digits(path: Path, y: NDArray[Any]) -> NDArray[np.int64]:
    """The file's labels 1..10 as the digits shown, 10 as 0."""
    labels = y.ravel()
    wrong = ~np.isin(labels, np.arange(1, 11))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{path}: labels should be 1..10 (10 for the digit 0); y[{at}] is {labels[at]}"
        )
    return labels.astype(np.int64) % 10
