"""Grades written down: Gradescope's results.json, JUnit XML, Markdown, CSV, and a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ..files import atomic
from .interface import Failure, Grade, SectionResult

PRINTED = 2000  # characters of a section's printed output in a report


def gradescope(grade: Grade) -> str:
    """results.json of a submission."""
    tests = [
        {
            "name": section.name,
            "number": str(number),
            "score": section.score,
            "max_score": section.points,
            "status": "passed" if section.status == "passed" else "failed",
            "output": explain(section),
            "visibility": "visible",
        }
        for number, section in enumerate(grade.sections, start=1)
    ]
    content = {
        "score": grade.score,
        "execution_time": round(sum(section.seconds for section in grade.sections), 3),
        "output": clean("\n".join(filter(None, (summary(grade), grade.note)))),
        "visibility": "visible",
        "tests": tests,
    }
    return json.dumps(content, indent=2) + "\n"


def summary(grade: Grade) -> str:
    """One line for a grade."""
    name = grade.submission or "mlpkit"
    if grade.error:
        return f"{name} could not be graded: {grade.error}"
    return f"{name}: {grade.score:g} of {grade.points:g} points"


def causes(sections: Iterable[SectionResult]) -> dict[Failure, dict[str, list[str]]]:
    """What is wrong, each once: the sections where it is, and their parts."""
    found: dict[Failure, dict[str, list[str]]] = {}
    for section in sections:
        for failure in section.failures:
            places = found.setdefault(replace(failure, part=""), {})
            places.setdefault(section.name, []).append(failure.part)
    return found


def explain(section: SectionResult) -> str:
    """What is wrong with a section, and what it printed, in characters that every format takes."""
    if section.status == "passed":
        return ""
    lines = []
    for failure, places in causes([section]).items():
        parts = ", ".join(filter(None, places[section.name]))
        lines.append(f"{parts}: {failure.what}" if parts else failure.what)
        lines += [f"Hint: {failure.hint}"] if failure.hint else []
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
        lines += [
            f"# {title}",
            "",
            *([grade.note, ""] if grade.note else []),
            "| section | points | of |",
            "|---|---:|---:|",
        ]
        lines += [f"| {s.name} | {s.score:g} | {s.points:g} |" for s in grade.sections]
        lines.append("")
        for section in grade.sections:
            if section.status != "passed":
                said = explain(section).splitlines()
                lines += [f"## {section.name}", "", *(f"    {line}" for line in said), ""]
    return "\n".join(lines)


def table_csv(grades: Sequence[Grade]) -> str:
    """A row for each submission: its points by section, and in all; empty where it could not be
    graded, and why."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [section.name for section in grades[0].sections]
    writer.writerow(["submission", *names, "score", "points", "error"])
    for grade in grades:
        scores = ["" if s.status == "error" else f"{s.score:g}" for s in grade.sections]
        total = "" if grade.error else f"{grade.score:g}"
        row = [clean(grade.submission), *scores, total, f"{grade.points:g}", clean(grade.error)]
        writer.writerow(row)
    return out.getvalue()


FORMATS: dict[str, Callable[[Sequence[Grade]], str]] = {
    "out": lambda grades: gradescope(grades[0]),
    "junit": junit,
    "markdown": markdown,
    "csv": table_csv,
}


def write(grades: Sequence[Grade], places: dict[str, Path | None]) -> None:
    """Write the formats that have a place, each whole or not at all; `out` takes one grade."""
    for name, place in places.items():
        if place is not None:
            content = FORMATS[name](grades)
            with atomic(place) as temporary:
                temporary.write_text(content, encoding="utf-8")


def show(grade: Grade) -> None:
    """A grade on the terminal: a table, then what is wrong, each once, and where."""
    rows = [
        (s.name, "" if s.status == "error" else f"{s.score:g}", s.points) for s in grade.sections
    ]
    if grade.error and not any(score for _, score, _ in rows):
        return  # its error is all there is to say
    print_table("section", clean(summary(grade)), rows)
    lines = [grade.note] if grade.note else []
    lost = [section for section in grade.sections if section.status == "failed"]
    for failure, places in causes(lost).items():
        if len(places) == len(grade.sections):
            where = "all sections"
        elif len(places) > 1:
            where = ", ".join(places)
        else:
            (where, parts), *_ = places.items()
            where = ": ".join(filter(None, (where, ", ".join(parts))))
        lines += [where, f"    {failure.what}"]
        lines += [f"    Hint: {failure.hint}"] if failure.hint else []
    for line in lines:
        print(clean(line))


def show_all(grades: Sequence[Grade]) -> None:
    """A row for each of several submissions."""
    rows = [(g.submission, "" if g.error else f"{g.score:g}", g.points) for g in grades]
    print_table("submission", "", rows)


def print_table(what: str, title: str, rows: Sequence[tuple[str, str, float]]) -> None:
    """Names, points had and points to be had."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(what, title=Text(title) if title else None)
    table.add_column("points", justify="right")
    table.add_column("of", justify="right")
    for name, had, points in rows:
        table.add_row(Text(clean(name)), had, f"{points:g}")
    Console(highlight=False).print(table)
