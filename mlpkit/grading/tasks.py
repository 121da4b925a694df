"""What a submission is asked to do: TASKS, functions of its names, arrays and settings.

A child process runs this file, handling.py and watching.py by themselves, so they import NumPy
alone. They know inputs, never what should come out. Each task takes `names` (the assignment's
names, the submission's own objects), arrays and settings, and returns NumPy arrays by name, float64
or int64. Where the names hold `asarray` and `to_numpy`, these move the arrays to the submission's
device and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from .handling import (
    NOT_PLAIN,
    WrongResultError,
    entry,
    four_of,
    given,
    gradients,
    keys,
    parameters,
    put,
    taken,
)
from .submissions import MissingNameError
from .watching import override, watch

Names = Mapping[str, Any]
Arrays = Mapping[str, Any]
Settings = Mapping[str, Any]
Task = Callable[[Names, Arrays, Settings], Arrays]
TASKS: dict[str, Task] = {}
SENT = 10_000  # numbers of a large network's initial parameter
IN_EACH_FILE = ("fc", "TinyNet", "SGD", "train_net", "activations")


def task(function: Task) -> Task:
    """Enter a function in TASKS, to be run from a fixed state of NumPy's global generator."""

    @wraps(function)
    def seeded(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
        np.random.seed(0)
        with np.errstate(all="ignore"):  # what overflows shows in the answer
            return function(names, arrays, settings)

    TASKS[function.__name__] = seeded
    return seeded


@task
def imports(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """Import every file; nothing comes. Raises where there is none that can be imported: what is
    wrong with one is said by the tasks that need it."""
    wrong: list[Exception] = []
    for name in IN_EACH_FILE:
        try:
            names[name]
        except Exception as error:
            if type(error).__name__ != "MissingNameError":
                wrong.append(error)
    if len(wrong) == len(IN_EACH_FILE):
        raise wrong[0]
    return {}


@task
def flatten(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x -> out, then its first example alone -> one, through the same layer; and where settings
    hold backward, back and one_back, what that makes of them again."""
    layer = names["flatten"](name="f")
    answer = {}
    for name, back, count in (("out", "back", len(arrays["x"])), ("one", "one_back", 1)):
        out = layer.forward(given(names, arrays["x"][:count]))
        answer[name] = taken(names, out)
        if settings.get("backward"):
            answer[back] = taken(names, layer.backward(out))
    return answer


def new_fc(names: Names, arrays: Arrays) -> Any:
    """A fully connected layer of w's shape that holds w and b."""
    layer = names["fc"](*arrays["w"].shape, init_scale=0.02, name="fc_test")
    if len(keys(layer)) != 2:
        raise WrongResultError(f"fc's .params should hold w and b alone; it holds {keys(layer)}")
    for key, name in zip(keys(layer), "wb", strict=True):
        layer.params[key] = given(names, arrays[name])
        if not np.array_equal(taken(names, layer.params[key]), arrays[name]):
            raise WrongResultError(f"fc's .params {NOT_PLAIN}")
    return layer


@task
def fc_forward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x, w, b -> out."""
    return {"out": taken(names, new_fc(names, arrays).forward(given(names, arrays["x"])))}


@task
def fc_backward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x, w, b, dout -> dx, dw, db, of the second of two passes that are alike."""
    layer = new_fc(names, arrays)
    for _ in range(2):
        layer.forward(given(names, arrays["x"]))
        dx = taken(names, layer.backward(given(names, arrays["dout"])))
        answer = {"dx": dx, **gradients(names, [layer], ["dw", "db"])}
    return answer


@task
def leaky_relu_forward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x -> out, with the default slope, and sloped, with the settings' slope."""
    layers = both_slopes(names, settings)
    return {name: taken(names, layers[name].forward(given(names, arrays["x"]))) for name in layers}


def both_slopes(names: Names, settings: Settings) -> dict[str, Any]:
    """leaky_relu layers by the name of what they answer."""
    new = names["leaky_relu"]
    return {"out": new(name="relu_test"), "sloped": new(settings["slope"], name="relu_test")}


@task
def leaky_relu_backward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x, dout -> out and sloped, the gradients of x with the slopes of `leaky_relu_forward`."""
    answer = {}
    for name, layer in both_slopes(names, settings).items():
        layer.forward(given(names, arrays["x"]))
        answer[name] = taken(names, layer.backward(given(names, arrays["dout"])))
    return answer


@task
def dropout_forward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x -> out and next of two forwards in training, test at test; then in training again, zero and
    again of two forwards that are given the seed 0, and one of one that is given 1."""
    layer = names["dropout"](settings["keep_prob"], seed=settings["seed"], name="dropout_test")
    passes = {"out": (True,), "next": (True,), "test": (False,), "zero": (True, 0)}
    passes |= {"again": passes["zero"], "one": (True, 1)}
    x = arrays["x"]
    return {
        name: taken(names, layer.forward(given(names, x), *how)) for name, how in passes.items()
    }


@task
def dropout_backward(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x, dout -> out in training, and dx."""
    layer = names["dropout"](settings["keep_prob"], seed=100, name="dropout_test")
    out = taken(names, layer.forward(given(names, arrays["x"]), True, settings["seed"]))
    return {"out": out, "dx": taken(names, layer.backward(given(names, arrays["dout"])))}


@task
def softmax(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x -> out, and cube -> cube where it came."""
    answers = {"x": "out", "cube": "cube"}
    return {answers[k]: taken(names, names["softmax"](given(names, a))) for k, a in arrays.items()}


@task
def cross_entropy(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """scores, labels -> loss, and dx where settings hold backward; summed where they say so."""
    kind = names["cross_entropy"]
    loss_func = kind(size_average=False) if settings.get("summed") else kind()
    scores, labels = given(names, arrays["scores"]), given(names, arrays["labels"])
    answer = {"loss": taken(names, loss_func.forward(scores, labels))}
    if settings.get("backward"):
        answer["dx"] = taken(names, loss_func.backward())
    return answer


@task
def initial_parameters(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """The parameters p0, p1, ... of `count` networks of that name, stacked; where settings hold fc,
    default, the weights of a layer of that many inputs and outputs."""
    stacks: dict[str, list[Any]] = {}
    for _ in range(settings["count"]):
        model = names[settings["network"]]()
        for i, (layer, key) in enumerate(parameters(model.net)):
            stacks.setdefault(f"p{i}", []).append(taken(names, layer.params[key]))
    answer = {name: np.stack(stack) for name, stack in stacks.items()}
    if "fc" in settings:
        layer = names["fc"](settings["fc"], settings["fc"], name="fc_default")
        answer["default"] = taken(names, layer.params[keys(layer)[0]])
    return answer


@task
def network(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x and parameters p0, p1, ... through a network.

    Gives scores; the same of a second forward, and of one after the first parameter grew in place
    by 0.5; loss where labels came; dx and gradients g0, g1, ... where dout came; and unassigned,
    how many of the layers' parameters were other than those assigned. settings: network, its class;
    seed where it drops out, and keep_prob where it isn't the default; then also test, the scores at
    test, and resumed, those of a forward in training after it.
    """
    seed = settings.get("seed")
    built = {key: settings[key] for key in ("keep_prob", "seed") if "keep_prob" in settings}
    model = names[settings["network"]](**built)
    x, mine = given(names, arrays["x"]), []
    for i, (_, key) in enumerate(parameters(model.net)):
        mine.append(given(names, arrays[f"p{i}"]))
        model.net.assign(key, mine[-1])
    held = [taken(names, layer.params[key]) for layer, key in parameters(model.net)]
    reached = [np.array_equal(a, taken(names, b)) for a, b in zip(held, mine, strict=True)]

    def forward() -> Any:
        return model.forward(x, True, seed) if seed is not None else model.forward(x)

    scores = forward()
    answer = {"scores": taken(names, scores), "unassigned": np.array(reached.count(False))}
    if "dout" in arrays:
        answer["dx"] = taken(names, model.backward(given(names, arrays["dout"])))
        labels = [f"g{i}" for i in range(len(mine))]
        answer |= gradients(names, model.net.layers, labels)
    if "labels" in arrays:
        loss = names["cross_entropy"]().forward(scores, given(names, arrays["labels"]))
        answer["loss"] = taken(names, loss)
    answer["again"] = taken(names, forward())
    if seed is not None:
        answer["test"] = taken(names, model.forward(x, False))
        answer["resumed"] = taken(names, forward())
    mine[0] += 0.5
    answer["moved"] = taken(names, forward())
    return answer


@task
def drawn_network(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x through a network whose parameters are drawn here, as they would be large to send: scores,
    and the parameters' shapes p0, p1, ... and first numbers s0, s1, ... as they were before."""
    model, answer = names[settings["network"]](), {}
    for i, (layer, key) in enumerate(parameters(model.net)):
        shape = tuple(layer.params[key].shape)
        answer[f"s{i}"] = taken(names, layer.params[key].ravel()[:SENT])
        model.net.assign(key, given(names, drawn(i, shape)))
        answer[f"p{i}"] = np.array(shape, np.int64)
    return {**answer, "scores": taken(names, model.forward(given(names, arrays["x"])))}


def drawn(i: int, shape: tuple[int, ...]) -> Any:
    """Parameter i of `drawn_network`: normals that keep the size of what passes through."""
    return np.random.default_rng(i).standard_normal(shape) / np.sqrt(shape[0])


@task
def optimizer(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """w, dw and state by attribute -> w, the state and, where the optimizer counts, t; b, the bias,
    for which the first row of each array stands; held, the array that w was before the step; and
    second, the w of a second layer with the same arrays. Where dw_after came, `optimizer_defaults`
    too.

    settings: optimizer, its class; the rest are its arguments. lr is built_with at first, and lr
    when it steps.
    """
    answer: dict[str, Any] = {}
    if "dw_after" in arrays:
        only = {"optimizer": settings["optimizer"]}
        answer |= TASKS["optimizer_defaults"](names, arrays, only)
    settings = dict(settings)
    kind, built_with = names[settings.pop("optimizer")], settings.pop("built_with")
    layers = [layer_to_step(names, arrays, name) for name in ("test_fc1", "test_fc2")]
    net = names["sequential"](*layers)
    chosen = kind(net, **{**settings, "lr": built_with})
    chosen.lr = settings["lr"]
    state = [name for name in arrays if name not in ("w", "dw", "dw_after")]
    for name in state:
        of_each = [by_parameter(names, layer, arrays[name]) for layer in layers]
        setattr(chosen, name, of_each[0] | of_each[1])
    key, bias = keys(layers[0])
    held = layers[0].params[key]
    chosen.step()
    first, second = net.layers
    answer |= {name: taken(names, entry(chosen, name, key)) for name in state}
    answer["w"] = taken(names, first.params[key])
    answer["b"] = taken(names, first.params[bias])
    answer["second"] = taken(names, second.params[keys(second)[0]])
    answer["held"] = taken(names, held)
    if hasattr(chosen, "t"):
        answer["t"] = taken(names, chosen.t)
    return answer


@task
def optimizer_defaults(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """w, dw, dw_after -> default, w after a step with each gradient, of an optimizer that is given
    the network alone; and anew, that of a second one on another network, which is given the
    settings, too."""
    settings, answer = dict(settings), {}
    kind = names[settings.pop("optimizer")]
    for name, more in (("default", {}), ("anew", settings)):
        layer = layer_to_step(names, arrays, "test_fc")
        net = names["sequential"](layer)
        chosen = kind(net, **more)
        for gradient in ("dw", "dw_after"):
            layer.grads.update(by_parameter(names, layer, arrays[gradient]))
            chosen.step()
        answer[name] = taken(names, net.layers[0].params[keys(layer)[0]])
    return answer


def layer_to_step(names: Names, arrays: Arrays, name: str) -> Any:
    """A fully connected layer that holds w and dw."""
    layer = names["fc"](*arrays["w"].shape, name=name)
    params, grads = (by_parameter(names, layer, arrays[array]) for array in ("w", "dw"))
    put(layer, "params", params)
    put(layer, "grads", grads)
    return layer


def by_parameter(names: Names, layer: Any, a: Any) -> dict[str, Any]:
    """An array for each of a layer's parameters: whole for the weights, its first row for the
    bias."""
    key, bias = keys(layer)
    return {key: given(names, a), bias: given(names, a[0])}


@task
def compute_acc(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """scores, labels -> acc, of a network that gives the scores as they are, and in another order
    while it is trained; its .net gives them as they are."""
    model = names["SmallFullyConnectedNetwork"]()

    def forward(x: Any, is_training: bool = True, seed: Any = None) -> Any:
        return x[:, ::-1] if is_training else x

    override(model, "forward", forward)
    override(model.net, "forward", lambda x, *given, **named: x)
    scores, labels = given(names, arrays["scores"]), given(names, arrays["labels"])
    return {"acc": taken(names, names["compute_acc"](model, scores, labels))}


@task
def activation(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """x (m, n) -> out by one of the activation functions, with its settings a and b after x where
    they came; flat and deep, the same of (m n,) and (m, n, 1); other, with other_a and other_b; and
    default, without any."""
    known, name = names["activations"], settings["function"]
    if name not in known:
        raise MissingNameError(
            f"there is no activation function {name}; found: {', '.join(sorted(known)) or 'none'}"
        )
    function, x = known[name], arrays["x"]

    def values(x: Any, *keys: str) -> Any:
        more, a = [settings[key] for key in keys if key in settings], given(names, x)
        by_class = isinstance(function, type)
        return taken(names, function(*more).forward(a) if by_class else function(a, *more))

    shapes = {"out": x, "flat": x.ravel(), "deep": x[..., None]}
    answer = {name: values(a, "a", "b") for name, a in shapes.items()}
    if "other_a" in settings:
        answer["other"] = values(x, "other_a", "other_b")
    if "a" in settings:
        answer["default"] = values(x)
    return answer


@task
def train(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """Train a network on pictures (uint8) and score pictures whose labels stay with the grader.

    Gives losses, train_acc and val_acc, as train_net does; test_scores of the test pictures; and
    lr, the optimizer's at the end. Where settings hold best: held, whether the parameters returned
    as the best have each of the network's; if so, best_scores, of the validation pictures with
    them, and moved, how many of them changed when the network's own did. Where settings hold
    watched, the steps of an epoch: what `watch` saw. settings: network, optimizer, its lr (and
    momentum), batch_size, epochs, and where the rate is to fall, lr_decay and lr_decay_every.

    data_test is the validation pictures under other labels, so that it shows where it is scored.
    """
    mean = arrays["train"].mean(axis=0) / 255
    images = {split: arrays[split] / 255 - mean for split in ("train", "val", "test")}
    data = {
        f"data_{split}": (given(names, images[split]), given(names, arrays[f"{split}_labels"]))
        for split in ("train", "val")
    }
    others = arrays["train_labels"].max() - arrays["val_labels"]
    data["data_test"] = (given(names, images["val"]), given(names, others))
    model = names[settings["network"]]()
    more = {key: settings[key] for key in ("lr", "momentum") if key in settings}
    chosen = names[settings["optimizer"]](model.net, **more)
    decay = {key: settings[key] for key in ("lr_decay", "lr_decay_every") if key in settings}
    loss_func = names["cross_entropy"]()
    every = settings.get("watched")
    seen = watch(names, model, loss_func, chosen, images, every) if every else None
    returned = names["train_net"](
        data,
        model,
        loss_func,
        chosen,
        settings["batch_size"],
        settings["epochs"],
        show_every=1000,
        **decay,
    )
    best, losses, train_acc, val_acc = four_of(returned)
    answer = {
        "losses": taken(names, losses),
        "train_acc": taken(names, train_acc),
        "val_acc": taken(names, val_acc),
        "test_scores": scores_of(names, model, images["test"]),
        "lr": taken(names, chosen.lr),
    }
    if seen is not None:
        answer |= {name: np.array(values, np.float64) for name, values in seen.items()}
    if settings.get("best"):
        answer["held"] = np.array([int(key in best) for _, key in parameters(model.net)])
    if settings.get("best") and answer["held"].all():
        copies = {name: a.copy() for name, a in best.items()}
        # By sums: more copies of the largest network reach the limit of memory.
        before = {name: float(a.sum()) for name, a in best.items()}
        for layer, key in parameters(model.net):
            layer.params[key] += 1.0
        after = {name: float(a.sum()) for name, a in best.items()}
        moved = [
            name
            for name, total in before.items()
            if not np.array_equal(after[name], total, equal_nan=True)
        ]
        for layer, key in parameters(model.net):
            layer.params[key] = copies[key]
        answer["moved"] = np.array(len(moved))
        answer["best_scores"] = scores_of(names, model, images["val"])
    return answer


@task
def loop(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """`train`, then again without the last training example, so that the batch size doesn't divide
    their number, and without lr_decay: kept_lr, the optimizer's rate at the end of that, and
    uneven, how many losses came; -1, and no kept_lr, where train_net raised."""
    answer = train(names, arrays, settings)
    fewer = {split: arrays[split][:-1] for split in ("train", "train_labels")}
    left_out = ("lr_decay", "lr_decay_every", "watched")
    plain = {key: value for key, value in settings.items() if key not in left_out}
    try:
        second = train(names, {**arrays, **fewer}, plain)
    except Exception:
        return {**answer, "uneven": np.array(-1)}
    return {**answer, "uneven": np.array(second["losses"].size), "kept_lr": second["lr"]}


@task
def race(names: Names, arrays: Arrays, settings: Settings) -> Arrays:
    """`train` with SGD at sgd_lr, then with the settings' optimizer, from the same start: the
    answers of both, sgd_... and own_... ."""
    sgd = {**settings, "optimizer": "SGD", "lr": settings["sgd_lr"]}
    sgd.pop("momentum", None)
    answers = {"sgd": train(names, arrays, sgd), "own": train(names, arrays, settings)}
    return {f"{who}_{name}": a for who, answer in answers.items() for name, a in answer.items()}


def scores_of(names: Names, model: Any, images: Any) -> Any:
    """The scores of images, a hundred at a time, nothing dropped."""
    parts = [images[i : i + 100] for i in range(0, len(images), 100)]
    return np.concatenate([taken(names, model.forward(given(names, x), False)) for x in parts])
