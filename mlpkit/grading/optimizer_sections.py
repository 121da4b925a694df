"""The sections of one step of an optimizer, and of the activation functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .comparing import Answer, Check, Measured, Mistakes, array_of, compare
from .formulas import leaky, spaced
from .interface import Array, Part, Section, Task

W, DW = spaced(-0.4, 0.6, 4, 5), spaced(-0.6, 0.4, 4, 5)
DW[3, 1] = 50.0  # shows where it is clipped
DW[2, 2] = 1e-8  # shows what Adam's epsilon is
DW_AFTER = DW[::-1]
LARGE, TINY = ((a == DW) | (a == DW_AFTER) for a in (50.0, 1e-8))
STATE, V = spaced(0.6, 0.9, 4, 5), spaced(0.7, 0.5, 4, 5)
LR = 1e-2
BUILT_WITH = 3.0  # times the learning rate that counts, which is set afterwards
EPS = 1e-8
LARGE_EPS = 0.1  # at 1e-8 no figure shows where epsilon stands
ONE_ALONE = "the first parameter alone is updated: each one of each layer is meant"
IGNORED = "the eps that the constructor was given isn't used"
OLD_LR = "the lr of the constructor is used: the .lr that the optimizer has as it steps is meant"
ONE_LAYER = "the second layer isn't updated"
UNCHANGED = "w isn't changed: w = w - ... makes a new array, w -= ... changes the layer's own"
CLIPPED = "the gradient is clipped: it is used as it is"
CARRIED = "a new optimizer starts with the state of the one before: make its dicts in __init__"
NOT_IN_PLACE = "a new array takes the parameter's place: change it in place, as w -= ... does"


def sgdm() -> Section:
    """lr 1e-3, momentum 0.9: v = momentum v - lr dw; w = w + v."""
    lr, momentum = 1e-3, 0.9
    velocity = momentum * STATE - lr * DW
    task = step("SGDM", {"velocity": STATE}, lr=lr, momentum=momentum)
    turned = momentum * STATE + lr * DW
    sign = "the sign of lr dw: v = momentum v - lr dw"
    outside = "lr is multiplied outside v: v = momentum v - lr dw"
    old = "w moves by the velocity of before: update the velocity first"
    weights = {
        sign: W + turned,
        "the signs are turned: v = momentum v - lr dw, w = w + v": W - turned,
        outside: W - lr * (momentum * STATE + DW),
        f"{outside}, w = w + v": W + lr * (momentum * STATE - DW),
        "v is taken away: w = w + v": W - velocity,
        old: W + STATE,
        "w moves by momentum v - lr dw once more, as Nesterov's does: w = w + v": (
            W + momentum * velocity - lr * DW
        ),
        OLD_LR: W + momentum * STATE - BUILT_WITH * lr * DW,
        "the momentum is left out: w = w + momentum v - lr dw": W - lr * DW,
    }
    velocities = {
        sign: turned,
        "the learning rate isn't in v: v = momentum v - lr dw": momentum * STATE - DW,
        outside: momentum * STATE + DW,
        "dw is multiplied by 1 - momentum": momentum * STATE - (1 - momentum) * lr * DW,
        "the velocity isn't kept: write it back, by parameter name": STATE,
    }
    by_lr = W - 1e-4 * (DW + DW_AFTER)
    anew = W - 1e-4 * (DW + momentum * DW + DW_AFTER)
    return Section(
        "SGDM",
        (
            Part("w", 1, task, moving(W + velocity, 1e-7, weights)),
            Part("velocity", 0.75, task, stepping("velocity", velocity, 1e-7, velocities)),
            defaults(
                "SGDM",
                0.25,
                lambda answer: by_default(answer, by_lr, anew=anew),
                momentum=momentum,
            ),
        ),
    )


def step(optimizer: str, state: dict[str, Array], *, lr: float, **settings: float) -> Task:
    """One step of an optimizer from the contract's arrays, with two gradients of other sizes."""
    rates = {"lr": lr, "built_with": BUILT_WITH * lr}
    arrays = {"w": W, "dw": DW, **state}
    return Task("optimizer", arrays, {"optimizer": optimizer, **rates, **settings})


