"""Submissions as they are handed in: what each is called, and a grade whatever comes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import MEMORY, TIMEOUT, TOTAL
from .grading import Watch, grade
from .interface import Failure, Grade, Section, SectionResult
from .packing import SubmissionError
from .sandbox import SandboxRunner


def short_names(paths: Sequence[Path]) -> dict[str, Path]:
    """The paths, each once, by as many of their last parts as tell them apart."""
    whole = {Path(os.path.abspath(path)): path for path in paths}

    def name(path: Path) -> str:
        for length in range(1, len(path.parts)):
            ends = [other.parts[-length:] for other in whole]
            if ends.count(path.parts[-length:]) == 1:
                return "/".join(path.parts[-length:])
        return str(path)

    return {name(path): given for path, given in whole.items()}


def grade_submission(
    path: Path,
    name: str,
    sections: Sequence[Section],
    timeout: float = TIMEOUT,
    memory_mb: int = MEMORY,
    total: float = TOTAL,
    watch: Watch | None = None,
) -> Grade:
    """The grade of what is handed in; where it can't be graded, every section's status is "error"
    and its failure says why."""
    try:
        with SandboxRunner(path, timeout, memory_mb, total) as runner:
            result = grade(runner, sections, name, watch)
            return replace(result, note=runner.note)
    except (SubmissionError, OSError) as error:
        why = (Failure(str(error)),)
        return Grade(
            name, tuple(SectionResult(s.name, 0.0, s.points, "error", why) for s in sections)
        )
