"""The assignment solved in plain NumPy, as a student would: what the grader's tests hand in."""

import numpy as np


class sequential:
    def __init__(self, *layers):
        self.layers = list(layers)

    def owner(self, name):
        return next(layer for layer in self.layers if name in layer.params)

    def assign(self, name, value):
        self.owner(name).params[name] = value

    def assign_grads(self, name, value):
        self.owner(name).grads[name] = value

    def get_params(self, name):
        return self.owner(name).params[name]

    def get_grads(self, name):
        return self.owner(name).grads[name]


class flatten:
    def __init__(self, name="flatten"):
        self.name, self.params, self.grads = name, {}, {}

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


class fc:
    def __init__(self, input_dim, output_dim, init_scale=0.002, name="fc"):
        self.w_name, self.b_name = name + "_w", name + "_b"
        w = init_scale * np.random.randn(input_dim, output_dim)
        self.params = {self.w_name: w, self.b_name: np.zeros(output_dim)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return x @ self.params[self.w_name] + self.params[self.b_name]

    def backward(self, dout):
        self.grads[self.w_name] = self.x.T @ dout
        self.grads[self.b_name] = dout.sum(axis=0)
        return dout @ self.params[self.w_name].T


class leaky_relu:
    def __init__(self, negative_slope=0.01, name="leaky_relu"):
        self.slope, self.params, self.grads = negative_slope, {}, {}

    def forward(self, x):
        self.x = x
        return np.where(x >= 0, x, self.slope * x)

    def backward(self, dout):
        return np.where(self.x >= 0, dout, self.slope * dout)


class dropout:
    def __init__(self, keep_prob, seed=None, name="dropout"):
        self.keep_prob, self.params, self.grads = keep_prob, {}, {}
        self.rng = np.random.default_rng(seed)

    def forward(self, x, is_training=True, seed=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.mask = 1.0
        if is_training and 0 < self.keep_prob < 1:
            self.mask = (self.rng.random(x.shape) < self.keep_prob) / self.keep_prob
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


def softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


class cross_entropy:
    def __init__(self, size_average=True):
        self.size_average = size_average

    def forward(self, scores, labels):
        self.p, self.labels = softmax(scores), labels
        self.n = len(scores) if self.size_average else 1
        return -np.log(self.p[np.arange(len(labels)), labels] + 1e-300).sum() / self.n

    def backward(self):
        d = self.p.copy()
        d[np.arange(len(self.labels)), self.labels] -= 1
        return d / self.n


class Module:
    def forward(self, x, is_training=True, seed=None):
        for layer in self.net.layers:
            x = (
                layer.forward(x, is_training, seed)
                if isinstance(layer, dropout)
                else layer.forward(x)
            )
        return x

    def backward(self, dout):
        for layer in reversed(self.net.layers):
            dout = layer.backward(dout)
        return dout


class TestFCReLU(Module):
    __test__ = False

    def __init__(self):
        self.net = sequential(flatten(), fc(15, 5, name="tiny"), leaky_relu())


class SmallFullyConnectedNetwork(Module):
    def __init__(self):
        self.net = sequential(fc(4, 30, 0.02, "one"), leaky_relu(), fc(30, 7, 0.02, "two"))


class DropoutNet(Module):
    def __init__(self, keep_prob=0, seed=None):
        layers = [flatten()]
        for i, (a, b) in enumerate([(15, 20), (20, 30), (30, 10)]):
            layers += [fc(a, b, 0.05, f"layer{i}"), leaky_relu()]
        self.net = sequential(*layers, dropout(keep_prob, seed))


class TinyNet(Module):
    def __init__(self):
        self.net = sequential(
            flatten(), fc(3072, 3072, name="a"), leaky_relu(), fc(3072, 10, name="b")
        )


class FullyConnectedNetwork(Module):
    def __init__(self):
        widths, layers = [3072, 100, 100, 100, 100, 100, 10], [flatten()]
        for i in range(6):
            layers += [fc(widths[i], widths[i + 1], 0.05, f"layer{i}"), leaky_relu()]
        self.net = sequential(*layers[:-1])


class SGD:
    def __init__(self, net, lr=1e-4):
        self.net, self.lr = net, lr

    def step(self):
        for layer in self.net.layers:
            for name, w in layer.params.items():
                self.update(name, w, layer.grads[name])

    def update(self, name, w, dw):
        w -= self.lr * dw


class SGDM(SGD):
    def __init__(self, net, lr=1e-4, momentum=0.0):
        super().__init__(net, lr)
        self.momentum, self.velocity = momentum, {}

    def update(self, name, w, dw):
        v = self.momentum * self.velocity.get(name, 0 * w) - self.lr * dw
        self.velocity[name] = v
        w += v


class RMSProp(SGD):
    def __init__(self, net, lr=1e-2, decay=0.99, eps=1e-8):
        super().__init__(net, lr)
        self.decay, self.eps, self.cache = decay, eps, {}

    def update(self, name, w, dw):
        c = self.decay * self.cache.get(name, 0 * w) + (1 - self.decay) * dw**2
        self.cache[name] = c
        w -= self.lr * dw / np.sqrt(c + self.eps)


class Adam(SGD):
    def __init__(self, net, lr=1e-3, beta1=0.9, beta2=0.999, t=0, eps=1e-8):
        super().__init__(net, lr)
        self.beta1, self.beta2, self.t, self.eps = beta1, beta2, t, eps
        self.mt, self.vt = {}, {}

    def step(self):
        self.t += 1
        super().step()

    def update(self, name, w, dw):
        m = self.beta1 * self.mt.get(name, 0 * w) + (1 - self.beta1) * dw
        v = self.beta2 * self.vt.get(name, 0 * w) + (1 - self.beta2) * dw**2
        self.mt[name], self.vt[name] = m, v
        m_hat, v_hat = m / (1 - self.beta1**self.t), v / (1 - self.beta2**self.t)
        w -= self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


def train_net(
    data_dict,
    model,
    loss_func,
    optimizer,
    batch_size,
    max_epochs,
    lr_decay=1.0,
    lr_decay_every=1000,
    show_every=10,
    verbose=False,
):
    images, labels = data_dict["data_train"]
    losses, train_accs, val_accs, best = [], [], [], {}
    for epoch in range(max_epochs):
        if epoch > 0 and epoch % lr_decay_every == 0:
            optimizer.lr *= lr_decay
        order = np.random.permutation(len(images))
        for i in range(len(images) // batch_size):
            part = order[i * batch_size : (i + 1) * batch_size]
            losses.append(loss_func.forward(model.forward(images[part]), labels[part]))
            model.backward(loss_func.backward())
            optimizer.step()
        train_accs.append(compute_acc(model, images, labels))
        val_accs.append(compute_acc(model, *data_dict["data_val"]))
        if val_accs[-1] == max(val_accs) and val_accs.count(val_accs[-1]) == 1:
            best = {n: p.copy() for layer in model.net.layers for n, p in layer.params.items()}
    return best, losses, train_accs, val_accs


def compute_acc(model, data, labels, num_samples=None, batch_size=100):
    return np.mean(model.forward(data, False).argmax(axis=1) == labels)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * (np.exp(x) - 1))


def selu(x, alpha=1.6732, scale=1.0507):
    return scale * elu(x, alpha)


def tanh(x):
    return np.tanh(x)
