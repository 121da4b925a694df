"""The sections that train: on ten pictures under noise, which the networks learn in seconds.

The labels of the pictures that are scored stay here, and accuracy is counted from the scores.
"""

from __future__ import annotations

import functools

import numpy as np

from .comparing import OVERFLOW, Answer, Check, Measured, array_of, at_least, compare, holds
from .formulas import summed_loss
from .interface import Array, Part, Section, Settings, Task
from .loop_parts import COPIES, accuracy, best_epoch, check_held, fraction_right, fractions, loop
from .network_sections import assigned
from .optimizer_sections import sgd_step

CLASSES, TRAIN, VAL, TEST = 10, 640, 100, 200
NOISE = 100.0  # deviation, of brightness in 0..255
TINYNET_LR, TINYNET_EPOCHS, TINYNET_BATCH = 1e-2, 3, 64
RACE_EPOCHS, RACE_BATCH = 10, 32
SATURATED = 0.99  # accuracy from which on SGD leaves nothing to be ahead by
RISING = (
    "the sign of the step, gradients that aren't passed on, or updates that make new arrays "
    "(p = p - ...) instead of changing the layer's (p -= ...) would do that"
)
UNDIVIDED = "the loss isn't divided by the batch: the mean over the examples is meant"
TOO_LARGE = "the first weights are too large: TinyNet's layers take fc's init_scale, 0.002"
LEAST_FALL = 1e-3  # of the loss from the first to the last epoch: rounding alone gives less


@functools.cache
def pictures(seed: int) -> dict[str, Array]:
    """A task's arrays, by split, and the test pictures' labels under test_labels."""
    rng = np.random.default_rng(seed)
    ideal = rng.integers(0, 256, (CLASSES, 32, 32, 3))
    found: dict[str, Array] = {}
    for split, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        labels = rng.permutation(np.arange(count) % CLASSES)
        noise = rng.normal(0, NOISE, (count, 32, 32, 3))
        found[split] = (ideal[labels] + noise).clip(0, 255).astype(np.uint8)
        found[f"{split}_labels"] = labels
    return found


def training(task: str, seed: int, settings: Settings) -> Task:
    """A task on pictures, the test labels left out."""
    arrays = {name: a for name, a in pictures(seed).items() if name != "test_labels"}
    return Task(task, arrays, settings)


