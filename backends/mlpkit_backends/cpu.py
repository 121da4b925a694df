"""NumPy on the host's processor."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy

from .base import Backend


class NumpyBackend(Backend):
    """The base ops on NumPy."""

    def __init__(self) -> None:
        super().__init__("numpy", numpy)

    def device_name(self) -> str:
        return processor_name()


def processor_name() -> str:
    """The processor's model, or its architecture where the system doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
