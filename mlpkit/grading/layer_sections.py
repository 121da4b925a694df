"""The sections of single layers and of the loss."""

from __future__ import annotations

import numpy as np

from .comparing import Answer, Check, Measured, array_of, compare, holds
from .formulas import (
    SLOPE,
    leaky,
    leaky_gradient,
    random,
    softmax,
    spaced,
    summed_loss,
    summed_loss_gradient,
)
from .interface import Array, Part, Section, Task

WRONG_AXIS = "the bias's gradient is summed over the wrong axis: sum over the examples, axis 0"
GIVEN_SLOPE = 0.25
SLOPE_UNUSED = "the negative_slope that the constructor was given isn't used"
SLOPE_MISSING = f"the slope below zero is missing: {SLOPE} x there, not 0"
KEEP_ALL = (0.0, 1.0)
STAYS_OFF = "after a forward with is_training=False nothing is dropped any more"


def fc_forward() -> Section:
    """The contract's arrays through flatten and a layer of 168 -> 4."""
    x, w, b = spaced(-0.1, 0.4, 3, 7, 6, 4), spaced(-0.2, 0.2, 168, 4), spaced(-0.3, 0.3, 4)
    flat = x.reshape(3, -1)
    mistakes = {
        "the bias isn't added: y = x w + b": flat @ w,
        "the bias is taken away: y = x w + b": flat @ w - b,
    }
    fc = Check(lambda answer: [compare(answer, "out", flat @ w + b, 1e-8, mistakes)])
    turned = {"the elements' order changed: reshape in C order": x.reshape(3, -1, order="F")}
    alone = {"the axis of the examples is lost: one example is (1, d)": flat[0]}
    one = "output of one example"
    flatten = Check(
        lambda answer: [
            compare(answer, "out", flat, 1e-8, turned),
            compare(answer, "one", flat[:1], 1e-8, alone, what=one),
        ]
    )
    return Section(
        "FC forward",
        (
            Part("output", 1.5, Task("fc_forward", {"x": flat, "w": w, "b": b}), fc),
            Part("flatten", 0.5, Task("flatten", {"x": x}), flatten),
        ),
    )


def fc_backward() -> Section:
    """Random (15, 2, 2, 3) through 12 -> 15: as many outputs as examples, which hides an axis."""
    x, w, b, dout = random(1, 15, 12), random(2, 12, 15), random(3, 15), random(4, 15, 15)
    task = Task("fc_backward", {"x": x, "w": w, "b": b, "dout": dout})
    dw, db = x.T @ dout, dout.sum(axis=0)
    divided = "it is divided by the batch, which the loss has done already"
    added = "it is added to the gradient of the backward before: each takes the last one's place"
    parts = {
        "dx": (dout @ w.T, {divided: dout @ w.T / 15}),
        "dw": (dw, {divided: dw / 15, added: 2 * dw}),
        "db": (db, {WRONG_AXIS: dout.sum(axis=1), divided: db / 15, added: 2 * db}),
    }
    images = random(5, 15, 2, 2, 3)
    flat = images.reshape(15, -1)

    def restored(answer: Answer) -> list[Measured]:
        hint = "backward leaves it flat: restore x's shape"
        one = "gradient of one example, by the same layer"
        return [
            compare(answer, "back", images, 1e-8, {hint: flat}, what="gradient"),
            compare(answer, "one_back", images[:1], 1e-8, {hint: flat[:1]}, what=one),
        ]

    return Section(
        "FC backward",
        (
            *(
                Part(name, 0.5, task, comparing(name, expected, 1e-7, mistakes))
                for name, (expected, mistakes) in parts.items()
            ),
            Part(
                "flatten",
                0.5,
                Task("flatten", {"x": images}, {"backward": 1}),
                Check(restored),
            ),
        ),
    )


def comparing(
    name: str, expected: Array, tolerance: float, mistakes: dict[str, Array], what: str = ""
) -> Check:
    """A check of one array."""
    return Check(lambda answer: [compare(answer, name, expected, tolerance, mistakes, what=what)])


def leaky_relu_forward() -> Section:
    """12 numbers from -1.5 to 1.5."""
    x = spaced(-1.5, 1.5, 3, 4)
    mistakes = {
        SLOPE_MISSING: np.maximum(x, 0),
        "the slope is on the wrong side of zero": np.where(x < 0, x, SLOPE * x),
        "below zero it should be slope x, with x's sign": np.where(x >= 0, x, -SLOPE * x),
    }
    task = Task("leaky_relu_forward", {"x": x}, {"slope": GIVEN_SLOPE})
    expected = [leaky(x, slope) for slope in (SLOPE, GIVEN_SLOPE)]
    return Section("Leaky ReLU forward", both_slopes("output", task, expected, 1e-7, mistakes))


def both_slopes(
    what: str, task: Task, expected: list[Array], tolerance: float, mistakes: dict[str, Array]
) -> tuple[Part, Part]:
    """The parts of a task that answers out, with the default slope, and sloped, with the given."""
    default, sloped = expected
    at_given, unused = f"{what} at slope {GIVEN_SLOPE}", {SLOPE_UNUSED: default}
    return (
        Part(what, 1.5, task, comparing("out", default, tolerance, mistakes, what)),
        Part(at_given, 0.5, task, comparing("sloped", sloped, tolerance, unused, what)),
    )


