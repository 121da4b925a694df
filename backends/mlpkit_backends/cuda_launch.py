"""Launches of kernels that may begin before those before them have ended, which CuPy has no word
for: the driver's cuLaunchKernelEx (CUDA Driver API, "Execution Control"; CUDA Programming Guide,
"Programmatic Dependent Launch")."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

HOPPER = 90  # the first compute capability that has it
DRIVER = 12030  # the first that records such launches in graphs: CUDA 12.3's
OVERLAP = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
NUMBERS: dict[type, Any] = {
    np.int32: ctypes.c_int,
    np.float32: ctypes.c_float,
    int: ctypes.c_longlong,
    float: ctypes.c_double,
}


class Attribute(ctypes.Structure):
    """cuda.h's CUlaunchAttribute: a union of 64 bytes after its number, here with an int in it."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_char * 60),
    )


class Config(ctypes.Structure):
    """cuda.h's CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    )


class LaunchError(RuntimeError):
    """The driver refused a launch."""


@cache
def driver() -> Any:
    """The driver's library, which CuPy has loaded; None where it has another name."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def can_overlap(capability: int, version: int) -> bool:
    """Whether a device of that compute capability and a driver for that CUDA have such launches."""
    return capability >= HOPPER and version >= DRIVER and driver() is not None


def packed(argument: Any) -> Any:
    """A kernel's argument in C: an array's address, or a number as CuPy would hand it over."""
    kind = NUMBERS.get(type(argument))
    return ctypes.c_void_p(argument.data.ptr) if kind is None else kind(argument)


def launch_early(
    function: int,
    work: tuple[int, int, int],
    arguments: Sequence[Any],
    shared: int,
    stream: int,
) -> None:
    """Launch a driver's function in blocks of x by y threads, on the stream. LaunchError where the
    driver refuses."""
    slots = [packed(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(slots))(*map(ctypes.addressof, slots))
    blocks, width, height = work
    attribute = Attribute(id=OVERLAP, value=1)
    config = Config(
        (blocks, 1, 1), (width, height, 1), shared, stream, ctypes.pointer(attribute), 1
    )
    status = driver().cuLaunchKernelEx(
        ctypes.byref(config), ctypes.c_void_p(function), pointers, None
    )
    if status:
        raise LaunchError(f"the driver refused to launch a kernel: cuLaunchKernelEx gave {status}")
