"""The sections of small networks: their gradients, and what their parameters are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .comparing import OVERFLOW, Answer, Check, Measured, WrongAnswerError, array_of, compare, holds
from .formulas import (
    chain,
    chain_gradients,
    leaky_gradient,
    random,
    spaced,
    summed_loss_gradient,
)
from .interface import Array, Part, Section, Task
from .layer_sections import SLOPE_MISSING, STAYS_OFF, WRONG_AXIS
from .tasks import SENT, drawn

# The contract's figure.
SMALL_NETWORK_LOSS = 2.4250083210516835
# Its names of the parameters; a submission's may be others.
SMALL_NETWORK = [f"fc_{n}_{kind}" for n in (1, 2) for kind in "wb"]
DROPOUT_NETWORK = [f"fc{n}_{kind}" for n in (1, 2, 3) for kind in "wb"]
LARGE_NETWORK = [f"fc{n}_{kind}" for n in range(1, 7) for kind in "wb"]
NETWORKS = 10  # of which initial parameters are taken
WIDTHS = {"TinyNet": (3072, 3072, 10), "FullyConnectedNetwork": (3072, *[100] * 5, 10)}
FC_WIDTH, FC_SCALE = 100, 0.002  # of a layer with the default init_scale
# Of a thousand standard normals, one is beyond that but for 4 times in a million.
NORMAL_DRAWS, NORMAL_LARGEST = 1000, 2.5
REPLACED = (
    "the parameters are replaced instead of shared: a layer computes with the very array that "
    "assign was given, and sees it change in place"
)
UNREACHED = (
    "assign doesn't reach the layers: what it is given becomes the parameter that the layer itself "
    "computes with, layer.params[name] = value"
)
FORWARD_FIRST = "the output of the forward pass is wrong already: mend that first"
DROPS_NOTHING = "DropoutNet() should drop nothing: its keep_prob is 0 by default"
LEAKY_FIRST = "dx, dw and db all differ: the leaky ReLU's backward comes first, look there"


def of_network(
    measurements: Callable[[Answer], list[Measured]], in_turn: bool = False, **forward: Array
) -> Check:
    """A check of a network's answer: where its parameters aren't those assigned, that is why; else
    where what its forward gives, by the answer's name, isn't this."""

    def measured(answer: Answer) -> list[Measured]:
        found = measurements(answer)
        if array_of(answer, "unassigned", ()):
            why = UNREACHED
        elif not all(compare(answer, name, a, 1e-7).passed for name, a in forward.items()):
            why = FORWARD_FIRST
        else:
            return found
        return [m if m.passed or m.hint else replace(m, hint=why) for m in found]

    return Check(measured, in_turn)


def in_backward_order(count: int) -> list[int]:
    """The positions of w, b, w, b, ..., the last layer's first."""
    return [i + j for i in range(count - 2, -1, -2) for j in (0, 1)]


def with_params(arrays: dict[str, Array], params: list[Array]) -> dict[str, Array]:
    """A task's arrays: these, and parameters as p0, p1, ... ."""
    return arrays | {f"p{i}": p for i, p in enumerate(params)}


def gradient_mistakes(
    x: Array, params: list[Array], dout: Array, active: bool
) -> Callable[[int], dict[str, Array]]:
    """By the parameter's position, -1 for x: what usual mistakes make of its gradient."""
    dx, flat = chain_gradients(x, params, dout, 0.0, active)
    across = chain_gradients(x, params, dout, active=active, axis=1)[1]

    def mistakes(i: int) -> dict[str, Array]:
        if i < 0:
            return {SLOPE_MISSING: dx}
        return {SLOPE_MISSING: flat[i]} | ({WRONG_AXIS: across[i]} if i % 2 else {})

    return mistakes


