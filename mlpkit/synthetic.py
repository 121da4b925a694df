"""House-number digits drawn from fonts: an offline stand-in for SVHN's cropped digits.

SVHN (Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
2011, http://ufldl.stanford.edu/housenumbers) holds 32x32 colour crops of house numbers, each
centred on one digit with parts of its neighbours at the sides. `make` writes files of the same
names, layout and class frequencies, with pictures drawn as follows:

1. three digits of one face stand side by side, the outer two sometimes missing;
2. this strip is blurred, scaled, sheared, turned and moved, and cropped around its middle digit;
3. the ink is lighter or darker than the wall by the picture's contrast, and slightly tinted;
4. the wall is of one colour, unevenly lit;
5. the camera adds noise and rounds to bytes.
"""

import hashlib
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpkit_backends.threads import thread_count

from .checks import check_counts
from .datasets import TEST_FILE, TRAIN_FILE
from .scratch import scratch
from .seeding import check_seed

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# Images per digit 0..9 in SVHN's train_32x32.mat and test_32x32.mat.
TRAIN_COUNTS: tuple[int, ...] = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
TEST_COUNTS: tuple[int, ...] = (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)

# What sets the difficulty, tuned until small perceptrons learn these pictures about as fast and
# about as well as they learn SVHN. A pair is the range of a uniform draw, a single number the
# standard deviation of a normal one unless it says otherwise. Brightness runs from 0 to 1.
HEIGHT = (0.60, 0.95)  # of the digit, in picture sides
STRETCH = (0.75, 1.15)  # of the digit's width
SHIFT = 0.085  # in picture sides, across and down
TURN = 0.12  # radians
SHEAR = 0.15
PITCH = (0.75, 1.05)  # from one digit to the next, in digit heights
NEIGHBOUR = 0.7  # chance of a digit, on either side
BLURS = (0.01, 0.02, 0.04, 0.06, 0.09)  # in digit heights, equally likely
CONTRAST = (0.0, 1.0)  # brightness step from wall to ink; the sign is drawn apart
TINT = 0.15  # of a colour channel's contrast against the picture's
BRIGHTNESS, BRIGHTNESS_SPREAD = 0.45, 0.16  # halfway from wall to ink: mean, standard deviation
COLOUR = 0.03  # of a colour channel's brightness against the picture's
UNEVEN = 0.06  # brightness over the wall
NOISE = (0.005, 0.04)  # the noise's own standard deviation

SIDE = 32  # of a picture, in pixels
BLOCK = 256  # images that share a random stream: few enough to stay in the processor's cache
TEST_FIRST = 1 << 32  # test images are numbered from here: no stream is shared with training

# Left out of matplotlib's faces: DejaVu Sans Mono with its dotted zero, and cmmi10 and cmti10
# with their old-style digits.
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
GLYPHS = [*"0123456789", ""]
BLANK = 10  # the index of no digit
CELL, CELL_HEIGHT = 48, 28  # a glyph's square and the digit in it, about as tall as when drawn
PEN = 1.0  # pixels around a glyph's outline: house numbers are bolder than print


