"""Optimizers: several steps against the papers' formulas, and their state."""

from __future__ import annotations

import numpy as np
import pytest

from mlpkit import MLP, SGD, SGDM, Adam, FullyConnected, Optimizer, RMSProp, Sequential
from mlpkit_backends import Backend

LR = 0.1


def sgd(w, grads):
    for g in grads:
        w = w - LR * g
    return w


def sgdm(w, grads):
    v = 0.0
    for g in grads:
        v = 0.9 * v - LR * g
        w = w + v
    return w


def rmsprop(w, grads):
    c = 0.0
    for g in grads:
        c = 0.99 * c + 0.01 * g**2
        w = w - LR * g / np.sqrt(c + 1e-8)
    return w


def adam(w, grads):
    # With zeros to start from, m̂ and v̂ are weighted means of the gradients so far.
    for t in range(1, len(grads) + 1):
        past = np.array(grads[:t])
        weights1, weights2 = 0.9 ** np.arange(t - 1, -1, -1), 0.999 ** np.arange(t - 1, -1, -1)
        m_hat = np.tensordot(weights1 / weights1.sum(), past, 1)
        v_hat = np.tensordot(weights2 / weights2.sum(), past**2, 1)
        w = w - LR * m_hat / (np.sqrt(v_hat) + 1e-8)
    return w


