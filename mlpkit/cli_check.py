"""`mlpkit check`: the contract's sections on a backend, each error beside its tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .grading.comparing import Measured
    from .grading.interface import Outcome, Part, Section


def check(
    backend: Annotated[
        str | None,
        typer.Option(help="cupy, numba, numpy or auto: the first of these that runs here."),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option(help="Only the sections with these words in their names, as in 'fc back'."),
    ] = None,
) -> None:
    """Check mlpkit by the assignment's sections.

    Exit status 0: full marks; 1: points lost.
    """
    from .grading.grading import grade
    from .grading.local import reference
    from .grading.sections import find_sections

    grades = grade(reference(backend), find_sections(section), "mlpkit", Printer())
    print(f"\n{grades.score:g} of {grades.points:g} points")
    if grades.score < grades.points:
        raise typer.Exit(1)


class Printer:
    """Prints each part's comparisons as they come, under their section's name."""

    def __init__(self) -> None:
        self.section = ""

    def __call__(self, section: Section, part: Part, outcome: Outcome) -> None:
        """A line for each comparison, and what is wrong where it failed."""
        from .grading.comparing import Check

        if section.name != self.section:
            print(f"{section.name}, {section.points:g} points")
            self.section = section.name
        if outcome.error:
            print(f"    {part.name}: {outcome.error}")
        elif isinstance(part.check, Check):
            for measured in part.check.measure(outcome.arrays):
                print("\n".join(lines_of(part, measured)))


def lines_of(part: Part, measured: Measured) -> list[str]:
    """A comparison's error and tolerance; where it failed, its details and hint."""
    what = part.name if measured.what in (part.name, "out") else f"{part.name}: {measured.what}"
    state = "ok" if measured.passed else "FAILED"
    lines = [f"    {what:<60} {measured.error:9.2e} <= {measured.tolerance:8.2e}  {state}"]
    if not measured.passed:
        lines += [f"        {line}" for line in (measured.detail, measured.hint) if line]
    return lines
