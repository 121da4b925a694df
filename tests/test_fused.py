"""Fused steps, run by a double of the device, against the same steps run op by op."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from mlpkit import MLP, SGD, SGDM, Adam, Batches, CrossEntropy, RMSProp
from mlpkit.planning import make_plan
from mlpkit_backends import fused
from mlpkit_backends.base import EagerStep
from mlpkit_backends.captured import SIZES
from mlpkit_backends.cuda_device import source
from mlpkit_backends.fused import FusedStep, unfit
from tests.cuda_double import (
    CapturedBackend,
    DeviceDouble,
    assert_only_its_own_is_written,
    kernels,
)

RNG = np.random.default_rng(4)
IMAGES = RNG.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 5, 200)
MEAN = IMAGES.mean(axis=0) / 255
WIDE_WIDTHS = (48, 68, 132, 8)  # no whole number of any kernel's blocks


def plan_of(
    widths=(48, 24, 16, 5),
    optimizer=SGD,
    batch_size: int = 8,
    images=IMAGES,
    mean=MEAN,
    change=lambda model: None,
    **settings,
):
    """A plan over the network of those widths, changed before it is trained, and the network."""
    backend = CapturedBackend(FusedStep)
    model = MLP(widths, seed=3, dtype="float32", backend=backend, **settings)
    change(model)
    split = Batches.of(backend, images, LABELS, "float32", mean)
    loss = CrossEntropy(backend=backend)
    return make_plan(model, loss, optimizer(model, 1e-2), split, batch_size), model


def assert_alike(steps: int = 3, **given) -> None:
    """Fused steps have the losses of the same steps op by op, and change the parameters alike."""
    size = given.get("batch_size", 8)
    order = np.stack([np.random.default_rng(i).permutation(200)[:size] for i in range(steps)])
    found = []
    for eager in (True, False):
        plan, model = plan_of(**given)
        step = EagerStep(model.backend, plan) if eager else model.backend.build(plan, plan.program)
        before = [p.copy() for p in model.net.params.values()]
        losses = step(order)
        changes = [p - old for p, old in zip(model.net.params.values(), before, strict=True)]
        found.append([losses, *changes])
    for expected, array in zip(*found, strict=True):
        assert np.linalg.norm(array - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.fixture(params=[False, True], ids=["narrow", "wide"])
def every_layer(request, monkeypatch) -> bool:
    """All layers taken for narrow ones, or for wide ones."""
    monkeypatch.setattr(fused, "WIDE_FROM", 1 if request.param else 1 << 40)
    monkeypatch.setattr(fused, "WIDE_WIDTH", 1)
    return request.param


@pytest.mark.parametrize("keep_prob", [0.0, 0.6])
@pytest.mark.parametrize("optimizer", [SGD, SGDM, RMSProp, Adam])
def test_every_optimizer(optimizer, keep_prob: float, every_layer: bool) -> None:
    given = {"optimizer": optimizer, "keep_prob": keep_prob, "dropout_seed": 1}
    assert_alike(widths=(48, 68, 36, 8), steps=2, **given)


@pytest.mark.parametrize("batch_size", [1, 8, 70, 130])
def test_batches_that_fill_no_block(batch_size: int, every_layer: bool) -> None:
    assert_alike(widths=WIDE_WIDTHS, batch_size=batch_size, steps=1)


@pytest.mark.parametrize(
    "widths",
    [(48, 5), (48, 7, 5), (48, 33, 40), (48, 140, 5), (48, 130, 131, 5), (48, 24, 1100)],
    ids=str,
)
def test_widths_of_every_way_to_a_loss(widths: tuple[int, ...]) -> None:
    assert_alike(widths=widths)


def test_a_wide_products_stages_are_used_again(every_layer: bool, monkeypatch) -> None:
    """One block makes the whole inner sum."""
    monkeypatch.setattr(DeviceDouble, "processors", 1)
    assert_alike(widths=(48, 260, 132, 8), steps=1)


def test_wide_and_narrow_layers_together(monkeypatch) -> None:
    monkeypatch.setattr(fused, "WIDE_FROM", 8 * 68 * 36)
    assert_alike(widths=(48, 24, 68, 36, 8), optimizer=Adam)


def test_images_that_are_numbers_already() -> None:
    assert_alike(images=(IMAGES / 255).astype(np.float32), mean=None)


def test_batches_gathered_a_few_steps_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(fused, "BATCHES", 4 * 2 * 8 * 48)
    plan, model = plan_of()
    assert model.backend.build(plan, plan.program).together == 2
    assert_alike(steps=7)


def test_products_of_wide_matrices_are_as_accurate_as_float32s(monkeypatch) -> None:
    """Relative to the results' root mean square: TF32's own products are 3e-4 off."""
    monkeypatch.setattr(fused, "WIDE_FROM", 1)
    monkeypatch.setattr(fused, "WIDE_WIDTH", 1)
    plan, model = plan_of(widths=(48, 128, 8))
    step = model.backend.build(plan, plan.program)
    step(np.arange(8)[None])
    _, again = plan_of(widths=(48, 128, 8))  # the weights as they were
    x, w = (np.asarray(a, np.float64) for a in (step.x[0], again.net.params["fc1_w"]))
    z, expected = np.asarray(step.z[0], np.float64), x @ w  # the bias is 0 in the first step
    assert np.abs(z - expected).max() < 1e-6 * np.sqrt((expected**2).mean())


@pytest.mark.parametrize("optimizer", [SGD, SGDM, RMSProp, Adam])
def test_a_graph_writes_only_what_its_step_owns(optimizer, every_layer: bool) -> None:
    plan, model = plan_of((48, 68, 36, 8), optimizer, keep_prob=0.5, dropout_seed=1)
    step = model.backend.build(plan, plan.program)
    step(np.arange(16).reshape(2, 8))
    assert_only_its_own_is_written(step, step.layers)


@pytest.mark.parametrize(
    ("shared", "one"),
    [
        (99 << 10, ["product_sums", "last_layers", "update_layers"]),
        (
            8 << 10,
            [
                *("forward_layer", "product_sums", "last_layers"),
                *("input_gradient", "update_layers"),
            ],
        ),
    ],
)
def test_the_nodes_of_steps(shared: int, one: list[str], monkeypatch) -> None:
    monkeypatch.setattr(DeviceDouble, "shared", shared)
    plan, model = plan_of((48, 68, 36, 5))
    step = model.backend.build(plan, plan.program)
    names = {k: graph.names() for k, graph in step.graphs.items()}
    assert names == {k: ["gather_pixels", *one * k, "sum_losses"] for k in SIZES}


def test_all_kernels_are_used(monkeypatch) -> None:
    used = set()
    for widths, wide_from, shared, optimizer in (
        ((48, 24, 5), 1 << 40, 99 << 10, SGD),
        ((48, 140, 150, 5), 1 << 40, 8 << 10, SGD),
        ((48, 68, 36, 8), 1, 99 << 10, SGD),
        ((48, 68, 36, 8), 1, 99 << 10, SGDM),
    ):
        monkeypatch.setattr(fused, "WIDE_FROM", wide_from)
        monkeypatch.setattr(DeviceDouble, "shared", shared)
        monkeypatch.setattr(fused, "WIDE_WIDTH", 1)
        plan, model = plan_of(widths, optimizer)
        used |= set(model.backend.build(plan, plan.program).graphs[1].names())
    assert set(kernels()) - set(kernels(fused=False)) == used - set(kernels(False)) - {"gemm"}


def test_the_kernels_sizes_are_pythons() -> None:
    code = source(fused=True)
    sizes = {}
    for words in re.findall(r"^const int (.*?);", code, re.M):
        for word in words.split(", "):
            if number := re.fullmatch(r"(\w+) = (\d+)", word):
                sizes[number[1]] = int(number[2])
    names = ("ROWS", "COLUMNS", "CHUNK", "BATCH", "HIGH", "WIDE", "DEEP", "STAGES")
    assert {name: sizes[name] for name in names} == {name: getattr(fused, name) for name in names}
    assert 1 << sizes["LAST_BITS"] == fused.LAST


def test_a_layers_row_is_the_kernels() -> None:
    found = re.search(r"struct Layer \{(.*?)\n\n", source(fused=True), re.S)
    assert found
    kinds = {"double": "f8", "real *": "u8", "const real *": "u8", "long long": "i8"}
    fields = [
        (name.strip("* "), kinds[kind.strip()])
        for kind, names in re.findall(
            r"^ +(double|(?:const )?real \*|long long)(.*?);", found[1], re.M
        )
        for name in names.split(",")
    ]
    assert fields == [(name, fused.LAYER[name].str[1:]) for name in fused.LAYER.names]


def test_what_does_not_fit_is_said() -> None:
    def why_not(widths=(48, 24, 5), at: int = 0, **changed) -> str:
        plan, _ = plan_of(widths)
        plan = replace(plan, **changed)
        return unfit(plan, plan.program, lambda a: at, 99 << 10)

    assert why_not() == why_not(at=4) == why_not(batch_size=2000) == ""
    assert "for float32, not float64" in why_not(dtype="float64")
    assert "a row of the last layer doesn't fit" in why_not((48, 24, 9000))
    assert why_not((48, 24, 5000)) == ""
    wide = {"widths": (48, 1 << 10, 1 << 10, 5), "batch_size": 32}
    assert why_not(**wide) == ""
    assert "isn't aligned" in why_not(at=4, **wide)
    assert why_not((48, 1 << 16, 5), batch_size=1024) == ""  # narrow, for all its inputs
    assert "multiples of 4" in why_not((48, (1 << 10) + 1, 1 << 10, 5), batch_size=32)


def test_weights_that_begin_anywhere_in_memory() -> None:
    """Parts of one vector, which are aligned to their own size alone."""

    def moved(model: MLP) -> None:
        for layer in model.net.layers:
            for name in layer.params:
                room = np.empty(layer.params[name].size + 1, np.float32)
                part = room[1:].reshape(layer.params[name].shape)
                part[...] = layer.params[name]
                layer.params[name] = part

    assert_alike(widths=(48, 24, 64, 6, 5), change=moved)


def test_products_of_more_multiplications_than_32_bits_count() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    sizes = {"widths": (3072, 3072, 8), "batch_size": 256, "images": images}
    plan, model = plan_of(mean=images.mean(axis=0) / 255, **sizes)
    names = model.backend.build(plan, plan.program).graphs[1].names()
    before = ["gather_pixels", "wide_sums", "forward_sums", "product_sums", "last_layers"]
    assert names == [*before, "input_gradient", "wide_update_sgd", "sum_losses"]
    assert 256 * 3072 * 3072 > 1 << 31
