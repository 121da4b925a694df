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

# Of five epochs the second and the fourth end a pair, whether a rate is lowered as a pair ends or
# as the next begins.
LOOP_LR, LOOP_EPOCHS, LOOP_BATCH, LOOP_TRAIN = 2.0, 5, 400, 1200
DECAY, DECAY_EVERY = 0.5, 2
SAMPLE = 1000  # what some score instead of all
CLASSES = 7  # of SmallFullyConnectedNetwork
COPIES = "copy the best epoch's parameters: the network's own arrays go on changing"
IN_TRAINING = "the network is in training as it is scored: model.forward(x, False)"
SMALL_VAL, SMALL_EPOCHS = 130, 200  # more than one batch of an evaluation and less than two


def accuracy(scores: Array, labels: Array) -> float:
    """The fraction whose highest score is at its label; NaN scores are no answer."""
    right = np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1) == labels, False)
    return float(right.mean())


def fractions(answer: Answer, name: str, count: int) -> Array:
    """A history of accuracies; WrongAnswerError where they are none."""
    history = array_of(answer, name, (count,))
    if not ((history >= 0) & (history <= 1)).all():
        first = next(a for a in history if not 0 <= a <= 1)
        raise WrongAnswerError(f"{name}_hist should be fractions from 0 to 1; it has {first:.6g}")
    return history


def check_held(answer: Answer) -> None:
    """WrongAnswerError unless the parameters returned as the best are all that the network has."""
    held = array_of(answer, "held").astype(bool).ravel()
    if not held.all():
        raise WrongAnswerError(
            f"opt_params should hold every parameter of the network's {len(held)}, by its name; "
            f"it lacks {int((~held).sum())}"
        )


def rows_of(answer: Answer, name: str) -> Array:
    """A table of three columns, which may be empty."""
    table = array_of(answer, name)
    if table.size and table.shape[1:] != (3,):
        raise WrongAnswerError(f"{name} should have three columns; got {table.shape}")
    return table.reshape(-1, 3)