def fc_and_leaky_relu() -> Section:
    """x (3, 5, 3), w (15, 5) through TestFCReLU."""
    x, w, b, dout = random(21, 3, 5, 3), random(22, 15, 5), random(23, 5), random(24, 3, 5)
    arrays = with_params({"x": x}, [w, b])
    settings = {"network": "TestFCReLU"}
    backward = Task("network", {**arrays, "dout": dout}, settings)
    dx, (dw, db) = chain_gradients(x, [w, b], dout, active=True)
    z = chain(x, [w, b])[0]
    without_slope, (dw_without, db_without) = chain_gradients(x, [w, b], dout, 0.0, True)
    axis = leaky_gradient(dout, z).sum(axis=1)

    def shared(answer: Answer) -> list[Measured]:
        moved = chain(x, [w + 0.5, b], active=True)[-1]
        before = chain(x, [w, b], active=True)[-1]
        return [
            compare(answer, "scores", before, 1e-7, what="output with assigned w and b"),
            compare(answer, "moved", moved, 1e-7, {REPLACED: before}, what="output after w += 0.5"),
        ]

    parts = {
        "dx": ("dx", dx, {SLOPE_MISSING: without_slope}),
        "dw": ("g0", dw, {SLOPE_MISSING: dw_without}),
        "db": ("g1", db, {SLOPE_MISSING: db_without, WRONG_AXIS: axis}),
    }

    def differentiated(name: str) -> Check:
        def measured(answer: Answer) -> list[Measured]:
            found = {
                what: compare(answer, key, expected, 1e-7, mistakes, what=what)
                for what, (key, expected, mistakes) in parts.items()
            }
            all_wrong = not any(m.passed or m.hint for m in found.values())
            if not all_wrong or array_of(answer, "unassigned", ()):
                return [found[name]]
            forward = compare(answer, "scores", chain(x, [w, b], active=True)[-1], 1e-7)
            return [replace(found[name], hint=LEAKY_FIRST if forward.passed else FORWARD_FIRST)]

        return of_network(measured)

    return Section(
        "FC + leaky ReLU",
        (
            *(Part(name, 0.5, backward, differentiated(name)) for name in parts),
            Part("parameters shared", 0.5, Task("network", arrays, settings), of_network(shared)),
        ),
    )


def small_network() -> Section:
    """The contract's arrays through 4 -> 30 -> 7."""
    x, labels = spaced(-5.5, 4.5, 4, 4).T, np.array([0, 5, 1, 4])
    params = [
        spaced(-0.7, 0.3, 4, 30),
        spaced(-0.6, 0.2, 30),
        spaced(-0.2, 0.2, 30, 7),
        spaced(-0.9, 0.1, 7),
    ]
    arrays = with_params({"x": x}, params)
    settings = {"network": "SmallFullyConnectedNetwork"}
    scores = chain(x, params)[-1]
    dout = summed_loss_gradient(scores, labels) / len(x)
    dx, gradients = chain_gradients(x, params, dout)
    mistakes = gradient_mistakes(x, params, dout, False)
    losses = {
        "it isn't divided by the batch: the mean over the examples is meant": np.array(
            SMALL_NETWORK_LOSS * len(x)
        ),
        "the minus sign is missing: -log p": np.array(-SMALL_NETWORK_LOSS),
    }

    def scored(answer: Answer) -> list[Measured]:
        wrong = {SLOPE_MISSING: chain(x, params, 0.0)[-1]}
        return [compare(answer, "scores", scores, 1e-6, wrong, kind="summed")]

    # The contract's numbers leave no hidden unit below zero; these do.
    other = [random(41 + i, *p.shape) for i, p in enumerate(params)]
    mixed = with_params({"x": random(40, 4, 4)}, other)

    def between(answer: Answer) -> list[Measured]:
        wrong = {
            SLOPE_MISSING: chain(mixed["x"], other, 0.0)[-1],
            "there is no leaky ReLU between the layers": chain(mixed["x"], other, 1.0)[-1],
        }
        return [compare(answer, "scores", chain(mixed["x"], other)[-1], 1e-7, wrong)]

    def differentiated(answer: Answer) -> list[Measured]:
        found = []
        for i in in_backward_order(len(params)):
            what = f"gradient of {SMALL_NETWORK[i]}"
            found.append(compare(answer, f"g{i}", gradients[i], 1e-6, mistakes(i), what=what))
        return [*found, compare(answer, "dx", dx, 1e-6, mistakes(-1))]

    def measured_loss(answer: Answer) -> list[Measured]:
        return [compare(answer, "loss", SMALL_NETWORK_LOSS, 1e-10, losses, kind="absolute")]

    shapes = [p.shape for p in params]
    start = Task("initial_parameters", {}, {**settings, "count": NETWORKS, "fc": FC_WIDTH})

    def started(answer: Answer) -> list[Measured]:
        default = array_of(answer, "default", (FC_WIDTH, FC_WIDTH))
        what = f"weights of fc({FC_WIDTH}, {FC_WIDTH})"
        of_small = initial(SMALL_NETWORK, shapes, 0.02, answer)
        return [*of_small, deviation(what, default, FC_SCALE)]

    return Section(
        "Small network",
        (
            Part(
                "initial parameters",
                0.5,
                start,
                Check(started),
            ),
            Part("scores", 0.25, Task("network", arrays, settings), of_network(scored)),
            Part("leaky ReLU between", 0.25, Task("network", mixed, settings), of_network(between)),
            Part(
                "loss",
                0.5,
                Task("network", {**arrays, "labels": labels}, settings),
                of_network(measured_loss, scores=scores),
            ),
            Part(
                "gradients",
                0.5,
                Task("network", {**arrays, "dout": dout}, settings),
                of_network(differentiated, in_turn=True, scores=scores),
            ),
        ),
    )


