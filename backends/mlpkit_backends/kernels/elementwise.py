"""numba transcriptions of the base's elementwise ops, dropout, loss and updates.

Each formula is base.py's op of the same name; the tests hold them together. They are compiled with
NumPy's rules for division, as a check for zero would keep them from using vector instructions.
Products and sums are not fused: which of two products is would differ between the code that a
process compiles and the code that the next one finds in the cache, and so would the bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan import OPS, UPDATES
from .jit import jit

_, LEAKY_RELU, RELU, ELU, SELU, SIGMOID, TANH = range(len(OPS))
SGD, SGDM, RMSPROP, _ = range(len(UPDATES))

compiled = jit(error_model="numpy")


@compiled
def gather(images: Any, index: Any, mean: Any, x: Any) -> None:
    """x (N, D) ← the images (K, D) of those indices, / 255 - mean (D,) where there is a mean."""
    scale, centred = x.dtype.type(255), mean.shape[0] > 0
    for n in range(x.shape[0]):
        image = images[index[n]]
        if centred:
            for j in range(x.shape[1]):
                x[n, j] = x.dtype.type(image[j]) / scale - mean[j]
        else:
            for j in range(x.shape[1]):
                x[n, j] = image[j]


@compiled
def elu_value(x: Any, alpha: Any) -> Any:
    """elu of one number."""
    return x if x > 0 else alpha * np.expm1(x)


@compiled
def sigmoid_value(x: Any, one: Any) -> Any:
    """sigmoid of one number; one: 1 of its dtype."""
    e = np.exp(-abs(x))
    return (one if x >= 0 else e) / (one + e)


@compiled
def sigmoid_slope(x: Any, one: Any) -> Any:
    """sigmoid's derivative at one number; one: 1 of its dtype."""
    e = np.exp(-abs(x))
    return e / ((one + e) * (one + e))


@compiled
def activate(z: Any, bias: Any, op: Any, alpha: Any, scale: Any, h: Any) -> None:
    """z (N, M) ← z + bias (M,); h ← the op of z."""
    real = z.dtype.type
    one, alpha, scale = real(1), real(alpha), real(scale)
    for n in range(z.shape[0]):
        row, out = z[n], h[n]
        for j in range(z.shape[1]):
            row[j] += bias[j]
        if op == LEAKY_RELU:
            for j in range(z.shape[1]):
                out[j] = row[j] if row[j] >= 0 else alpha * row[j]
        elif op == RELU:
            for j in range(z.shape[1]):
                out[j] = max(row[j], real(0))
        elif op in (ELU, SELU):
            for j in range(z.shape[1]):
                out[j] = scale * elu_value(row[j], alpha)
        elif op == SIGMOID:
            for j in range(z.shape[1]):
                out[j] = sigmoid_value(row[j], one)
        elif op == TANH:
            for j in range(z.shape[1]):
                out[j] = np.tanh(row[j])
        else:
            for j in range(z.shape[1]):
                out[j] = row[j]


@compiled
def activate_backward(d: Any, z: Any, op: Any, alpha: Any, scale: Any) -> None:
    """d ← d times the op's derivative at z."""
    real = z.dtype.type
    one, two, four, alpha, scale = real(1), real(2), real(4), real(alpha), real(scale)
    for n in range(z.shape[0]):
        row, out = z[n], d[n]
        if op == LEAKY_RELU:
            for j in range(z.shape[1]):
                out[j] = out[j] if row[j] >= 0 else alpha * out[j]
        elif op == RELU:
            for j in range(z.shape[1]):
                out[j] = out[j] if row[j] > 0 else real(0)
        elif op in (ELU, SELU):
            for j in range(z.shape[1]):
                slope = one if row[j] > 0 else alpha * np.exp(row[j])
                out[j] = scale * (out[j] * slope)
        elif op == SIGMOID:
            for j in range(z.shape[1]):
                out[j] *= sigmoid_slope(row[j], one)
        elif op == TANH:
            for j in range(z.shape[1]):
                out[j] *= four * sigmoid_slope(two * row[j], one)


@compiled
def add_rows(d: Any, total: Any) -> None:
    """total (M,) ← Σ_n d (N, M)."""
    total[:] = 0
    for n in range(d.shape[0]):
        for j in range(d.shape[1]):
            total[j] += d[n, j]


@compiled
def high_product(a: Any, b: Any) -> Any:
    """The upper 64 bits of the 128-bit product."""
    low32, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low32, a >> shift, b & low32, b >> shift
    middle = a1 * b0 + ((a0 * b0) >> shift)
    other = a0 * b1 + (middle & low32)
    return a1 * b1 + (middle >> shift) + (other >> shift)


