"""The benchmark's workloads on PyTorch: contenders as contenders.py describes them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

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
    Weights,
    weights_of,
)
from mlpkit.benchmark import LEARNING_RATES, Case


def torch_with(
    compiled: bool, device: str = "cpu", mode: str | None = None
) -> Callable[[Case, Data], Run]:
    """PyTorch, eager with fused optimizers, or with the network, its loss and the optimizer's step
    under torch.compile in a mode of its own."""

    def make(case: Case, data: Data) -> Run:
        import torch
        from torch.nn.functional import cross_entropy

        weights, optimizer = weights_of(case), case.optimizer

        images, labels, mean = torch_data(torch, data, device)
        network = torch_network(torch, weights).to(device)
        # The compiler leaves PyTorch's fused optimizers alone, and fuses the others itself.
        fused = None if compiled else True
        rule = torch_optimizer(torch, list(network.parameters()), optimizer, fused)

        def loss_of(x: Array, y: Array) -> Array:
            return cross_entropy(network(x / 255 - mean), y)

        update = rule.step
        if compiled:
            torch._dynamo.reset()  # else the next workloads count as too many of this one
            loss_of = torch.compile(loss_of, mode=mode)
            update = torch.compile(rule.step, mode=mode)

        def run(order: Array) -> Array:
            losses = torch.empty(len(order), device=device)
            for k, index in enumerate(torch.from_numpy(np.ascontiguousarray(order)).to(device)):
                if compiled:  # the compiler's own graphs may use their memory again from here
                    torch.compiler.cudagraph_mark_step_begin()
                loss = loss_of(images[index].float(), labels[index])
                losses[k] = loss.detach()  # before the next step takes its memory
                loss.backward()
                update()
                rule.zero_grad(set_to_none=True)
            return losses.cpu().numpy()

        return run

    return make


def torch_graph(steps: int, device: str = "cuda") -> Callable[[Case, Data], Run]:
    """PyTorch on a GPU, so many whole steps as a CUDA graph, the optimizer fused and capturable.
    On a CPU the same without the graph, which shows that the start and the losses are right."""

    def make(case: Case, data: Data) -> Run:
        import torch
        from torch.nn.functional import cross_entropy

        weights, optimizer = weights_of(case), case.optimizer

        images, labels, mean = torch_data(torch, data, device)
        network = torch_network(torch, weights).to(device)
        params = list(network.parameters())
        rule = torch_optimizer(torch, params, optimizer, fused=True, capturable=device == "cuda")
        indices = torch.zeros((steps, case.batch_size), dtype=torch.int64, device=device)
        losses = torch.zeros(steps, device=device)

        def work() -> None:
            for k in range(steps):
                index = indices[k]
                loss = cross_entropy(network(images[index].float() / 255 - mean), labels[index])
                rule.zero_grad(set_to_none=True)
                loss.backward()
                rule.step()
                losses[k] = loss.detach()

        replay = captured(torch, work) if device == "cuda" else warmed(work)
        # The start again: what warmed up has trained.
        with torch.no_grad():
            for p, w in zip(params, torch_network(torch, weights).parameters(), strict=True):
                p.copy_(w)
            for state in rule.state.values():
                for s in filter(torch.is_tensor, state.values()):
                    s.zero_()

        def run(order: Array) -> Array:
            found = torch.empty(len(order), device=device)
            on_device = torch.from_numpy(np.ascontiguousarray(order)).to(device)
            for first in range(0, len(order), steps):
                indices.copy_(on_device[first : first + steps])
                replay()
                found[first : first + steps] = losses
            return found.cpu().numpy()

        return run

    return make


def warmed(work: Callable[[], None]) -> Callable[[], None]:
    """The work, done once."""
    work()
    return work


def captured(torch: Any, work: Callable[[], None]) -> Callable[[], None]:
    """The work as a CUDA graph, after some of it on a stream of its own, as PyTorch's manual asks:
    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()

    def replay(held: Callable[[], None] = work) -> None:
        """What the work names has to live as long as the graph, which holds addresses alone."""
        graph.replay()

    gc.collect()  # what is freed later would end the recording, as would another library's threads
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return replay


def torch_data(torch: Any, data: Data, device: str) -> Any:
    """Flattened images, labels and the mean image on a device, whose products are float32's own."""
    torch.set_float32_matmul_precision("highest")  # not TF32
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


def torch_optimizer(
    torch: Any, params: list[Any], optimizer: str, fused: bool | None, capturable: bool = False
) -> Any:
    """PyTorch's optimizer; RMSProp is written with foreach functions, because PyTorch's own adds
    eps outside the root. fused: whether by one kernel, None as PyTorch decides; capturable: for
    CUDA graphs, where it makes a difference."""
    lr = LEARNING_RATES[optimizer]
    if optimizer == "sgd":
        return torch.optim.SGD(params, lr, fused=fused)
    if optimizer == "sgdm":
        return torch.optim.SGD(params, lr, momentum=MOMENTUM, fused=fused)
    if optimizer == "adam":
        settings = {"betas": (BETA1, BETA2), "eps": EPS, "fused": fused, "capturable": capturable}
        return torch.optim.Adam(params, lr, **settings)

    class RMSProp(torch.optim.Optimizer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(params, {})
            for p in params:  # state, which the compiler knows to stay where it is
                self.state[p]["cache"] = torch.zeros_like(p)

        @torch.no_grad()  # type: ignore[untyped-decorator]
        def step(self) -> None:
            grads = [p.grad for p in params]
            cache = [self.state[p]["cache"] for p in params]
            torch._foreach_mul_(cache, DECAY)
            torch._foreach_addcmul_(cache, grads, grads, 1 - DECAY)
            roots = torch._foreach_add(cache, EPS)
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(params, grads, roots, -lr)

    return RMSProp()
