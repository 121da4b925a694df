"""A submission's grade: each section's parts through a runner, points for what passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .interface import Failure, Grade, Outcome, Part, Runner, Section, SectionResult
from .sections import SECTIONS

Watch = Callable[[Section, Part, Outcome], None]


def grade(
    runner: Runner,
    sections: Sequence[Section] = SECTIONS,
    submission: str = "",
    watch: Watch | None = None,
) -> Grade:
    """The grade of what the runner runs; the same for the same submission but for the seconds.

    watch: told of each part's outcome as it comes.
    """
    results = tuple(grade_section(runner, section, watch) for section in sections)
    return Grade(submission, results)


def grade_section(runner: Runner, section: Section, watch: Watch | None = None) -> SectionResult:
    """One section's result; parts with one and the same task share its outcome."""
    start = time.perf_counter()
    outcomes: dict[int, Outcome] = {}
    score, failures, output, status = 0.0, [], [], "passed"
    for part in section.parts:
        key = id(part.task)
        if key not in outcomes:
            outcomes[key] = runner.run(part.task)
            output.append(outcomes[key].output)
        outcome = outcomes[key]
        if watch is not None:
            watch(section, part, outcome)
        wrong = failures_of(part, outcome)
        failures += wrong
        score += 0 if wrong else part.points
        if outcome.error and outcome.fault == "infrastructure":
            status = "error"
        elif wrong and status == "passed":
            status = "failed"
    return SectionResult(
        section.name,
        score,
        section.points,
        status,
        tuple(failures),
        "".join(output),
        time.perf_counter() - start,
    )


def failures_of(part: Part, outcome: Outcome) -> list[Failure]:
    """What is wrong with a part's outcome, each failure beginning with the part's name."""
    if outcome.error:
        return [Failure(f"{part.name}: {outcome.error}")]
    return [Failure(f"{part.name}: {f.what}", f.hint) for f in part.check(outcome.arrays)]
