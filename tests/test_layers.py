"""Layers against formulas and numerical gradients, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from mlpkit import (
    ELU,
    SELU,
    Activation,
    Dropout,
    Flatten,
    FullyConnected,
    Layer,
    LeakyReLU,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    eval_numerical_gradient_array,
    rel_error,
)
from mlpkit_backends import Backend

RNG = np.random.default_rng(3)
MAKERS = [
    Flatten, LeakyReLU, ReLU, ELU, SELU, Sigmoid, Tanh,
    lambda: FullyConnected(12, 5, 0.3, seed=1), lambda: Dropout(0.6, 5),
]  # fmt: skip
NAMES = [
    "Flatten",
    "LeakyReLU",
    "ReLU",
    "ELU",
    "SELU",
    "Sigmoid",
    "Tanh",
    "FullyConnected",
    "Dropout",
]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_gradient_of_the_input(backend: Backend, make: type[Layer]) -> None:
    x = RNG.standard_normal((4, 12))
    x += 0.1 * np.sign(x)  # away from the kinks at 0, where the slope has no one value
    x, layer = backend.asarray(x), make()
    dout = backend.asarray(RNG.standard_normal(layer.forward(x).shape))

    def forward(x: object) -> object:
        return layer.forward(x, True, 5) if isinstance(layer, Dropout) else layer.forward(x)

    forward(x)
    dx = layer.backward(dout)
    numerical = eval_numerical_gradient_array(forward, x, dout)
    assert rel_error(numerical, dx) < 1e-8


def test_gradients_of_the_parameters(backend: Backend) -> None:
    layer = FullyConnected(6, 4, 0.5, "fc7", seed=2)
    x = backend.asarray(RNG.standard_normal((5, 6)))
    dout = backend.asarray(RNG.standard_normal((5, 4)))
    layer.forward(x)
    layer.backward(dout)
    assert list(layer.params) == list(layer.grads) == ["fc7_w", "fc7_b"]
    for name, parameter in layer.params.items():
        # The parameter is perturbed in place; the layer must see it.
        numerical = eval_numerical_gradient_array(lambda _: layer.forward(x), parameter, dout)
        assert rel_error(numerical, layer.grads[name]) < 1e-8


def test_flatten_restores_the_shape(backend: Backend) -> None:
    x = backend.asarray(np.arange(48.0).reshape(2, 4, 3, 2))
    layer = Flatten()
    flat = layer.forward(x)
    assert backend.to_numpy(flat).tolist() == np.arange(48.0).reshape(2, 24).tolist()
    assert layer.backward(flat).shape == (2, 4, 3, 2)
    with pytest.raises(ValueError, match=r"flatten takes a batch .* got one number"):
        layer.forward(x[0, 0, 0, 0])


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_backward_needs_a_forward(make: type[Layer]) -> None:
    layer = make()
    with pytest.raises(ValueError, match=f"layer {layer.name}: backward needs a forward"):
        layer.backward(np.ones((4, 12)))


def test_weights_are_scaled_normals_of_the_seed_or_numpys_state(backend: Backend) -> None:
    expected = 0.02 * np.random.default_rng(9).standard_normal((30, 20))
    layer = FullyConnected(30, 20, 0.02, seed=9)
    assert np.array_equal(backend.to_numpy(layer.params["fc_w"]), expected)
    assert not backend.to_numpy(layer.params["fc_b"]).any()
    np.random.seed(5)
    expected = 0.002 * np.random.standard_normal((30, 20))
    np.random.seed(5)
    single = FullyConnected(30, 20, dtype="float32").params["fc_w"]
    assert np.array_equal(backend.to_numpy(single), expected.astype(np.float32))


@pytest.mark.parametrize("shape", [(5, 13), (5, 12, 1), (12,)])
def test_an_input_that_does_not_fit(backend: Backend, shape: tuple[int, ...]) -> None:
    layer = FullyConnected(12, 3, name="fc1")
    with pytest.raises(ValueError, match=rf"layer fc1 takes .*\(N, 12\); got \({shape[0]},"):
        layer.forward(backend.asarray(np.zeros(shape)))


@pytest.mark.parametrize("widths", [(0, 3), (3, -1)])
def test_widths_must_be_positive(widths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number, at least 1; got (0|-1)"):
        FullyConnected(*widths)


@pytest.mark.parametrize("keep_prob", [-0.1, 1.1, float("nan")])
def test_keep_prob_outside_its_range(keep_prob: float) -> None:
    with pytest.raises(ValueError, match=rf"keep_prob .* in \[0, 1\]; got {keep_prob}"):
        Dropout(keep_prob)


@pytest.mark.parametrize("keep_prob", [0, 1])
def test_keep_0_and_1_change_nothing(backend: Backend, keep_prob: float) -> None:
    x = backend.asarray(RNG.standard_normal((4, 3)))
    layer = Dropout(keep_prob, 1)
    assert layer.forward(x) is x
    assert layer.backward(x) is x


def test_dropout_keeps_a_share_of_keep_prob_and_the_mean(backend: Backend) -> None:
    x = np.full((200, 200), 5.0)
    got = backend.to_numpy(Dropout(0.3, 11).forward(backend.asarray(x)))
    share = (got != 0).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)  # five standard deviations
    assert np.unique(got).tolist() == [0.0, 5.0 / 0.3]


def test_dropout_leaves_evaluation_alone(backend: Backend) -> None:
    x = backend.asarray(np.ones((3, 3)))
    layer = Dropout(0.5, 1)
    assert layer.forward(x, is_training=False) is x
    assert layer.backward(x) is x


def test_masks_go_on_from_step_to_step_and_restart_with_a_seed(backend: Backend) -> None:
    x = backend.asarray(np.ones((8, 8)))
    layer = Dropout(0.5, 21)
    first, second = (backend.to_numpy(layer.forward(x)) for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(backend.to_numpy(layer.forward(x, True, 21)), first)
    assert np.array_equal(backend.to_numpy(layer.forward(x)), second)
    assert not np.array_equal(backend.to_numpy(layer.forward(x, True, 22)), first)


def test_two_dropout_layers_of_one_seed_differ(backend: Backend) -> None:
    x = backend.asarray(np.ones((8, 8)))
    layers = [Dropout(0.5, 1, "a"), Dropout(0.5, 1, "b")]
    Sequential(*layers)
    first, second = (backend.to_numpy(layer.forward(x)) for layer in layers)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_fits_no_key(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must be an integer from 0 to .*; got {seed}"):
        Dropout(0.5, seed)


def test_an_activation_of_ones_own_needs_an_op_alone(backend: Backend) -> None:
    class Soft(Activation):
        op = "tanh"

    layer, x = Soft(), backend.asarray([[0.5, -1.0]])
    assert layer.name == "tanh"
    np.testing.assert_allclose(backend.to_numpy(layer.forward(x)), np.tanh([[0.5, -1.0]]))


def test_an_activation_without_an_op() -> None:
    class Swish(Activation):
        op = "swish"

    with pytest.raises(ValueError, match=r"Swish's op, 'swish', is none .*swish_backward"):
        Swish()


def test_the_slope_may_be_changed() -> None:
    layer = LeakyReLU(0.1, backend="numpy")
    layer.negative_slope = 0.5
    assert layer.forward(np.array([-1.0])).tolist() == [-0.5]


@pytest.mark.parametrize(
    "make",
    [
        lambda: LeakyReLU(np.float64(0.1)),
        lambda: ELU(np.float64(0.1)),
        lambda: SELU(np.float64(1.6), np.float64(1.05)),
        lambda: Dropout(np.float64(0.5), seed=1),
    ],
)
def test_settings_of_numpys_own_leave_the_dtype_alone(backend: Backend, make) -> None:
    x = backend.asarray(np.linspace(-1, 1, 6), "float32")
    layer = make()
    assert backend.to_numpy(layer.forward(x)).dtype == np.float32
    assert backend.to_numpy(layer.backward(x)).dtype == np.float32


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: LeakyReLU(0.1), "negative_slope"),
        (lambda: SELU(), "scale"),
        (lambda: Dropout(0.5, seed=1), "keep_prob"),
    ],
)
def test_settings_changed_to_numpys_own_leave_it_alone(backend: Backend, make, setting) -> None:
    x = backend.asarray(np.linspace(-1, 1, 6), "float32")
    layer = make()
    setattr(layer, setting, np.float64(0.3))
    assert backend.to_numpy(layer.forward(x)).dtype == np.float32
    assert backend.to_numpy(layer.backward(x)).dtype == np.float32


@pytest.mark.parametrize("kind", [LeakyReLU, ELU, SELU, Dropout])
def test_settings_that_are_no_numbers(kind) -> None:
    with pytest.raises(ValueError, match=r"(slope|alpha|keep_prob) must be a number; got 'a'"):
        kind("a")


def test_a_bias_of_another_shape(backend: Backend) -> None:
    layer = FullyConnected(4, 3, name="fc")
    layer.params["fc_b"] = backend.asarray(np.zeros(1))
    with pytest.raises(ValueError, match=r"fc_b should have the shape \(3,\).*got \(1,\)"):
        layer.forward(backend.asarray(np.zeros((2, 4))))