def leaky_relu_backward() -> Section:
    """Random (15, 15)."""
    x, dout = random(6, 15, 15), random(7, 15, 15)
    mistakes = {
        SLOPE_MISSING: leaky_gradient(dout, x, 0.0),
        "the side is decided by dout's sign: it is x's that counts": leaky(dout),
        "the slope is on the wrong side of zero": np.where(x < 0, dout, SLOPE * dout),
        "the slope alone is returned: multiply by dout": leaky_gradient(np.ones_like(x), x),
        "x is in it: the gradient is slope times dout": leaky_gradient(dout, x) * x,
    }
    task = Task("leaky_relu_backward", {"x": x, "dout": dout}, {"slope": GIVEN_SLOPE})
    expected = [leaky_gradient(dout, x, slope) for slope in (SLOPE, GIVEN_SLOPE)]
    return Section("Leaky ReLU backward", both_slopes("dx", task, expected, 1e-10, mistakes))


def dropout_forward() -> Section:
    """randn(10, 10) + 5 at every keep_prob of the contract."""
    x = random(8, 10, 10) + 5
    points = {0.0: 0.25, 0.25: 0.5, 0.5: 0.5, 0.75: 0.5, 1.0: 0.25}

    def part(keep_prob: float) -> Part:
        task = Task("dropout_forward", {"x": x}, {"keep_prob": keep_prob, "seed": 123})
        check = Check(lambda answer: dropped(answer, x, keep_prob))
        return Part(f"keep {keep_prob:g}", points[keep_prob], task, check)

    return Section("Dropout forward", tuple(map(part, points)))


def dropped(answer: Answer, x: Array, keep_prob: float) -> list[Measured]:
    """At test nothing changes; in training what stays is divided by keep_prob, and the means are
    alike: within five deviations of their difference, and the share of zeros within five of its.
    Each element is drawn by itself, each forward draws anew, in training after test too, and a seed
    given to it begins again, another seed otherwise.
    """
    test = array_of(answer, "test", x.shape)
    left_on = {"dropout is left on at test: is_training=False should change nothing": test}
    scaled = {"dropout scales at test: inverted dropout does in training only": keep_prob * x}
    at_test = compare(
        answer, "test", x, 0.0, left_on if (test == 0).any() else scaled, what="output at test"
    )
    if keep_prob in KEEP_ALL:
        nothing = f"keep_prob {keep_prob:g} should change nothing"
        zeros = {f"{nothing}: all was dropped": np.zeros_like(x)}
        return [compare(answer, "out", x, 0.0, zeros, overflow=nothing), at_test]
    out = array_of(answer, "out", x.shape)
    kept = out != 0
    swapped = "keep_prob is the probability to keep an element, not to drop it"
    mistakes = {
        "the mask isn't scaled: divide what stays by keep_prob": x * kept,
        "it is scaled twice": x * kept / keep_prob**2,
    }
    if keep_prob != 0.5:
        mistakes[f"{swapped}; divide by keep_prob"] = x * kept / (1 - keep_prob)
    stays = compare(answer, "out", x * kept / keep_prob, 1e-7, mistakes, what="what stays")
    share = float(1 - kept.mean())
    spread = 5 * np.sqrt(keep_prob * (1 - keep_prob) / x.size)
    like_swapped = abs(share - keep_prob) <= spread
    anew = array_of(answer, "next", x.shape) != 0
    zero, again, one = (array_of(answer, name, x.shape) for name in ("zero", "again", "one"))
    off = bool((zero != 0).all())
    means = 5 * np.sqrt((1 / keep_prob - 1) * (x**2).sum()) / x.size
    apart = abs(float(out.mean() - x.mean()))
    return [
        at_test,
        stays,
        *(
            holds(
                f"an element each, by {line}",
                bool((kept != first).any()),
                f"one draw decides for a whole {line}: each element is drawn by itself",
            )
            for line, first in (("column", kept[:1]), ("row", kept[:, :1]))
        ),
        holds(
            "the next forward",
            bool((anew != kept).any()),
            "it drops the same elements: each forward in training draws which stay",
            "a seed that the constructor was given starts the draws once, not at each forward",
        ),
        holds(
            "seed 0 given to forward twice",
            np.array_equal(zero, again, equal_nan=True),
            "the two outputs differ",
            "a seed given to forward restarts the masks; 0 is one, too: ask whether it is None",
        ),
        holds(
            "seeds 0 and 1 given to forward",
            off or bool(((zero != 0) != (one != 0)).any()),
            "they give the same mask",
            "the seed given to forward isn't used",
        ),
        holds(
            "training after a forward at test",
            not off or bool(kept.all()),
            "all elements stay",
            STAYS_OFF,
        ),
        Measured(
            "share of zeros",
            abs(share - (1 - keep_prob)),
            float(spread),
            f"share of zeros: {share:.2f} where keep_prob is {keep_prob:g}; expected "
            f"{1 - keep_prob:g}, at most {spread:.2g} off",
            swapped if like_swapped else "",
        ),
        Measured(
            "means in training and test",
            apart,
            float(means),
            f"means in training and test: {out.mean():.4g} and {x.mean():.4g}; at most "
            f"{means:.2g} apart is allowed",
            stays.hint,
        ),
    ]


