"""The sections of small networks: their gradients, and what their parameters are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .comparing import OVERFLOW, Answer, Check, Measured, array_of, compare, holds
from .formulas import chain, chain_gradients, random, spaced, summed_loss_gradient
from .interface import Array, Part, Section, Task
from .layer_sections import SLOPE_MISSING, WRONG_AXIS
from .tasks import drawn

# The contract's figure.
SMALL_NETWORK_LOSS = 2.4250083210516835
# Its names of the parameters; a submission's may be others.
SMALL_NETWORK = [f"fc_{n}_{kind}" for n in (1, 2) for kind in "wb"]
DROPOUT_NETWORK = [f"fc{n}_{kind}" for n in (1, 2, 3) for kind in "wb"]
NETWORKS = 10  # of which initial parameters are taken
WIDTHS = {"TinyNet": (3072, 3072, 10), "FullyConnectedNetwork": (3072, *[100] * 5, 10)}
REPLACED = (
    "the parameters are replaced instead of shared: a layer computes with the very array that "
    "assign was given, and sees it change in place"
)
UNREACHED = (
    "assign doesn't reach the layers: what it is given becomes the parameter that the layer itself "
    "computes with, layer.params[name] = value"
)
FORWARD_FIRST = "the output of the forward pass is wrong already: mend that first"
LEAKY_FIRST = "dx, dw and db all differ: the leaky ReLU's backward comes first, look there"


def of_network(measurements: Callable[[Answer], list[Measured]], in_turn: bool = False) -> Check:
    """A check of a network's answer: where its parameters aren't those assigned, that is why."""

    def measured(answer: Answer) -> list[Measured]:
        found = measurements(answer)
        if not array_of(answer, "unassigned", ()):
            return found
        return [m if m.passed or m.hint else replace(m, hint=UNREACHED) for m in found]

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

    def mistakes(i: int) -> dict[str, Array]:
        found = {SLOPE_MISSING: dx if i < 0 else flat[i]}
        if i == len(params) - 1 and not active:
            found[WRONG_AXIS] = dout.sum(axis=1)
        elif i % 2:
            found[WRONG_AXIS] = np.full(len(x), np.nan)
        return found

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
    axis = np.where(z >= 0, dout, 0.01 * dout).sum(axis=1)

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
    start = Task("initial_parameters", {}, {**settings, "count": NETWORKS})
    return Section(
        "Small network",
        (
            Part(
                "initial parameters",
                0.5,
                start,
                Check(partial(initial, SMALL_NETWORK, shapes, 0.02)),
            ),
            Part("scores", 0.25, Task("network", arrays, settings), of_network(scored)),
            Part("leaky ReLU between", 0.25, Task("network", mixed, settings), of_network(between)),
            Part(
                "loss",
                0.5,
                Task("network", {**arrays, "labels": labels}, settings),
                of_network(measured_loss),
            ),
            Part(
                "gradients",
                0.5,
                Task("network", {**arrays, "dout": dout}, settings),
                of_network(differentiated, in_turn=True),
            ),
        ),
    )


def initial(
    names: list[str], shapes: list[tuple[int, ...]], scale: float, answer: Answer
) -> list[Measured]:
    """Weights of that deviation, over several networks as one has too few to tell; biases 0."""
    found = []
    for i, shape in enumerate((NETWORKS, *shape) for shape in shapes):
        name = f"initial {names[i]}"
        p = array_of({name: array_of(answer, f"p{i}")}, name, shape)
        if i % 2:
            found.append(compare({"p": p}, "p", np.zeros(shape), 0.0, what=name, kind="absolute"))
            continue
        std = float(p.std())
        found.append(
            Measured(
                f"deviation of the {name}",
                abs(std - scale),
                scale / 10,
                f"deviation of the {name}: {std:.4g}; expected {scale:g} within 10 %",
                "init_scale isn't used: multiply the standard normals by it" if std > 0.5 else "",
            )
        )
    return found


def dropout_network() -> Section:
    """DropoutNet with fixed parameters and seed 1234, which gives the same mask every time."""
    x, dout = random(31, 3, 5, 3), random(32, 3, 10)
    shapes = [(15, 20), (20,), (20, 30), (30,), (30, 10), (10,)]
    params = [0.2 * random(33 + i, *shape) for i, shape in enumerate(shapes)]
    arrays = with_params({"x": x, "dout": dout}, params)
    whole = chain(x, params, active=True)[-1]

    def check(answer: Answer) -> list[Measured]:
        test = array_of(answer, "test", whole.shape)
        dropped = (test == 0).any()
        left_on = {"is_training=False doesn't reach the dropout layer": test} if dropped else {}
        at_test = compare(answer, "test", whole, 1e-7, left_on, what="scores at test")
        scores, again = (array_of(answer, name, whole.shape) for name in ("scores", "again"))
        finite = bool(np.isfinite(scores).all())
        found = [
            holds("scores in training", finite, "they aren't all finite", OVERFLOW),
            holds(
                "the same seed twice",
                np.array_equal(scores, again, equal_nan=True),
                "the two outputs differ, and the numerical gradient needs them alike",
                "a seed given to forward should restart the masks",
            ),
        ]
        upstream = dout * scores / whole  # the submission's own mask
        mistakes = gradient_mistakes(x, params, upstream, True)
        dx, gradients = chain_gradients(x, params, upstream, active=True)
        through = chain_gradients(x, params, dout, active=True)[1]
        for i in in_backward_order(len(params)):
            wrong = mistakes(i) | {"dropout's backward doesn't use forward's mask": through[i]}
            what = f"gradient of {DROPOUT_NETWORK[i]}"
            found.append(compare(answer, f"g{i}", gradients[i], 4e-3, wrong, what=what))
        return [*found, compare(answer, "dx", dx, 4e-3, mistakes(-1)), at_test]

    in_turn = of_network(check, in_turn=True)

    def part(keep_prob: float, points: float) -> Part:
        settings: dict[str, float | int | str]
        settings = {"network": "DropoutNet", "keep_prob": keep_prob, "seed": 1234}
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
    """A large network's scores of two examples, with parameters that were assigned."""
    x = random(50, 2, 32, 32, 3)
    shapes = [shape for a, b in itertools.pairwise(WIDTHS[network]) for shape in ((a, b), (b,))]

    def check(answer: Answer) -> list[Measured]:
        got = [tuple(map(int, array_of(answer, f"p{i}"))) for i in range(len(answer) - 1)]
        if got != shapes:
            said = f"{shapes} are expected, of w, b, w, b, ...; got {got}"
            return [holds("shapes of the parameters", False, said)]
        params = [drawn(i, shape) for i, shape in enumerate(shapes)]
        flat = x.reshape(2, -1)
        wrong = {
            "there is no leaky ReLU between the layers": chain(flat, params, 1.0)[-1],
            "there is a leaky ReLU after the last layer": chain(flat, params, active=True)[-1],
            SLOPE_MISSING: chain(flat, params, 0.0)[-1],
        }
        what = "scores with assigned parameters"
        return [compare(answer, "scores", chain(flat, params)[-1], 1e-7, wrong, what=what)]

    return Part(
        network, points, Task("drawn_network", {"x": x}, {"network": network}), Check(check)
    )
