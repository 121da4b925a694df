"""The curves of a PDF that matplotlib wrote, read back from its pages' drawing instructions.

Of PDF (ISO 32000) it reads what matplotlib writes: a classic cross-reference table, and streams
that are plain or deflated.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import read_small

PRINTED = 1e-6  # matplotlib prints coordinates to so many points (1/72 inch)
LARGEST_FILE = 1 << 28  # bytes
LARGEST_PAGE = 1 << 26  # bytes of a page's instructions; the plots of a run take some 1e5

Points = Sequence[tuple[float, float]]
Matrix = tuple[float, float, float, float, float, float]


class PdfError(ValueError):
    """A file isn't a PDF that can be read back; the message says why."""


@dataclass
class Drawn:
    """A coloured line on a page, and the places of the markers on it; all in points."""

    points: list[tuple[float, float]]
    markers: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """What is read back: the entries of the document information, and the lines of each page."""

    information: dict[str, str]
    pages: list[list[Drawn]]


def read_pdf(path: Path) -> Document:
    """Read a PDF of matplotlib's. Raises PdfError, OSError."""
    raw = read_small(path, LARGEST_FILE)
    if not raw.startswith(b"%PDF-"):
        raise PdfError(f"{path} is no PDF: name the file that `mlpkit report` wrote")
    if not raw.rstrip().endswith(b"%%EOF"):
        raise PdfError(f"{path} is cut short: it has no end; write it again")
    try:
        return Reader(raw).document()
    except (ValueError, LookupError, zlib.error) as error:
        raise PdfError(
            f"{path} is damaged, or not as matplotlib writes a PDF ({error}): write it again with "
            "`mlpkit report`"
        ) from error


class Reader:
    """The objects of a PDF, found by its cross-reference table."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        start = int(search(rb"startxref\s+(\d+)\s+%%EOF\s*\Z", raw, "the table's place"))
        table = re.compile(rb"xref\s+0 \d+\s+((?:\d{10} \d{5} [nf][ \r\n]{2})+)trailer").match(
            raw, start
        )
        if table is None:
            raise ValueError("it has no table of its objects")
        self.offsets = [int(line[:10]) for line in table[1].splitlines()]
        self.trailer = raw[table.end() :]

    def document(self) -> Document:
        """All that is read."""
        root, info = (
            self.object(int(search(rb"/%s (\d+) 0 R" % key, self.trailer, key.decode())))
            for key in (b"Root", b"Info")
        )
        strings = re.findall(rb"/(\w+)\s*\(((?:\\.|[^\\()])*)\)", info, re.DOTALL)
        tree = self.object(int(search(rb"/Pages (\d+) 0 R", root, "Pages")))
        kids = search(rb"/Kids\s*\[([^\]]*)\]", tree, "Kids")
        pages = [self.object(int(kid)) for kid in re.findall(rb"(\d+) 0 R", kids)]
        contents = [int(search(rb"/Contents (\d+) 0 R", page, "Contents")) for page in pages]
        return Document(
            {key.decode(): value.decode("latin-1") for key, value in strings},
            [lines(self.stream(number)) for number in contents],
        )

    def object(self, number: int) -> bytes:
        """An object's text, without its stream."""
        found = re.compile(rb"%d 0 obj\s(.*?)(stream\r?\n|endobj)" % number, re.DOTALL).match(
            self.raw, self.offsets[number]
        )
        if found is None:
            raise ValueError(f"object {number} isn't where the table says")
        return found[1]

    def stream(self, number: int) -> bytes:
        """An object's stream, inflated."""
        head = self.object(number)
        length = int(search(rb"/Length (\d+)", head, "Length"))
        if re.search(rb"/Length \d+ 0 R", head):
            length = int(self.object(length))
        start = self.raw.index(b"stream", self.offsets[number] + len(head))
        start = self.raw.index(b"\n", start) + 1
        content = self.raw[start : start + length]
        if not re.match(rb"\s*endstream", self.raw[start + length : start + length + 16]):
            raise ValueError(f"the stream of object {number} has not the length that it says")
        if b"/Filter" not in head:
            return content
        search(rb"/Filter (/FlateDecode)", head, "FlateDecode")
        inflate = zlib.decompressobj()
        content = inflate.decompress(content, LARGEST_PAGE)
        if not inflate.eof:
            raise ValueError(f"the stream of object {number} has no end")
        return content


