"""The sections of one step of an optimizer, and of the activation functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .comparing import Answer, Check, Measured, Mistakes, compare
from .formulas import leaky, spaced
from .interface import Array, Part, Section, Task
from .layer_sections import comparing

W, DW = spaced(-0.4, 0.6, 4, 5), spaced(-0.6, 0.4, 4, 5)
STATE, V = spaced(0.6, 0.9, 4, 5), spaced(0.7, 0.5, 4, 5)
LR = 1e-2
EPS = 1e-8
LARGE_EPS = 0.1  # at 1e-8 no figure shows where epsilon stands
ONE_ALONE = "the first parameter alone is updated: each one of each layer is meant"
IGNORED = "the eps that the constructor was given isn't used"


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
            Part("velocity", 1, task, comparing("velocity", velocity, 1e-7, velocities)),
        ),
    )


def step(optimizer: str, state: Mapping[str, Array], **settings: float) -> Task:
    """One step of an optimizer from the contract's arrays."""
    return Task("optimizer", {"w": W, "dw": DW, **state}, {"optimizer": optimizer, **settings})


def moving(expected: Array, tolerance: float, mistakes: Mistakes, of_b: Mistakes) -> Check:
    """A check of w, and where that is right of b, which starts as its first row. of_b: mistakes
    that show beside another parameter alone."""

    def measured(answer: Answer) -> list[Measured]:
        w = compare(answer, "w", expected, tolerance, mistakes)
        b = compare(answer, "b", expected[0], tolerance, {**of_b, ONE_ALONE: W[0]})
        return [w, b] if w.passed else [w]

    return Check(measured)


def rmsprop() -> Section:
    """lr 1e-2, decay 0.99: c = decay c + (1 - decay) dw²; w = w - lr dw / √(c + eps)."""
    decay = 0.99
    cache = decay * STATE + (1 - decay) * DW**2

    def moved(root: Array) -> Array:
        return W - LR * DW / root

    weights = {
        "w moves by the cache of before: update the cache first": moved(np.sqrt(STATE)),
        "the root is missing: divide by √(c + eps)": moved(cache),
        "the sign: w = w - lr dw / √(c + eps)": 2 * W - moved(np.sqrt(cache)),
        "the step isn't divided by the root": moved(np.ones_like(W)),
    }
    caches = {
        "decay and 1 - decay are swapped": (1 - decay) * STATE + decay * DW**2,
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
    return Section(
        "RMSProp",
        (
            Part("w", 1, plain, moving(moved(np.sqrt(cache + EPS)), 1e-7, weights, {})),
            Part("cache", 0.5, plain, comparing("cache", cache, 1e-7, caches)),
            Part("epsilon", 0.5, large, comparing("w", inside, 1e-7, epsilon)),
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

    raw = W - LR * m / (np.sqrt(v) + EPS)
    weights = {
        "t isn't incremented before the correction: it is 6 in this step": moved(5, EPS),
        "t is incremented twice": moved(7, EPS),
        "the means aren't corrected for their start at 0: divide by 1 - betaᵗ": raw,
        "v isn't corrected: divide it by 1 - beta2ᵗ": W - LR * m / (1 - beta1**6) / np.sqrt(v),
        "the sign: w = w - lr m / (√v + eps)": 2 * W - moved(6, EPS),
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
            Part("w", 1, plain, moving(moved(6, EPS), 2e-7, weights, for_each)),
            Part("mt and vt", 0.5, plain, Check(means)),
            Part("epsilon", 0.5, large, comparing("w", moved(6, LARGE_EPS), 2e-7, epsilon)),
        ),
    )


def activations() -> Section:
    """The six functions on linspace(-5, 5, 10)."""
    x = spaced(-5.0, 5.0, 10)
    falls = np.expm1(np.minimum(x, 0))
    alpha, scale = 1.6732, 1.0507
    no_alpha = "alpha isn't used: alpha (eˣ - 1) below zero"
    cases: list[tuple[str, str, dict[str, float], Array, dict[str, Array]]] = [
        (
            "Sigmoid",
            "sigmoid",
            {},
            1 / (1 + np.exp(-x)),
            {"the exponent's sign: 1 / (1 + e⁻ˣ)": 1 / (1 + np.exp(x))},
        ),
        (
            "LeakyReLU",
            "leaky_relu",
            {"a": 0.1},
            leaky(x, 0.1),
            {
                "the slope that was given isn't used": leaky(x),
                "the slope is missing": leaky(x, 0.0),
            },
        ),
        ("ReLU", "relu", {}, np.maximum(x, 0), {"it should be 0 below zero": leaky(x)}),
        (
            "ELU",
            "elu",
            {"a": 0.5},
            np.where(x > 0, x, 0.5 * falls),
            {no_alpha: np.where(x > 0, x, falls)},
        ),
        (
            "SELU",
            "selu",
            {"a": alpha, "b": scale},
            scale * np.where(x > 0, x, alpha * falls),
            {
                "the scale isn't used": np.where(x > 0, x, alpha * falls),
                "the scale is on one side alone: it multiplies both": np.where(
                    x > 0, x, scale * alpha * falls
                ),
            },
        ),
        ("Tanh", "tanh", {}, np.tanh(x), {"tanh of x / 2 came": np.tanh(x / 2)}),
    ]

    def part(
        name: str, function: str, settings: dict[str, float], y: Array, wrong: dict[str, Array]
    ) -> Part:
        task = Task("activation", {"x": x}, {"function": function, **settings})
        return Part(name, 0.5, task, comparing("out", y, 1e-9, wrong))

    return Section("Activations", tuple(part(*case) for case in cases))
