"""The benchmark's workloads on other libraries: the same weights, batches, formulas and updates.

Each contender is a function of (weights, optimizer, batch size, data) that returns a function of
the batches' indices (K, N), which trains on them in turn and returns the K losses on the host.
weights: [w1, b1, w2, b2, ...]; data: images uint8 (count, 32, 32, 3), labels and the mean image.
float32 but for `plain`. A step gathers its batch from the uint8 images by index and normalises it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlpkit.benchmark import LEARNING_RATES, Case, CaseRun

Array = Any
Run = Callable[[Array], Array]
Weights = list[np.ndarray[Any, Any]]
Data = tuple[Any, Any, Any]

SLOPE = 0.01
MOMENTUM, DECAY, BETA1, BETA2, EPS = 0.9, 0.99, 0.9, 0.999, 1e-8


def mlpkit_on(backend: str) -> Callable[[str, str, int, Data], Run]:
    """mlpkit itself, which makes its own (the same) weights."""

    def make(workload: str, optimizer: str, batch_size: int, data: Data) -> Run:
        return CaseRun(Case(backend, workload, optimizer, batch_size, "float32"), data)

    return make


def plain(weights: Weights, optimizer: str, batch_size: int, data: Data) -> Run:
    """NumPy in float64 as students write it: np.where, and new arrays for everything."""
    images, labels, mean = data
    params = [w.astype(np.float64) for w in weights]
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


def torch_with(
    compiled: bool, device: str = "cpu", mode: str | None = None
) -> Callable[[Weights, str, int, Data], Run]:
    """PyTorch, eager with fused optimizers, or with the network, its loss and the optimizer's step
    under torch.compile in a mode of its own."""

    def make(weights: Weights, optimizer: str, batch_size: int, data: Data) -> Run:
        import torch
        from torch.nn.functional import cross_entropy

        images, labels, mean = torch_data(torch, data, device)
        network = torch_network(torch, weights).to(device)
        rule = torch_optimizer(torch, list(network.parameters()), optimizer)

        def loss_of(x: Array, y: Array) -> Array:
            return cross_entropy(network(x / 255 - mean), y)

        update = rule.step
        if compiled:
            loss_of = torch.compile(loss_of, mode=mode)
            update = torch.compile(rule.step, mode=mode)

        def run(order: Array) -> Array:
            losses = torch.empty(len(order), device=device)
            for k, index in enumerate(torch.from_numpy(np.ascontiguousarray(order)).to(device)):
                loss = loss_of(images[index].float(), labels[index])
                rule.zero_grad(set_to_none=True)
                loss.backward()
                update()
                losses[k] = loss.detach()
            return losses.cpu().numpy()

        return run

    return make


def torch_graph(weights: Weights, optimizer: str, batch_size: int, data: Data) -> Run:
    """PyTorch on a GPU, a whole step as a CUDA graph, its optimizer fused and capturable."""
    import torch
    from torch.nn.functional import cross_entropy

    images, labels, mean = torch_data(torch, data, "cuda")
    network = torch_network(torch, weights).to("cuda")
    params = list(network.parameters())
    rule = torch_optimizer(torch, params, optimizer, capturable=True)
    index = torch.zeros(batch_size, dtype=torch.int64, device="cuda")

    def step() -> Array:
        loss = cross_entropy(network(images[index].float() / 255 - mean), labels[index])
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        return loss.detach()

    # A few steps on a stream of their own first, as PyTorch's manual asks, then the start again.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    with torch.no_grad():
        for p, w in zip(params, torch_network(torch, weights).parameters(), strict=True):
            p.copy_(w)
        past = list(getattr(rule, "cache", ()))
        past += [s for state in rule.state.values() for s in state.values()]
        for s in past:
            if torch.is_tensor(s):
                s.zero_()

    def run(order: Array) -> Array:
        losses = torch.empty(len(order), device="cuda")
        for k, batch in enumerate(torch.from_numpy(np.ascontiguousarray(order)).to("cuda")):
            index.copy_(batch)
            graph.replay()
            losses[k] = loss
        return losses.cpu().numpy()

    return run


def torch_data(torch: Any, data: Data, device: str) -> Any:
    """Flattened images, labels and the mean image on a device."""
    images, labels, mean = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in data)
    return images.reshape(len(images), -1), labels, mean.reshape(-1).float()


def torch_network(torch: Any, weights: Weights) -> Any:
    """The network of those weights."""
    layers: list[Any] = []
    for i in range(0, len(weights), 2):
        layer = torch.nn.Linear(*weights[i].shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights[i].T))
            layer.bias.copy_(torch.from_numpy(weights[i + 1]))
        layers += [layer, torch.nn.LeakyReLU(SLOPE)]
    return torch.nn.Sequential(*layers[:-1])


def torch_optimizer(torch: Any, params: list[Any], optimizer: str, capturable: bool = False) -> Any:
    """PyTorch's optimizer, fused; RMSProp is written with its foreach functions, because PyTorch's
    own adds eps outside the root. capturable: for CUDA graphs, where it makes a difference."""
    lr = LEARNING_RATES[optimizer]
    if optimizer == "sgd":
        return torch.optim.SGD(params, lr, fused=True)
    if optimizer == "sgdm":
        return torch.optim.SGD(params, lr, momentum=MOMENTUM, fused=True)
    if optimizer == "adam":
        settings = {"betas": (BETA1, BETA2), "eps": EPS, "fused": True, "capturable": capturable}
        return torch.optim.Adam(params, lr, **settings)

    class RMSProp(torch.optim.Optimizer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(params, {})
            self.cache = [torch.zeros_like(p) for p in params]

        @torch.no_grad()  # type: ignore[untyped-decorator]
        def step(self) -> None:
            grads = [p.grad for p in params]
            torch._foreach_mul_(self.cache, DECAY)
            torch._foreach_addcmul_(self.cache, grads, grads, 1 - DECAY)
            roots = torch._foreach_add(self.cache, EPS)
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(params, grads, roots, -lr)

    return RMSProp()


def jax_with(scan: bool) -> Callable[[Weights, str, int, Data], Run]:
    """JAX: a jitted step with donated buffers, or lax.scan over all steps of a call."""

    def make(weights: Weights, optimizer: str, batch_size: int, data: Data) -> Run:
        import jax
        import jax.numpy as jnp

        lr = LEARNING_RATES[optimizer]
        images = jnp.asarray(data[0].reshape(len(data[0]), -1))
        labels, mean = jnp.asarray(data[1]), jnp.asarray(data[2].reshape(-1), jnp.float32)

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

        def step(carry: Array, index: Array) -> tuple[Array, Array]:
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

        carry = ([jnp.array(w) for w in weights], zeros(1), zeros(2), jnp.zeros(()))
        many = jax.jit(lambda carry, order: jax.lax.scan(step, carry, order), donate_argnums=0)
        one = jax.jit(step, donate_argnums=0)

        def run(order: Array) -> Array:
            nonlocal carry
            if scan:
                carry, losses = many(carry, jnp.asarray(order))
                return np.asarray(losses)
            losses = []
            for index in order:
                carry, loss = one(carry, index)
                losses.append(loss)
            return np.array([float(loss) for loss in losses])

        return run

    return make


def sklearn(weights: Weights, optimizer: str, batch_size: int, data: Data) -> Run:
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
    network = MLPClassifier(
        [w.shape[1] for w in weights[:-2:2]],
        solver="adam" if optimizer == "adam" else "sgd",
        alpha=0.0,
        batch_size=batch_size,
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

    first = np.arange(batch_size)
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
GPU_CONTENDERS: dict[str, Callable[..., Run]] = {
    "PyTorch eager": torch_with(compiled=False, device="cuda"),
    "PyTorch whole-step graph": torch_graph,
    "PyTorch max-autotune": torch_with(compiled=True, device="cuda", mode="max-autotune"),
    "JAX jit": jax_with(scan=False),
    "JAX scan": jax_with(scan=True),
}
LACKING = {("scikit-learn", "rmsprop")}  # what a contender has no such optimizer for
