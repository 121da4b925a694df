"""Weights on disk: safetensors, written whole or not at all. Nothing is pickled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class CheckpointError(ValueError):
    """A file of weights can't be used; the message says what is wrong with it."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, or what it links to, moved onto it when the block ends well,
    removed when not."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: Path, params: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write host arrays by name."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(p) for name, p in params.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # safetensors' own writer would make it readable by us alone


def load_weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Host arrays by name. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise CheckpointError(f"there are no weights at {path}: expected a .safetensors file")
    try:
        weights: dict[str, np.ndarray[Any, Any]] = load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    return weights