def make(
    folder: Path,
    train_size: int = sum(TRAIN_COUNTS),
    test_size: int = sum(TEST_COUNTS),
    seed: int = 0,
    *,
    keep: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write train_32x32.mat and test_32x32.mat into folder, which is created if missing.

    Each holds X, uint8 (32, 32, 3, N), and y, uint8 (N, 1), labels 1..10 with 10 for digit 0.
    The bytes depend on the sizes and the seed only, not on workers, the number of threads (by
    default one per processor at hand, at most 8). progress, if given, is called with the number
    of images done and of images in all. Both files appear, complete, at the end; if anything
    stops the work before, neither does. Each file's header has the SHA-256 of what follows it, by
    which read_mat knows a damaged one. keep: leave files that are there.

    Raises ValueError for a size or number of workers below 1 and for what is no seed.
    """
    workers = min(8, thread_count()) if workers is None else workers
    check_counts(train_size=train_size, test_size=test_size, workers=workers)
    seed = check_seed(seed)
    files = [folder / TRAIN_FILE, folder / TEST_FILE]
    with scratch(folder) as place:
        if keep and all(file.is_file() for file in files):
            return  # another process's work, for which this one waited
        done = 0
        for name, counts, size, first in (
            (TRAIN_FILE, TRAIN_COUNTS, train_size, 0),
            (TEST_FILE, TEST_COUNTS, test_size, TEST_FIRST),
        ):
            digits = np.repeat(np.arange(10, dtype=np.uint8), class_counts(counts, size))
            np.random.default_rng([seed, first]).shuffle(digits)
            # MATLAB varies the first index fastest: X's bytes are those of (N, 3, width, height).
            stored = np.empty((size, 3, SIDE, SIDE), dtype=np.uint8)
            with closing(_fill(stored, digits, seed, first, workers)) as blocks:
                for images in blocks:
                    done += images
                    if progress is not None:
                        progress(done, train_size + test_size)
            _save(place / name, stored, digits)
        # Whatever ends the process between these lines, no file stands beside another set's.
        files[1].unlink(missing_ok=True)
        for file in files:
            os.replace(place / file.name, file)


def class_counts(counts: tuple[int, ...], size: int) -> NDArray[np.int64]:
    """Share out size images in proportion to counts, by largest remainder."""
    shares, remainders = np.divmod(np.array(counts) * size, sum(counts))
    largest = np.argsort(-remainders, kind="stable")
    shares[largest[: size - shares.sum()]] += 1
    return shares


def render(digits: Bytes, seed: int, first: int = 0) -> Bytes:
    """Draw images first, first + 1, ... of a seed, showing digits (N,), as uint8 (N, 32, 32, 3).

    An image depends on the seed, its number and its own digit only.
    """
    before, blocks = first % BLOCK, range(first // BLOCK, -(-(first + len(digits)) // BLOCK))
    shown = np.zeros((len(blocks), BLOCK), dtype=np.uint8)
    shown.ravel()[before : before + len(digits)] = digits
    images = np.empty((len(blocks), BLOCK, SIDE, SIDE, 3), dtype=np.uint8)
    for i, block in enumerate(blocks):
        stream = np.random.SeedSequence(seed, spawn_key=(block,))
        images[i] = _draw(shown[i], np.random.default_rng(stream))
    return images.reshape(-1, SIDE, SIDE, 3)[before : before + len(digits)]


def _fill(
    stored: Bytes, digits: Bytes, seed: int, first: int, workers: int
) -> Generator[int, None, None]:
    """Draw digits (N,) into stored (N, 3, width, height); yield the size of each block done."""

    def fill(start: int) -> int:
        images = render(digits[start : start + BLOCK], seed, first + start)
        stored[start : start + BLOCK] = images.transpose(0, 3, 2, 1)
        return len(images)

    _atlas()  # here, or every thread would make its own
    # Threads suffice: numpy lets go of the interpreter in all the heavy work.
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(fill, range(0, len(digits), BLOCK))
    finally:
        pool.shutdown(cancel_futures=True)


def _save(path: Path, stored: Bytes, digits: Bytes) -> None:
    from scipy.io import savemat

    labels = np.where(digits == 0, np.uint8(10), digits)[:, np.newaxis]
    with path.open("w+b") as file:
        savemat(file, {"X": stored.T, "y": labels})
        file.seek(128)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        # savemat dates the header's 116 bytes of text; the same seed must give the same bytes.
        file.seek(0)
        file.write(f"MATLAB 5.0 MAT-file, digits from fonts, sha256 {digest}".encode().ljust(116))


def _draw(digits: Bytes, rng: np.random.Generator) -> Bytes:
    """Draw pictures (n, 32, 32, 3) of digits (n,)."""
    n = len(digits)
    each, channel, pixel = (n, 1, 1, 1), (n, 1, 1, 3), (n, SIDE, SIDE, 3)
    sign = rng.choice([-1.0, 1.0], each)
    step = sign * rng.uniform(*CONTRAST, each) * rng.normal(1, TINT, channel)
    middle = rng.normal(BRIGHTNESS, BRIGHTNESS_SPREAD, each) + rng.normal(0, COLOUR, channel)
    wall, noise = middle - step / 2, rng.uniform(*NOISE, each)
    picture = _ink(digits, rng) * step.astype(np.float32)
    picture += _light(n, rng)
    picture += wall.astype(np.float32)
    picture += rng.standard_normal(pixel, dtype=np.float32) * noise.astype(np.float32)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _light(n: int, rng: np.random.Generator) -> Floats:
    """Smooth fields (n, 32, 32, 1): 3 x 3 random values, interpolated linearly between."""
    place = np.linspace(0, 2, SIDE)
    weights = np.stack([np.interp(place, np.arange(3), knot) for knot in np.eye(3)])
    fields = weights.T @ rng.normal(0, UNEVEN, (n, 3, 3)) @ weights
    return fields[..., np.newaxis].astype(np.float32)


def _ink(digits: Bytes, rng: np.random.Generator) -> Floats:
    """Coverage (n, 32, 32, 1), 0..1, by digits (n,) and their neighbours."""
    n = len(digits)
    each = (n, 1, 1)
    height = SIDE * rng.uniform(*HEIGHT, each)
    width = height * rng.uniform(*STRETCH, each)
    turn, shear = rng.normal(0, TURN, each), rng.normal(0, SHEAR, each)
    # Where does pixel (x, y) lie on the strip, in digit heights from the middle of the digit?
    x = np.arange(SIDE) - rng.normal((SIDE - 1) / 2, SHIFT * SIDE, each)
    y = np.arange(SIDE)[:, np.newaxis] - rng.normal((SIDE - 1) / 2, SHIFT * SIDE, each)
    down = (np.cos(turn) * y - np.sin(turn) * x) / height
    along = (np.cos(turn) * x + np.sin(turn) * y) / width + shear * down
    # Which of the strip's three digits is that, and where on it?
    pitch = rng.uniform(*PITCH, each)
    slot = np.rint(along / pitch).clip(-1, 1)
    along -= slot * pitch
    strip = np.where(rng.random((n, 3)) < NEIGHBOUR, rng.integers(0, 10, (n, 3)), BLANK)
    strip[:, 1] = digits
    strip += len(GLYPHS) * rng.integers(0, len(_atlas()) // len(GLYPHS), (n, 1))
    glyph = strip[np.arange(n)[:, np.newaxis, np.newaxis], slot.astype(np.int64) + 1]
    return _sample(glyph, along, down)[..., np.newaxis]


def _sample(glyph: NDArray[np.int64], along: Doubles, down: Doubles) -> Floats:
    """Read glyphs of the atlas at places in digit heights from their middles, bilinearly."""
    # Places off the cell are taken to its edge, which is empty; one short of it at the far side,
    # so that every corner has neighbours.
    column, row = (
        (CELL_HEIGHT * place.astype(np.float32) + CELL / 2 - 0.5).clip(0, CELL - 1.001)
        for place in (along, down)
    )
    left, top = column.astype(np.int64), row.astype(np.int64)
    column -= left
    row -= top
    texels = _atlas().ravel()
    corner = (glyph * CELL + top) * CELL + left
    upper = texels[corner] * (1 - column) + texels[corner + 1] * column
    lower = texels[corner + CELL] * (1 - column) + texels[corner + CELL + 1] * column
    sampled: Floats = upper * (1 - row) + lower * row
    return sampled


@cache
def _atlas() -> Floats:
    """Coverage (glyphs, CELL, CELL) of GLYPHS, for every face and blur."""
    from scipy.ndimage import gaussian_filter

    sharp = np.stack([_glyph(face, text) for face in FACES for text in GLYPHS])
    blurred = [gaussian_filter(sharp, blur * CELL_HEIGHT, axes=(1, 2)) for blur in BLURS]
    return np.concatenate(blurred)


def _glyph(face: str, text: str) -> Floats:
    """Rasterise a digit, or nothing, in the middle of its cell."""
    import matplotlib
    from matplotlib.backends import backend_agg
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    agg: Any = backend_agg  # matplotlib leaves it untyped
    canvas = agg.RendererAgg(CELL, CELL, 72)
    if text:
        file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
        outline = TextPath((0, 0), text, size=CELL, prop=FontProperties(fname=file))
        box = outline.get_extents()
        place = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
        place.scale(CELL_HEIGHT / box.height).translate(CELL / 2, CELL / 2)
        pen = canvas.new_gc()
        pen.set_linewidth(PEN)
        canvas.draw_path(pen, outline, place, (0.0, 0.0, 0.0))
    return np.asarray(canvas.buffer_rgba(), dtype=np.float32)[..., 3] / np.float32(255)