def moving(
    expected: Array,
    tolerance: float,
    mistakes: Mistakes,
    of_b: Mistakes | None = None,
    of_second: Mistakes | None = None,
) -> Check:
    """A check of w; of b, which starts as its first row; of the second layer's w, which starts as
    it; and of the array that w was: as far as they are right, and the first that isn't. of_b and
    of_second: mistakes that show beside other parameters alone."""
    w = stepping("w", expected, tolerance, mistakes)

    def measured(answer: Answer) -> list[Measured]:
        b = {**(of_b or {}), ONE_ALONE: W[0]}
        w2 = {**(of_second or {}), ONE_LAYER: W}
        held = "the array that w was before the step"
        found = [
            *w.measurements(answer),
            compare(answer, "b", expected[0], tolerance, b),
            compare(answer, "second", expected, tolerance, w2, what="w of the second layer"),
            compare(answer, "held", expected, tolerance, {NOT_IN_PLACE: W}, what=held),
        ]
        wrong = [i for i, m in enumerate(found) if not m.passed]
        return found[: wrong[0] + 1] if wrong else found

    return Check(measured)


def stepping(
    name: str, expected: Array, tolerance: float, mistakes: Mistakes, what: str = ""
) -> Check:
    """A check of an array of w's shape, with two mistakes of any optimizer: what is right but where
    gradients are large, and w as it was."""

    def measured(answer: Answer) -> list[Measured]:
        clipped = np.where(LARGE, array_of(answer, name, W.shape), expected)
        wrong = {CLIPPED: clipped, UNCHANGED: W, **mistakes}
        return [compare(answer, name, expected, tolerance, wrong, what=what)]

    return Check(measured)


def defaults(
    optimizer: str,
    points: float,
    check: Callable[[Answer], list[Measured]],
    **settings: float,
) -> Part:
    """Two steps of an optimizer that is given the network alone, and then of another; settings: the
    other's."""
    arrays = {"w": W, "dw": DW, "dw_after": DW_AFTER}
    task = Task("optimizer_defaults", arrays, {"optimizer": optimizer, **settings})
    return Part("default settings", points, task, Check(check))


def by_default(
    answer: Answer,
    expected: Array,
    tolerance: float = 1e-7,
    mistakes: Mistakes | None = None,
    anew: Array | None = None,
) -> list[Measured]:
    """w with the default settings, and where it is right that of the other optimizer: the same, or
    with a momentum, anew."""
    what = "w after two steps with the default settings and two gradients"
    (first,) = stepping("default", expected, tolerance, mistakes or {}, what).measurements(answer)
    unused = {} if anew is None else {"the momentum isn't used": expected}
    second = compare(
        answer,
        "anew",
        expected if anew is None else anew,
        tolerance,
        unused,
        what="w after two steps of a second optimizer, on a network of its own",
    )
    second = second if second.hint else replace(second, hint=CARRIED)
    return [first, second] if first.passed else [first]


def sgd_step(points: float) -> Part:
    """One step of SGD: w = w - lr dw."""
    mistakes = {
        "the sign: w = w - lr dw": W + LR * DW,
        "the learning rate isn't used: w = w - lr dw": W - DW,
        OLD_LR: W - BUILT_WITH * LR * DW,
    }
    one_step = moving(W - LR * DW, 1e-7, mistakes)

    def check(answer: Answer) -> list[Measured]:
        found = one_step.measurements(answer)
        stepped = all(m.passed for m in found)
        return [*found, *(by_default(answer, W - 1e-4 * (DW + DW_AFTER)) if stepped else [])]

    task = step("SGD", {"dw_after": DW_AFTER}, lr=LR)
    return Part("one step of SGD", points, task, Check(check))


