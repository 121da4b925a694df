"""What grading is made of: sections with parts, tasks that a submission does, and what came of it.

The grader holds inputs, expected values and tolerances; a submission sees a task's inputs alone and
answers with arrays. Runners bring the one to the other: in this process, for code that is trusted,
or in a child of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from .comparing import Check

Array: TypeAlias = np.ndarray[Any, Any]
Settings: TypeAlias = Mapping[str, float | int | str]


def total(points: Iterable[float]) -> float:
    """The sum, without what binary fractions leave behind the ninth digit: 1 for ten of 0.1."""
    return round(sum(points), 9)


@dataclass(frozen=True)
class Task:
    """What a submission is to do: a function of tasks.py by name, its arrays and settings."""

    name: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a task: arrays by name, or why there are none.

    error: a sentence; "" where the task was done. fault: whose it is: "submission" costs points,
    "infrastructure" means that nothing can be said of the submission. output: what it printed, or
    the beginning of it.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    error: str = ""
    fault: str = "submission"
    output: str = ""


class Runner(Protocol):
    """Does tasks with one submission."""

    def run(self, task: Task) -> Outcome:
        """Do it; never raises for what the submission does."""


@dataclass(frozen=True)
class Failure:
    """What differs: what was compared, in words with both values, the worst element's index and
    the tolerance; a hint where it has a usual cause; and the part of the section."""

    what: str
    hint: str = ""
    part: str = ""


@dataclass(frozen=True)
class Part:
    """A part of a section: points for a task whose outcome passes the check."""

    name: str
    points: float
    task: Task
    check: Check


@dataclass(frozen=True)
class Section:
    """A row of the contract's table."""

    name: str
    parts: tuple[Part, ...]

    @property
    def points(self) -> float:
        """Those of all its parts."""
        return total(part.points for part in self.parts)


@dataclass(frozen=True)
class SectionResult:
    """A section's score, and what was wrong. status: "passed", "failed", or "error" where the
    infrastructure failed. seconds: of wall time."""

    name: str
    score: float
    points: float
    status: str
    failures: tuple[Failure, ...] = ()
    output: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Grade:
    """A submission's results, section by section. note: what the machine refused the grader."""

    submission: str
    sections: tuple[SectionResult, ...]
    note: str = ""

    @property
    def error(self) -> str:
        """Why it wasn't graded, or not in full; "" where it was."""
        wrong = [s.failures[0].what for s in self.sections if s.status == "error" and s.failures]
        return wrong[0] if wrong else ""

    @property
    def score(self) -> float:
        """The sum over the sections."""
        return total(section.score for section in self.sections)

    @property
    def points(self) -> float:
        """What could be had."""
        return total(section.points for section in self.sections)
