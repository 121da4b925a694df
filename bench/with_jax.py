"""The benchmark's workloads on JAX: contenders as contenders.py describes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bench.workload import (
    BETA1,
    BETA2,
    DECAY,
    EPS,
    MOMENTUM,
    SLOPE,
    Array,
    Data,
    Run,
    weights_of,
)
from mlpkit.benchmark import LEARNING_RATES, Case


def jax_with(scan: bool, device: str = "") -> Callable[[Case, Data], Run]:
    """JAX: a jitted step with donated buffers, or lax.scan over all steps of a call. The data are
    arguments, as they would be constants of the compiled code otherwise; the batches' indices come
    to the device together, and the losses from it. device: what it has to run on, "gpu" or "cpu",
    if anything: one installed without CUDA takes the CPU unasked."""

    def make(case: Case, data: Data) -> Run:
        import jax
        import jax.numpy as jnp

        if device and jax.default_backend() != device:
            raise RuntimeError(f"JAX runs on the {jax.default_backend()} here, not on a {device}")
        jax.config.update("jax_default_matmul_precision", "highest")  # not TF32
        weights, optimizer = weights_of(case), case.optimizer
        lr = LEARNING_RATES[optimizer]
        images = jnp.asarray(data[0].reshape(len(data[0]), -1))
        given = (images, jnp.asarray(data[1]), jnp.asarray(data[2].reshape(-1), jnp.float32))

        def loss_of(params: Array, x: Array, y: Array) -> Array:
            for i in range(0, len(params), 2):
                x = x @ params[i] + params[i + 1]
                if i < len(params) - 2:
                    x = jnp.where(x >= 0, x, SLOPE * x)
            log_p = jax.nn.log_softmax(x)
            return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))

        def rule(w: Array, g: Array, first: Array, second: Array, t: Array) -> tuple[Array, ...]:
            if optimizer == "sgd":
                return w - lr * g, first, second
            if optimizer == "sgdm":
                first = MOMENTUM * first - lr * g
                return w + first, first, second
            if optimizer == "rmsprop":
                first = DECAY * first + (1 - DECAY) * g * g
                return w - lr * g / jnp.sqrt(first + EPS), first, second
            first = BETA1 * first + (1 - BETA1) * g
            second = BETA2 * second + (1 - BETA2) * g * g
            m, v = first / (1 - BETA1**t), second / (1 - BETA2**t)
            return w - lr * m / (jnp.sqrt(v) + EPS), first, second

        def step(given: Array, carry: Array, index: Array) -> tuple[Array, Array]:
            images, labels, mean = given
            params, firsts, seconds, t = carry
            t = t + 1
            x = images[index].astype(jnp.float32) / 255 - mean
            loss, grads = jax.value_and_grad(loss_of)(params, x, labels[index])
            new = [rule(*each, t) for each in zip(params, grads, firsts, seconds, strict=True)]
            return (*(list(part) for part in zip(*new, strict=True)), t), loss

        def zeros(count: int) -> list[Array]:
            """State, of the weights' shapes where the rule has so many."""
            kept = {"sgd": 0, "sgdm": 1, "rmsprop": 1, "adam": 2}[optimizer] >= count
            return [jnp.zeros(w.shape if kept else (), jnp.float32) for w in weights]

        @partial(jax.jit, donate_argnums=0)
        def many(carry: Array, given: Array, order: Array) -> tuple[Array, Array]:
            return jax.lax.scan(partial(step, given), carry, order)

        @partial(jax.jit, donate_argnums=(0, 1, 2))
        def one(carry: Array, losses: Array, k: Array, given: Array, order: Array) -> Array:
            """Step k, counted on the device, as a number from the host would be one more copy."""
            carry, loss = step(given, carry, order[k])
            return carry, losses.at[k].set(loss), k + 1

        carry = ([jnp.array(w) for w in weights], zeros(1), zeros(2), jnp.zeros(()))

        def run(order: Array) -> Array:
            nonlocal carry
            on_device = jnp.asarray(order)
            if scan:
                carry, losses = many(carry, given, on_device)
                return np.asarray(losses)
            losses, k = jnp.zeros(len(order)), jnp.zeros((), jnp.int32)
            for _ in range(len(order)):
                carry, losses, k = one(carry, losses, k, given, on_device)
            return np.asarray(losses)

        return run

    return make
