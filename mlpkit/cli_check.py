"""`mlpkit check`: the contract's sections, each error beside its tolerance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .grading.comparing import Measured
    from .grading.interface import Outcome, Part, Section


def check(
    submission: Annotated[
        Path | None, typer.Argument(help="A folder, .zip or .py file. Default: mlpkit itself.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Of mlpkit itself: cupy, numba, numpy or auto, which takes the first."),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option(help="Only the sections with these words in their names, as in 'fc back'."),
    ] = None,
) -> None:
    """Check a submission, or mlpkit itself, in a terminal.

    Exit status 0: full marks; 1: points lost; 2: it could not be checked.
    """
    from .grading.batch import grade_submission
    from .grading.grading import grade
    from .grading.local import reference
    from .grading.outputs import summary
    from .grading.sections import find_sections

    sections = find_sections(section)
    if submission is None:
        result = grade(reference(backend), sections, "mlpkit", Printer())
    elif backend is not None:
        raise ValueError("--backend is for mlpkit itself: a submission runs on NumPy; leave it out")
    else:
        result = grade_submission(submission, str(submission), sections, watch=Printer())
    if result.error:
        raise ValueError(summary(result))
    print(f"\n{result.score:g} of {result.points:g} points")
    if result.score < result.points:
        raise typer.Exit(1)


class Printer:
    """Prints each part's comparisons as they come, under their section's name; an error that comes
    again and again, once."""

    def __init__(self) -> None:
        self.section = self.error = ""

    def __call__(self, section: Section, part: Part, outcome: Outcome) -> None:
        """A line for each comparison, and what is wrong where it failed."""
        from .grading.outputs import clean

        new = section.name != self.section
        if new:
            print(f"{section.name}, {section.points:g} points")
            self.section = section.name
        if outcome.error:
            if outcome.error != self.error:
                print(clean(f"    {part.name}: {outcome.error}"))
            elif new:
                print("    as above")
            self.error = outcome.error
        else:
            for measured in part.check.measure(outcome.arrays):
                print("\n".join(lines_of(part, measured)))


def lines_of(part: Part, measured: Measured) -> list[str]:
    """A comparison's error and tolerance; where it failed, its details and hint."""
    what = part.name if measured.what == part.name else f"{part.name}: {measured.what}"
    state = "ok" if measured.passed else "FAILED"
    numbers = f"{measured.error:9.2e} <= {measured.tolerance:8.2e}"
    if math.isnan(measured.error):  # there is none
        numbers = " " * len(numbers)
    lines = [f"    {what:<60} {numbers}  {state}"]
    if not measured.passed:
        hint = measured.hint and f"Hint: {measured.hint}"
        lines += [f"        {line}" for line in (measured.detail, hint) if line]
    return lines