def dropout_backward() -> Section:
    """(5, 5), seeds fixed: the gradient of the submission's own forward, which multiplies each
    element by a factor that out / x tells."""
    x, dout = random(9, 5, 5), random(10, 5, 5)

    def check(answer: Answer, keep_prob: float) -> list[Measured]:
        out, dx = (array_of(answer, name, x.shape) for name in ("out", "dx"))
        mistakes = {
            "nothing is dropped from the gradient: multiply it by forward's mask": dout,
            "the mask isn't scaled in backward: divide by keep_prob": dout * (out != 0),
            "x is in it: the gradient is dout times the mask": dout * out,
        }
        if keep_prob not in KEEP_ALL:
            another = "another mask is drawn than forward's: keep that one for backward"
            mistakes[another] = np.where(dx != 0, dout / keep_prob, 0)
        return [compare(answer, "dx", dout * out / x, 1e-10, mistakes)]

    def part(keep_prob: float, points: float) -> Part:
        task = Task("dropout_backward", {"x": x, "dout": dout}, {"keep_prob": keep_prob, "seed": 1})
        return Part(
            f"dx at keep {keep_prob:g}",
            points,
            task,
            Check(lambda answer: check(answer, keep_prob)),
        )

    return Section("Dropout backward", (part(0.75, 1.5), part(0.0, 0.5)))


def loss() -> Section:
    """100 x 6 scores near 0, and softmax at 1e4."""
    scores, labels = 0.001 * random(11, 100, 6), np.random.default_rng(12).integers(0, 6, 100)
    total, gradient = summed_loss(scores, labels), summed_loss_gradient(scores, labels)
    undivided = "it isn't divided by the batch: the mean over the examples is meant"
    losses = {
        undivided: np.array(total),
        "the minus sign is missing: -log p": np.array(-total / 100),
        "it is divided by classes too: by the number of examples alone": np.array(total / 600),
        "the logarithm isn't the natural one": np.array(total / 100 / np.log(2)),
    }
    gradients = {
        undivided: gradient,
        "1 isn't taken away at the label: p - 1 there": softmax(scores) / 100,
        "its sign is wrong: p - 1 at the label": -gradient / 100,
        "1 is taken away in whole columns: in each example's row, at its own label alone": (
            (softmax(scores) - 1) / 100
        ),
    }
    near = {"scores": scores, "labels": labels}
    x = np.array([[1e4, 0.0, -1e4], [1e4, 1e4, 1e4 - 1], [-1e4, -1e4 + 2, -1e4]])
    moderate, cube = random(13, 5, 6), random(14, 2, 3, 4)
    unstable = "softmax overflows at large scores: subtract each row's maximum before exp"
    whole = {
        "it is normalised over all elements: over the last axis": softmax_of_all(moderate),
        "it is normalised over the examples: over the last axis": softmax(moderate.T).T,
    }

    def summed(answer: Answer) -> list[Measured]:
        ignored = "size_average=False isn't used: the sum over the examples is meant"
        of = "of size_average=False"
        return [
            compare(
                answer, "loss", total, 1e-7, {ignored: np.array(total / 100)}, what=f"loss {of}"
            ),
            compare(answer, "dx", gradient, 1e-7, {ignored: gradient / 100}, what=f"dx {of}"),
        ]

    def normalised(answer: Answer) -> list[Measured]:
        middle = softmax(cube.swapaxes(1, 2)).swapaxes(1, 2)
        axis = {"it is normalised over axis 1: over the last axis, -1": middle}
        return [
            compare(answer, "out", softmax(moderate), 1e-7, whole),
            compare(answer, "cube", softmax(cube), 1e-7, axis, what="output for (2, 3, 4) numbers"),
        ]

    return Section(
        "Softmax + cross entropy",
        (
            Part(
                "loss",
                0.5,
                Task("cross_entropy", near),
                comparing("loss", np.array(total / 100), 1e-7, losses),
            ),
            Part(
                "dx",
                0.5,
                Task("cross_entropy", near, {"backward": 1}),
                comparing("dx", gradient / 100, 1e-7, gradients),
            ),
            Part(
                "sum",
                0.25,
                Task("cross_entropy", near, {"backward": 1, "summed": 1}),
                Check(summed),
            ),
            Part("softmax", 0.5, Task("softmax", {"x": moderate, "cube": cube}), Check(normalised)),
            Part(
                "softmax at 1e4",
                0.25,
                Task("softmax", {"x": x}),
                Check(lambda a: [compare(a, "out", softmax(x), 1e-7, overflow=unstable)]),
            ),
        ),
    )


def softmax_of_all(x: Array) -> Array:
    """The softmax over all of an array's elements."""
    return softmax(x.reshape(1, -1)).reshape(x.shape)
