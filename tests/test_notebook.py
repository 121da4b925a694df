"""The notebook's way of writing: its cells on `from mlpkit.notebook import *`, `np` included."""

from __future__ import annotations

import importlib
import math

import pytest

import mlpkit.notebook
from mlpkit_backends import Backend, load

NAMES = """
np flatten fc leaky_relu dropout softmax cross_entropy sequential TestFCReLU DropoutNet TinyNet
SmallFullyConnectedNetwork FullyConnectedNetwork SGD SGDM RMSProp Adam train_net compute_acc
SVHN_data rel_error eval_numerical_gradient eval_numerical_gradient_array
"""


CELLS = """
from mlpkit.notebook import *

# layers, perturbed in place
np.random.seed(231)
x = np.random.randn(15, 2, 2, 3)
w = np.random.randn(12, 15)
b = np.random.randn(15)
dout = np.random.randn(15, 15)
single_fc = fc(12, 15, init_scale=5e-2, name="fc_test")
single_fc.params[single_fc.w_name] = w
single_fc.params[single_fc.b_name] = b
f = flatten(name="flatten_test")
dx_num = eval_numerical_gradient_array(lambda x: single_fc.forward(f.forward(x)), x, dout)
dw_num = eval_numerical_gradient_array(lambda w: single_fc.forward(f.forward(x)), w, dout)
out = single_fc.forward(f.forward(x))
dx = f.backward(single_fc.backward(dout))
dw = single_fc.grads[single_fc.w_name]
assert dx.shape == x.shape
assert rel_error(dx_num, dx) < 1e-7 and rel_error(dw_num, dw) < 1e-7

# dropout in training and at test
x = np.random.randn(10, 10) + 5.0
for keep_prob in [0, 0.25, 0.5, 0.75, 1]:
    layer = dropout(keep_prob)
    out, out_test = layer.forward(x, True), layer.forward(x, False)
    assert float((out_test == 0).mean()) == 0

# a network's own parameters by name
model = SmallFullyConnectedNetwork()
loss_func = cross_entropy()
assert abs(float(model.net.get_params("fc_1_w").std()) - 0.02) < 0.01
model.net.assign("fc_1_w", np.linspace(-0.7, 0.3, num=120).reshape(4, 30))
model.net.assign("fc_1_b", np.linspace(-0.6, 0.2, num=30))
model.net.assign("fc_2_w", np.linspace(-0.2, 0.2, num=210).reshape(30, 7))
model.net.assign("fc_2_b", np.linspace(-0.9, 0.1, num=7))
x, y = np.linspace(-5.5, 4.5, num=16).reshape(4, 4).T, np.array([0, 5, 1, 4])
loss = loss_func.forward(model.forward(x), y)
model.backward(loss_func.backward())
for layer in model.net.layers:
    if not layer.params:
        continue
    for name in sorted(layer.grads):
        grad_num = eval_numerical_gradient(
            lambda _: loss_func.forward(model.forward(x), y), layer.params[name], verbose=False
        )
        assert rel_error(grad_num, layer.grads[name]) < 1e-6

# dicts replaced as a whole
test_adam = sequential(fc(4, 5, name="adam_fc"))
test_adam.layers[0].params = {"adam_fc_w": np.linspace(-0.4, 0.6, num=20).reshape(4, 5)}
test_adam.layers[0].grads = {"adam_fc_w": np.linspace(-0.6, 0.4, num=20).reshape(4, 5)}
opt_adam = Adam(test_adam, 1e-2, 0.9, 0.999, t=5)
opt_adam.mt = {"adam_fc_w": np.linspace(0.6, 0.9, num=20).reshape(4, 5)}
opt_adam.vt = {"adam_fc_w": np.linspace(0.7, 0.5, num=20).reshape(4, 5)}
opt_adam.step()
assert opt_adam.t == 6

# training, saving and loading
images, labels = np.random.randn(64, 32, 32, 3), np.random.randint(10, size=64)
data_dict = {
    "data_train": (images[:48], labels[:48]),
    "data_val": (images[48:], labels[48:]),
    "data_test": (images[48:], labels[48:]),
}
model = FullyConnectedNetwork()
optimizer = SGDM(model.net, 1e-2, 0.9)
opt_params, loss_hist, train_acc_hist, val_acc_hist = train_net(
    data_dict, model, loss_func, optimizer, batch_size=16, max_epochs=2, show_every=2, verbose=True
)
assert len(loss_hist) == 6 and len(val_acc_hist) == 2
model.net.load(opt_params)
acc = compute_acc(model, images[48:], labels[48:])
assert acc == max(val_acc_hist)
assert softmax(np.array([[1e4, 1e4]])).tolist() == [[0.5, 0.5]]
"""


def test_the_names_are_the_notebooks() -> None:
    assert set(NAMES.split()) <= set(mlpkit.notebook.__all__)
    assert all(hasattr(mlpkit.notebook, name) for name in mlpkit.notebook.__all__)


def test_cells_run_unchanged(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    if backend.name == "strict":
        pytest.skip("the cells use functions of NumPy's and CuPy's that the standard lacks")
    importlib.reload(mlpkit.notebook)
    try:
        scope: dict[str, object] = {}
        exec(CELLS, scope)
        assert scope["np"] is load().xp
    finally:
        importlib.reload(mlpkit.notebook)
    lines = capsys.readouterr().out.splitlines()
    what, first = lines[0].split(": ")
    assert what == "(Iteration 1 / 6) loss"
    assert abs(float(first) - math.log(10)) < 0.05  # small weights give ten classes alike
    assert "Loading Params: fc1_w Shape: (3072, 100)" in lines