@compiled
def philox(block: Any, step: Any, seed: Any, layer: Any, words: Any) -> None:
    """words (4,) ← Philox4x64-10 of counter (block, step, 0, 0) and key (seed, layer)."""
    c0, c1, c2, c3 = block, step, np.uint64(0), np.uint64(0)
    k0, k1 = seed, layer
    m0, m1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
    for _ in range(10):
        high0, low0, high1, low1 = high_product(m0, c0), m0 * c0, high_product(m1, c2), m1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += np.uint64(0x9E3779B97F4A7C15)
        k1 += np.uint64(0xBB67AE8584CAA73B)
    words[0], words[1], words[2], words[3] = c0, c1, c2, c3


@compiled
def keep_mask(keep_prob: Any, seed: Any, layer: Any, step: Any, mask: Any) -> None:
    """mask (N, M) bool ← the base's keep_mask of key (seed, layer, step)."""
    flat, words = mask.ravel(), np.empty(4, np.uint64)
    threshold = keep_prob * 2.0**32
    for i in range(flat.shape[0]):
        half = i % 8
        if half == 0:
            philox(np.uint64(i // 8 + 1), step, seed, layer, words)
        word = words[half // 2]
        bits = (word >> np.uint64(32)) if half % 2 else (word & np.uint64(0xFFFFFFFF))
        flat[i] = np.float64(bits) < threshold


@compiled
def drop(x: Any, mask: Any, keep_prob: Any) -> None:
    """x ← x / keep_prob where mask, else 0."""
    keep = x.dtype.type(keep_prob)
    for n in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[n, j] = x[n, j] / keep if mask[n, j] else x.dtype.type(0)


@compiled
def cross_entropy(scores: Any, labels: Any, factor: Any, d: Any) -> Any:
    """factor Σ_n -log softmax(scores)[n, labels[n]]; d ← its gradient by the scores (N, C)."""
    real = scores.dtype.type
    factor, total = real(factor), 0.0  # float64, or tens of thousands of losses would lose digits
    for n in range(scores.shape[0]):
        row, out = scores[n], d[n]
        largest = row.max()
        norm = real(0)
        for j in range(row.shape[0]):
            out[j] = np.exp(row[j] - largest)
            norm += out[j]
        total += np.log(norm) - (row[labels[n]] - largest)
        for j in range(row.shape[0]):
            out[j] = factor * (out[j] / norm)
        out[labels[n]] -= factor
    return factor * total


@compiled
def sgd_flat(w: Any, dw: Any, lr: Any) -> None:
    """sgd_update of arrays (K,)."""
    for j in range(w.shape[0]):
        w[j] -= lr * dw[j]


@compiled
def sgdm_flat(w: Any, dw: Any, velocity: Any, lr: Any, momentum: Any) -> None:
    """sgdm_update of arrays (K,)."""
    for j in range(w.shape[0]):
        velocity[j] = momentum * velocity[j] - lr * dw[j]
        w[j] += velocity[j]


@compiled
def rmsprop_flat(w: Any, dw: Any, cache: Any, lr: Any, decay: Any, rest: Any, eps: Any) -> None:
    """rmsprop_update of arrays (K,); rest = 1 - decay."""
    for j in range(w.shape[0]):
        cache[j] = decay * cache[j] + rest * (dw[j] * dw[j])
        w[j] -= lr * dw[j] / np.sqrt(cache[j] + eps)


@compiled
def adam_flat(
    w: Any,
    dw: Any,
    m: Any,
    v: Any,
    step: Any,
    beta1: Any,
    rest1: Any,
    beta2: Any,
    rest2: Any,
    correct2: Any,
    eps: Any,
) -> None:
    """adam_update of arrays (K,); rest = 1 - beta, step = lr / (1 - beta1ᵗ), correct2 =
    1 / (1 - beta2ᵗ)."""
    for j in range(w.shape[0]):
        m[j] = beta1 * m[j] + rest1 * dw[j]
        v[j] = beta2 * v[j] + rest2 * (dw[j] * dw[j])
        w[j] -= step * m[j] / (np.sqrt(v[j] * correct2) + eps)


@compiled
def update(rule: Any, row: Any, w: Any, dw: Any, state1: Any, state2: Any) -> None:
    """w (D, M) and its state, by the rule, from the gradient dw; row: the schedule's. All are
    contiguous, and are gone through flat: a short row would end in what fills no register."""
    real, size = w.dtype.type, w.size
    p, dp, m, v = w.reshape(size), dw.reshape(size), state1.reshape(size), state2.reshape(size)
    if rule == SGD:
        sgd_flat(p, dp, real(row[0]))
    elif rule == SGDM:
        sgdm_flat(p, dp, m, real(row[0]), real(row[1]))
    elif rule == RMSPROP:
        lr, decay, eps = row[0], row[1], row[2]
        rmsprop_flat(p, dp, m, real(lr), real(decay), real(1 - decay), real(eps))
    else:
        lr, beta1, beta2, eps, t = row[0], row[1], row[2], row[3], row[4]
        adam_flat(
            p,
            dp,
            m,
            v,
            real(lr / (1 - beta1**t)),
            real(beta1),
            real(1 - beta1),
            real(beta2),
            real(1 - beta2),
            real(1 / (1 - beta2**t)),
            real(eps),
        )
