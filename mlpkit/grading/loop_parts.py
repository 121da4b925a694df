"""The parts of train_net and compute_acc that are seen as a small network learns."""

from __future__ import annotations

import numpy as np

from .comparing import (
    OVERFLOW,
    Answer,
    Check,
    Measured,
    WrongAnswerError,
    array_of,
    at_least,
    compare,
    holds,
)
from .interface import Array, Part, Settings, Task
from .layer_sections import comparing

# Of five epochs the second and the fourth end a pair, whether a rate is lowered as a pair ends or
# as the next begins.
LOOP_LR, LOOP_EPOCHS, LOOP_BATCH, LOOP_TRAIN = 2.0, 5, 32, 96
DECAY, DECAY_EVERY = 0.5, 2
SMALL_VAL, SMALL_EPOCHS = 130, 200  # more than one batch of an evaluation and less than two


def accuracy(scores: Array, labels: Array) -> float:
    """The fraction whose highest score is at its label; NaN scores are no answer."""
    right = np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1) == labels, False)
    return float(right.mean())


def fractions(answer: Answer, name: str, count: int) -> Array:
    """A history of accuracies; WrongAnswerError where they are none."""
    history = array_of(answer, name, (count,))
    if not ((history >= 0) & (history <= 1)).all():
        raise WrongAnswerError(f"{name} should be fractions from 0 to 1")
    return history


def check_held(answer: Answer) -> None:
    """WrongAnswerError unless the parameters returned as the best are all that the network has."""
    held = array_of(answer, "held").astype(bool)
    if not held.all():
        raise WrongAnswerError(
            f"opt_params should hold every parameter of the network's {len(held)}, by its name; "
            f"it lacks {int((~held).sum())}"
        )