def rmsprop() -> Section:
    """lr 1e-2, decay 0.99: c = decay c + (1 - decay) dw²; w = w - lr dw / √(c + eps)."""
    decay, swapped = 0.99, "decay and 1 - decay are swapped"
    cache = decay * STATE + (1 - decay) * DW**2

    def moved(root: Array, lr: float = LR) -> Array:
        return W - lr * DW / root

    weights = {
        "w moves by the cache of before: update the cache first": moved(np.sqrt(STATE)),
        "the root is missing: divide by √(c + eps)": moved(cache),
        "the sign: w = w - lr dw / √(c + eps)": 2 * W - moved(np.sqrt(cache)),
        "the step isn't divided by the root": moved(np.ones_like(W)),
        swapped: moved(np.sqrt((1 - decay) * STATE + decay * DW**2)),
        OLD_LR: moved(np.sqrt(cache), BUILT_WITH * LR),
    }
    caches = {
        swapped: (1 - decay) * STATE + decay * DW**2,
        "dw isn't squared": decay * STATE + (1 - decay) * DW,
        "the cache isn't kept: write it back, by parameter name": STATE,
    }
    epsilon = {
        "epsilon is outside the root: √(c + eps) is meant": moved(np.sqrt(cache) + LARGE_EPS),
        IGNORED: moved(np.sqrt(cache + EPS)),
    }
    normal = step("RMSProp", {"cache": STATE}, lr=LR, decay=decay)
    large = step("RMSProp", {"cache": STATE}, lr=LR, decay=decay, eps=LARGE_EPS)
    inside = moved(np.sqrt(cache + LARGE_EPS))
    first = 0.01 * DW**2
    second = 0.99 * first + 0.01 * DW_AFTER**2
    twice = W - 1e-2 * (DW / np.sqrt(first + EPS) + DW_AFTER / np.sqrt(second + EPS))
    return Section(
        "RMSProp",
        (
            Part("w", 0.75, normal, moving(moved(np.sqrt(cache + EPS)), 1e-7, weights)),
            Part("cache", 0.5, normal, stepping("cache", cache, 1e-7, caches)),
            Part("epsilon", 0.5, large, stepping("w", inside, 1e-7, epsilon)),
            defaults("RMSProp", 0.25, lambda answer: by_default(answer, twice)),
        ),
    )


def adam() -> Section:
    """lr 1e-2, t = 5 before the step, which makes it 6; epsilon outside the root."""
    beta1, beta2 = 0.9, 0.999
    m, v = beta1 * STATE + (1 - beta1) * DW, beta2 * V + (1 - beta2) * DW**2

    def moved(t: int, eps: float, inside: bool = False) -> Array:
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        root = np.sqrt(v_hat + eps) if inside else np.sqrt(v_hat) + eps
        return W - LR * m_hat / root

    # Corrected for their start, the first means are the gradient and its square.
    m_two = (0.9 * 0.1 * DW + 0.1 * DW_AFTER) / (1 - 0.9**2)
    v_two = (0.999 * 0.001 * DW**2 + 0.001 * DW_AFTER**2) / (1 - 0.999**2)
    steps = DW / (np.abs(DW) + EPS) + m_two / (np.sqrt(v_two) + EPS)
    twice = W - 1e-3 * steps
    root = "√(v / (1 - beta2ᵗ))"
    raw = W - LR * m / (np.sqrt(v) + EPS)
    incremented_twice = "t is incremented twice"
    weights = {
        "t isn't incremented before the correction: it is 6 in this step": moved(5, EPS),
        incremented_twice: moved(7, EPS),
        "the means aren't corrected for their start at 0: divide by 1 - betaᵗ": raw,
        "v isn't corrected: divide it by 1 - beta2ᵗ": W - LR * m / (1 - beta1**6) / np.sqrt(v),
        "m isn't corrected: divide it by 1 - beta1ᵗ": W - LR * m / np.sqrt(v / (1 - beta2**6)),
        "the sign: w = w - lr m / (√v + eps)": 2 * W - moved(6, EPS),
        OLD_LR: W + BUILT_WITH * (moved(6, EPS) - W),
    }
    for_each = {"t is incremented for each parameter: once a step is meant": moved(7, EPS)[0]}
    for_layer = {"t is incremented for each layer: once a step is meant": moved(7, EPS)}
    one_step = moving(moved(6, EPS), 2e-7, weights, for_each, for_layer)
    epsilon = {
        "epsilon is inside the root: √v + eps is meant": moved(6, LARGE_EPS, inside=True),
        f"eps is added before v is corrected: {root} + eps": (
            W - LR * m / (1 - beta1**6) * np.sqrt(1 - beta2**6) / (np.sqrt(v) + LARGE_EPS)
        ),
        IGNORED: moved(6, EPS),
        **{hint: moved(t, LARGE_EPS) for hint, t in zip(weights, (5, 7), strict=False)},
    }
    arrays = {"mt": STATE, "vt": V}
    normal = step("Adam", arrays, lr=LR, beta1=beta1, beta2=beta2, t=5)
    large = step("Adam", arrays, lr=LR, beta1=beta1, beta2=beta2, t=5, eps=LARGE_EPS)
    not_kept = "the means aren't kept: write them back, by parameter name"

    unsquared = v + (1 - beta2) * (DW - DW**2)
    first = stepping("mt", m, 2e-7, {not_kept: STATE})
    second = stepping("vt", v, 2e-7, {not_kept: V, "dw isn't squared": unsquared})

    def means(answer: Answer) -> list[Measured]:
        return [*first.measure(answer), *second.measure(answer)]

    def counted(answer: Answer) -> list[Measured]:
        found = one_step.measurements(answer)
        if "t" in answer and all(m.passed for m in found):
            late = {incremented_twice: np.array(7.0)}
            what = "t after the step"
            found.append(compare(answer, "t", 6.0, 0.0, late, what=what, kind="absolute"))
        return found

    def defaulted(answer: Answer) -> list[Measured]:
        got = array_of(answer, "default", W.shape)
        hint = f"eps is 1e-8 by default, and is added to {root}"
        return by_default(answer, twice, 2e-7, {hint: np.where(TINY, got, twice)})

    return Section(
        "Adam",
        (
            Part("w", 0.75, normal, Check(counted)),
            Part("mt and vt", 0.5, normal, Check(means)),
            Part("epsilon", 0.5, large, stepping("w", moved(6, LARGE_EPS), 2e-7, epsilon)),
            defaults("Adam", 0.25, defaulted),
        ),
    )