CASES = {
    "SGD": (lambda net: SGD(net, LR), sgd),
    "SGDM": (lambda net: SGDM(net, LR, 0.9), sgdm),
    "RMSProp": (lambda net: RMSProp(net, LR), rmsprop),
    "Adam": (lambda net: Adam(net, LR), adam),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_follow_the_formula(backend: Backend, case: str) -> None:
    make, formula = CASES[case]
    layer = FullyConnected(3, 2, 1.0, seed=4)
    start = {name: backend.to_numpy(p).copy() for name, p in layer.params.items()}
    rng = np.random.default_rng(8)
    grads = {name: [rng.standard_normal(p.shape) for _ in range(4)] for name, p in start.items()}
    optimizer = make(Sequential(layer))
    for step in range(4):
        layer.grads = {name: backend.asarray(g[step]) for name, g in grads.items()}
        optimizer.step()
    for name, parameter in layer.params.items():
        expected = formula(start[name], grads[name])
        np.testing.assert_allclose(backend.to_numpy(parameter), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_updates_are_in_place_and_skip_what_has_no_gradient(backend: Backend, case: str) -> None:
    layer = FullyConnected(3, 2, seed=0)
    w, b = layer.params["fc_w"], layer.params["fc_b"]
    optimizer = CASES[case][0](Sequential(layer))
    layer.grads["fc_w"] = backend.asarray(np.ones((3, 2)))
    before = backend.to_numpy(w).copy()
    optimizer.step()
    assert layer.params["fc_w"] is w
    assert (backend.to_numpy(w) < before).all()
    assert layer.params["fc_b"] is b
    assert not backend.to_numpy(b).any()


def test_a_network_will_do_for_its_sequence(backend: Backend) -> None:
    model = MLP((4, 3, 2), seed=0)
    assert SGD(model).net is model.net


def test_adam_counts_its_steps(backend: Backend) -> None:
    optimizer = Adam(Sequential(FullyConnected(2, 2, seed=0)), t=5)
    optimizer.step()
    assert optimizer.t == 6


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan")])
@pytest.mark.parametrize("optimizer", [SGD, SGDM, RMSProp, Adam])
def test_lr_must_be_positive(optimizer: type[Optimizer], lr: float) -> None:
    with pytest.raises(ValueError, match=f"lr must be positive and finite; got {lr}"):
        optimizer(Sequential(), lr)


@pytest.mark.parametrize(
    ("optimizer", "setting", "value", "said"),
    [
        (SGDM, "momentum", -0.1, "and finite"),
        (RMSProp, "decay", 1.0, "and below 1"),
        (RMSProp, "eps", -1e-8, "and finite"),
        (Adam, "beta1", 1.0, "and below 1"),
        (Adam, "beta2", float("nan"), "and below 1"),
        (Adam, "eps", float("inf"), "and finite"),
        (Adam, "t", -1, "and finite"),
    ],
)
def test_settings_out_of_range(
    optimizer: type[Optimizer], setting: str, value: float, said: str
) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be at least 0 {said}; got {value}"):
        optimizer(Sequential(), **{setting: value})


def test_defaults_are_the_contracts() -> None:
    net = Sequential()
    assert SGD(net).lr == 1e-4
    assert (SGDM(net).lr, SGDM(net).momentum) == (1e-4, 0.0)
    assert (RMSProp(net).lr, RMSProp(net).decay, RMSProp(net).eps) == (1e-2, 0.99, 1e-8)
    a = Adam(net)
    assert (a.lr, a.beta1, a.beta2, a.t, a.eps) == (1e-3, 0.9, 0.999, 0, 1e-8)


@pytest.mark.parametrize("kind", [SGDM, RMSProp, Adam])
def test_state_and_gradients_of_another_shape(backend: Backend, kind: type[Optimizer]) -> None:
    net = Sequential(FullyConnected(4, 3, name="fc"))
    optimizer = kind(net)
    (layer,) = net.layers
    for name, p in layer.params.items():
        layer.grads[name] = backend.copy(p)
    layer.grads["fc_w"] = backend.asarray(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"gradient of fc_w should have .*\(4, 3\); got \(1, 3\)"):
        optimizer.step()
    layer.grads["fc_w"] = backend.asarray(np.zeros((4, 3)))
    optimizer.states[kind.state_names[0]]["fc_w"] = backend.asarray(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=rf"{kind.__name__}'s state of fc_w .*got \(3, 4\)"):
        optimizer.step()


def test_a_learning_rate_of_numpys_own_leaves_the_dtype_alone(backend: Backend) -> None:
    net = Sequential(FullyConnected(4, 3, name="fc", seed=1, dtype="float32"))
    (layer,) = net.layers
    before = {name: backend.to_numpy(p).copy() for name, p in layer.params.items()}
    layer.grads = {name: backend.copy(p) for name, p in layer.params.items()}
    SGD(net, np.float64(0.1)).step()
    for name, w in before.items():
        expected = w - np.float32(0.1) * w
        assert np.array_equal(backend.to_numpy(layer.params[name]), expected)


@pytest.mark.parametrize("lr", [-1, float("nan"), float("inf"), "0.1", None, np.ones(1)])
def test_lr_is_checked_when_it_is_changed(lr) -> None:
    optimizer = SGD(Sequential(), 0.1)
    said = "at least 0 and finite" if isinstance(lr, float | int) else "a number"
    with pytest.raises(ValueError, match=f"lr must be {said}; got"):
        optimizer.lr = lr
    optimizer.lr = np.float32(0.25)
    assert type(optimizer.lr) is float
    assert optimizer.lr == 0.25


def test_a_parameter_of_two_layers_is_stepped_once(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 2, name="a"), FullyConnected(2, 2, name="b"))
    net.params["b_w"] = net.params["a_w"] = backend.asarray(np.ones((2, 2)))
    one, two = np.array([[0.25, -1.0], [2.0, 0.5]]), np.array([[0.5, -1.0], [-4.0, 0.25]])
    net.grads["a_w"], net.grads["b_w"] = backend.asarray(one), backend.asarray(two)
    Adam(net, 0.125).step()
    # The first step's m / (1 - beta1) is the gradient, and v / (1 - beta2) its square.
    expected = 1 - 0.125 * (one + two) / (np.abs(one + two) + 1e-8)
    np.testing.assert_allclose(backend.to_numpy(net.params["a_w"]), expected, rtol=1e-12)
    assert net.params["b_w"] is net.params["a_w"]


def test_a_gradient_that_is_no_parameters(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 3, name="a"))
    net.layers[0].grads["w"] = backend.asarray(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"layer a has a gradient of 'w'.*it has: a_w, a_b"):
        SGD(net).step()


def test_a_gradient_that_a_backward_left_out() -> None:
    net = Sequential(FullyConnected(2, 3, name="a"))
    net.layers[0].grads = {"a_w": np.ones((2, 3))}
    with pytest.raises(ValueError, match=r"layer a's backward left no gradient of a_b: "):
        SGD(net).step()
    net.layers[0].grads["a_b"] = 1.0
    with pytest.raises(ValueError, match=r"gradient of a_b should be an array; got float"):
        SGD(net).step()


def test_an_update_that_is_not_in_place() -> None:
    class Away(Optimizer):
        def update(self, backend, name, w, dw):
            return w - self.lr * dw

    net = Sequential(FullyConnected(2, 3, name="a"))
    net.layers[0].grads = {"a_w": np.ones((2, 3)), "a_b": np.ones(3)}
    with pytest.raises(
        TypeError, match=r"Away's update should change a_w in place, .*another array"
    ):
        Away(net, 0.1).step()