def loop(losses: float, rate: float, accuracies: float) -> tuple[Part, ...]:
    """What train_net does at each step, as SmallFullyConnectedNetwork learns 96 random points: the
    losses that it returns, the learning rate, and the accuracies of the last epoch."""
    rng, per_epoch = np.random.default_rng(4), LOOP_TRAIN // LOOP_BATCH
    counts = {"train": LOOP_TRAIN, "val": SMALL_VAL, "test": SMALL_VAL}
    arrays = {split: rng.integers(0, 256, (n, 4), np.uint8) for split, n in counts.items()}
    labels = {f"{split}_labels": arrays[split][:, 0] // 128 for split in ("train", "val")}
    arrays["test"] = arrays["val"]
    settings: Settings = {
        "network": "SmallFullyConnectedNetwork",
        "optimizer": "SGD",
        "lr": LOOP_LR,
        "batch_size": LOOP_BATCH,
        "epochs": LOOP_EPOCHS,
        "lr_decay": DECAY,
        "lr_decay_every": DECAY_EVERY,
        "watched": per_epoch,
    }
    task = Task("train", {**arrays, **labels}, settings)
    steps = LOOP_EPOCHS * per_epoch

    def returned_losses(answer: Answer) -> list[Measured]:
        returned = array_of(answer, "losses", (steps,))
        computed = array_of(answer, "computed")
        if not computed.size:
            return [holds("loss_func", False, "it isn't used: the loss is what its forward gives")]
        of_step = [computed[computed[:, 0] == i] for i in range(steps)]
        found = [
            rows[np.isclose(rows[:, 1], loss, rtol=1e-6, equal_nan=True)]  # float32 will do
            for rows, loss in zip(of_step, returned, strict=True)
        ]
        first = next((i for i, rows in enumerate(found) if not len(rows)), None)
        if first is not None:
            given = ", ".join(f"{loss:.6g}" for loss in of_step[first][:3, 1]) or "none"
            said = (
                f"loss_hist[{first}] is {returned[first]:.6g}, and loss_func gave {given} before "
                f"step {first + 1}: each entry is that iteration's loss, as loss_func gave it"
            )
            return [holds("losses", False, said)]
        trained = all(rows[:, 2].any() for rows in found)
        said = "the losses are those of a forward with is_training=False: train with True"
        return [holds("training", trained, said)]

    def after(decays: int) -> Array:
        return np.array(LOOP_LR * DECAY**decays)

    too_often = "the rate is lowered too often: once lr_decay_every epochs have passed, not before"
    at_the_end = {
        "lr_decay isn't used: optimizer.lr *= lr_decay every lr_decay_every epochs": after(0),
        "the rate is lowered once alone: every lr_decay_every epochs is meant": after(1),
        f"{too_often} the first": after(3),
        f"{too_often} that": after(LOOP_EPOCHS - 1),
        f"{too_often} that, from the first": after(LOOP_EPOCHS),
        "lr_decay_every counts epochs, not iterations": after(steps // DECAY_EVERY),
    }

    def decayed(answer: Answer) -> list[Measured]:
        end = f"optimizer.lr after {LOOP_EPOCHS} epochs"
        expected = after(LOOP_EPOCHS // DECAY_EVERY)
        last = compare(answer, "lr", expected, 1e-7, at_the_end, what=end)
        of_epoch = np.array([after(epoch // DECAY_EVERY) for epoch in range(LOOP_EPOCHS)])
        early = np.array([after((epoch + 1) // DECAY_EVERY) for epoch in range(LOOP_EPOCHS)])
        hint = {"it is lowered an epoch early": early.repeat(per_epoch)}
        each = "optimizer.lr at each step"
        during = compare(answer, "rates", of_epoch.repeat(per_epoch), 1e-7, hint, what=each)
        return [last, during] if last.passed else [last]

    def scored(answer: Answer) -> list[Measured]:
        names = {"train": "training", "val": "validation"}
        right = {}
        for split in names:
            scores = array_of(answer, f"{split}_scores", (LOOP_EPOCHS, counts[split], 7))
            right[split] = np.array([accuracy(s, labels[f"{split}_labels"]) for s in scores])
        found = []
        for split, other in (("train", "val"), ("val", "train")):
            late = np.concatenate([[right[split][1]], right[split][:-1]])
            mistakes = {
                f"it is the {names[other]} accuracy": right[other],
                "it is taken before the epoch's steps": late,
            }
            what = f"{names[split]} accuracy of each epoch"
            got = {what: fractions(answer, f"{split}_acc", LOOP_EPOCHS)}
            found.append(compare(got, what, right[split], 1e-6, mistakes, kind="absolute"))
        return found

    return (
        Part("loss of each iteration", losses, task, Check(returned_losses)),
        Part("learning rate", rate, task, Check(decayed)),
        Part("accuracy of each epoch", accuracies, task, Check(scored)),
    )


def fraction_right(points: float) -> Part:
    """compute_acc of 250 scores, right more often in the first hundred than in the second and
    least in the last fifty, by a network that turns the scores around while it is trained."""
    right = np.concatenate([np.arange(n) < hits for n, hits in ((100, 90), (100, 70), (50, 10))])
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((250, 7))
    best = scores.argmax(axis=1)
    labels = np.where(right, best, (best + 1) % 7)
    turned = float((scores[:, ::-1].argmax(axis=1) == labels).mean())
    mistakes = {
        "the last, smaller batch is left out": np.array(160 / 200),
        "the last, smaller batch counts as a full one: divide by the examples": np.array(170 / 300),
        "it is the mean of the batches' accuracies: divide the hits by the examples": (
            np.array((0.9 + 0.7 + 0.2) / 3)
        ),
        "the first batch alone is scored": np.array(0.9),
        "the network is in training as it is scored: model.forward(x, False)": np.array(turned),
    }
    what = "compute_acc of 250 scores"
    return Part(
        "compute_acc",
        points,
        Task("compute_acc", {"scores": scores, "labels": labels}),
        comparing("acc", np.array(170 / 250), 1e-9, mistakes, what),
    )


def best_epoch(points: float) -> Part:
    """SmallFullyConnectedNetwork on points whose validation accuracy is 1 at first and 0 at last,
    and that of training the other way round.

    The network first learns which class is the more frequent, and then to tell them apart; the
    validation points carry that class's label and lie where the other one's are. All of them are
    one batch, so that no order changes it.
    """
    labels = np.repeat([0, 1], [60, 40])
    points_of = {
        "train": np.where(labels == 0, 160, 96)[:, None] * np.array([1, 0, 0, 0])
        + np.random.default_rng(3).integers(96, 160, (100, 4)) * np.array([0, 1, 1, 1]),
        "val": np.tile([64, 128, 128, 128], (SMALL_VAL, 1)),
    }
    arrays = {split: a.astype(np.uint8) for split, a in points_of.items()}
    arrays |= {"train_labels": labels, "val_labels": np.zeros(SMALL_VAL, int)}
    arrays["test"] = arrays["val"]
    settings: Settings = {
        "network": "SmallFullyConnectedNetwork",
        "optimizer": "SGD",
        "lr": 0.5,
        "batch_size": len(labels),
        "epochs": SMALL_EPOCHS,
        "best": 1,
    }

    def check(answer: Answer) -> list[Measured]:
        check_held(answer)
        history = fractions(answer, "val_acc", SMALL_EPOCHS)
        scores = array_of(answer, "best_scores", (SMALL_VAL, 7))
        returned = accuracy(scores, np.zeros(SMALL_VAL))
        counted = {
            "the last, smaller batch counts as a full one: divide by the examples": (
                np.array(SMALL_VAL / 200)
            ),
            "it is the training accuracy": np.array((labels == 0).mean()),
        }
        chosen = "they are another epoch's: the one of the highest validation accuracy is meant"
        hint = chosen if np.isfinite(scores).all() else OVERFLOW
        return [
            compare(
                {"accuracy": history[0]},
                "accuracy",
                1.0,
                1e-6,
                counted,
                what=f"validation accuracy of {SMALL_VAL} examples after the first epoch",
                kind="absolute",
            ),
            at_least("validation accuracy of the returned parameters", returned, 0.98, hint),
        ]

    return Part("best epoch", points, Task("train", arrays, settings), Check(check))