def initial(
    names: list[str], shapes: list[tuple[int, ...]], scale: float, answer: Answer
) -> list[Measured]:
    """`beginnings` of several networks' parameters, as one has too few to tell."""
    starts = []
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        if f"p{i}" not in answer:
            count = f"{len(names)} parameters"
            raise WrongAnswerError(f"there is no {name}: the network should have {count}")
        starts.append(array_of(answer, f"p{i}"))
        if starts[-1].shape != (NETWORKS, *shape):
            got = starts[-1].shape[1:]
            raise WrongAnswerError(f"initial {name} should have the shape {shape}; got {got}")
    return beginnings(names, starts, scale)


def beginnings(names: list[str], starts: list[Array], scale: float) -> list[Measured]:
    """Weights of that deviation, normally distributed; biases 0; no two layers alike. starts: w, b,
    w, b, ... of one or several networks, a row each."""
    found = []
    for name, start in zip(names[1::2], starts[1::2], strict=True):
        farthest = start[np.abs(start).max(axis=1).argmax()]
        zero, what = np.zeros(farthest.shape), f"initial {name}"
        found.append(compare({name: farthest}, name, zero, 0.0, what=what, kind="absolute"))
    deviations = [
        deviation(f"initial {name}", start, scale)
        for name, start in zip(names[::2], starts[::2], strict=True)
    ]
    found += [*deviations, no_two_alike(names[::2], starts[::2])]
    weights = np.concatenate([start.ravel() for start in starts[::2]])
    if all(m.passed for m in deviations) and np.unique(weights).size > NORMAL_DRAWS:
        largest = float(np.abs(weights).max() / scale)
        said = f"{largest:.3g} times init_scale"
        hint = "normally distributed numbers are meant: init_scale * randn"
        found.append(holds("largest initial weight", largest > NORMAL_LARGEST, said, hint))
    return found


def deviation(what: str, weights: Array, scale: float) -> Measured:
    """Of weights that should be scale times standard normals."""
    std = float(weights.std())
    return Measured(
        f"deviation of the {what}",
        abs(std - scale),
        scale / 10,
        f"deviation of the {what}: {std:.4g}; expected {scale:g} within 10 %",
        "init_scale isn't used: multiply the standard normals by it" if std > 0.5 else "",
    )


def no_two_alike(names: list[str], starts: list[Array]) -> Measured:
    """The first numbers of each two layers' weights, which one and the same seed makes alike."""
    alike = []
    for (one, a), (other, b) in itertools.combinations(zip(names, starts, strict=True), 2):
        rows = [start.reshape(len(start), -1) for start in (a, b)]
        count = min(row.shape[1] for row in rows)
        with np.errstate(invalid="ignore", divide="ignore"):  # of weights that are all 0
            together = np.corrcoef([row[:, :count].ravel() for row in rows])[0, 1]
        if together > 0.5:
            alike.append(f"{one} and {other} begin with the same numbers")
    hint = "set no seed in fc: each layer draws numbers of its own"
    return holds("initial weights", not alike, "".join(alike[:1]), hint)


