"""How far an answer is from what is expected: the error, the worst element, and a usual cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .interface import Array, Failure

Answer = Mapping[str, Array]
Mistakes = Mapping[str, Array]  # a hint, and the value that its mistake gives
OVERFLOW = "there are NaNs or infinities: look for an overflow, log(0) or a division by 0"
FLOAT32 = "it is computed in float32: use float64"
FLOAT32_ERROR = 1e-5  # more than that has another cause


@dataclass(frozen=True)
class Measured:
    """One comparison. what: what was compared; error: NaN where there is none; tolerance: the error
    must be at most this; detail: what is wrong where it isn't, with both values; hint: its
    cause."""

    what: str
    error: float
    tolerance: float
    detail: str = ""
    hint: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN never is."""
        return self.error <= self.tolerance


class WrongAnswerError(Exception):
    """An answer that can't be compared; the sentence says why."""


@dataclass(frozen=True)
class Check:
    """What a part asks of its answer: `measure` compares, a call gives the failures alone.

    in_turn: each comparison is of what was made from those before it, as in a backward pass, so
    that the first that fails is the one to mend.
    """

    measurements: Callable[[Answer], list[Measured]]
    in_turn: bool = False

    def measure(self, answer: Answer) -> list[Measured]:
        """Every comparison, passed or not."""
        try:
            found = self.measurements(answer)
        except WrongAnswerError as error:
            return [Measured("the answer", np.nan, 0.0, str(error))]
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # An answer that a task gave has the arrays that a check asks for; one that was forged
            # may have any.
            said = f"it can't be compared: {error}"
            return [Measured("the answer", np.nan, 0.0, said)]
        return first_of(found) if self.in_turn else found

    def __call__(self, answer: Answer) -> list[Failure]:
        """What differs."""
        wrong = [m for m in self.measure(answer) if not m.passed]
        return [Failure(m.detail, m.hint) for m in wrong if m.detail]


def first_of(found: list[Measured]) -> list[Measured]:
    """The same, where only the first that failed says why, and which others did after it."""
    wrong = [m for m in found if not m.passed]
    if len(wrong) < 2:
        return found
    first, later = wrong[0], ", ".join(m.what.removeprefix("gradient of ") for m in wrong[1:])
    said = f"{first.detail}; mend it first: what comes after it in the pass differs too ({later})"
    return [
        m if m.passed else replace(m, detail=said) if m is first else replace(m, detail="", hint="")
        for m in found
    ]


def array_of(answer: Answer, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """An array of the answer as float64, of that shape; WrongAnswerError where it isn't there."""
    if name not in answer:
        raise WrongAnswerError(f"{name} is missing from the answer")
    a = np.asarray(answer[name], np.float64)
    if shape is not None and a.shape != shape:
        raise WrongAnswerError(f"{name} should have the shape {shape}; got {a.shape}")
    return a


def relative_errors(got: Array, expected: Array) -> Array:
    """|got - expected| / max(1e-8, |got| + |expected|) of each element; NaN for infinities."""
    with np.errstate(invalid="ignore", over="ignore"):
        errors: Array = np.abs(got - expected) / np.maximum(1e-8, np.abs(got) + np.abs(expected))
    return errors


def absolute_errors(got: Array, expected: Array) -> Array:
    """|got - expected| of each element."""
    with np.errstate(invalid="ignore"):
        errors: Array = np.abs(got - expected)
    return errors


def compare(
    answer: Answer,
    name: str,
    expected: Array | float,
    tolerance: float,
    mistakes: Mistakes | None = None,
    *,
    what: str = "",
    kind: str = "relative",
    overflow: str = OVERFLOW,
) -> Measured:
    """An array of the answer beside what is expected.

    kind: the error is the worst element's, "relative" or "absolute", or the sum of the absolute
    ones, "summed". The hint is that of the first mistake whose value the answer has; overflow:
    where there are NaNs; FLOAT32 where float32 has all its numbers.
    """
    what = what or ("output" if name == "out" else name)
    expected = np.asarray(expected, np.float64)
    if name not in answer:
        return Measured(what, np.nan, tolerance, f"{what}: {name} is missing from the answer")
    got = np.asarray(answer[name], np.float64)
    hint = hint_for(got, mistakes or {})
    if got.shape != expected.shape:
        detail = f"{what}: the shape should be {expected.shape}; got {got.shape}"
        return Measured(what, np.nan, tolerance, detail, hint)
    errors = (relative_errors if kind == "relative" else absolute_errors)(got, expected)
    errors = np.where(np.isnan(errors), np.inf, errors)
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(errors), errors.shape))
    error = float(errors.sum() if kind == "summed" else errors[worst])
    where = f", worst at {list(worst)}" if worst else ""
    wanted, came = told_apart(float(expected[worst]), float(got[worst]))
    detail = (
        f"{what}: {kind} error {error:.3g}{where}: expected {wanted}, got {came}; "
        f"at most {tolerance:g} is allowed"
    )
    if not hint and not np.isfinite(got).all():
        hint = overflow
    rounded = tolerance < error < FLOAT32_ERROR and np.array_equal(got, got.astype(np.float32))
    if not hint and rounded:
        hint = FLOAT32
    return Measured(what, error, tolerance, detail, hint)


def told_apart(a: float, b: float) -> tuple[str, str]:
    """Both numbers in 9 digits, or as many more as show the difference."""
    written = [(f"{a:.{digits}g}", f"{b:.{digits}g}") for digits in range(9, 18)]
    return next((pair for pair in written if pair[0] != pair[1]), written[-1])


def hint_for(got: Array, mistakes: Mistakes) -> str:
    """The hint of the mistake that gives these values; "" where none does."""
    for hint, value in mistakes.items():
        value = np.asarray(value, np.float64)
        if value.shape == got.shape and np.isfinite(got).all():
            errors = relative_errors(got, value)
            if float(errors.max(initial=0.0)) < 1e-7:
                return hint
    return ""


def at_least(what: str, got: float, wanted: float, hint: str = "") -> Measured:
    """A number that should be at least `wanted`; the error is what it lacks."""
    lacking = max(0.0, wanted - got) if np.isfinite(got) else np.nan
    return Measured(what, lacking, 0.0, f"{what}: {got:.4g}; at least {wanted:g} is expected", hint)


def holds(what: str, true: bool, detail: str, hint: str = "") -> Measured:
    """Something that is so or isn't."""
    return Measured(what, 0.0 if true else np.nan, 0.0, f"{what}: {detail}", hint)
