"""The benchmark's workloads on other libraries: the same weights, batches, formulas and updates.

Each contender is a function of a case and data that returns a function of the batches' indices
(K, N), which trains on them in turn and returns the K losses on the host. data: images uint8
(count, 32, 32, 3), labels and the mean image. float32 but for `plain`. A step gathers its batch
from the uint8 images by index and normalises it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlpkit.benchmark import LEARNING_RATES, Case, CaseRun

sys.path.insert(0, str(Path(__file__).parents[1]))  # when a script is run by its path
from bench.with_jax import jax_with
from bench.with_torch import torch_graph, torch_with
from bench.workload import BETA1, BETA2, DECAY, EPS, MOMENTUM, SLOPE, Array, Data, Run, weights_of


def mlpkit_on(backend: str) -> Callable[[Case, Data], Run]:
    """mlpkit itself, on that backend."""
    return lambda case, data: CaseRun(replace(case, backend=backend), data)


def plain(case: Case, data: Data) -> Run:
    """NumPy in float64 as students write it: np.where, and new arrays for everything."""
    images, labels, mean = data
    optimizer = case.optimizer
    params = [w.astype(np.float64) for w in weights_of(case)]
    state = [[np.zeros_like(w) for w in params] for _ in range(2)]
    lr, t = LEARNING_RATES[optimizer], 0

    def step(index: Array) -> float:
        nonlocal t
        t += 1
        x = (images[index] / 255.0 - mean).reshape(len(index), -1)
        y = labels[index]
        layers = len(params) // 2
        inputs, outputs = [], []
        for i in range(layers):
            inputs.append(x)
            z = x @ params[2 * i] + params[2 * i + 1]
            outputs.append(z)
            x = np.where(z >= 0, z, SLOPE * z) if i < layers - 1 else z
        p = np.exp(x - x.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        loss = -np.mean(np.log(p[np.arange(len(y)), y]))
        d = p.copy()
        d[np.arange(len(y)), y] -= 1
        d = d / len(y)
        grads = []
        for i in reversed(range(layers)):
            if i < layers - 1:
                d = np.where(outputs[i] >= 0, d, SLOPE * d)
            grads = [inputs[i].T @ d, d.sum(axis=0), *grads]
            d = d @ params[2 * i].T
        for i, g in enumerate(grads):
            update(i, g)
        return float(loss)

    def update(i: int, g: Array) -> None:
        first, second = state
        if optimizer == "sgd":
            params[i] = params[i] - lr * g
        elif optimizer == "sgdm":
            first[i] = MOMENTUM * first[i] - lr * g
            params[i] = params[i] + first[i]
        elif optimizer == "rmsprop":
            first[i] = DECAY * first[i] + (1 - DECAY) * g**2
            params[i] = params[i] - lr * g / np.sqrt(first[i] + EPS)
        else:
            first[i] = BETA1 * first[i] + (1 - BETA1) * g
            second[i] = BETA2 * second[i] + (1 - BETA2) * g**2
            m, v = first[i] / (1 - BETA1**t), second[i] / (1 - BETA2**t)
            params[i] = params[i] - lr * m / (np.sqrt(v) + EPS)

    return lambda order: np.array([step(index) for index in order])


def sklearn(case: Case, data: Data) -> Run:
    """scikit-learn's MLPClassifier, a partial_fit a batch. Its ReLU is given the slope that the
    workloads have; it has no RMSProp."""
    from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

    def leaky_relu(x: Array) -> None:
        np.maximum(x, SLOPE * x, out=x)

    def derivative(h: Array, delta: Array) -> None:
        delta[h < 0] *= SLOPE

    _multilayer_perceptron.ACTIVATIONS["relu"] = leaky_relu
    _multilayer_perceptron.DERIVATIVES["relu"] = derivative
    images, labels, mean = data
    mean = mean.astype(np.float32)
    weights, optimizer = weights_of(case), case.optimizer
    network = MLPClassifier(
        [w.shape[1] for w in weights[:-2:2]],
        solver="adam" if optimizer == "adam" else "sgd",
        alpha=0.0,
        batch_size=case.batch_size,
        learning_rate_init=LEARNING_RATES[optimizer],
        momentum=MOMENTUM if optimizer == "sgdm" else 0.0,
        nesterovs_momentum=False,
        shuffle=False,
        beta_1=BETA1,
        beta_2=BETA2,
        epsilon=EPS,
    )

    def batch(index: Array) -> Array:
        return (images[index].astype(np.float32) / 255 - mean).reshape(len(index), -1)

    first = np.arange(case.batch_size)
    network.partial_fit(batch(first), labels[first], classes=np.arange(10))
    for i in range(0, len(weights), 2):  # start over from the given weights, without a past
        network.coefs_[i // 2][...] = weights[i]
        network.intercepts_[i // 2][...] = weights[i + 1]
    rule = network._optimizer
    for past in ("velocities", "ms", "vs"):
        for array in getattr(rule, past, ()):
            array[...] = 0
    rule.t = 0

    def run(order: Array) -> Array:
        losses = []
        for index in order:
            if optimizer == "adam":  # its epsilon is added before v's correction, ours after
                rule.epsilon = EPS * np.sqrt(1 - BETA2 ** (rule.t + 1))
            network.partial_fit(batch(index), labels[index])
            losses.append(network.loss_)
        return np.array(losses)

    return run


CONTENDERS: dict[str, Callable[..., Run]] = {
    "mlpkit numba": mlpkit_on("numba"),
    "mlpkit numpy": mlpkit_on("numpy"),
    "PyTorch eager": torch_with(compiled=False),
    "PyTorch compiled": torch_with(compiled=True),
    "JAX jit": jax_with(scan=False),
    "JAX scan": jax_with(scan=True),
    "scikit-learn": sklearn,
    "plain NumPy": plain,
}
# By process, so that one library's end is not the other's; what compiles for minutes has its own,
# which is measured last.
GPU_CONTENDERS: dict[str, dict[str, Callable[..., Run]]] = {
    "torch": {
        "PyTorch eager": torch_with(compiled=False, device="cuda"),
        "PyTorch graph of a step": torch_graph(1),
        "PyTorch graph of 32 steps": torch_graph(32),
    },
    "jax": {
        "JAX jit": jax_with(scan=False, device="gpu"),
        "JAX scan": jax_with(scan=True, device="gpu"),
    },
    "slow-torch": {
        "PyTorch reduce-overhead": torch_with(compiled=True, device="cuda", mode="reduce-overhead"),
        "PyTorch max-autotune": torch_with(compiled=True, device="cuda", mode="max-autotune"),
    },
}
LACKING = {("scikit-learn", "rmsprop")}  # what a contender has no such optimizer for
