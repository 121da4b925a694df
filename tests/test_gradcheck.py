"""Numerical gradients of functions whose derivatives are known."""

from __future__ import annotations

import numpy as np
import pytest

from mlpkit import (
    MLP,
    Dropout,
    FullyConnected,
    Layer,
    Module,
    Sequential,
    check_gradients,
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    rel_error,
)
from mlpkit_backends import Backend

X = np.linspace(-1, 2, 6).reshape(2, 3)


def test_a_scalar_function(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    x = backend.asarray(X.copy())
    got = eval_numerical_gradient(lambda x: float(backend.xp.sum(x**3)), x)
    np.testing.assert_allclose(backend.to_numpy(got), 3 * X**2, rtol=1e-8, atol=1e-9)
    assert np.array_equal(backend.to_numpy(x), X)  # restored to the bit
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("(0, 0) ")


def test_not_verbose_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    eval_numerical_gradient(lambda x: float(x.sum()), np.ones(2), verbose=False, backend="numpy")
    assert capsys.readouterr().out == ""


def test_an_array_function(backend: Backend) -> None:
    x, a = backend.asarray(X.copy()), np.arange(12.0).reshape(3, 4)
    df = np.linspace(1, 3, 8).reshape(2, 4)
    got = eval_numerical_gradient_array(lambda x: x @ backend.asarray(a), x, backend.asarray(df))
    np.testing.assert_allclose(backend.to_numpy(got), df @ a.T, rtol=1e-9)
    assert np.array_equal(backend.to_numpy(x), X)


def test_an_array_function_that_works_in_place(backend: Backend) -> None:
    out, x = backend.asarray(np.zeros((2, 3))), backend.asarray(X.copy())

    def square(x):
        out[...] = x * x
        return out

    got = eval_numerical_gradient_array(square, x, backend.asarray(np.ones((2, 3))))
    np.testing.assert_allclose(backend.to_numpy(got), 2 * X, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [([1.0, 2.0], [1.0, 2.0], 0.0), ([1.0], [3.0], 0.5), ([0.0], [0.0], 0.0), ([1e-9], [0.0], 0.1)],
)
def test_rel_error(backend: Backend, x: list[float], y: list[float], expected: float) -> None:
    assert rel_error(backend.asarray(x), backend.asarray(y)) == pytest.approx(expected, rel=1e-12)


def test_integers_would_lose_the_step() -> None:
    x = np.ones((2, 2), int)
    with pytest.raises(ValueError, match=r"should be floats.*it is int64"):
        eval_numerical_gradient_array(lambda x: x * 2, x, np.ones((2, 2)), backend="numpy")
    with pytest.raises(ValueError, match="should be floats"):
        eval_numerical_gradient(lambda x: float(x.sum()), x, backend="numpy")


def test_rel_error_of_two_shapes() -> None:
    with pytest.raises(ValueError, match=r"one shape; got \(2, 2\) and \(2,\)"):
        rel_error(np.ones((2, 2)), np.ones(2), backend="numpy")


def test_x_is_restored_whatever_f_raises(backend: Backend) -> None:
    x = backend.asarray(X.copy())

    def fails(x):
        raise ArithmeticError

    for check in (
        lambda: eval_numerical_gradient(fails, x, verbose=False),
        lambda: eval_numerical_gradient_array(fails, x, x),
    ):
        with pytest.raises(ArithmeticError):
            check()
        assert np.array_equal(backend.to_numpy(x), X)


def test_a_check_changes_no_later_mask(backend: Backend) -> None:
    model = MLP((6, 5, 3), keep_prob=0.5, dropout_seed=7, seed=1)
    (dropout,) = [layer for layer in model.net.layers if isinstance(layer, Dropout)]
    dropout.step = 4
    x = backend.asarray(np.ones((2, 6)))
    check_gradients(model, x, backend.asarray([0, 1]))
    assert (dropout.seed, dropout.step) == (7, 4)


def test_whole_numbers_do_not_wrap(backend: Backend) -> None:
    one, two = (backend.asarray(np.array([n], np.uint8)) for n in (1, 2))
    assert rel_error(one, two) == pytest.approx(1 / 3, rel=1e-15)


def test_a_function_of_arrays_may_return_a_number() -> None:
    got = eval_numerical_gradient_array(
        lambda x: float((x**2).sum()), np.array([3.0]), np.array(2.0), backend="numpy"
    )
    assert got == pytest.approx([12.0], rel=1e-9)


def test_a_float32_model_is_refused() -> None:
    model = MLP((3, 2), seed=1, dtype="float32")
    with pytest.raises(ValueError, match=r"in float64; the model is float32: .*dtype="):
        check_gradients(model, X, [0, 1])


class Scaled(Layer):
    """y = s x, with a part of its gradient's making that `leave` does."""

    def __init__(self, leave) -> None:
        super().__init__("scale")
        self.params["scale"] = self.backend.asarray([1.5])
        self.leave = leave

    def forward(self, x):
        self.keep(x)
        return self.params["scale"] * x

    def backward(self, dout):
        ds = self.backend.xp.sum(dout * self.take_kept())
        self.leave(self.grads, ds, self.backend.xp.reshape(ds, (1,)))
        return self.params["scale"] * dout


def test_a_gradient_that_a_layer_leaves_out_or_gives_another_shape() -> None:
    def check(leave) -> float:
        first = FullyConnected(3, 2, 0.5, seed=1)
        return check_gradients(Module(Sequential(first, Scaled(leave))), X, [0, 1])["scale"]

    assert check(lambda grads, ds, whole: grads.update(scale=whole)) < 1e-7
    with pytest.raises(ValueError, match=r"of scale should have its shape, \(1,\); got \(\)"):
        check(lambda grads, ds, whole: grads.update(scale=ds))
    with pytest.raises(ValueError, match=r"layer scale's backward left no gradient of scale: "):
        check(lambda grads, ds, whole: grads.update(s=whole))


class Doubled(Layer):
    """A layer made of others: an affine map, then dropout, twice the result."""

    def __init__(self) -> None:
        super().__init__("doubled")
        self.parts = [FullyConnected(3, 4, 0.5, "inner", seed=2), Dropout(0.5, seed=3)]
        for part in self.parts:
            self.params |= part.params
            self.grads |= part.grads
            part.params, part.grads = self.params, self.grads

    def forward(self, x):
        first, second = self.parts
        return 2 * second.forward(first.forward(x), self.is_training)

    def backward(self, dout):
        first, second = self.parts
        return first.backward(second.backward(2 * dout))


def test_dropout_within_a_layer_has_one_mask_while_it_is_checked() -> None:
    layer = Doubled()
    model = Module(Sequential(layer, FullyConnected(4, 2, 0.5, seed=1)))
    errors = check_gradients(model, X, [0, 1])
    assert set(errors) == {"inner_w", "inner_b", "fc_w", "fc_b"}
    assert max(errors.values()) < 1e-7
    assert (layer.parts[1].seed, layer.parts[1].step) == (3, 0)


class Held(Module):
    """A network with dropout of its own, before the others."""

    def __init__(self) -> None:
        super().__init__(Sequential(FullyConnected(3, 2, 0.5, seed=1, backend="numpy")))
        self.drop = Dropout(0.5, seed=4, backend="numpy")

    def forward(self, x, is_training=True, seed=None):
        return super().forward(self.drop.forward(x, is_training, seed), is_training)

    def backward(self, dout):
        return self.drop.backward(super().backward(dout))


class Noisy(Dropout):
    """Noise by a factor, of a generator that a seed begins anew."""

    def forward(self, x, is_training=True, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.factor = 1 + 0.5 * self.rng.standard_normal(x.shape)
        return x * self.factor

    def backward(self, dout):
        return dout * self.factor


@pytest.mark.parametrize(
    "make",
    [
        Held,
        lambda: Module(
            Sequential(
                FullyConnected(3, 4, 0.5, "a", seed=1, backend="numpy"),
                Noisy(0.5, backend="numpy"),
                FullyConnected(4, 2, 0.5, "b", seed=2, backend="numpy"),
            )
        ),
    ],
)
def test_masks_of_a_networks_own_stay_while_it_is_checked(make) -> None:
    assert max(check_gradients(make(), X, [0, 1]).values()) < 1e-7


class SquaredError:
    """Half the squared distance to one-hot labels; its gradient times `factor`."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def forward(self, scores, labels):
        self.difference = scores - np.eye(scores.shape[1])[labels]
        return 0.5 * (self.difference**2).sum()

    def backward(self):
        return self.factor * self.difference


def test_a_loss_of_the_users_own_is_checked_too() -> None:
    model = MLP((3, 2), 0.5, seed=1, backend="numpy")
    assert max(check_gradients(model, X, [0, 1], loss_func=SquaredError(1)).values()) < 1e-7
    assert min(check_gradients(model, X, [0, 1], loss_func=SquaredError(1.1)).values()) > 1e-2


def test_a_check_along_no_direction() -> None:
    with pytest.raises(ValueError, match="directions must be a whole number, at least 1; got 0"):
        check_gradients(MLP((3, 2), seed=1), X, [0, 1], directions=0)


def test_a_layer_that_adds_to_its_gradient_is_wrong() -> None:
    def leave(grads, ds, whole) -> None:
        grads["scale"] = grads.get("scale", 0.0) + whole

    model = Module(Sequential(FullyConnected(3, 2, 0.5, seed=1), Scaled(leave)))
    assert check_gradients(model, X, [0, 1])["scale"] > 0.1


def test_nan_is_no_right_gradient() -> None:
    model = MLP((3, 2), seed=1)
    assert all(np.isnan(error) for error in check_gradients(model, X * np.nan, [0, 1]).values())


def test_a_check_on_no_example() -> None:
    with pytest.raises(ValueError, match="one example or more; got none"):
        check_gradients(MLP((3, 2), seed=1), X[:0], np.empty(0, int))


def test_a_parameter_that_is_not_trained_is_left_out() -> None:
    def leave(grads, ds, whole) -> None:
        grads["scale"] = None

    model = Module(Sequential(FullyConnected(3, 2, 0.5, seed=1), Scaled(leave)))
    assert set(check_gradients(model, X, [0, 1])) == {"fc_w", "fc_b"}


@pytest.mark.parametrize(
    ("part", "given", "said"),
    [
        ("forward", lambda *given: np.ones(2), r"forward should return one number, .*shape \(2,\)"),
        ("backward", lambda: None, r"the loss's backward should return an array; got NoneType"),
    ],
)
def test_a_loss_that_returns_something_else(part: str, given, said: str) -> None:
    loss_func = SquaredError(1)
    setattr(loss_func, part, given)
    with pytest.raises(TypeError, match=said):
        check_gradients(MLP((3, 2), seed=1, backend="numpy"), X, [0, 1], loss_func=loss_func)
