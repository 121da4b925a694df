"""A submission's grade: each section's parts through a runner, points for what passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from .interface import Failure, Grade, Outcome, Part, Runner, Section, SectionResult, Task, total
from .sections import SECTIONS

Watch = Callable[[Section, Part, Outcome], None]
IMPORTS = Task("imports")


def grade(
    runner: Runner,
    sections: Sequence[Section] = SECTIONS,
    submission: str = "",
    watch: Watch | None = None,
) -> Grade:
    """The grade of what the runner runs; the same for the same submission but for the seconds.

    watch: told of each part's outcome as it comes. Where the submission can't be imported, and
    from where the infrastructure failed on, nothing more is run, and all fails with that error.
    """
    stop = runner.run(IMPORTS)
    if stop.error and stop.fault == "submission":
        stop = replace(stop, error=f"when it was imported: {stop.error}")
    results: list[SectionResult] = []
    for section in sections:
        results.append(grade_section(runner, section, watch, stop if stop.error else None))
        if results[-1].status == "error":
            stop = Outcome(error=results[-1].failures[-1].what, fault="infrastructure")
    return Grade(submission, tuple(results))


def grade_section(
    runner: Runner, section: Section, watch: Watch | None = None, stop: Outcome | None = None
) -> SectionResult:
    """One section's result; parts with one and the same task share its outcome. stop: the outcome
    of all of them, none being run."""
    start = time.perf_counter()
    outcomes: dict[int, Outcome] = {}
    earned, failures, output, status = [0.0], [], [], "passed"
    for part in section.parts:
        key = id(part.task)
        if key not in outcomes:
            outcomes[key] = stop or runner.run(part.task)
            output.append(outcomes[key].output)
        outcome = outcomes[key]
        if watch is not None:
            watch(section, part, outcome)
        wrong = failures_of(part, outcome)
        failures += wrong
        earned += [] if wrong else [part.points]
        if outcome.error and outcome.fault == "infrastructure":
            status = "error"
        elif wrong and status == "passed":
            status = "failed"
    return SectionResult(
        section.name,
        total(earned),
        section.points,
        status,
        tuple(failures),
        "".join(output),
        time.perf_counter() - start,
    )


def failures_of(part: Part, outcome: Outcome) -> list[Failure]:
    """What is wrong with a part's outcome."""
    if outcome.error:
        return [Failure(outcome.error, part=part.name)]
    return [
        Failure(f.what.removeprefix(f"{part.name}: "), f.hint, part.name)
        for f in part.check(outcome.arrays)
    ]
