"""The sections of one step of an optimizer, and of the activation functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .comparing import Answer, Check, Measured, Mistakes, compare
from .formulas import leaky, spaced
from .interface import Array, Part, Section, Task
from .layer_sections import comparing

W, DW = spaced(-0.4, 0.6, 4, 5), spaced(-0.6, 0.4, 4, 5)
DW_AFTER = DW[::-1]
STATE, V = spaced(0.6, 0.9, 4, 5), spaced(0.7, 0.5, 4, 5)
LR = 1e-2
BUILT_WITH = 3.0  # times the learning rate that counts, which is set afterwards
EPS = 1e-8
LARGE_EPS = 0.1  # at 1e-8 no figure shows where epsilon stands
ONE_ALONE = "the first parameter alone is updated: each one of each layer is meant"
IGNORED = "the eps that the constructor was given isn't used"
OLD_LR = "the lr of the constructor is used: the .lr that the optimizer has as it steps is meant"
NOT_IN_PLACE = "a new array takes the parameter's place: change it in place, as w -= ... does"


def sgdm() -> Section:
    """lr 1e-3, momentum 0.9: v = momentum v - lr dw; w = w + v."""
    lr, momentum = 1e-3, 0.9
    velocity = momentum * STATE - lr * DW
    task = step("SGDM", {"velocity": STATE}, lr=lr, momentum=momentum)
    turned = momentum * STATE + lr * DW
    sign = "the sign of the momentum: v = momentum v - lr dw, and v is added to w"
    old = "w moves by the velocity of before: update the velocity first"
    weights = {
        sign: W - turned,
        "v adds the gradient: v = momentum v - lr dw": W + turned,
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
        "dw is multiplied by 1 - momentum": momentum * STATE - (1 - momentum) * lr * DW,
        "the velocity isn't kept: write it back, by parameter name": STATE,
    }
    return Section(
        "SGDM",
        (
            Part("w", 1, task, moving(W + velocity, 1e-7, weights, {})),
            Part("velocity", 0.75, task, comparing("velocity", velocity, 1e-7, velocities)),
            defaults("SGDM", 0.25, W - 1e-4 * (DW + DW_AFTER)),
        ),
    )


def step(optimizer: str, state: Mapping[str, Array], *, lr: float, **settings: float) -> Task:
    """One step of an optimizer from the contract's arrays."""
    rates = {"lr": lr, "built_with": BUILT_WITH * lr}
    arrays = {"w": W, "dw": DW, **state}
    return Task("optimizer", arrays, {"optimizer": optimizer, **rates, **settings})


def moving(expected: Array, tolerance: float, mistakes: Mistakes, of_b: Mistakes) -> Check:
    """A check of w, and where that is right of b, which starts as its first row, and of the array
    that w was. of_b: mistakes that show beside another parameter alone."""

    def measured(answer: Answer) -> list[Measured]:
        w = compare(answer, "w", expected, tolerance, mistakes)
        b = compare(answer, "b", expected[0], tolerance, {**of_b, ONE_ALONE: W[0]})
        held = "the array that w was before the step"
        in_place = compare(answer, "held", expected, tolerance, {NOT_IN_PLACE: W}, what=held)
        return [w, b, in_place] if w.passed else [w]

    return Check(measured)


def defaults(optimizer: str, points: float, expected: Array, tolerance: float = 1e-7) -> Part:
    """Two steps of an optimizer that is given the network alone."""
    arrays = {"w": W, "dw": DW, "dw_after": DW_AFTER}
    task = Task("optimizer_defaults", arrays, {"optimizer": optimizer})
    what = "w after two steps with the default settings and two gradients"
    return Part("default settings", points, task, comparing("w", expected, tolerance, {}, what))


