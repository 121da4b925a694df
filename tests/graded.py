"""What the tests of the grader's sections share: a plain solution, and its grade once changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlpkit.grading.grading import grade
from mlpkit.grading.interface import Failure, Grade
from mlpkit.grading.local import LocalRunner
from mlpkit.grading.sections import SECTIONS
from mlpkit.grading.submissions import load

PLAIN = (Path(__file__).parent / "plain_submission.py").read_text()
# Its TinyNet is tinier still.
QUICK = PLAIN.replace("fc(3072, 3072,", "fc(3072, 4,").replace("fc(3072, 10,", "fc(4, 10,")
GIVEN = "return best, losses, train_accs, val_accs"  # train_net's
# The sections that train, which take longer than all others together.
TRAINED = ("Training to 75 %", "SGD against SGDM", "Four optimizers")
UNTRAINED = [section for section in SECTIONS if section.name not in TRAINED]


def grade_text(tmp_path: Path, text: str, sections: Any = UNTRAINED) -> Grade:
    """The grade of a module, in this process."""
    path = tmp_path / "student.py"
    path.write_text(text)
    return grade(LocalRunner(load(path)), sections)


def lost(result: Grade) -> dict[str, str]:
    """The sections that lost points, with all that was said."""
    return {
        section.name: "\n".join(f"{f.what}\n{f.hint}" for f in section.failures)
        for section in result.sections
        if section.score < section.points
    }


def trained(tmp_path: Path, text: str, part: str) -> list[Failure]:
    """What "Training to 75 %" says of the parts whose names begin so, which alone are run."""
    (whole,) = [section for section in SECTIONS if section.name == "Training to 75 %"]
    some = replace(whole, parts=tuple(p for p in whole.parts if p.name.startswith(part)))
    (section,) = grade_text(tmp_path, text, [some]).sections
    return list(section.failures)


def failures_of(result: Grade, name: str) -> list[Failure]:
    """What is said of a section."""
    return next(list(s.failures) for s in result.sections if s.name == name)