def activations() -> Section:
    """The six functions on linspace(-5, 5, 10), in two rows."""
    x = spaced(-5.0, 5.0, 2, 5)
    falls = np.expm1(np.minimum(x, 0))
    alpha, scale = 1.6732, 1.0507
    no_alpha = "alpha isn't used: alpha (eˣ - 1) below zero"
    selu = scale * np.where(x > 0, x, alpha * falls)
    other_alpha, other_scale = 1.5, 0.75
    others = {"other_a": other_alpha, "other_b": other_scale}
    cases: list[tuple[str, str, dict[str, float], dict[str, Array], dict[str, Array]]] = [
        (
            "Sigmoid",
            "sigmoid",
            {},
            {"out": 1 / (1 + np.exp(-x))},
            {"the exponent's sign: 1 / (1 + e⁻ˣ)": 1 / (1 + np.exp(x))},
        ),
        (
            "LeakyReLU",
            "leaky_relu",
            {"a": 0.1},
            {"out": leaky(x, 0.1), "default": leaky(x)},
            {
                "the slope that was given isn't used": leaky(x),
                "the slope is missing": leaky(x, 0.0),
            },
        ),
        ("ReLU", "relu", {}, {"out": np.maximum(x, 0)}, {"it should be 0 below zero": leaky(x)}),
        (
            "ELU",
            "elu",
            {"a": 0.5},
            {"out": np.where(x > 0, x, 0.5 * falls), "default": np.where(x > 0, x, falls)},
            {no_alpha: np.where(x > 0, x, falls)},
        ),
        (
            "SELU",
            "selu",
            {"a": alpha, "b": scale, **others},
            {
                "out": selu,
                "other": other_scale * np.where(x > 0, x, other_alpha * falls),
                "default": selu,
            },
            {
                "the alpha and scale that are given aren't used": selu,
                "the scale isn't used": np.where(x > 0, x, alpha * falls),
                "the scale is on one side alone: it multiplies both": np.where(
                    x > 0, x, scale * alpha * falls
                ),
            },
        ),
        ("Tanh", "tanh", {}, {"out": np.tanh(x)}, {"tanh of x / 2 came": np.tanh(x / 2)}),
    ]

    called = {
        "out": "output",
        "flat": "output for an array of shape (10,)",
        "deep": "output for an array of shape (2, 5, 1)",
        "default": "output with the default settings",
        "other": f"output with alpha {other_alpha} and scale {other_scale}",
    }

    def part(
        name: str,
        function: str,
        settings: dict[str, float],
        expected: dict[str, Array],
        wrong: dict[str, Array],
    ) -> Part:
        task = Task("activation", {"x": x}, {"function": function, **settings})

        def measured(answer: Answer) -> list[Measured]:
            y = expected["out"]
            found = compare(answer, "out", y, 1e-9, wrong, what=called["out"])
            more = {"flat": y.ravel(), "deep": y[..., None]} if found.passed else {}
            more |= {key: value for key, value in expected.items() if key != "out"}
            # SELU's default numbers have more digits elsewhere.
            tolerances = {"default": 1e-4 if function == "selu" else 1e-9}
            return [
                found,
                *(
                    compare(answer, key, value, tolerances.get(key, 1e-9), wrong, what=called[key])
                    for key, value in more.items()
                ),
            ]

        return Part(name, 0.5, task, Check(measured))

    return Section("Activations", tuple(part(*case) for case in cases))
