"""Lines read back from a PDF: those that were drawn, whatever stands around them."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from mlpkit.pdf_curves import PRINTED, PdfError, deviation, lines, read_pdf

POINTS = [(0.0, 1.0), (2.0, -3.0), (5.0, 4.0), (7.0, 0.5)]


def draw(path: Path, compression: int = 6) -> None:
    """A blue line over a grid, with a legend and a text that looks like instructions."""
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(*zip(*POINTS, strict=True), "o-", label="(1 0 0 RG 1 2 m 3 4 l S")
    axes.plot([0, 7], [1, 1], color="black")
    axes.grid()
    axes.legend()
    with rc_context({"pdf.compression": compression}):
        figure.savefig(path, metadata={"Keywords": "a; b", "CreationDate": None})


@pytest.mark.parametrize("compression", [0, 6])
def test_a_drawn_line_comes_back(tmp_path: Path, compression: int) -> None:
    draw(tmp_path / "a.pdf", compression)
    document = read_pdf(tmp_path / "a.pdf")
    assert document.information["Keywords"] == "a; b"
    (page,) = document.pages
    line, handle = page
    assert len(line.points) == len(line.markers) == 4
    assert deviation(POINTS, line.points) < PRINTED
    assert deviation(POINTS, line.markers) < PRINTED
    np.testing.assert_allclose(line.points, line.markers, atol=PRINTED)
    assert len({y for _, y in handle.points}) == 1


# Instructions of a page, and the coloured lines in it.
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1 0 0 RG 1 2 m 3 4 l S", [[(1, 2), (3, 4)]]),
        (b"1 0 0 RG\n1 2 m\n3 4 l\n5.5 -6 l\nS 7 8 m 9 9 l S",
         [[(1, 2), (3, 4), (5.5, -6)], [(7, 8), (9, 9)]]),
        (b"0.5 0.5 0.5 RG 1 2 m 3 4 l S", []),
        (b"1 0 0 RG 0 G 1 2 m 3 4 l S", []),
        (b"1 2 m 3 4 l S", []),
        (b"q 1 0 0 RG Q 1 2 m 3 4 l S", []),
        (b"1 0 0 RG 1 2 m 3 4 l n 5 6 m 7 8 l S", [[(5, 6), (7, 8)]]),
        (b"1 0 0 RG 1 2 m 3 4 l B 5 6 m 7 8 l f S", []),
        (b"1 0 0 RG q 2 0 0 3 10 20 cm 1 2 m 3 4 l S Q 1 2 m 3 4 l S",
         [[(12, 26), (16, 32)], [(1, 2), (3, 4)]]),
        (b"1 0 0 RG 1 0 0 1 5 5 cm 0 -1 1 0 0 0 cm 1 2 m 3 4 l S", [[(7, 4), (9, 2)]]),
        (b"1 0 0 RG BT (1 2 m \\) 3 4 l S) Tj [ (S) 3 (m) ] TJ ET 1 2 m 3 4 l S",
         [[(1, 2), (3, 4)]]),
        (b"", []),
    ],
)  # fmt: skip
def test_instructions(content: bytes, expected: list[list[tuple[float, float]]]) -> None:
    assert [line.points for line in lines(content)] == expected


def test_markers_belong_to_the_line_before_them() -> None:
    content = b"1 0 0 RG 1 2 m 3 4 l S q 1 0 0 1 1 2 cm /M0 Do 1 0 0 1 2 2 cm /M0 Do Q 0 G /M1 Do"
    (line,) = lines(content)
    assert line.markers == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([(3 * x + 8, 5 * y - 2) for x, y in POINTS], 0.0),
        ([(x, y + (x == 5)) for x, y in POINTS], None),
        ([(x, -y) for x, y in POINTS], np.inf),
        ([(-x, y) for x, y in POINTS], np.inf),
        ([(x, 0) for x, _ in POINTS], np.inf),
        (POINTS[:-1], np.inf),
        ([], np.inf),
    ],
)
def test_deviation(drawn: list[tuple[float, float]], expected: float | None) -> None:
    if expected is None:
        # NumPy's least squares, of the drawn coordinates on the expected ones and 1.
        y = np.array([y for _, y in POINTS])
        a = np.stack([y, np.ones(4)], axis=1)
        u = np.array([y for _, y in drawn])
        expected = abs(u - a @ np.linalg.lstsq(a, u)[0]).max()
        assert expected > 0.1
    assert deviation(POINTS, drawn) == pytest.approx(expected, abs=1e-12)


def test_deviation_from_a_level_line_is_the_drawn_one_s_own() -> None:
    level = [(0.0, 2.0), (1.0, 2.0), (2.0, 2.0)]
    assert deviation(level, level) == 0
    assert deviation(level, [(0, 5), (1, 5), (2, 8)]) == pytest.approx(2)  # from a mean of 6


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.pdf")
    raw = (tmp_path / "a.pdf").read_bytes()
    stream = re.search(rb"stream\n(.{20})", raw, re.DOTALL)
    assert stream is not None
    page = raw.index(b"/Contents")
    cases = {
        b"": "is no PDF",
        b"\x89PNG\r\n": "is no PDF",
        raw[: len(raw) // 2]: "is cut short",
        b"%PDF-1.7\nnothing\n%%EOF": "the table's place is missing",
        raw.replace(b"startxref\n", b"startxref\n9"): "it has no table of its objects",
        raw.replace(b"/Root", b"/Toor"): "Root is missing",
        raw.replace(b"/FlateDecode", b"/LZWDecodes!"): "FlateDecode is missing",
        raw[:page] + b"/Contants" + raw[page + 9 :]: "Contents is missing",
        raw.replace(stream[1], bytes(20)): "is damaged, or not as matplotlib",
        raw[:15] + b"moved " + raw[15:]: "it has no table of its objects",
        raw.replace(b"xref\n0 ", b"xref\n9 ", 1): "it has no table of its objects",
    }
    for content, said in cases.items():
        (tmp_path / "b.pdf").write_bytes(content)
        with pytest.raises(PdfError, match=re.escape(said)):
            read_pdf(tmp_path / "b.pdf")


def test_a_stream_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpkit.pdf_curves.LARGEST_PAGE", 100)
    draw(tmp_path / "a.pdf")
    with pytest.raises(PdfError, match="has no end"):
        read_pdf(tmp_path / "a.pdf")


def test_damage_anywhere_is_a_sentence(tmp_path: Path) -> None:
    draw(tmp_path / "a.pdf", compression=0)
    raw = (tmp_path / "a.pdf").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(raw)
        for place in rng.integers(5, len(raw), 20):
            content[place] = rng.integers(256)
        (tmp_path / "b.pdf").write_bytes(content)
        try:
            read_pdf(tmp_path / "b.pdf")
        except PdfError:
            refused += 1
    assert refused > 100
