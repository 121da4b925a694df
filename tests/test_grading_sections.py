"""The grader's sections: full marks for what is right; for each usual mistake, its rows alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpkit.cli_check import Printer
from mlpkit.grading.comparing import compare
from mlpkit.grading.grading import grade
from mlpkit.grading.local import LocalRunner, reference
from mlpkit.grading.sandbox import SandboxRunner
from mlpkit.grading.sections import SECTIONS
from mlpkit.grading.starter import write_starter
from mlpkit.grading.submissions import load
from tests.graded import (
    GIVEN,
    PLAIN,
    QUICK,
    TRAINED,
    UNTRAINED,
    failures_of,
    grade_text,
    lost,
    trained,
)

POINTS = {
    **dict.fromkeys(["FC forward", "FC backward", "Leaky ReLU forward", "Leaky ReLU backward"], 2),
    **dict.fromkeys(["Dropout forward", "Dropout backward", "FC + leaky ReLU"], 2),
    **dict.fromkeys(["Softmax + cross entropy", "Small network", "Dropout network"], 2),
    **dict.fromkeys(["SGDM", "SGD against SGDM", "RMSProp", "Adam"], 2),
    "Training to 75 %": 5,
    "Four optimizers": 4,
    "Activations": 3,
}


def test_the_contracts_points() -> None:
    assert {section.name: section.points for section in SECTIONS} == POINTS
    assert sum(POINTS.values()) == 40


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_mlpkit_has_full_marks(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
    result = grade(reference(backend))
    assert lost(result) == {}
    assert result.score == 40


def test_a_plain_solution_has_full_marks_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "student.py").write_text(PLAIN)
    with SandboxRunner(tmp_path / "student.py") as runner:
        result = grade(runner)
    assert lost(result) == {}
    assert result.score == 40


def test_the_starter_scores_nothing(tmp_path: Path) -> None:
    write_starter(tmp_path / "starter")
    with SandboxRunner(tmp_path / "starter") as runner:
        result = grade(runner)
    assert result.score == 0
    assert set(lost(result)) == set(POINTS)
    for said in lost(result).values():
        assert re.search(r"NotImplementedError was raised in lib/[a-z_/]+\.py, line \d+\n", said)


def test_a_starter_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="should be a new or an empty folder"):
        write_starter(tmp_path)


LEAKY = ("FC + leaky ReLU", "Small network", "Dropout network")
# What is changed in the plain solution, the sections that lose points, and what is hinted.
MISTAKES: dict[str, tuple[str, str, set[str], str]] = {
    "bias over the wrong axis": (
        "dout.sum(axis=0)",
        "dout.sum(axis=1)[: dout.shape[1]]",
        {"FC backward", "FC + leaky ReLU", "Small network", "Dropout network"},
        "",
    ),
    "weight gradient turned": (
        "return dout @ self.params[self.w_name].T",
        "return 2 * dout @ self.params[self.w_name].T",
        {"FC backward", "FC + leaky ReLU", "Small network", "Dropout network"},
        "",
    ),
    "no slope": (
        "return np.where(x >= 0, x, self.slope * x)",
        "return np.maximum(x, 0)",
        # One module has one leaky_relu.
        {*LEAKY, "Leaky ReLU forward", "Activations"},
        "slope",
    ),
    "no slope backward": (
        "return np.where(self.x >= 0, dout, self.slope * dout)",
        "return np.where(self.x >= 0, dout, 0)",
        {"Leaky ReLU backward", "FC + leaky ReLU", "Dropout network"},
        "slope",
    ),
    "slope ignored": (
        "return np.where(x >= 0, x, self.slope * x)",
        "return np.where(x >= 0, x, 0.01 * x)",
        {"Leaky ReLU forward", "Activations"},
        "the negative_slope that the constructor was given isn't used",
    ),
    "slope ignored backward": (
        "return np.where(self.x >= 0, dout, self.slope * dout)",
        "return np.where(self.x >= 0, dout, 0.01 * dout)",
        {"Leaky ReLU backward"},
        "the negative_slope that the constructor was given isn't used",
    ),
    "gradients added up": (
        "self.grads[self.w_name] = self.x.T @ dout",
        "self.grads[self.w_name] = self.grads.get(self.w_name, 0) + self.x.T @ dout",
        {"FC backward"},
        "it is added to the gradient of the backward before",
    ),
    "softmax over the examples": (
        "    x = x - x.max(axis=-1, keepdims=True)\n    e = np.exp(x)\n"
        "    return e / e.sum(axis=-1, keepdims=True)",
        "    return np.exp(x) / np.exp(x).sum(axis=0, keepdims=True)",
        {"Softmax + cross entropy", "Small network"},
        "it is normalised over the examples",
    ),
    "mask not scaled": (
        "< self.keep_prob) / self.keep_prob",
        "< self.keep_prob) * 1.0",
        {"Dropout forward"},  # the gradients are held to the mask that forward drew
        "keep_prob",
    ),
    "dropout at test": (
        "if is_training and 0",
        "if 0",
        {"Dropout forward", "Dropout network"},
        "dropout is left on at test",
    ),
    "backward without the mask": (
        "return dout * self.mask",
        "return dout",
        {"Dropout backward", "Dropout network"},
        "mask",
    ),
    "loss not divided": (
        "self.n = len(scores) if self.size_average else 1",
        "self.n = 1",
        {"Softmax + cross entropy", "Small network"},
        "divided by the batch",
    ),
    "unstable softmax": (
        "    x = x - x.max(axis=-1, keepdims=True)\n",
        "",
        {"Softmax + cross entropy"},
        "subtract each row's maximum",
    ),
    "momentum's sign": (
        "self.momentum * self.velocity.get(name, 0 * w) - self.lr * dw",
        "self.momentum * self.velocity.get(name, 0 * w) + self.lr * dw",
        {"SGDM"},
        "v = momentum v - lr dw",
    ),
    "epsilon outside": (
        "np.sqrt(c + self.eps)",
        "(np.sqrt(c) + self.eps)",
        {"RMSProp"},
        "epsilon is outside the root",
    ),
    "epsilon inside": (
        "(np.sqrt(v_hat) + self.eps)",
        "np.sqrt(v_hat + self.eps)",
        {"Adam"},
        "epsilon is inside the root",
    ),
    "t not incremented": (
        "        self.t += 1\n",
        "",
        {"Adam"},
        "t isn't incremented",
    ),
    "parameters copied": (
        "self.owner(name).params[name] = value",
        "self.owner(name).params[name] = value.copy()",
        {"FC + leaky ReLU"},
        "replaced instead of shared",
    ),
    "assign that no layer sees": (
        "self.owner(name).params[name] = value",
        "self.params = {**getattr(self, 'params', {}), name: value}",
        {"FC + leaky ReLU", "Small network", "Dropout network"},
        "assign doesn't reach the layers",
    ),
    "weights too large": (
        "w = init_scale * np.random.randn",
        "w = 10 * init_scale * np.random.randn",
        {"Small network", "Dropout network"},
        "",
    ),
    "alpha forgotten": (
        "alpha * (np.exp(x) - 1)",
        "np.exp(x) - 1",
        {"Activations"},
        "alpha",
    ),
    "one example squeezed": (
        "return x.reshape(len(x), -1)",
        "return x.reshape(len(x), -1).squeeze()",
        {"FC forward"},
        "the axis of the examples is lost",
    ),
    "the small network's activation": (
        'fc(4, 30, 0.02, "one"), leaky_relu(), fc',
        'fc(4, 30, 0.02, "one"), fc',
        {"Small network"},
        "there is no leaky ReLU between the layers",
    ),
    "is_training not passed on": (
        "layer.forward(x, is_training, seed)",
        "layer.forward(x, True, seed)",
        {"Dropout network"},
        "is_training=False doesn't reach the dropout layer",
    ),
    "init_scale of the dropout network": (
        "fc(a, b, 0.05, f",
        "fc(a, b, 0.002, f",
        {"Dropout network"},
        "",
    ),
    "a mask for each column": (
        "self.rng.random(x.shape)",
        "self.rng.random(x[:1].shape)",
        {"Dropout forward"},
        "",
    ),
    "size_average ignored": (
        "self.n = len(scores) if self.size_average else 1",
        "self.n = len(scores)",
        {"Softmax + cross entropy"},
        "size_average=False isn't used",
    ),
    "softmax over axis 1": (
        "    x = x - x.max(axis=-1, keepdims=True)\n    e = np.exp(x)\n"
        "    return e / e.sum(axis=-1, keepdims=True)",
        "    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)",
        {"Softmax + cross entropy"},
        "over axis 1",
    ),
    "the learning rate of the constructor": (
        "        self.momentum, self.velocity = momentum, {}",
        "        SGDM.lr = property(lambda self: lr, lambda self, new: None)\n"
        "        self.momentum, self.velocity = momentum, {}",
        {"SGDM"},
        "the lr of the constructor is used",
    ),
    "Nesterov's momentum": (
        "        w += v\n",
        "        w += self.momentum * v - self.lr * dw\n",
        {"SGDM"},
        "as Nesterov's does",
    ),
    "a default of SGDM": (
        "lr=1e-4, momentum=0.0",
        "lr=1e-4, momentum=0.9",
        {"SGDM"},
        "",
    ),
    "a default of Adam": (
        "beta1=0.9, beta2=0.999",
        "beta1=0.8, beta2=0.999",
        {"Adam"},
        "",
    ),
    "updates in new arrays": (
        "                self.update(name, w, layer.grads[name])",
        "                layer.params[name] = w = w.copy()\n"
        "                self.update(name, w, layer.grads[name])",
        {"SGDM", "RMSProp", "Adam"},
        "a new array takes the parameter's place",
    ),
    "selu's own alpha and scale": (
        "return scale * elu(x, alpha)",
        "return 1.0507 * elu(x, 1.6732)",
        {"Activations"},
        "the alpha and scale that are given aren't used",
    ),
    "a default of elu": (
        "def elu(x, alpha=1.0)",
        "def elu(x, alpha=1.6)",
        {"Activations"},
        "",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_its_rows_and_gets_its_hint(tmp_path: Path, mistake: str) -> None:
    right, wrong, sections, hint = MISTAKES[mistake]
    assert PLAIN.count(right) == 1
    found = lost(grade_text(tmp_path, PLAIN.replace(right, wrong)))
    assert set(found) == sections
    assert hint in "\n".join(found.values())


# Parts that take no training, of all sections but "Training to 75 %".
SHORT = [
    *UNTRAINED,
    *(replace(s, parts=s.parts[:1]) for s in SECTIONS if s.name in TRAINED[1:]),
]
INITIAL = {
    ("Small network", "initial parameters"),
    ("Dropout network", "initial parameters"),
    ("Four optimizers", "FullyConnectedNetwork"),
}
EACH_STEP = {
    ("SGDM", "w"),
    ("SGD against SGDM", "one step of SGD"),
    ("RMSProp", "w"),
    ("Adam", "w"),
}
DEFAULTS = {(name, "default settings") for name in ("SGDM", "RMSProp", "Adam")}
DROPS = {
    (name, f"keep {p}") for name in ("Dropout forward", "Dropout network") for p in (0.25, 0.5)
}
# What is changed in the plain solution, the sections and parts that are lost, and what is hinted.
LOST_PARTS: dict[str, tuple[str, str, set[tuple[str, str]], str]] = {
    "dropout stays off after a test": (
        "        self.mask = 1.0\n        if is_training and",
        "        self.mask, self.on = 1.0, getattr(self, 'on', True) and is_training\n"
        "        if self.on and",
        {*DROPS, ("Dropout forward", "keep 0.75")},
        "after a forward with is_training=False nothing is dropped any more",
    ),
    "a network stays off after a test": (
        "        for layer in self.net.layers:\n            x = (",
        "        is_training = self.on = getattr(self, 'on', True) and is_training\n"
        "        for layer in self.net.layers:\n            x = (",
        {("Dropout network", "keep 0.25"), ("Dropout network", "keep 0.5")},
        "after a forward with is_training=False nothing is dropped any more",
    ),
    "another seed than the one given": (
        "if seed is not None:\n            self.rng = np.random.default_rng(seed)",
        "if seed is not None:\n            self.rng = np.random.default_rng(7)",
        {("Dropout forward", f"keep {p}") for p in (0.25, 0.5, 0.75)},
        "they give the same mask\nthe seed given to forward isn't used",
    ),
    "t counted for each layer": (
        "        self.t += 1\n        super().step()",
        "        layers, net = self.net.layers, self.net\n"
        "        for layer in layers:\n"
        "            self.net, self.t = sequential(layer), self.t + 1\n"
        "            super().step()\n"
        "        self.net = net",
        {("Adam", "w")},
        "t is incremented for each layer: once a step is meant",
    ),
    "t counted once more at the end": (
        "        super().step()\n\n    def update(self, name, w, dw):\n        m =",
        "        super().step()\n        self.t += 1\n\n"
        "    def update(self, name, w, dw):\n        m =",
        {("Adam", "w"), ("Adam", "default settings")},
        "t is incremented twice",
    ),
    "the first layer alone": (
        "                self.update(name, w, layer.grads[name])",
        "                self.update(name, w, layer.grads[name])\n            break",
        EACH_STEP,
        "the second layer isn't updated",
    ),
    "a velocity of all optimizers": (
        "self.momentum, self.velocity = momentum, {}\n",
        "self.momentum = momentum\n\n    velocity = {}\n",
        {("SGDM", "default settings")},
        "a new optimizer starts with the state of the one before: make its dicts in __init__",
    ),
    "a cache as a default": (
        "decay=0.99, eps=1e-8):\n        super().__init__(net, lr)\n"
        "        self.decay, self.eps, self.cache = decay, eps, {}",
        "decay=0.99, eps=1e-8, cache={}):\n        super().__init__(net, lr)\n"
        "        self.decay, self.eps, self.cache = decay, eps, cache",
        {("RMSProp", "default settings")},
        "a new optimizer starts with the state of the one before: make its dicts in __init__",
    ),
    "means of all optimizers": (
        "        self.mt, self.vt = {}, {}\n",
        "\n    mt, vt = {}, {}\n",
        {("Adam", "default settings")},
        "a new optimizer starts with the state of the one before: make its dicts in __init__",
    ),
    "clipped gradients": (
        "self.update(name, w, layer.grads[name])",
        "self.update(name, w, np.clip(layer.grads[name], -1, 1))",
        {
            *EACH_STEP,
            *DEFAULTS,
            ("SGDM", "velocity"),
            ("RMSProp", "cache"),
            ("RMSProp", "epsilon"),
            ("Adam", "mt and vt"),
            ("Adam", "epsilon"),
        },
        "the gradient is clipped: it is used as it is",
    ),
    "a default of selu": (
        "alpha=1.6732, scale=1.0507",
        "alpha=1.6732, scale=1.0",
        {("Activations", "SELU")},
        "the scale isn't used",
    ),
    "a default of SGD": (
        "class SGD:\n    def __init__(self, net, lr=1e-4)",
        "class SGD:\n    def __init__(self, net, lr=1e-3)",
        {("SGD against SGDM", "one step of SGD")},
        "w after two steps with the default settings",
    ),
    "a default epsilon of Adam": (
        "t=0, eps=1e-8",
        "t=0, eps=1e-7",
        {("Adam", "default settings")},
        "eps is 1e-8 by default, and is added to √(v / (1 - beta2ᵗ))",
    ),
    "a default of DropoutNet": (
        "def __init__(self, keep_prob=0, seed=None)",
        "def __init__(self, keep_prob=0.5, seed=None)",
        {("Dropout network", "keep 0")},
        "DropoutNet() should drop nothing: its keep_prob is 0 by default",
    ),
    "an activation of rows": (
        "return np.tanh(x)",
        "return np.array([np.tanh(row) for row in np.atleast_2d(x)])",
        {("Activations", "Tanh")},
        "output for an array of shape (10,): the shape should be (10,); got (1, 10)",
    ),
    "an activation of two axes": (
        "return np.maximum(x, 0)",
        "return np.maximum(x, 0).reshape(len(x), -1)",
        {("Activations", "ReLU")},
        "output for an array of shape (2, 5, 1): the shape should be (2, 5, 1); got (2, 5)",
    ),
    "a seed in fc": (
        "w = init_scale * np.random.randn",
        "np.random.seed(3)\n        w = init_scale * np.random.randn",
        INITIAL,
        "begin with the same numbers\nset no seed in fc",
    ),
    "uniform weights": (
        "init_scale * np.random.randn(input_dim, output_dim)",
        "init_scale * np.random.uniform(-(3**0.5), 3**0.5, (input_dim, output_dim))",
        INITIAL,
        "largest initial weight: 1.73 times init_scale\n"
        "normally distributed numbers are meant: init_scale * randn",
    ),
    "biases that aren't 0": (
        "self.b_name: np.zeros(output_dim)}",
        "self.b_name: np.full(output_dim, -0.1)}",
        INITIAL,
        "initial fc_1_b: absolute error 0.1, worst at [0]: expected 0, got -0.1",
    ),
    "the default init_scale": (
        "init_scale=0.002",
        "init_scale=0.02",
        {("Small network", "initial parameters")},
        "deviation of the weights of fc(100, 100)",
    ),
    "the large network's init_scale": (
        'fc(widths[i], widths[i + 1], 0.05, f"layer{i}")',
        'fc(widths[i], widths[i + 1], 0.01, f"layer{i}")',
        {("Four optimizers", "FullyConnectedNetwork")},
        "deviation of the initial fc6_w",
    ),
    "biases of two axes": (
        "self.b_name: np.zeros(output_dim)}",
        "self.b_name: np.zeros((1, output_dim))}",
        INITIAL,
        "initial fc_1_b should have the shape (30,); got (1, 30)",
    ),
    "the gradient added to the velocity": (
        "self.momentum * self.velocity.get(name, 0 * w) - self.lr * dw",
        "self.momentum * self.velocity.get(name, 0 * w) + self.lr * dw",
        {("SGDM", "w"), ("SGDM", "velocity"), ("SGDM", "default settings")},
        "the sign of lr dw: v = momentum v - lr dw",
    ),
    "the learning rate outside the velocity": (
        "- self.lr * dw\n        self.velocity[name] = v\n        w += v",
        "+ dw\n        self.velocity[name] = v\n        w -= self.lr * v",
        {("SGDM", "w"), ("SGDM", "velocity")},
        "lr is multiplied outside v: v = momentum v - lr dw",
    ),
    "a step into a new array": (
        "        w -= self.lr * dw / np.sqrt(c + self.eps)",
        "        w = w - self.lr * dw / np.sqrt(c + self.eps)",
        {("RMSProp", "w"), ("RMSProp", "epsilon"), ("RMSProp", "default settings")},
        "w isn't changed: w = w - ... makes a new array, w -= ... changes the layer's own",
    ),
    "epsilon before the correction": (
        "w -= self.lr * m_hat / (np.sqrt(v_hat) + self.eps)",
        "w -= self.lr * m_hat * (v / v_hat) ** 0.5 / (np.sqrt(v) + self.eps)",
        {("Adam", "epsilon"), ("Adam", "default settings")},
        "eps is added before v is corrected: √(v / (1 - beta2ᵗ)) + eps",
    ),
    "float32": (
        "return np.tanh(x)",
        "return np.tanh(x).astype(np.float32)",
        {("Activations", "Tanh")},
        "it is computed in float32: use float64",
    ),
}


@pytest.mark.parametrize("mistake", LOST_PARTS)
def test_a_mistake_costs_its_parts_and_gets_its_hint(tmp_path: Path, mistake: str) -> None:
    right, wrong, parts, hint = LOST_PARTS[mistake]
    assert PLAIN.count(right) == 1
    result = grade_text(tmp_path, PLAIN.replace(right, wrong), SHORT)
    assert {(s.name, f.part) for s in result.sections for f in s.failures} == parts
    assert hint in "\n".join(lost(result).values())


def test_a_network_without_all_its_layers_is_said_to_be_so(tmp_path: Path) -> None:
    right = 'fc(4, 30, 0.02, "one"), leaky_relu(), fc(30, 7, 0.02, "two")'
    assert PLAIN.count(right) == 1
    result = grade_text(tmp_path, PLAIN.replace(right, 'fc(4, 30, 0.02, "one")'))
    said = failures_of(result, "Small network")[0].what
    assert said == "there is no fc_2_w: the network should have 4 parameters"


def test_wherever_a_clipped_gradient_shows_it_is_said(tmp_path: Path) -> None:
    right, wrong, _, hint = LOST_PARTS["clipped gradients"]
    result = grade_text(tmp_path, PLAIN.replace(right, wrong), SHORT)
    assert {f.hint for s in result.sections for f in s.failures} == {hint}


def test_t_counts_steps_and_not_parameters(tmp_path: Path) -> None:
    once = "        self.t += 1\n        super().step()"
    each = "        m_hat, v_hat ="
    assert (PLAIN.count(once), PLAIN.count(each)) == (1, 1)
    text = PLAIN.replace(once, "        super().step()").replace(
        each, f"        self.t += 1\n{each}"
    )
    said = lost(grade_text(tmp_path, text))
    assert set(said) == {"Adam"}
    assert "t is incremented for each parameter" in said["Adam"]


def test_another_mask_in_dropout_s_backward(tmp_path: Path) -> None:
    right = "return dout * self.mask"
    drawn = "(np.random.rand(*dout.shape) < self.keep_prob) / self.keep_prob"
    wrong = f"return dout * {drawn} if self.keep_prob else dout"
    result = grade_text(tmp_path, PLAIN.replace(right, wrong))
    (failure,) = failures_of(result, "Dropout backward")
    assert failure.hint.startswith("another mask is drawn than forward's")


def test_where_the_forward_is_wrong_no_backward_is_blamed(tmp_path: Path) -> None:
    right = "return x @ self.params[self.w_name] + self.params[self.b_name]"
    assert PLAIN.count(right) == 1
    result = grade_text(tmp_path, PLAIN.replace(right, right.partition(" + ")[0]))
    first = "the output of the forward pass is wrong already: mend that first"
    assert {failure.hint for failure in failures_of(result, "FC + leaky ReLU")[:3]} == {first}
    small = {f.part: f.hint for f in failures_of(result, "Small network")}
    assert (small["loss"], small["gradients"], small["scores"]) == (first, first, "")
    dropped = failures_of(result, "Dropout network")
    assert {failure.hint for failure in dropped} == {first}
    assert all(failure.what.startswith("scores at test: relative error") for failure in dropped)


def test_the_wrong_axis_of_a_bias_s_gradient_is_seen_by_its_shape_and_values(
    tmp_path: Path,
) -> None:
    right = "dout.sum(axis=0)"
    assert PLAIN.count(right) == 1
    result = grade_text(tmp_path, PLAIN.replace(right, "dout.sum(axis=1)"))
    for name, shape in (("Small network", (7,)), ("Dropout network", (10,))):
        for failure in failures_of(result, name):
            assert failure.hint.startswith("the bias's gradient is summed over the wrong axis")
            assert f"the shape should be {shape}" in failure.what


def test_both_numbers_are_shown_in_as_many_digits_as_tell_them_apart() -> None:
    found = compare({"loss": np.array(2.42500832105)}, "loss", 2.4250083214, 1e-11)
    assert "expected 2.4250083214, got 2.425008321;" in found.detail
    found = compare({"loss": np.array(0.5)}, "loss", 0.25, 1e-11)
    assert "expected 0.25, got 0.5;" in found.detail


def test_params_that_are_a_property_are_said_to_be_so(tmp_path: Path) -> None:
    held = "        self.params = {self.w_name: w, self.b_name: np.zeros(output_dim)}\n"
    assert PLAIN.count(held) == 1
    of_layer = held.replace("self.params", "self.held")
    getter = "\n    params = property(lambda self: dict(self.held))\n\n    def forward"
    before, after = PLAIN.replace(held, of_layer).split(of_layer)
    text = before + of_layer + after.replace("\n    def forward", getter, 1)
    said = lost(grade_text(tmp_path, text))
    for name in ("FC forward", "FC backward", "SGDM", "RMSProp", "Adam"):
        assert "fc's .params should be a plain dict that the layer computes with" in said[name]


def test_the_first_wrong_gradient_of_a_pass_is_what_is_said(tmp_path: Path) -> None:
    right = "return dout @ self.params[self.w_name].T"
    assert PLAIN.count(right) == 1
    result = grade_text(tmp_path, PLAIN.replace(right, f"{right} * 2"))
    (failure,) = failures_of(result, "Small network")
    assert failure.what.startswith("gradient of fc_1_w: relative error")  # fc_2's are right
    assert failure.what.endswith("differs too (fc_1_b, dx)")
    assert [f.part for f in failures_of(result, "Dropout network")] == [
        "keep 0", "keep 0.25", "keep 0.5"
    ]  # fmt: skip
    assert [f.part for f in failures_of(result, "FC + leaky ReLU")] == ["dx"]


def test_check_calls_arrays_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    networks = ("FC + leaky ReLU", "Small network", "Dropout network")
    grade(reference("numpy"), [s for s in SECTIONS if s.name in networks], watch=Printer())
    said = capsys.readouterr().out
    for name in ("dw", "gradients: gradient of fc_2_b", "keep 0.5: gradient of fc1_w"):
        assert f"    {name} " in said
    assert not re.search(r"\b[gp]\d|parameter \d", said)


def test_where_all_that_leaky_relu_s_gradient_reaches_is_wrong(tmp_path: Path) -> None:
    right = "return np.where(self.x >= 0, dout, self.slope * dout)"
    result = grade_text(tmp_path, PLAIN.replace(right, f"{right} * 3"))
    found = failures_of(result, "FC + leaky ReLU")
    assert [f.part for f in found] == ["dx", "dw", "db"]
    assert all("the leaky ReLU's backward comes first" in f.hint for f in found)


def test_what_is_missing_costs_the_sections_that_need_it(tmp_path: Path) -> None:
    found = lost(grade_text(tmp_path, PLAIN.replace("class RMSProp", "class Rmsprop")))
    assert set(found) == {"RMSProp"}
    assert "RMSProp is missing: it was looked for in student.py" in found["RMSProp"]


def test_an_activation_that_is_missing_is_said_as_it_is(tmp_path: Path) -> None:
    found = lost(grade_text(tmp_path, PLAIN.replace("def sigmoid", "def sigmoids")))
    assert set(found) == {"Activations"}
    assert (
        "there is no activation function sigmoid; found: elu, leaky_relu," in found["Activations"]
    )


def test_nan_is_said_and_nothing_that_only_follows_from_it(tmp_path: Path) -> None:
    product = "return x @ self.params[self.w_name]"
    nan = PLAIN.replace(product, f"{product} * np.nan")
    said = lost(grade_text(tmp_path, nan))["Dropout network"]
    assert "scores in training: they aren't all finite" in said
    assert "outputs differ" not in said
    quick = QUICK.replace(product, f"{product} * np.nan")
    said = "\n".join(f"{f.what}\n{f.hint}" for f in trained(tmp_path, quick, ""))
    for follows in ("change with the network's", "another epoch's", "each entry is", "the sign"):
        assert follows not in said


def test_what_has_no_number_is_shown_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.py"
    path.write_text(PLAIN.replace("if seed is not None:", "if False:"))
    dropout = [section for section in SECTIONS if section.name == "Dropout forward"]
    grade(LocalRunner(load(path)), dropout, watch=Printer())
    shown = capsys.readouterr().out
    assert re.search(r"keep 0.5: seed 0 given to forward twice +FAILED\n", shown)
    assert "nan" not in shown


def test_a_failure_names_the_worst_element_and_both_values(tmp_path: Path) -> None:
    step = "w -= self.lr * dw / np.sqrt(c"
    text = PLAIN.replace(step, f"if w.ndim > 1: w[1, 2] += 0.5\n        {step}")
    said = lost(grade_text(tmp_path, text))["RMSProp"]
    assert "worst at [1, 2]: expected -0.0288188" in said
    assert "got 0.471181" in said
    assert "at most 1e-07 is allowed" in said


BACK = "return dout @ self.params[self.w_name].T"
BY_NAME = "should be a dict of arrays by parameter name"


@pytest.mark.parametrize(
    ("section", "right", "wrong", "said"),
    [
        (
            "Training to 75 %",
            GIVEN,
            GIVEN.replace("best", "[*best]"),
            f"opt_params {BY_NAME}; list",
        ),
        (
            "Training to 75 %",
            GIVEN,
            GIVEN.replace("best", "dict.fromkeys(best, 1)"),
            f"opt_params {BY_NAME}; its values are int",
        ),
        ("Training to 75 %", GIVEN, "return best, losses", "val_acc_hist); 2 values came"),
        ("Training to 75 %", GIVEN, "return", "val_acc_hist); None came"),
        ("FC backward", BACK, f"self.grads = {{}}; {BACK}", "should hold 'fc_test_w'; it holds []"),
        ("FC backward", BACK, f"self.grads = [1]; {BACK}", f"fc's .grads {BY_NAME}; it is list"),
        ("FC backward", BACK, "return", "an array was expected, and None came"),
        (
            "Softmax + cross entropy",
            "return e / e.sum",
            "return 'e'; e.sum",
            "ValueError: could not",
        ),
        (
            "Adam",
            "super().step()",
            "super().step(); self.mt = 3",
            f"Adam's .mt {BY_NAME}; it is int",
        ),
        (
            "Adam",
            "super().step()",
            "super().step(); self.mt = np.ones(3)",
            f"Adam's .mt {BY_NAME}; it is ndarray",
        ),
    ],
)
def test_what_has_the_wrong_type_is_said_with_the_student_s_line(
    tmp_path: Path, section: str, right: str, wrong: str, said: str
) -> None:
    assert QUICK.count(right) == 1
    line = QUICK[: QUICK.index(right)].count("\n") + 1
    (tmp_path / "student.py").write_text(QUICK.replace(right, wrong))
    with SandboxRunner(tmp_path / "student.py") as runner:
        result = grade(runner, [s for s in SECTIONS if s.name == section])
    found = [failure.what for failure in result.sections[0].failures]
    assert any(said in what and f"student.py, line {line}," in what for what in found), found
    assert "tasks.py" not in "".join(found)


def test_the_same_grade_every_time(tmp_path: Path) -> None:
    text = PLAIN.replace("np.sqrt(c + self.eps)", "(np.sqrt(c) + self.eps)")
    one, two = (grade_text(tmp_path, text) for _ in range(2))
    for a, b in zip(one.sections, two.sections, strict=True):
        assert (a.score, a.status, a.failures, a.output) == (
            b.score,
            b.status,
            b.failures,
            b.output,
        )
