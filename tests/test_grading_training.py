"""The grader's sections that train: what is said of train_net, compute_acc and large networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpkit.grading.local import LocalRunner
from mlpkit.grading.sections import SECTIONS
from mlpkit.grading.submissions import load
from tests.graded import GIVEN, PLAIN, QUICK, grade_text, lost, trained

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
    assert len(said) == 2
    assert all(
        line.startswith("val_acc_hist should be fractions from 0 to 1; it has") for line in said
    )


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


def test_an_optimizer_that_does_nothing_beats_nobody(tmp_path: Path) -> None:
    race = [section for section in SECTIONS if section.name == "SGD against SGDM"]
    found = lost(grade_text(tmp_path, PLAIN.replace("        w += v\n", ""), race))
    assert set(found) == {"SGD against SGDM"}


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
