"""Sequences of layers, their parameters by name, and the networks' layers, widths and scales."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from mlpkit import (
    MLP,
    SGD,
    SGDM,
    Batches,
    Dropout,
    DropoutNet,
    Flatten,
    FullyConnected,
    FullyConnectedNetwork,
    Layer,
    LeakyReLU,
    Module,
    Sequential,
    SmallFullyConnectedNetwork,
    TestFCReLU,
    TinyNet,
    check_gradients,
)
from mlpkit_backends import Backend, load
from mlpkit_backends.cpu import NumpyBackend

# class, its fully connected layers (name, inputs, outputs), the weights' scale
NETWORKS = {
    "TestFCReLU": (TestFCReLU, [("tiny_fc", 15, 5)], 0.002),
    "Small": (SmallFullyConnectedNetwork, [("fc_1", 4, 30), ("fc_2", 30, 7)], 0.02),
    "DropoutNet": (DropoutNet, [("fc1", 15, 20), ("fc2", 20, 30), ("fc3", 30, 10)], 0.05),
    "TinyNet": (TinyNet, [("fc1", 3072, 3072), ("fc2", 3072, 10)], 0.002),
    "FullyConnectedNetwork": (
        FullyConnectedNetwork,
        [("fc1", 3072, 100), *((f"fc{i}", 100, 100) for i in range(2, 6)), ("fc6", 100, 10)],
        0.05,
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_layers_widths_and_scales(case: str) -> None:
    make, expected, scale = NETWORKS[case]
    layers = [layer for layer in make(backend="numpy").net.layers if layer.params]
    assert [(layer.name, *layer.params[layer.w_name].shape) for layer in layers] == expected
    for layer in layers:
        w = layer.params[layer.w_name]
        # Four standard errors of a normal sample's standard deviation.
        assert w.std() == pytest.approx(scale, rel=4 / np.sqrt(2 * w.size))
        assert not layer.params[layer.b_name].any()


@pytest.mark.parametrize("case", ["TestFCReLU", "Small", "DropoutNet"])
def test_forward_is_the_layers_one_after_the_other(backend: Backend, case: str) -> None:
    make, fcs, _ = NETWORKS[case]
    model = make()
    x = np.random.default_rng(0).standard_normal((6, fcs[0][1]))
    expected = x
    for name, *_ in fcs:
        w, b = (backend.to_numpy(model.net.get_params(f"{name}_{p}")) for p in "wb")
        expected = expected @ w + b
        if case != "Small" or name == "fc_1":
            expected = np.where(expected >= 0, expected, 0.01 * expected)
    got = backend.to_numpy(model.forward(backend.asarray(x), is_training=False))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


def test_gradients_of_deep_networks_along_random_directions(backend: Backend) -> None:
    x = np.random.default_rng(1).standard_normal((7, 2, 6))
    labels = backend.asarray([0, 1, 2, 3, 0, 1, 2])
    model = MLP((12, 16, 8, 8, 4), keep_prob=0.7, dropout_seed=3, seed=2)
    assert max(check_gradients(model, backend.asarray(x), labels).values()) < 1e-6


def test_a_wrong_gradient_is_found(backend: Backend) -> None:
    class Wrong(LeakyReLU):
        def backward(self, dout):
            return 1.01 * super().backward(dout)

    net = Sequential(
        FullyConnected(5, 4, 0.5, "a", seed=1), Wrong(), FullyConnected(4, 3, 0.5, "b")
    )
    x, labels = backend.asarray(np.ones((2, 5))), backend.asarray([0, 2])
    errors = check_gradients(Module(net), x, labels)
    assert errors["a_w"] > 1e-3
    assert errors["b_w"] < 1e-6


def test_an_mlp_has_dropout_after_each_hidden_activation() -> None:
    model = MLP((12, 6, 5, 3), keep_prob=0.5, seed=0, backend="numpy")
    names = [layer.name for layer in model.net.layers]
    assert " ".join(names) == "flatten fc1 leaky_relu1 dropout1 fc2 leaky_relu2 dropout2 fc3"
    scale = model.net.get_params("fc1_w").std()
    assert scale == pytest.approx(np.sqrt(2 / 12), rel=0.3)


def test_one_seed_one_network(backend: Backend) -> None:
    one, two, other = (MLP((8, 4, 2), seed=s).net for s in (1, 1, 2))
    for name in one.params:
        same = backend.to_numpy(one.params[name])
        assert np.array_equal(same, backend.to_numpy(two.params[name]))
    assert not np.array_equal(
        backend.to_numpy(one.params["fc1_w"]), backend.to_numpy(other.params["fc1_w"])
    )


def test_a_generator_decides_the_dropout_masks_too(backend: Backend) -> None:
    def masks(seed: int, keep_prob: float = 0.5) -> list[int]:
        model = MLP((8, 4, 4, 2), keep_prob=keep_prob, seed=np.random.default_rng(seed))
        return [layer.seed for layer in model.net.layers if isinstance(layer, Dropout)]

    one, two = masks(1), masks(2)
    assert one == masks(1) == [np.random.default_rng(1).integers(2**63)] * 2
    assert one != two
    plain, drawn = (
        MLP((8, 4, 2), seed=seed).net.params["fc1_w"] for seed in (1, np.random.default_rng(1))
    )
    assert np.array_equal(backend.to_numpy(plain), backend.to_numpy(drawn))


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="'fc' came twice"):
        Sequential(FullyConnected(2, 2), FullyConnected(2, 2))
    other = FullyConnected(2, 2, name="other")
    other.params["fc_w"] = other.params.pop("other_w")
    with pytest.raises(ValueError, match=r"'fc_w' is one of layer other and of one before it"):
        Sequential(FullyConnected(2, 2), other)


def test_a_layer_need_not_say_that_it_has_no_gradient_yet() -> None:
    layer = Layer("scale")
    layer.params["scale"] = layer.backend.zeros((1,), "float64")
    assert Sequential(layer).get_grads("scale") is None


@pytest.mark.parametrize("dtype", ["int64", "foo", "floaty", "complex128"])
def test_weights_are_floats(dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"dtype must be one of floats, .*; got '{dtype}'"):
        MLP((4, 3), dtype=dtype)


def test_what_is_assigned_is_kept_by_reference(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 3, name="a"))
    w, dw = backend.asarray(np.ones((2, 3))), backend.asarray(np.zeros((2, 3)))
    net.assign("a_w", w)
    net.assign_grads("a_w", dw)
    assert net.get_params("a_w") is net.layers[0].params["a_w"] is w
    assert net.get_grads("a_w") is net.layers[0].grads["a_w"] is dw
    assert net.gather_params()["a_w"] is net.params["a_w"] is w
    assert net.gather_grads()["a_w"] is net.grads["a_w"] is dw


def test_params_and_grads_are_the_layers_own(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 3, name="a"), FullyConnected(3, 1, name="b"))
    w, dw = backend.asarray(np.ones((3, 1))), backend.asarray(np.full((3, 1), 2.0))
    net.params["b_w"] = w
    net.grads.update(b_w=dw)
    assert net.layers[1].params["b_w"] is w
    assert net.layers[1].grads["b_w"] is dw
    SGD(net, 0.5).step()
    assert backend.to_numpy(net.params["b_w"]).tolist() == [[0], [0], [0]]  # 1 - 0.5 · 2
    net.layers[0].params = {"a_w": w}
    assert list(net.params) == ["a_w", "b_w", "b_b"]
    assert len(net.params) == 3
    kept = net.params.copy()
    net.params["a_w"] = dw
    assert (type(kept), kept["a_w"] is w) == (dict, True)
    assert "a_b" not in net.params
    with pytest.raises(KeyError, match="no parameter 'c_w'"):
        net.params["c_w"] = w


class Noise(Layer):
    """Adds 1 while training."""

    def forward(self, x):
        return x + 1.0 if self.is_training else x

    def backward(self, dout):
        return dout


def test_every_layer_knows_whether_it_is_trained(backend: Backend) -> None:
    model = Module(Sequential(Noise("a"), Noise("b")))
    x = backend.asarray(np.zeros((2, 3)))
    for is_training, expected in ((True, 2), (False, 0), (True, 2)):
        got = backend.to_numpy(model.forward(x, is_training))
        assert (got == expected).all()


def test_what_is_no_sequence_of_layers() -> None:
    with pytest.raises(TypeError, match=r"Module\(Sequential\(a, b\)\); got list"):
        Module([FullyConnected(2, 3)])
    with pytest.raises(TypeError, match=r"as mlpkit\.load_weights\(path\) gives; got str"):
        MLP((2, 3)).net.load("best.safetensors")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        (64, "at least two, input and output; got 64"),
        ((64,), r"at least two, input and output; got \(64,\)"),
        ((4, 8.5, 3), r"widths\[1\] must be a whole number, at least 1; got 8\.5"),
        ((4, 0), r"widths\[1\] must be a whole number, at least 1; got 0"),
    ],
)
def test_widths_that_cannot_be(widths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(widths)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no parameter 'c_w'.*a_w, a_b"):
        Sequential(FullyConnected(2, 3, name="a")).get_params("c_w")


def test_load_copies_by_name(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    net = Sequential(FullyConnected(2, 3, name="fc1", dtype="float32"))
    w = backend.asarray(np.arange(6.0).reshape(2, 3))
    net.load({"fc1_w": w, "elsewhere": w})
    said = "Loading Params: fc1_w Shape: (2, 3)\nLeft as they were: fc1_b\n"
    assert capsys.readouterr().out == said
    w += 1.0
    loaded = backend.to_numpy(net.params["fc1_w"])
    assert loaded.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded.dtype == np.float32


def test_load_refuses_what_does_not_fit_and_changes_nothing(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 3, name="a", seed=1))
    before = backend.to_numpy(net.params["a_w"]).copy()
    zeros = {"a_w": backend.asarray(np.zeros((2, 3))), "a_b": backend.asarray(np.zeros(4))}
    with pytest.raises(ValueError, match=r"a_b has the shape \(3,\); got .* \(4,\)"):
        net.load(zeros)
    with pytest.raises(ValueError, match=r"none of the names fits.*a_w, a_b; got x"):
        net.load({"x": zeros["a_w"]})
    assert np.array_equal(backend.to_numpy(net.params["a_w"]), before)


def test_a_seed_given_to_forward_reaches_the_dropout(backend: Backend) -> None:
    model = DropoutNet(0.5, 3, weight_seed=0)
    x = backend.asarray(np.random.default_rng(0).standard_normal((4, 3, 5)))
    first = backend.to_numpy(model.forward(x, True, 9))
    assert not np.array_equal(backend.to_numpy(model.forward(x)), first)
    assert np.array_equal(backend.to_numpy(model.forward(x, True, 9)), first)
    (dropout,) = [layer for layer in model.net.layers if isinstance(layer, Dropout)]
    assert (dropout.seed, dropout.step) == (9, 1)


@pytest.mark.parametrize("widths", [(), (3,)])
def test_an_mlp_needs_two_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        MLP(widths)


def test_a_network_is_copied_and_pickled_with_its_backend(backend: Backend) -> None:
    if backend.name == "strict":
        pytest.skip("array-api-strict's dtypes can't be pickled")
    model = MLP((6, 4, 3), seed=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.backend is model.backend
        other.net.get_params("fc1_w")[...] = 0.0
        assert backend.to_numpy(model.net.get_params("fc1_w")).any()


def test_a_network_on_a_backend_that_load_does_not_give() -> None:
    class Own(NumpyBackend):
        pass

    model = MLP((6, 3), seed=1, backend=Own())
    with pytest.raises(TypeError, match=r"backend 'numpy' is copied and pickled by its name, and"):
        copy.deepcopy(model)
    copied = copy.deepcopy(MLP((6, 3), seed=1, backend=NumpyBackend()))
    assert copied.backend is load("numpy")


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_what_is_no_seed(seed) -> None:
    with pytest.raises(ValueError, match=r"seed must be an integer of at least 0, .*; got"):
        MLP((6, 3), seed=seed)


def test_a_seed_of_many_bits() -> None:
    first = np.random.default_rng(2**100).standard_normal((6, 3))
    assert np.array_equal(MLP((6, 3), 1.0, seed=2**100, backend="numpy").net.params["fc1_w"], first)


def test_what_is_no_backend() -> None:
    with pytest.raises(TypeError, match=r"backend should be a name or a Backend; got ndarray"):
        Batches.of(np.ones((2, 6)), np.zeros(2, int), "numpy", "float64")


def test_a_pickle_has_no_part_of_a_batch(backend: Backend) -> None:
    if backend.name == "strict":
        pytest.skip("array-api-strict's dtypes can't be pickled")
    model = MLP((6, 4, 3), keep_prob=0.5, seed=1)
    before = len(pickle.dumps(model))
    model.forward(backend.asarray(np.ones((1000, 6))))
    assert len(pickle.dumps(model)) < before + 100
    with pytest.raises(ValueError, match="backward needs a forward"):
        pickle.loads(pickle.dumps(model)).backward(backend.asarray(np.ones((1000, 3))))


def test_a_network_of_ones_own_needs_its_net_alone(backend: Backend) -> None:
    class Net(Module):
        def __init__(self):
            self.net = Sequential(FullyConnected(4, 3, 0.5, seed=1))

    errors = check_gradients(Net(), backend.asarray(np.ones((2, 4))), backend.asarray([0, 2]))
    assert max(errors.values()) < 1e-6


def test_what_a_network_and_its_layers_say_of_themselves() -> None:
    model = MLP((6, 4, 3), seed=1, backend="numpy")
    assert repr(model.net.layers[1]) == "FullyConnected('fc1', fc1_w (6, 4), fc1_b (4,))"
    assert repr(LeakyReLU(0.2)) == "LeakyReLU('leaky_relu', negative_slope=0.2)"
    assert repr(Dropout(0.5, 1)) == "Dropout('dropout', keep_prob=0.5)"
    assert repr(SGDM(model, 0.1, 0.9)) == "SGDM(lr=0.1, momentum=0.9)"
    assert repr(model).startswith("MLP(Flatten('flatten'), FullyConnected('fc1', fc1_w (6, 4)")


def test_a_sequence_takes_layers() -> None:
    with pytest.raises(TypeError, match=r"as in Sequential\(a, b\); got list"):
        Sequential([FullyConnected(2, 2)])


def test_a_dtype_of_numpys_will_do() -> None:
    layer = FullyConnected(2, 2, dtype=np.float32, backend="numpy")
    assert layer.params["fc_w"].dtype == np.float32


def test_one_seed_decides_weights_and_masks(backend: Backend) -> None:
    x = backend.asarray(np.ones((4, 12)))
    one, two, other = (
        backend.to_numpy(MLP((12, 30, 4), keep_prob=0.5, **seeds).forward(x))
        for seeds in ({"seed": 1}, {"seed": 1}, {"seed": 1, "dropout_seed": 2})
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_network_made_of_some_layers_leaves_the_whole_ones_masks(backend: Backend) -> None:
    x = backend.asarray(np.ones((4, 12)))
    model = MLP((12, 30, 4), keep_prob=0.5, seed=1)
    before = backend.to_numpy(model.forward(x, seed=5))
    Module(Sequential(*model.net.layers[3:])).forward(backend.asarray(np.ones((4, 30))))
    assert np.array_equal(backend.to_numpy(model.forward(x, seed=5)), before)


def test_layers_put_in_later_have_masks_of_their_own(backend: Backend) -> None:
    model = Module(Sequential(Flatten()))
    model.net.layers += [Dropout(0.5, 1, "a"), Dropout(0.5, 1, "b")]
    model.forward(backend.asarray(np.ones((8, 8))))
    assert [layer.position for layer in model.net.layers[1:]] == [1, 2]


def test_a_parameter_dict_that_was_replaced_is_what_counts(backend: Backend) -> None:
    model = MLP((3, 2), seed=1)
    layer = model.net.layers[1]
    layer.params = {"fc1_w": layer.params["fc1_w"]}
    assert list(model.net.gather_params()) == ["fc1_w"]
    with pytest.raises(KeyError, match="no parameter 'fc1_b' in this network; it has: fc1_w"):
        model.net.get_params("fc1_b")


def test_what_is_loaded_leaves_one_array_of_two_layers_one(backend: Backend) -> None:
    net = Sequential(FullyConnected(2, 2, name="a"), FullyConnected(2, 2, name="b"))
    net.params["b_w"] = net.params["a_w"]
    w = backend.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))
    net.load({"a_w": w, "b_w": w}, report=lambda line: None)
    assert net.params["b_w"] is net.params["a_w"]
    assert backend.to_numpy(net.params["a_w"]).tolist() == [[1, 2], [3, 4]]


class Forgetful(Layer):
    """Returns nothing."""

    def forward(self, x):
        self.keep(x)

    def backward(self, dout):
        self.take_kept()


def test_layers_that_return_nothing(backend: Backend) -> None:
    model = Module(Sequential(Forgetful("f")))
    x = backend.asarray(np.ones((2, 3)))
    with pytest.raises(TypeError, match="layer f's forward should return an array; got NoneType"):
        model.forward(x)
    with pytest.raises(TypeError, match="layer f's backward should return an array; got NoneType"):
        model.backward(x)


@pytest.mark.parametrize("last", [LeakyReLU, FullyConnected, Dropout])
def test_a_gradient_of_another_shape_is_not_broadcast(backend: Backend, last: Any) -> None:
    layer = last(4, 4, name="l") if last is FullyConnected else last(0.5, name="l")
    model = Module(Sequential(FullyConnected(3, 4, name="a"), layer))
    for shape in ((1, 4), (4,), (2, 1)):
        model.forward(backend.asarray(np.ones((2, 3))))
        with pytest.raises(ValueError, match=r"layer l's backward takes .* of shape \(2, 4\); got"):
            model.backward(backend.asarray(np.ones(shape)))
    model.forward(backend.asarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match="backward takes an array; got float"):
        model.backward(1.0)
