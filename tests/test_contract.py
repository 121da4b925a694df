"""Every section of the notebook's check list, at its tolerance, on every backend.

The expected arrays are the notebook's own figures.
"""

from __future__ import annotations

import numpy as np
import pytest

from mlpkit import Batches, activations, fit
from mlpkit.notebook import (
    SGD,
    SGDM,
    Adam,
    DropoutNet,
    FullyConnectedNetwork,
    RMSProp,
    SmallFullyConnectedNetwork,
    TestFCReLU,
    TinyNet,
    cross_entropy,
    dropout,
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    fc,
    flatten,
    leaky_relu,
    rel_error,
    sequential,
)
from mlpkit_backends import Backend

# fmt: off
FC_FORWARD = np.array([
    [0.63910291, 0.83740057, 1.03569824, 1.23399591],
    [0.61401587, 0.82903823, 1.04406058, 1.25908294],
    [0.58892884, 0.82067589, 1.05242293, 1.28416997],
])
SMALL_NET_SCORES = np.array([
    [-2.33876804, -1.92168925, -1.50461046, -1.08753166, -0.67045287, -0.25337408, 0.16370472],
    [-1.57216705, -1.18571026, -0.79925348, -0.4127967, -0.02633991, 0.36011687, 0.74657365],
    [-0.80556605, -0.44973128, -0.09389651, 0.26193827, 0.61777304, 0.97360782, 1.32944259],
    [-0.03896506, 0.2862477, 0.61146047, 0.93667323, 1.261886, 1.58709876, 1.91231153],
])
SGDM_FIGURES = {
    "w": [
        [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
        [0.47454737, 0.54133684, 0.60812632, 0.67491579, 0.74170526],
        [0.80849474, 0.87528421, 0.94207368, 1.00886316, 1.07565263],
        [1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096],
    ],
    "velocity": [
        [0.5406, 0.55475789, 0.56891579, 0.58307368, 0.59723158],
        [0.61138947, 0.62554737, 0.63970526, 0.65386316, 0.66802105],
        [0.68217895, 0.69633684, 0.71049474, 0.72465263, 0.73881053],
        [0.75296842, 0.76712632, 0.78128421, 0.79544211, 0.8096],
    ],
}
RMSPROP_FIGURES = {
    "w": [
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
        [-0.132737, -0.08078555, -0.02881884, 0.02316247, 0.07515774],
        [0.12716641, 0.17918792, 0.23122175, 0.28326742, 0.33532447],
        [0.38739248, 0.43947102, 0.49155973, 0.54365823, 0.59576619],
    ],
    "cache": [
        [0.5976, 0.6126277, 0.6277108, 0.64284931, 0.65804321],
        [0.67329252, 0.68859723, 0.70395734, 0.71937285, 0.73484377],
        [0.75037008, 0.7659518, 0.78158892, 0.79728144, 0.81302936],
        [0.82883269, 0.84469141, 0.86060554, 0.87657507, 0.8926],
    ],
}
ADAM_FIGURES = {
    "w": [
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
        [-0.1380274, -0.08544591, -0.03286534, 0.01971428, 0.0722929],
        [0.1248705, 0.17744702, 0.23002243, 0.28259667, 0.33516969],
        [0.38774145, 0.44031188, 0.49288093, 0.54544852, 0.59801459],
    ],
    "mt": [
        [0.48, 0.49947368, 0.51894737, 0.53842105, 0.55789474],
        [0.57736842, 0.59684211, 0.61631579, 0.63578947, 0.65526316],
        [0.67473684, 0.69421053, 0.71368421, 0.73315789, 0.75263158],
        [0.77210526, 0.79157895, 0.81105263, 0.83052632, 0.85],
    ],
    "vt": [
        [0.69966, 0.68908382, 0.67851319, 0.66794809, 0.65738853],
        [0.64683452, 0.63628604, 0.6257431, 0.61520571, 0.60467385],
        [0.59414753, 0.58362676, 0.57311152, 0.56260183, 0.55209767],
        [0.54159906, 0.53110598, 0.52061845, 0.51013645, 0.49966],
    ],
}
ACTIVATIONS = {
    "Sigmoid": [
        0.00669285092428, 0.0200575365379, 0.0585369028744, 0.158869104881, 0.364576440742,
        0.635423559258, 0.841130895119, 0.941463097126, 0.979942463462, 0.993307149076,
    ],
    "LeakyReLU": [
        -0.5, -0.388888888889, -0.277777777778, -0.166666666667, -0.0555555555556,
        0.555555555556, 1.66666666667, 2.77777777778, 3.88888888889, 5.0,
    ],
    "ReLU": [
        -0.0, -0.0, -0.0, -0.0, -0.0,
        0.555555555556, 1.66666666667, 2.77777777778, 3.88888888889, 5.0,
    ],
    "ELU": [
        -0.4966310265, -0.489765962143, -0.468911737989, -0.405562198581, -0.213123289631,
        0.555555555556, 1.66666666667, 2.77777777778, 3.88888888889, 5.0,
    ],
    "SeLU": [
        -1.74618571868, -1.72204772347, -1.64872296837, -1.42598202974, -0.749354802287,
        0.583722222222, 1.75116666667, 2.91861111111, 4.08605555556, 5.2535,
    ],
    "Tanh": [
        -0.999909204263, -0.999162466631, -0.992297935288, -0.931109608668, -0.504672397722,
        0.504672397722, 0.931109608668, 0.992297935288, 0.999162466631, 0.999909204263,
    ],
}
# fmt: on


def linspace(backend: Backend, low: float, high: float, *shape: int):
    """Evenly spaced numbers of that shape, on the backend."""
    return backend.asarray(np.linspace(low, high, int(np.prod(shape))).reshape(shape))


def randn(backend: Backend, *shape: int):
    """Standard normals of that shape, on the backend."""
    return backend.asarray(np.random.default_rng(231).standard_normal(shape))


def test_fc_forward(backend: Backend) -> None:
    flat, layer = flatten(name="f"), fc(168, 4, init_scale=0.02, name="fc_test")
    assert (layer.w_name, layer.b_name) == ("fc_test_w", "fc_test_b")
    layer.params[layer.w_name] = linspace(backend, -0.2, 0.2, 168, 4)
    layer.params[layer.b_name] = linspace(backend, -0.3, 0.3, 4)
    out = layer.forward(flat.forward(linspace(backend, -0.1, 0.4, 3, 7, 6, 4)))
    assert rel_error(out, backend.asarray(FC_FORWARD)) <= 1e-8


def test_fc_backward(backend: Backend) -> None:
    x, dout = randn(backend, 15, 2, 2, 3), randn(backend, 15, 15)
    flat, layer = flatten(name="f"), fc(12, 15, init_scale=0.02, name="fc_test")
    w, b = layer.params["fc_test_w"], layer.params["fc_test_b"]

    def f(_):
        return layer.forward(flat.forward(x))

    numerical = [eval_numerical_gradient_array(f, a, dout) for a in (x, w, b)]
    f(x)
    dx = flat.backward(layer.backward(dout))
    assert dx.shape == x.shape
    for got, wanted in zip([dx, *layer.grads.values()], numerical, strict=True):
        assert rel_error(wanted, got) <= 1e-7


def test_leaky_relu_forward(backend: Backend) -> None:
    x = np.linspace(-1.5, 1.5, 12).reshape(3, 4)
    expected = np.maximum(x, 0) + 0.01 * np.minimum(x, 0)
    out = leaky_relu(name="relu_f").forward(backend.asarray(x))
    assert rel_error(out, backend.asarray(expected)) <= 1e-7


def test_leaky_relu_backward(backend: Backend) -> None:
    x, dout = randn(backend, 15, 15), randn(backend, 15, 15)
    layer = leaky_relu(name="relu_b")
    numerical = eval_numerical_gradient_array(layer.forward, x, dout)
    layer.forward(x)
    assert rel_error(numerical, layer.backward(dout)) <= 1e-10


@pytest.mark.parametrize("keep_prob", [0, 0.25, 0.5, 0.75, 1])
def test_dropout_forward(backend: Backend, keep_prob: float) -> None:
    x = np.random.default_rng(0).standard_normal((10, 10)) + 5
    layer = dropout(keep_prob, seed=123)
    trained = backend.to_numpy(layer.forward(backend.asarray(x), is_training=True))
    tested = backend.to_numpy(layer.forward(backend.asarray(x), is_training=False))
    assert np.array_equal(tested, x)
    if keep_prob in (0, 1):
        assert np.array_equal(trained, x)
    else:
        assert 0 < (trained == 0).mean() < 1
        # The mean of 100 such elements, five standard errors either way.
        spread = np.sqrt((1 / keep_prob - 1) * (x**2).sum()) / 100
        assert abs(trained.mean() - x.mean()) < 5 * spread


def test_dropout_backward(backend: Backend) -> None:
    x, dout = randn(backend, 5, 5), randn(backend, 5, 5)
    layer = dropout(0.75, seed=100)
    layer.forward(x, True, seed=1)
    dx = layer.backward(dout)
    numerical = eval_numerical_gradient_array(lambda a: layer.forward(a, True, seed=1), x, dout)
    assert rel_error(numerical, dx) <= 1e-10


def test_fc_and_leaky_relu(backend: Backend) -> None:
    x, w, b, dout = (randn(backend, *s) for s in ((3, 5, 3), (15, 5), (5,), (3, 5)))
    tiny = TestFCReLU()
    tiny.net.assign("tiny_fc_w", w)
    tiny.net.assign("tiny_fc_b", b)
    tiny.forward(x)
    dx = tiny.backward(dout)
    gradients = [dx, tiny.net.get_grads("tiny_fc_w"), tiny.net.get_grads("tiny_fc_b")]
    for got, a in zip(gradients, (x, w, b), strict=True):
        numerical = eval_numerical_gradient_array(lambda _: tiny.forward(x), a, dout)
        assert rel_error(numerical, got) <= 1e-7


def test_softmax_and_cross_entropy(backend: Backend) -> None:
    rng = np.random.default_rng(5)
    x = backend.asarray(0.001 * rng.standard_normal((100, 6)))
    y = backend.asarray(rng.integers(0, 6, 100))
    loss_func = cross_entropy()
    loss = loss_func.forward(x, y)
    dx = loss_func.backward()
    numerical = eval_numerical_gradient(lambda a: loss_func.forward(a, y), x, verbose=False)
    assert loss == pytest.approx(np.log(6), abs=1e-3)  # 1.792
    assert rel_error(numerical, dx) <= 1e-7


def test_small_network(backend: Backend) -> None:
    # The deviation of fc_1's 120 normals is within 10 % for seven seeds of eight.
    np.random.seed(0)
    model, loss_func = SmallFullyConnectedNetwork(), cross_entropy()
    for name in ("fc_1", "fc_2"):
        std = backend.to_numpy(model.net.get_params(f"{name}_w")).std()
        assert abs(std - 0.02) < 0.02 / 10
        assert not backend.to_numpy(model.net.get_params(f"{name}_b")).any()
    model.net.assign("fc_1_w", linspace(backend, -0.7, 0.3, 4, 30))
    model.net.assign("fc_1_b", linspace(backend, -0.6, 0.2, 30))
    model.net.assign("fc_2_w", linspace(backend, -0.2, 0.2, 30, 7))
    model.net.assign("fc_2_b", linspace(backend, -0.9, 0.1, 7))
    x = backend.asarray(np.linspace(-5.5, 4.5, 16).reshape(4, 4).T)
    y = backend.asarray([0, 5, 1, 4])
    scores = model.forward(x)
    assert np.abs(backend.to_numpy(scores) - SMALL_NET_SCORES).sum() < 1e-6
    assert loss_func.forward(scores, y) == pytest.approx(2.4250083210516835, abs=1e-10)
    model.backward(loss_func.backward())
    for layer in model.net.layers:
        for name, gradient in layer.grads.items():
            numerical = eval_numerical_gradient(
                lambda _: loss_func.forward(model.forward(x), y), layer.params[name], verbose=False
            )
            assert rel_error(numerical, gradient) <= 1e-6


@pytest.mark.parametrize("keep_prob", [0, 0.25, 0.5])
def test_dropout_network(backend: Backend, keep_prob: float) -> None:
    np.random.seed(123)
    model, loss_func = DropoutNet(keep_prob=keep_prob, seed=1234), cross_entropy()
    x, y = randn(backend, 3, 5, 3), backend.asarray([1, 7, 4])
    loss_func.forward(model.forward(x, True, seed=1234), y)
    model.backward(loss_func.backward())
    for layer in model.net.layers:
        for name, gradient in layer.grads.items():
            numerical = eval_numerical_gradient(
                lambda _: loss_func.forward(model.forward(x, True, seed=1234), y),
                layer.params[name],
                verbose=False,
            )
            assert rel_error(numerical, gradient) < 4e-3  # the notebook's own worst


def check_optimizer(backend: Backend, make, figures: dict, state: dict, tolerance: float) -> None:
    """One step from the notebook's arrays; a replaced dict has no bias."""
    net = sequential(fc(4, 5, name="test_fc"))
    net.layers[0].params = {"test_fc_w": linspace(backend, -0.4, 0.6, 4, 5)}
    net.layers[0].grads = {"test_fc_w": linspace(backend, -0.6, 0.4, 4, 5)}
    optimizer = make(net)
    for name, (low, high) in state.items():
        setattr(optimizer, name, {"test_fc_w": linspace(backend, low, high, 4, 5)})
    optimizer.step()
    after = {"w": net.layers[0].params} | {name: getattr(optimizer, name) for name in state}
    for name, wanted in figures.items():
        assert rel_error(after[name]["test_fc_w"], backend.asarray(wanted)) <= tolerance


def test_sgdm(backend: Backend) -> None:
    state = {"velocity": (0.6, 0.9)}
    check_optimizer(backend, lambda net: SGDM(net, 1e-3, 0.9), SGDM_FIGURES, state, 1e-7)


def test_rmsprop(backend: Backend) -> None:
    state = {"cache": (0.6, 0.9)}
    check_optimizer(backend, lambda net: RMSProp(net, 1e-2, 0.99), RMSPROP_FIGURES, state, 1e-7)


def test_adam(backend: Backend) -> None:
    state = {"mt": (0.6, 0.9), "vt": (0.7, 0.5)}
    check_optimizer(backend, lambda net: Adam(net, 1e-2, t=5), ADAM_FIGURES, state, 2e-7)


@pytest.mark.parametrize(
    ("name", "function", "settings"),
    [
        ("Sigmoid", activations.sigmoid, ()),
        ("LeakyReLU", activations.leaky_relu, (0.1,)),
        ("ReLU", activations.relu, ()),
        ("ELU", activations.elu, (0.5,)),
        ("SeLU", activations.selu, (1.6732, 1.0507)),
        ("Tanh", activations.tanh, ()),
    ],
)
def test_activations(backend: Backend, name: str, function, settings: tuple[float, ...]) -> None:
    got = function(linspace(backend, -5, 5, 10), *settings)
    assert rel_error(got, backend.asarray(ACTIVATIONS[name])) < 1e-9


# Ten pictures under heavy noise: what the recipes' networks learn within seconds.
RNG = np.random.default_rng(0)
DIGITS = np.arange(800) % 10
PICTURES = (
    (RNG.integers(0, 256, (10, 32, 32, 3))[DIGITS] + RNG.normal(0, 150, (800, 32, 32, 3)))
    .clip(0, 255)
    .astype(np.uint8)
)
RECIPES = {
    "sgd": lambda net: SGD(net, 1e-2),
    "sgdm": lambda net: SGDM(net, 1e-2, 0.9),
    "rmsprop": lambda net: RMSProp(net, 5e-4),
    "adam": lambda net: Adam(net, 5e-4),
}


def train(network, optimizer: str, batch_size: int, epochs: int, backend: Backend):
    """Train a recipe's network on the pictures' first 640; the history."""
    model = network(seed=1, dtype="float32")
    mean = PICTURES[:640].mean(axis=0) / 255
    splits = [
        Batches.of(backend, PICTURES[part], DIGITS[part], "float32", mean)
        for part in (slice(640), slice(640, None))
    ]
    settings = {"batch_size": batch_size, "epochs": epochs, "seed": 0}
    return fit(model, cross_entropy(), RECIPES[optimizer](model), *splits, **settings)


def test_training_to_75_percent(backend: Backend) -> None:
    history = train(TinyNet, "sgd", 64, 3, backend)
    assert history.epochs[-1].val_acc >= 0.75


def test_sgdm_rmsprop_and_adam_beat_sgd(backend: Backend) -> None:
    if backend.name == "strict":
        pytest.skip("NumPy's arithmetic once more, in a minute: shorter trainings run on it")
    last = {
        optimizer: train(FullyConnectedNetwork, optimizer, 32, 12, backend).epochs[-1]
        for optimizer in RECIPES
    }
    for optimizer in ("sgdm", "rmsprop", "adam"):
        assert last[optimizer].train_loss < last["sgd"].train_loss, optimizer
        assert last[optimizer].val_acc > last["sgd"].val_acc, optimizer
