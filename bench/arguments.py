"""What the measurements take on their command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpkit.checks import check_counts, check_positive


def checked(convert: Callable[[str], Any], check: Callable[..., None]) -> Callable[[str], Any]:
    """An argparse type: text converted and checked, a ValueError of either told in its words."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
            check(value=value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("value ")) from error
        return value

    return parse


positive = checked(float, check_positive)
count = checked(int, check_counts)


def folder(text: str) -> Path:
    """A folder for figures, made where it isn't there."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"{path} can't be made ({error.strerror}): name another folder"
        raise argparse.ArgumentTypeError(said) from error
    return path