def to_75_percent() -> Section:
    """TinyNet by SGD; the pictures that are scored are others than it was shown."""
    labels, val_labels = pictures(0)["test_labels"], pictures(0)["val_labels"]
    iterations = TINYNET_EPOCHS * (TRAIN // TINYNET_BATCH)
    settings: dict[str, float | int | str] = {
        "network": "TinyNet",
        "optimizer": "SGD",
        "lr": TINYNET_LR,
        "batch_size": TINYNET_BATCH,
        "epochs": TINYNET_EPOCHS,
        "best": 1,
    }
    task = training("train", 0, settings)

    def reached(answer: Answer) -> list[Measured]:
        scores = array_of(answer, "test_scores", (TEST, CLASSES))
        nan = "" if np.isfinite(scores).all() else "the scores are NaN: the training diverged"
        return [at_least("accuracy", accuracy(scores, labels), 0.75, nan)]

    def recorded(answer: Answer) -> list[Measured]:
        losses = array_of(answer, "losses", (iterations,))
        per_epoch = iterations // TINYNET_EPOCHS
        first, last = losses[:per_epoch].mean(), losses[-per_epoch:].mean()
        summed = abs(losses[0] / TINYNET_BATCH - np.log(CLASSES)) < 0.1
        at_first = {UNDIVIDED if summed else TOO_LARGE: max(losses[0], np.log(CLASSES))}
        start = {"loss": losses[0]}
        found = [
            compare(
                start, "loss", np.log(CLASSES), 0.1, at_first, what="first loss", kind="absolute"
            ),
            holds(
                "losses fall",
                bool(first - last > LEAST_FALL),
                f"their mean is {first:.4g} in the first epoch, {last:.4g} in the last",
                RISING if np.isfinite(losses).all() else OVERFLOW,
            ),
        ]
        for name in ("train_acc", "val_acc"):
            history = array_of(answer, name, (TINYNET_EPOCHS,))
            inside = bool(((history >= 0) & (history <= 1)).all())
            got = ", ".join(f"{a:.6g}" for a in history)
            said = f"fractions from 0 to 1 are expected, one an epoch; got {got}"
            found.append(holds(f"{name}_hist", inside, said))
        return found

    def best(answer: Answer) -> list[Measured]:
        check_held(answer)
        scores = array_of(answer, "best_scores", (VAL, CLASSES))
        history = fractions(answer, "val_acc", TINYNET_EPOCHS)
        moved = float(array_of(answer, "moved", ()))
        said = f"{moved:g} change with the network's"
        copies = holds("parameters are copies", moved == 0, said, COPIES)
        returned = compare(
            {"accuracy": np.array(accuracy(scores, val_labels))},
            "accuracy",
            history.max(),
            0.02,
            what="validation accuracy of the returned parameters",
            kind="absolute",
        )
        return [copies, returned] if copies.passed else [copies]

    return Section(
        "Training to 75 %",
        (
            assigned("TinyNet", 0.5),
            Part("accuracy", 2, task, Check(reached)),
            Part("losses and accuracies", 0.25, task, Check(recorded)),
            *loop(0.25, 0.25, 0.25),
            Part("best parameters", 0.5, task, Check(best)),
            best_epoch(0.5),
            fraction_right(0.5),
        ),
    )


def race(seed: int, optimizer: str, settings: Settings, points: float) -> Part:
    """An optimizer against SGD from the same start, by the loss and accuracy of new pictures."""
    labels = pictures(seed)["test_labels"]

    def faster(answer: Answer) -> list[Measured]:
        own, sgd = (
            array_of(answer, f"{who}_test_scores", (TEST, CLASSES)) for who in ("own", "sgd")
        )
        if not np.isfinite(sgd).all():
            said = "your SGD diverged, so nothing can be compared: mend that first"
            return [holds("SGD's scores", False, "they are NaN or infinite", said)]
        if not np.isfinite(own).all():
            return [holds("scores", False, "they are NaN or infinite", "the training diverged")]
        losses = [summed_loss(np.clip(s, -700, 700), labels) / TEST for s in (own, sgd)]
        hits = [accuracy(s, labels) for s in (own, sgd)]
        if hits[1] >= SATURATED:  # nothing can be ahead of that
            said = f"{hits[0]:.4g}; {SATURATED} is expected, as SGD's is {hits[1]:.4g}"
            return [holds("accuracy", hits[0] >= SATURATED, said)]
        hint = "it doesn't learn at all" if hits[0] <= 2 / CLASSES else ""
        if losses[0] > 2 * np.log(CLASSES):
            hint = "its loss rises: look at the step's sign and size"
        return [
            holds("loss", losses[0] < losses[1], beside(optimizer, "loss", "less", losses), hint),
            holds("accuracy", hits[0] > hits[1], beside(optimizer, "accuracy", "more", hits), hint),
        ]

    common: Settings = {
        "network": "FullyConnectedNetwork",
        "optimizer": optimizer,
        "sgd_lr": 1e-2,
        "batch_size": RACE_BATCH,
        "epochs": RACE_EPOCHS,
    }
    return Part(optimizer, points, training("race", seed, {**common, **settings}), Check(faster))


def beside(optimizer: str, what: str, wanted: str, values: list[float]) -> str:
    """Both optimizers' values, in words."""
    return (
        f"{values[0]:.4g} with {optimizer}, {values[1]:.4g} with SGD after {RACE_EPOCHS} epochs; "
        f"{wanted} {what} than SGD's is expected"
    )


def sgd_against_sgdm() -> Section:
    """FullyConnectedNetwork at lr 1e-2, momentum 0.9."""
    part = race(1, "SGDM", {"lr": 1e-2, "momentum": 0.9}, 1.5)
    return Section("SGD against SGDM", (sgd_step(0.5), part))


def four_optimizers() -> Section:
    """FullyConnectedNetwork by the contract's recipes, each against SGD."""
    return Section(
        "Four optimizers",
        (
            assigned("FullyConnectedNetwork", 0.5),
            race(2, "SGDM", {"lr": 1e-2, "momentum": 0.9}, 1),
            race(2, "RMSProp", {"lr": 5e-4}, 1.25),
            race(2, "Adam", {"lr": 5e-4}, 1.25),
        ),
    )
