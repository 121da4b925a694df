"""Grades written down: Gradescope's results.json, JUnit XML, Markdown, CSV, and a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..files import atomic
from .interface import Grade, SectionResult

PRINTED = 2000  # characters of a section's printed output in a report


def gradescope(grades: Sequence[Grade]) -> str:
    """results.json of one submission, or of several, whose tests are then named after them too."""
    tests = []
    for grade in grades:
        for number, section in enumerate(grade.sections, start=1):
            name = section.name if len(grades) == 1 else f"{grade.submission}: {section.name}"
            tests.append(
                {
                    "name": name,
                    "number": str(number),
                    "score": section.score,
                    "max_score": section.points,
                    "status": "passed" if section.status == "passed" else "failed",
                    "output": explain(section),
                    "visibility": "visible",
                }
            )
    seconds = sum(section.seconds for grade in grades for section in grade.sections)
    content = {
        "score": sum(grade.score for grade in grades),
        "execution_time": round(seconds, 3),
        "output": "; ".join(summary(grade) for grade in grades),
        "visibility": "visible",
        "tests": tests,
    }
    return json.dumps(content, indent=2) + "\n"


def summary(grade: Grade) -> str:
    """One line for a grade."""
    return f"{grade.submission or 'mlpkit'}: {grade.score:g} of {grade.points:g} points"


def explain(section: SectionResult) -> str:
    """What is wrong with a section, and what it printed, in characters that every format takes."""
    lines = [f"{f.what}\nHint: {f.hint}" if f.hint else f.what for f in section.failures]
    if section.status == "error":
        lines.insert(0, "The grader failed here, not the submission: grade again.")
    if section.output.strip():
        lines += ["Printed:", section.output.strip()[:PRINTED]]
    return clean("\n".join(lines))


def clean(text: str) -> str:
    """Text without control characters and lone surrogates, which XML and terminals don't take."""
    return re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def junit(grades: Sequence[Grade]) -> str:
    """JUnit XML: a suite for each submission, a case for each section."""
    root = ElementTree.Element("testsuites")
    for grade in grades:
        counts = [section.status for section in grade.sections]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=clean(grade.submission or "mlpkit"),
            tests=str(len(counts)),
            failures=str(counts.count("failed")),
            errors=str(counts.count("error")),
            time=f"{sum(section.seconds for section in grade.sections):.3f}",
        )
        for section in grade.sections:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname="mlpkit.grade",
                name=section.name,
                time=f"{section.seconds:.3f}",
            )
            if section.status != "passed":
                kind = "error" if section.status == "error" else "failure"
                said = f"{section.score:g} of {section.points:g} points"
                ElementTree.SubElement(case, kind, message=said).text = explain(section)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(grades: Sequence[Grade]) -> str:
    """A table for each submission, and below it what is wrong, as code that no mark-up leaves."""
    lines = []
    for grade in grades:
        title = clean(summary(grade)).replace("\n", " ")
        lines += [f"# {title}", "", "| section | points | of |", "|---|---:|---:|"]
        lines += [f"| {s.name} | {s.score:g} | {s.points:g} |" for s in grade.sections]
        lines.append("")
        for section in grade.sections:
            if section.status != "passed":
                said = explain(section).splitlines()
                lines += [f"## {section.name}", "", *(f"    {line}" for line in said), ""]
    return "\n".join(lines)


def table_csv(grades: Sequence[Grade]) -> str:
    """A row for each submission: its points by section, and in all."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [section.name for section in grades[0].sections]
    writer.writerow(["submission", *names, "score", "points"])
    for grade in grades:
        scores = [f"{section.score:g}" for section in grade.sections]
        writer.writerow([clean(grade.submission), *scores, f"{grade.score:g}", f"{grade.points:g}"])
    return out.getvalue()


FORMATS = {"out": gradescope, "junit": junit, "markdown": markdown, "csv": table_csv}


def write(grades: Sequence[Grade], places: dict[str, Path | None]) -> None:
    """Write the formats that have a place, each whole or not at all."""
    for name, place in places.items():
        if place is not None:
            content = FORMATS[name](grades)
            with atomic(place) as temporary:
                temporary.write_text(content, encoding="utf-8")


def show(grade: Grade) -> None:
    """A grade on the terminal: a table, then what is wrong."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table("section", title=Text(clean(summary(grade))))
    table.add_column("points", justify="right")
    table.add_column("of", justify="right")
    for section in grade.sections:
        table.add_row(section.name, f"{section.score:g}", f"{section.points:g}")
    console.print(table)
    for section in grade.sections:
        if section.status != "passed":
            console.print(Text(f"{section.name}: {section.score:g} of {section.points:g}"))
            console.print(Text("\n".join(f"  {s}" for s in explain(section).splitlines())))
