"""What every contender is given, and the numbers that their formulas share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Run = Callable[[Array], Array]
Weights = list[np.ndarray[Any, Any]]
Data = tuple[Any, Any, Any]

SLOPE = 0.01
MOMENTUM, DECAY, BETA1, BETA2, EPS = 0.9, 0.99, 0.9, 0.999, 1e-8
