"""Launches that may overlap, as the driver would get them."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlpkit_backends import cuda_launch
from mlpkit_backends.cuda_launch import Attribute, Config, LaunchError, can_overlap, launch_early


class Driver:
    """What cuLaunchKernelEx is given, read as C would."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.seen: dict[str, Any] = {}

    def cuLaunchKernelEx(self, config: Any, function: Any, pointers: Any, extra: Any) -> int:  # noqa: N802
        given = ctypes.cast(config, ctypes.POINTER(Config)).contents
        kinds = (ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_double, ctypes.c_float)
        self.seen = {
            "grid": tuple(given.grid),
            "block": tuple(given.block),
            "shared": given.shared,
            "stream": given.stream,
            "attributes": [(a.id, a.value) for a in given.attributes[: given.count]],
            "function": function.value,
            "arguments": [
                kind.from_address(place).value for kind, place in zip(kinds, pointers, strict=True)
            ],
            "extra": extra,
        }
        return self.status


ARGUMENTS = (
    SimpleNamespace(data=SimpleNamespace(ptr=0x7F00_0000_1000)),
    np.int32(-3),
    1 << 40,
    0.1,
    np.float32(0.5),
)


def test_the_driver_gets_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(cuda_launch, "driver", lambda: driver)
    launch_early(77, (5, 256, 2), ARGUMENTS, 1 << 16, 99)
    assert driver.seen == {
        "grid": (5, 1, 1),
        "block": (256, 2, 1),
        "shared": 1 << 16,
        "stream": 99,
        "attributes": [(6, 1)],  # cuda.h's number of "programmatic stream serialization", and on
        "function": 77,
        "arguments": [0x7F00_0000_1000, -3, 1 << 40, 0.1, 0.5],
        "extra": None,
    }


def test_the_structs_are_cuda_hs() -> None:
    assert (ctypes.sizeof(Attribute), Attribute.value.offset) == (72, 8)
    assert (ctypes.sizeof(Config), Config.stream.offset, Config.count.offset) == (56, 32, 48)


def test_what_the_driver_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_launch, "driver", lambda: Driver(status=701))
    with pytest.raises(LaunchError, match="cuLaunchKernelEx gave 701"):
        launch_early(77, (5, 256, 1), ARGUMENTS, 0, 0)


def test_where_launches_can_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_launch, "driver", Driver)
    assert can_overlap(90, 12030)
    assert not can_overlap(80, 13000)
    assert not can_overlap(90, 12020)
    monkeypatch.setattr(cuda_launch, "driver", lambda: None)
    assert not can_overlap(90, 13000)