def sgd_step(points: float) -> Part:
    """One step of SGD: w = w - lr dw."""
    mistakes = {
        "the sign: w = w - lr dw": W + LR * DW,
        "the learning rate isn't used: w = w - lr dw": W - DW,
        OLD_LR: W - BUILT_WITH * LR * DW,
    }
    return Part(
        "one step of SGD", points, step("SGD", {}, lr=LR), moving(W - LR * DW, 1e-7, mistakes, {})
    )


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
    plain = step("RMSProp", {"cache": STATE}, lr=LR, decay=decay)
    large = step("RMSProp", {"cache": STATE}, lr=LR, decay=decay, eps=LARGE_EPS)
    inside = moved(np.sqrt(cache + LARGE_EPS))
    first = 0.01 * DW**2
    second = 0.99 * first + 0.01 * DW_AFTER**2
    by_default = W - 1e-2 * (DW / np.sqrt(first + EPS) + DW_AFTER / np.sqrt(second + EPS))
    return Section(
        "RMSProp",
        (
            Part("w", 0.75, plain, moving(moved(np.sqrt(cache + EPS)), 1e-7, weights, {})),
            Part("cache", 0.5, plain, comparing("cache", cache, 1e-7, caches)),
            Part("epsilon", 0.5, large, comparing("w", inside, 1e-7, epsilon)),
            defaults("RMSProp", 0.25, by_default),
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
    by_default = W - 1e-3 * steps
    raw = W - LR * m / (np.sqrt(v) + EPS)
    weights = {
        "t isn't incremented before the correction: it is 6 in this step": moved(5, EPS),
        "t is incremented twice": moved(7, EPS),
        "the means aren't corrected for their start at 0: divide by 1 - betaᵗ": raw,
        "v isn't corrected: divide it by 1 - beta2ᵗ": W - LR * m / (1 - beta1**6) / np.sqrt(v),
        "m isn't corrected: divide it by 1 - beta1ᵗ": W - LR * m / np.sqrt(v / (1 - beta2**6)),
        "the sign: w = w - lr m / (√v + eps)": 2 * W - moved(6, EPS),
        OLD_LR: W + BUILT_WITH * (moved(6, EPS) - W),
    }
    for_each = {"t is incremented for each parameter: once a step is meant": moved(7, EPS)[0]}
    epsilon = {
        "epsilon is inside the root: √v + eps is meant": moved(6, LARGE_EPS, inside=True),
        IGNORED: moved(6, EPS),
        **{hint: moved(t, LARGE_EPS) for hint, t in zip(weights, (5, 7), strict=False)},
    }
    arrays = {"mt": STATE, "vt": V}
    plain = step("Adam", arrays, lr=LR, beta1=beta1, beta2=beta2, t=5)
    large = step("Adam", arrays, lr=LR, beta1=beta1, beta2=beta2, t=5, eps=LARGE_EPS)
    not_kept = "the means aren't kept: write them back, by parameter name"

    def means(answer: Mapping[str, Array]) -> list[Measured]:
        return [
            compare(answer, "mt", m, 2e-7, {not_kept: STATE}),
            compare(
                answer, "vt", v, 2e-7, {not_kept: V, "dw isn't squared": v + 1e-3 * (DW - DW**2)}
            ),
        ]

    return Section(
        "Adam",
        (
            Part("w", 0.75, plain, moving(moved(6, EPS), 2e-7, weights, for_each)),
            Part("mt and vt", 0.5, plain, Check(means)),
            Part("epsilon", 0.5, large, comparing("w", moved(6, LARGE_EPS), 2e-7, epsilon)),
            defaults("Adam", 0.25, by_default, 2e-7),
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
            {"out": selu, "other": other_scale * np.where(x > 0, x, other_alpha * falls)},
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
        "default": "output with the default alpha",
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
            return [
                compare(answer, key, y, 1e-9, wrong, what=called[key])
                for key, y in expected.items()
            ]

        return Part(name, 0.5, task, Check(measured))

    return Section("Activations", tuple(part(*case) for case in cases))
