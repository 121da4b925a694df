"""The grader's sections: full marks for what is right; for each usual mistake, its rows alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpkit.cli_check import Printer
from mlpkit.grading.comparing import compare
from mlpkit.grading.grading import grade
from mlpkit.grading.interface import Failure, Grade
from mlpkit.grading.local import LocalRunner, reference
from mlpkit.grading.sandbox import SandboxRunner
from mlpkit.grading.sections import SECTIONS
from mlpkit.grading.starter import write_starter
from mlpkit.grading.submissions import load

PLAIN = (Path(__file__).parent / "plain_submission.py").read_text()
# Those that train, which take longer than all others together.
TRAINED = ("Training to 75 %", "SGD against SGDM", "Four optimizers")
UNTRAINED = [section for section in SECTIONS if section.name not in TRAINED]
POINTS = {
    **dict.fromkeys(["FC forward", "FC backward", "Leaky ReLU forward", "Leaky ReLU backward"], 2),
    **dict.fromkeys(["Dropout forward", "Dropout backward", "FC + leaky ReLU"], 2),
    **dict.fromkeys(["Softmax + cross entropy", "Small network", "Dropout network"], 2),
    **dict.fromkeys(["SGDM", "SGD against SGDM", "RMSProp", "Adam"], 2),
    "Training to 75 %": 5,
    "Four optimizers": 4,
    "Activations": 3,
}


def grade_text(tmp_path: Path, text: str, sections: Any = UNTRAINED) -> Grade:
    """The grade of a module, in this process."""
    path = tmp_path / "student.py"
    path.write_text(text)
    return grade(LocalRunner(load(path)), sections)


def lost(result: Grade) -> dict[str, str]:
    """The sections that lost points, with all that was said."""
    return {
        section.name: "\n".join(f"{f.what}\n{f.hint}" for f in section.failures)
        for section in result.sections
        if section.score < section.points
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


def trained(tmp_path: Path, text: str, part: str) -> list[Failure]:
    """What "Training to 75 %" says of the parts whose names begin so."""
    training = [section for section in SECTIONS if section.name == "Training to 75 %"]
    (section,) = grade_text(tmp_path, text, training).sections
    return [failure for failure in section.failures if failure.part.startswith(part)]


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


# Its TinyNet is tinier still.
QUICK = PLAIN.replace("fc(3072, 3072,", "fc(3072, 4,").replace("fc(3072, 10,", "fc(4, 10,")
BEST = "if val_accs[-1] == max(val_accs) and val_accs.count(val_accs[-1]) == 1:"


@pytest.mark.parametrize(
    ("right", "wrong", "hint"),
    [
        (BEST, "if True:", "they are another epoch's"),
        (BEST, BEST.replace("val_accs", "train_accs"), "they are another epoch's"),
        (
            "return np.mean(model.forward(data, False).argmax(axis=1) == labels)",
            "hits = model.forward(data, False).argmax(axis=1) == labels\n"
            "    return hits.sum() / (batch_size * -(-len(data) // batch_size))",
            "the last, smaller batch counts as a full one",
        ),
        (BEST, BEST.replace(" and val_accs.count(val_accs[-1]) == 1", ""), ""),  # the latest best
    ],
)
def test_the_best_epoch_is_that_of_the_highest_validation_accuracy(
    tmp_path: Path, right: str, wrong: str, hint: str
) -> None:
    assert QUICK.count(right) == 1
    found = trained(tmp_path, QUICK.replace(right, wrong), "best epoch")
    assert [hint in failure.hint for failure in found] == [True] * bool(hint)


def test_percents_are_no_fractions(tmp_path: Path) -> None:
    text = QUICK.replace("return np.mean(model", "return 100 * np.mean(model")
    said = [failure.what for failure in trained(tmp_path, text, "best")]
    assert said == ["val_acc should be fractions from 0 to 1"] * 2


def failures_of(result: Grade, name: str) -> list[Failure]:
    """What is said of a section."""
    return next(list(s.failures) for s in result.sections if s.name == name)


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
    said = "\n".join(f"{f.what}\n{f.hint}" for f in trained(tmp_path, nan, ""))
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


def test_best_parameters_must_be_copies(tmp_path: Path) -> None:
    training = [section for section in SECTIONS if section.name == "Training to 75 %"]
    found = lost(grade_text(tmp_path, PLAIN.replace("{n: p.copy() for", "{n: p for"), training))
    assert "copy the best epoch's parameters" in found["Training to 75 %"]


def test_best_parameters_must_be_all(tmp_path: Path) -> None:
    every = "in layer.params.items()}"
    without = QUICK.replace(every, f"{every[:-1]} if p.ndim > 1}}")
    assert without != QUICK
    said = {failure.what for failure in trained(tmp_path, without, "best")}
    assert said == {
        "opt_params should hold every parameter of the network's 4, by its name; it lacks 2"
    }
    assert not trained(tmp_path, without, "loss of each")


STEP = "            losses.append(loss_func.forward(model.forward(images[part]), labels[part]))\n"
STEPPED = "            optimizer.step()\n"
TRAIN_ACC = "train_accs.append(compute_acc(model, images, labels))"
VAL_ACC = 'val_accs.append(compute_acc(model, *data_dict["data_val"]))'
ORDER = "order = np.random.permutation(len(images))"
SCORED = "return np.mean(model.forward(data, False).argmax(axis=1) == labels)"


@pytest.mark.parametrize(
    ("part", "right", "wrong", "said"),
    [
        (
            "loss of each iteration",
            STEPPED,
            STEPPED + STEP.replace("append(", "__setitem__(-1, "),
            r"loss_hist\[0\] is .*, and loss_func gave .* before step 1",
        ),
        (
            "loss of each iteration",
            STEPPED,
            f"{STEPPED}            losses[-1] = sum(losses) / len(losses)\n",
            r"loss_hist\[1\] is .*, and loss_func gave",
        ),
        (
            "loss of each iteration",
            "    images, labels = data_dict",
            "    loss_func = cross_entropy()\n    images, labels = data_dict",
            "loss_func: it isn't used",
        ),
        (
            "loss of each iteration",
            "model.forward(images[part])",
            "model.forward(images[part], False)",
            "a forward with is_training=False: train with True",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            TRAIN_ACC.replace("images, labels", '*data_dict["data_val"]'),
            "training accuracy of each epoch: .*it is the validation accuracy",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            TRAIN_ACC.replace("compute_acc", "train_accs[0] if train_accs else compute_acc"),
            "training accuracy of each epoch: ",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            TRAIN_ACC.replace("images, labels", "images[part], labels[part]"),
            "training accuracy of each epoch: ",
        ),
        (
            "compute_acc",
            SCORED,
            "data, labels = data[:2500], labels[:2500]\n    " + SCORED,
            "the last, smaller batch is left out",
        ),
        (
            "compute_acc",
            SCORED,
            "data, labels = data[:100], labels[:100]\n    " + SCORED,
            "the first batch alone is scored",
        ),
        (
            "compute_acc",
            SCORED,
            "parts = [slice(i, i + 100) for i in range(0, len(data), 100)]\n"
            "    return np.mean([np.mean(model.forward(data[p], False).argmax(axis=1) == labels[p])"
            " for p in parts])",
            "the mean of the batches' accuracies",
        ),
        ("compute_acc", SCORED, SCORED.replace(", False", ""), "in training as it is scored"),
        (
            "compute_acc",
            SCORED,
            "chosen = np.random.permutation(len(data))[:1000]\n"
            "    data, labels = data[chosen], labels[chosen]\n    " + SCORED,
            "a sample of 1000 is scored",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            TRAIN_ACC.replace("images, labels", "images[:1000], labels[:1000]"),
            "training accuracy of each epoch: .*it is of the first 1000 examples",
        ),
        (
            "accuracy of each epoch",
            VAL_ACC,
            VAL_ACC.replace("data_val", "data_test"),
            "validation accuracy of each epoch: .*it is the accuracy on data_test",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            "train_accs.append(np.mean(model.forward(images).argmax(axis=1) == labels))",
            "is_training: .*in training as it is scored: model.forward",
        ),
        (
            "accuracy of each epoch",
            TRAIN_ACC,
            "hits = [np.mean(model.forward(images[i : i + 100]).argmax(axis=1) ==\n"
            "            labels[i : i + 100]) for i in range(0, len(images), 100)]\n"
            "        train_accs.append(np.mean(hits))",
            "is_training: .*in training as it is scored: model.forward",
        ),
        (
            "loss of each iteration",
            ORDER,
            f"{ORDER}\n        np.split(order, len(images) // batch_size)",
            "train_net fails where the batch size doesn't divide .*1199 in batches of 400",
        ),
        (
            "loss of each iteration",
            ORDER,
            f"{ORDER}\n        losses += [0] * (len(images) % batch_size)",
            "2005 losses came of 5 epochs of 1199 in batches of 400; 10 or 15 are expected",
        ),
        (
            "learning rate",
            "lr_decay=1.0,\n    lr_decay_every=1000",
            "lr_decay=0.9,\n    lr_decay_every=1",
            "without lr_decay the learning rate should stay",
        ),
        (
            "TinyNet",
            'name="a"), leaky_relu(), fc',
            'name="a"), fc',
            "there is no leaky ReLU between",
        ),
        ("TinyNet", "fc(3072, 3072,", "fc(3072, 100,", r"\(3072, 3072\).* got \[\(3072, 100\)"),
    ],
)
def test_a_mistake_of_the_loop_or_its_network(
    tmp_path: Path, part: str, right: str, wrong: str, said: str
) -> None:
    text = PLAIN if part == "TinyNet" else QUICK
    assert text.count(right) == 1
    if "3072" in wrong:
        text = text.replace("fc(3072, 10,", "fc(100, 10,")
    (failure, *_) = trained(tmp_path, text.replace(right, wrong), part)
    assert re.search(said, f"{failure.what} {failure.hint}")


LOOP = ("loss of each iteration", "learning rate", "accuracy of each epoch")


def test_steps_that_are_too_many_are_said_and_nothing_that_follows(tmp_path: Path) -> None:
    found = trained(tmp_path, QUICK.replace(STEPPED, 2 * STEPPED), "")
    said = [(failure.part, failure.what) for failure in found if failure.part in LOOP]
    steps = (
        "optimizer.step was called 30 times in 5 epochs of 3 batches: once for each batch is meant"
    )
    assert said == [(part, steps) for part in LOOP]


def test_tables_of_any_shape_can_be_compared(tmp_path: Path) -> None:
    """What comes back may be forged."""
    (section,) = [section for section in SECTIONS if section.name == "Training to 75 %"]
    (tmp_path / "student.py").write_text(QUICK)
    runner = LocalRunner(load(tmp_path / "student.py"))
    for part in section.parts:
        if part.name in (*LOOP, "best epoch"):
            answer = runner.run(part.task).arrays
            assert not part.check(answer)
            for name in answer:
                for shape in ((), (0,), (4,), (2, 2)):
                    part.check({**answer, name: np.full(shape, np.nan)})


def test_best_parameters_by_reference_are_no_other_epoch_s(tmp_path: Path) -> None:
    found = trained(tmp_path, QUICK.replace("{n: p.copy() for", "{n: p for"), "best")
    assert [failure.part for failure in found] == ["best parameters", "best epoch"]
    assert all(failure.hint.startswith("copy the best epoch's") for failure in found)


@pytest.mark.parametrize(
    ("right", "wrong", "what", "hint"),
    [
        ("w -= self.lr * dw\n", "w -= 1e-9 * dw\n", "losses fall", "the sign of the step"),
        ("init_scale=0.002", "init_scale=0.05", "first loss", "the first weights are too large"),
        ("init_scale=0.002", "init_scale=0.5", "first loss", "the first weights are too large"),
        ("self.n = len(scores) if self.size_average", "self.n = 1 if 1", "first loss", "divided"),
    ],
)
def test_losses_that_are_not_those_of_training(
    tmp_path: Path, right: str, wrong: str, what: str, hint: str
) -> None:
    assert PLAIN.count(right) == 1
    text = PLAIN.replace("fc(3072, 3072,", "fc(3072, 300,").replace("fc(3072, 10,", "fc(300, 10,")
    found = trained(tmp_path, text.replace(right, wrong), "losses")
    assert [hint in failure.hint for failure in found if failure.what.startswith(what)] == [True]


def test_where_sgd_diverges_nothing_is_compared(tmp_path: Path) -> None:
    race = [section for section in SECTIONS if section.name == "SGD against SGDM"]
    only = [replace(race[0], parts=race[0].parts[1:])]
    update = "        w -= self.lr * dw\n"
    text = QUICK.replace(update, f"{update}        w *= np.nan\n")
    (failure,) = grade_text(tmp_path, text, only).sections[0].failures
    assert failure.hint == "your SGD diverged, so nothing can be compared: mend that first"


def test_all_other_layers_of_the_large_network(tmp_path: Path) -> None:
    sections = [section for section in SECTIONS if section.name == "Four optimizers"]
    (section,) = sections
    only = [replace(section, parts=section.parts[:1])]
    wrong = {
        "sequential(*layers)": "there is a leaky ReLU after the last layer",
        "sequential(*layers[:-2], layers[-2])": "",
    }
    for text, hint in wrong.items():
        result = grade_text(tmp_path, PLAIN.replace("sequential(*layers[:-1])", text), only)
        (failed,) = result.sections
        assert hint in "".join(failure.hint for failure in failed.failures)
        assert bool(failed.failures) == bool(hint)


def test_one_step_of_sgd(tmp_path: Path) -> None:
    (section,) = [section for section in SECTIONS if section.name == "SGD against SGDM"]
    only = [replace(section, parts=section.parts[:1])]
    step = "        w -= self.lr * dw\n"
    assert PLAIN.count(step) == 1
    for wrong, hint in {
        step: "",
        "        w -= (w.ndim == 2) * self.lr * dw\n": "the first parameter alone is updated",
        "        w += self.lr * dw\n": "the sign: w = w - lr dw",
    }.items():
        (result,) = grade_text(tmp_path, PLAIN.replace(step, wrong), only).sections
        assert hint in "".join(failure.hint for failure in result.failures)
        assert bool(result.failures) == bool(hint)


DECAYS = "epoch > 0 and epoch % lr_decay_every == 0"


@pytest.mark.parametrize(
    ("when", "rate", "hint"),
    [
        ("False", 2, "lr_decay isn't used"),
        ("epoch == lr_decay_every", 2 * 0.5, "lowered once alone"),
        ("epoch > 0", 2 * 0.5**4, "lowered too often"),
        ("True", 2 * 0.5**5, "lowered too often"),
        ("epoch % lr_decay_every == 0", 2 * 0.5**3, "lowered too often"),
        ("epoch in (1, 3)", 2 * 0.5, "an epoch early"),
        ("epoch in (2, 4)", 0, ""),
    ],
)
def test_the_rate_falls_every_second_epoch(
    tmp_path: Path, when: str, rate: float, hint: str
) -> None:
    assert QUICK.count(DECAYS) == 1
    found = trained(tmp_path, QUICK.replace(DECAYS, when), "learning rate")
    assert len(found) == bool(rate)
    for failure in found:
        assert re.search(rf"expected (0\.5|2), got {rate:g};", failure.what)
        assert hint in failure.hint


GIVEN = "return best, losses, train_accs, val_accs"
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


def test_an_optimizer_that_does_nothing_beats_nobody(tmp_path: Path) -> None:
    race = [section for section in SECTIONS if section.name == "SGD against SGDM"]
    found = lost(grade_text(tmp_path, PLAIN.replace("        w += v\n", ""), race))
    assert set(found) == {"SGD against SGDM"}


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


def test_unusual_but_right(tmp_path: Path) -> None:
    """__slots__, an optimizer that holds its layers' dicts, losses in float32, the best parameters
    back in the network at the end."""
    small, loops = (
        "class SmallFullyConnectedNetwork(Module):\n",
        "        for layer in self.net.layers:\n",
    )
    update = "                self.update(name, w, layer.grads[name])"
    each = "            for name, w in layer.params.items():\n"
    loss = "loss_func.forward(model.forward(images[part]), labels[part])"
    changes = {
        small: f'{small}    __slots__ = ("net",)\n\n',
        "class Module:\n": "class Module:\n    __slots__ = ()\n\n",
        "        self.net, self.lr = net, lr\n": "        self.net, self.lr = net, lr\n"
        "        self.pairs = [(l.params, l.grads) for l in net.layers]\n",
        loops + each + update: "        for params, grads in self.pairs:\n"
        + each.replace("layer.", "")
        + update.replace("layer.", ""),
        f"losses.append({loss})": f"losses.append(np.float32({loss}))",
        f"    {GIVEN}": "    for layer in model.net.layers:\n"
        f"        for n, p in layer.params.items():\n            p[...] = best[n]\n    {GIVEN}",
    }
    text = QUICK
    for right, unusual in changes.items():
        assert text.count(right) == 1, right
        text = text.replace(right, unusual)
    for part in ("loss of each", "learning rate", "accuracy of each", "compute_acc", "best"):
        assert not trained(tmp_path, text, part)
    optimizers = [section for section in SECTIONS if section.name in ("SGDM", "RMSProp", "Adam")]
    assert lost(grade_text(tmp_path, text, optimizers)) == {}


CALL = "    __call__ = forward\n\n"
LOSS_OF = "loss_func.forward(model.forward(images[part]), labels[part])"


@pytest.mark.parametrize(
    "changes",
    [
        # forward by the object's call
        {
            "    def backward(self):\n        d = self.p": f"{CALL}    def backward(self):\n"
            "        d = self.p",
            "        return x\n\n    def backward(self, dout):\n        for": (
                f"        return x\n\n{CALL}    def backward(self, dout):\n        for"
            ),
            LOSS_OF: "loss_func(model(images[part], is_training=True), labels[part])",
            SCORED: SCORED.replace(".forward", ""),
        },
        # the last, smaller batch kept; the mode by keyword; losses of the validation data too
        {
            "range(len(images) // batch_size)": "range(-(-len(images) // batch_size))",
            LOSS_OF: LOSS_OF.replace("[part])", "[part], is_training=True)", 1),
            VAL_ACC: f"{VAL_ACC}\n        loss_func.forward(model.forward(\n"
            '            data_dict["data_val"][0], is_training=False), data_dict["data_val"][1])',
            SCORED: SCORED.replace("False", "is_training=False"),
        },
        # accuracies in float32, and of the network's layers alone
        {
            "class flatten:": "    def forward(self, x):\n        for layer in self.layers:\n"
            "            x = layer.forward(x)\n        return x\n\n\nclass flatten:",
            SCORED: SCORED.replace("model.forward(data, False)", "model.net.forward(data)").replace(
                "== labels", "== labels, dtype=np.float32"
            ),
        },
        # a first look at the loss and at data_test
        {
            "    losses, train_accs, val_accs, best =": "    model.forward(images)\n"
            '    compute_acc(model, *data_dict["data_test"])\n'
            "    losses, train_accs, val_accs, best =",
        },
    ],
)
def test_other_ways_to_train_and_score(tmp_path: Path, changes: dict[str, str]) -> None:
    text = QUICK
    for right, other in changes.items():
        assert text.count(right) == 1, right
        text = text.replace(right, other)
    for part in (*LOOP, "compute_acc", "best"):
        assert not trained(tmp_path, text, part)
