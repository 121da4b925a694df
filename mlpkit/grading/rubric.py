"""Points of one's own for sections, from a JSON file {section name: points}."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..files import read_small
from .interface import Section

MOST = 1_000_000


def reweigh(sections: Sequence[Section], path: Path) -> tuple[Section, ...]:
    """Sections whose parts are scaled to a rubric's points; the rest keep theirs. ValueError."""
    try:
        rubric = json.loads(read_small(path))
    except OSError as error:
        raise ValueError(
            f"{path} can't be read: {error.strerror}; --rubric takes a JSON file, section names to "
            "points"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} should be JSON, section names to points: {error}") from error
    names = [section.name for section in sections]
    if not isinstance(rubric, dict) or not set(rubric) <= set(names):
        unknown = sorted(set(rubric) - set(names)) if isinstance(rubric, dict) else rubric
        said = f"sections that aren't there, {unknown!r}; they are {', '.join(names)}"
        raise ValueError(f"{path} should give points to sections; it names {said}")
    for name, points in rubric.items():
        number = isinstance(points, int | float) and not isinstance(points, bool)
        if not number or not 0 <= points <= MOST:
            raise ValueError(
                f"{path}: {name} should have points from 0 to {MOST}; it has {points!r}"
            )
    return tuple(scaled(s, rubric.get(s.name, s.points)) for s in sections)


def scaled(section: Section, points: float) -> Section:
    """A section worth that many points, its parts in proportion."""
    parts = (replace(p, points=p.points * points / section.points) for p in section.parts)
    return replace(section, parts=tuple(parts))