def dropout_network() -> Section:
    """DropoutNet with fixed parameters and seed 1234, which gives the same mask every time."""
    x, dout = random(31, 3, 5, 3), random(32, 3, 10)
    shapes = [(15, 20), (20,), (20, 30), (30,), (30, 10), (10,)]
    params = [0.2 * random(33 + i, *shape) for i, shape in enumerate(shapes)]
    arrays = with_params({"x": x, "dout": dout}, params)
    whole = chain(x, params, active=True)[-1]

    def check(keep_prob: float, answer: Answer) -> list[Measured]:
        scores, again, test, resumed = (
            array_of(answer, name, whole.shape) for name in ("scores", "again", "test", "resumed")
        )
        wrong = {SLOPE_MISSING: chain(x, params, 0.0, active=True)[-1]}
        if (test == 0).any():
            wrong["is_training=False doesn't reach the dropout layer"] = test
        at_test = compare(answer, "test", whole, 1e-7, wrong, what="scores at test")
        finite = bool(np.isfinite(scores).all())
        found = [
            holds("scores in training", finite, "they aren't all finite", OVERFLOW),
            at_test,
            holds(
                "the same seed twice",
                np.array_equal(scores, again, equal_nan=True),
                "the two outputs differ, and the numerical gradient needs them alike",
                "a seed given to forward should restart the masks",
            ),
            holds(
                "the same seed after a forward at test",
                np.array_equal(scores, resumed, equal_nan=True),
                "the output differs from that before it",
                STAYS_OFF if np.array_equal(resumed, test) else "",
            ),
        ]
        if keep_prob == 0:
            by_default = {DROPS_NOTHING: scores} if (scores == 0).any() else {}
            what = "scores in training of DropoutNet()"
            found.append(compare(answer, "scores", whole, 1e-7, by_default, what=what))
        upstream = dout * scores / whole  # the submission's own mask
        mistakes = gradient_mistakes(x, params, upstream, True)
        dx, gradients = chain_gradients(x, params, upstream, active=True)
        through = chain_gradients(x, params, dout, active=True)[1]
        for i in in_backward_order(len(params)):
            wrong = mistakes(i) | {"dropout's backward doesn't use forward's mask": through[i]}
            what = f"gradient of {DROPOUT_NETWORK[i]}"
            found.append(compare(answer, f"g{i}", gradients[i], 4e-3, wrong, what=what))
        return [*found, compare(answer, "dx", dx, 4e-3, mistakes(-1))]

    def part(keep_prob: float, points: float) -> Part:
        settings: dict[str, float | int | str] = {"network": "DropoutNet", "seed": 1234}
        if keep_prob:  # 0 is the default
            settings["keep_prob"] = keep_prob
        in_turn = of_network(partial(check, keep_prob), in_turn=True, test=whole)
        return Part(f"keep {keep_prob:g}", points, Task("network", arrays, settings), in_turn)

    start = Task("initial_parameters", {}, {"network": "DropoutNet", "count": NETWORKS})
    begins = Check(partial(initial, DROPOUT_NETWORK, shapes, 0.05))
    return Section(
        "Dropout network",
        (
            Part("initial parameters", 0.25, start, begins),
            part(0.0, 0.25),
            part(0.25, 0.75),
            part(0.5, 0.75),
        ),
    )


def assigned(network: str, points: float) -> Part:
    """A large network's scores of two examples, with parameters that were assigned; and its initial
    ones."""
    x = random(50, 2, 32, 32, 3)
    shapes = [shape for a, b in itertools.pairwise(WIDTHS[network]) for shape in ((a, b), (b,))]

    def check(answer: Answer) -> list[Measured]:
        count = sum(name.startswith("p") for name in answer)
        got = [tuple(map(int, array_of(answer, f"p{i}"))) for i in range(count)]
        if got != shapes:
            numbers = f"{len(shapes)} are expected, of w, b, w, b, ..., and {len(got)} came"
            said = f"{numbers}: {shapes} are expected; got {got}"
            return [holds("shapes of the parameters", False, said)]
        params = [drawn(i, shape) for i, shape in enumerate(shapes)]
        flat = x.reshape(2, -1)
        wrong = {
            "there is no leaky ReLU between the layers": chain(flat, params, 1.0)[-1],
            "there is a leaky ReLU after the last layer": chain(flat, params, active=True)[-1],
            SLOPE_MISSING: chain(flat, params, 0.0)[-1],
        }
        what = "scores with assigned parameters"
        scores = compare(answer, "scores", chain(flat, params)[-1], 1e-7, wrong, what=what)
        sizes = [min(SENT, int(np.prod(shape))) for shape in shapes]
        starts = [array_of(answer, f"s{i}", (size,))[None] for i, size in enumerate(sizes)]
        if network == "TinyNet":  # the contract has no init_scale for it
            return [scores, no_two_alike(LARGE_NETWORK[:count:2], starts[::2])]
        return [scores, *beginnings(LARGE_NETWORK, starts, 0.05)]

    return Part(
        network, points, Task("drawn_network", {"x": x}, {"network": network}), Check(check)
    )
