"""Points of one's own for sections, from a JSON file {section name: points}."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .interface import Section


def reweigh(sections: Sequence[Section], path: Path) -> tuple[Section, ...]:
    """Sections whose parts are scaled to a rubric's points; the rest keep theirs. ValueError."""
    try:
        rubric = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} should be JSON, section names to points: {error}") from error
    names = [section.name for section in sections]
    if not isinstance(rubric, dict) or not set(rubric) <= set(names):
        unknown = sorted(set(rubric) - set(names)) if isinstance(rubric, dict) else rubric
        raise ValueError(f"{path} names no sections with {unknown!r}; they are {', '.join(names)}")
    for name, points in rubric.items():
        number = isinstance(points, int | float) and not isinstance(points, bool)
        if not number or not math.isfinite(points) or points < 0:
            raise ValueError(f"{path}: {name} should have points of 0 or more; it has {points!r}")
    return tuple(scaled(s, rubric.get(s.name, s.points)) for s in sections)


def scaled(section: Section, points: float) -> Section:
    """A section worth that many points, its parts in proportion."""
    parts = (replace(p, points=p.points * points / section.points) for p in section.parts)
    return replace(section, parts=tuple(parts))