def loop(losses: float, rate: float, accuracies: float) -> tuple[Part, ...]:
    """What train_net does at each step, as SmallFullyConnectedNetwork learns 1200 random points:
    the losses that it returns, the learning rate, and the accuracies of each epoch."""
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
    task = Task("loop", {**arrays, **labels}, settings)
    steps = LOOP_EPOCHS * per_epoch

    def check_steps(answer: Answer) -> None:
        """WrongAnswerError for another number of them: nothing else can be compared then."""
        taken = array_of(answer, "rates").size
        if taken != steps:
            raise WrongAnswerError(
                f"optimizer.step was called {taken} times in {LOOP_EPOCHS} epochs of {per_epoch} "
                "batches: once for each batch is meant"
            )

    def any_number(answer: Answer) -> Measured:
        """Whether train_net takes examples that its batches don't divide, the rest as one more
        batch or left out."""
        count = float(array_of(answer, "uneven", ()))
        left, kept = (LOOP_EPOCHS * (per_epoch - rest) for rest in (1, 0))
        of = f"{LOOP_TRAIN - 1} in batches of {LOOP_BATCH}"
        if count < 0:
            said = (
                "train_net fails where the batch size doesn't divide the number of examples, as "
                f"with {of}"
            )
            return holds("any number of examples", False, said)
        said = (
            f"{count:g} losses came of {LOOP_EPOCHS} epochs of {of}; {left} or {kept} are expected"
        )
        return holds("any number of examples", count in (left, kept), said)

    def returned_losses(answer: Answer) -> list[Measured]:
        check_steps(answer)
        returned = array_of(answer, "losses", (steps,))
        computed = rows_of(answer, "computed")
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
        return [holds("training", trained, said), any_number(answer)]

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
        check_steps(answer)
        end = f"optimizer.lr after {LOOP_EPOCHS} epochs"
        expected = after(LOOP_EPOCHS // DECAY_EVERY)
        last = compare(answer, "lr", expected, 1e-7, at_the_end, what=end)
        of_epoch = np.array([after(epoch // DECAY_EVERY) for epoch in range(LOOP_EPOCHS)])
        early = np.array([after((epoch + 1) // DECAY_EVERY) for epoch in range(LOOP_EPOCHS)])
        hint = {"it is lowered an epoch early": early.repeat(per_epoch)}
        each = "optimizer.lr at each step"
        during = compare(answer, "rates", of_epoch.repeat(per_epoch), 1e-7, hint, what=each)
        if not last.passed:
            return [last]
        if "kept_lr" not in answer:  # the loss of each iteration says that train_net fails
            return [last, during]
        without = "optimizer.lr after a run without lr_decay"
        stays = "without lr_decay the learning rate should stay: the default of lr_decay is 1.0"
        given = {stays: answer["kept_lr"]}
        return [last, during, compare(answer, "kept_lr", LOOP_LR, 1e-7, given, what=without)]

    def scored(answer: Answer) -> list[Measured]:
        check_steps(answer)
        names = {"train": "training", "val": "validation"}
        scores = {
            split: array_of(answer, f"{split}_scores", (LOOP_EPOCHS, counts[split], CLASSES))
            for split in names
        }

        def right_of(split: str, labels: Array) -> Array:
            """The accuracy of each epoch, of as many of a split's examples as there are labels."""
            return np.array([accuracy(s[: len(labels)], labels) for s in scores[split]])

        right = {split: right_of(split, labels[f"{split}_labels"]) for split in names}
        found = []
        for split, other in (("train", "val"), ("val", "train")):
            late = np.concatenate([[right[split][1]], right[split][:-1]])
            mistakes = {
                f"it is the {names[other]} accuracy": right[other],
                "it is taken before the epoch's steps": late,
                "it is the accuracy on data_test: data_val is meant": (
                    right_of("val", 1 - labels["val_labels"])
                ),
                f"it is of the first {SAMPLE} examples: all of them are meant": (
                    right_of("train", labels["train_labels"][:SAMPLE])
                ),
            }
            what = f"{names[split]} accuracy of each epoch"
            got = {what: fractions(answer, f"{split}_acc", LOOP_EPOCHS)}
            found.append(compare(got, what, right[split], 1e-6, mistakes, kind="absolute"))
        before, count, followed = rows_of(answer, "trained").T
        at_end = (before > 0) & (before % per_epoch == 0)  # of an epoch
        scoring = at_end & ((count > LOOP_BATCH * CLASSES) | (followed == 0))
        return [*found, holds("is_training", not scoring.any(), IN_TRAINING)]

    return (
        Part("loss of each iteration", losses, task, Check(returned_losses)),
        Part("learning rate", rate, task, Check(decayed)),
        Part("accuracy of each epoch", accuracies, task, Check(scored)),
    )


def fraction_right(points: float) -> Part:
    """compute_acc of 2550 scores, right more often in the first hundred than in those after it and
    least in the last fifty, by a network that turns the scores around while it is trained."""
    hits = [90, *[80] * 9, *[70] * 15, 10]  # of each hundred, and of the fifty
    right = np.concatenate([np.arange(100) < n for n in hits])[:2550]
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((len(right), CLASSES))
    best = scores.argmax(axis=1)
    labels = np.where(right, best, (best + 1) % CLASSES)
    turned = (scores[:, ::-1].argmax(axis=1) == labels).mean()
    mistakes = {
        "the last, smaller batch is left out": np.array(sum(hits[:-1]) / 2500),
        "the last, smaller batch counts as a full one: divide by the examples": (
            np.array(sum(hits) / 2600)
        ),
        "it is the mean of the batches' accuracies: divide the hits by the examples": (
            np.array((sum(hits[:-1]) / 100 + hits[-1] / 50) / 26)
        ),
        "the first batch alone is scored": np.array(hits[0] / 100),
        IN_TRAINING: turned,
    }
    what = f"compute_acc of {len(right)} scores"

    def check(answer: Answer) -> list[Measured]:
        got = array_of(answer, "acc", ())
        sampled = f"a sample of {SAMPLE} is scored: without num_samples all of them are meant"
        hints = {**mistakes, sampled: np.round(got * SAMPLE).clip(700, 850) / SAMPLE}
        return [compare(answer, "acc", right.mean(), 1e-6, hints, what=what, kind="absolute")]

    task = Task("compute_acc", {"scores": scores, "labels": labels})
    return Part("compute_acc", points, task, Check(check))


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
        scores = array_of(answer, "best_scores", (SMALL_VAL, CLASSES))
        returned = accuracy(scores, np.zeros(SMALL_VAL))
        counted = {
            "the last, smaller batch counts as a full one: divide by the examples": (
                np.array(SMALL_VAL / 200)
            ),
            "it is the training accuracy": np.array((labels == 0).mean()),
        }
        hint = "they are another epoch's: the one of the highest validation accuracy is meant"
        if np.ptp(history) == 0:
            hint = "no epoch changes the accuracy: do the parameters change in training?"
        if float(array_of(answer, "moved", ())):
            hint = COPIES
        elif not np.isfinite(scores).all():
            hint = OVERFLOW
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
