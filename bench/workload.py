"""What every contender begins with, and the numbers that their formulas share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlpkit.benchmark import Case
from mlpkit.recipes import build_network

Array = Any
Run = Callable[[Array], Array]
Weights = list[np.ndarray[Any, Any]]
Data = tuple[Any, Any, Any]

SLOPE = 0.01
MOMENTUM, DECAY, BETA1, BETA2, EPS = 0.9, 0.99, 0.9, 0.999, 1e-8


def weights_of(case: Case) -> Weights:
    """The weights that mlpkit begins the case with: [w1, b1, w2, b2, ...]."""
    model = build_network(case.workload, 0.0, 0, case.dtype, "numpy")
    return [p.copy() for p in model.net.params.values()]