def search(pattern: bytes, text: bytes, what: str) -> bytes:
    """The pattern's group in the text; ValueError where it isn't there."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{what} is missing")
    return found[1]


TOKEN = re.compile(rb"\((?:\\.|[^\\()])*\)|<[^>]*>|[\[\]]|/?[^\s()<>\[\]/]+", re.DOTALL)
OPERATOR = re.compile(rb"[A-Za-z'\"][A-Za-z0-9*]*")


def lines(content: bytes) -> list[Drawn]:
    """The coloured lines of a page's instructions, in the order of their drawing. What is black,
    grey or filled (axes, grids, ticks, texts) is passed over."""
    pen, operands = Pen(), list[bytes]()
    for token in TOKEN.findall(content):
        if not OPERATOR.fullmatch(token):
            operands.append(token)
            continue
        act = pen.acts.get(token.decode())
        if act is not None:
            act(operands)
        operands.clear()
    return pen.drawn


class Pen:
    """The graphics state, as far as lines need it, and the lines drawn so far."""

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []
        self.path: list[tuple[float, float]] = []
        self.matrix: Matrix = (1, 0, 0, 1, 0, 0)
        self.coloured = False
        self.kept: list[tuple[Matrix, bool]] = []
        ends = dict.fromkeys(("f", "F", "f*", "B", "B*", "b", "b*", "n", "s"), self.drop)
        self.acts: dict[str, Callable[[list[bytes]], None]] = ends | {
            "q": lambda _: self.kept.append((self.matrix, self.coloured)),
            "Q": self.restore,
            "cm": self.concatenate,
            "RG": self.colour,
            "G": self.colour,
            "m": self.point,
            "l": self.point,
            "c": self.point,
            "S": self.stroke,
            "Do": self.mark,
        }

    def restore(self, _: list[bytes]) -> None:
        self.matrix, self.coloured = self.kept.pop()

    def concatenate(self, operands: list[bytes]) -> None:
        a, b, c, d, x, y = map(float, operands[-6:])
        origin, across, up = self.place(x, y), self.place(x + a, y + b), self.place(x + c, y + d)
        self.matrix = (
            across[0] - origin[0], across[1] - origin[1],
            up[0] - origin[0], up[1] - origin[1],
            *origin,
        )  # fmt: skip

    def colour(self, operands: list[bytes]) -> None:
        self.coloured = len(set(operands)) > 1

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point on the page."""
        a, b, c, d, e, f = self.matrix
        return a * x + c * y + e, b * x + d * y + f

    def point(self, operands: list[bytes]) -> None:
        self.path.append(self.place(float(operands[-2]), float(operands[-1])))

    def drop(self, _: list[bytes]) -> None:
        self.path = []

    def stroke(self, _: list[bytes]) -> None:
        if self.coloured and self.path:
            self.drawn.append(Drawn(self.path))
        self.path = []

    def mark(self, _: list[bytes]) -> None:
        if self.coloured and self.drawn:
            self.drawn[-1].markers.append(self.place(0, 0))


def deviation(expected: Points, drawn: Points) -> float:
    """How far, in points, a drawn line is from an expected one at most, after the scale and offset
    of each axis that bring them nearest; infinite for another number of points, and for an axis
    that is turned round or has collapsed."""
    if len(expected) != len(drawn) or not expected:
        return float("inf")
    worst = 0.0
    for x, u in zip(np.asarray(expected).T, np.asarray(drawn).T, strict=True):
        worst = max(worst, deviation_of_axis(x - x.mean(), u - u.mean()))
    return worst


def deviation_of_axis(x: NDArray[np.float64], u: NDArray[np.float64]) -> float:
    """`deviation` along one axis, of coordinates with a mean of 0."""
    if not np.ptp(x):
        return float(abs(u).max())
    scale = (x @ u) / (x @ x)
    return float(abs(u - scale * x).max()) if scale > 0 else float("inf")
