"""What the measurements take on their command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mlpkit.checks import check_counts, check_positive


def checked(convert: Callable[[str], Any], check: Callable[..., None]) -> Callable[[str], Any]:
    """An argparse type: text converted and checked, a ValueError of either told in its words."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
            check(value=value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return parse


positive = checked(float, check_positive)
count = checked(int, check_counts)
