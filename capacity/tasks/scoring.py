"""What the scores of a task are scores on, in plain words: test samples, or training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from capacity.tasks.own_losses import SampleLoss
from capacity.tasks.task import Task


def task_record(task: Task) -> dict[str, Any]:
    """Record a task's samples, and what its scores are scores on.

    Args:
        task: The task.

    Returns:
        Plain JSON types: `name`, `train_samples`, `test_samples`, `scored_on` (test, training),
        `held_out` (test samples held out here of data that came without a test split) and
        `overlap` (test samples that are training samples). Where scores are means over parts of
        samples (tokens, pixels), `test_counts` has how many, for the loss and for the accuracy;
        None of a number that only the network tells.
    """
    counts = test_counts(task)
    return {
        "name": task.name,
        "train_samples": len(task.train),
        "test_samples": len(task.test),
        "scored_on": task.scored_on,
        "held_out": len(task.test) if task.held_out else 0,
        "overlap": task.overlap,
        **({} if counts is None else {"test_counts": counts}),
    }


def test_counts(task: Task) -> dict[str, float | None] | None:
    """Count what the scores of a task are means over.

    Args:
        task: The task, as the door left it.

    Returns:
        The counts of `loss` and `accuracy` in the test split; None where each sample counts once.
    """
    of_loss = task.loss if isinstance(task.loss, SampleLoss) else task.score
    counted = isinstance(task.loss, SampleLoss) and task.loss.counted
    if of_loss is None or not (counted or task.score is not None):
        return None
    return {
        "loss": of_loss.total(task.test),
        "accuracy": None if task.score is None else task.score.total(task.test),
    }


def scoring_words(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Say what the scores of some tasks are scores on.

    Args:
        tasks: Their `task_record`s; older results say nothing and are taken for test scores.

    Returns:
        Sentences; empty where every task brought test samples that training does not see.
    """
    said = []
    held = [task for task in tasks if task.get("held_out")]
    if held:
        count = sum(task["held_out"] for task in held)
        whole = count + sum(task["train_samples"] for task in held)
        some = "" if len(held) == len(tasks) else f" of {_names(held)}"
        said.append(
            f"No test split was given{some}: {count} of {whole} samples were held out of training "
            "and are the test samples."
        )
    trained = [task for task in tasks if task.get("scored_on") == "training"]
    if trained:
        some = "All scores" if len(trained) == len(tasks) else f"The scores of {_names(trained)}"
        said.append(
            f"{some} are training scores: there are no test samples but those that were trained on."
        )
    for task in tasks:
        counts = task.get("test_counts") or {}
        count = counts.get("loss") or counts.get("accuracy")
        if count is not None and count != task["test_samples"]:
            said.append(
                f"Scores of {task['name']!r} are means over {count:,.0f} positions of "
                f"{task['test_samples']} test samples; their errors are over samples."
            )
        if task.get("overlap") and task.get("scored_on") != "training":
            said.append(
                f"{task['overlap']} of the {task['test_samples']} test samples of "
                f"{task['name']!r} are training samples, too."
            )
    return " ".join(said)


def words_of(task: Task) -> str:
    """Say what the scores of one task are scores on.

    Args:
        task: The task.

    Returns:
        As `scoring_words`; with a hint where samples were held out.
    """
    said = scoring_words([task_record(task)])
    if task.held_out and task.scored_on == "test":
        said += (
            " They are test samples only for a network that has not learned from them; "
            "capacity.hold_out gives the split."
        )
    return said


def words_of_all(tasks: Sequence[Task]) -> str:
    """Say what the scores of several tasks are scores on.

    Args:
        tasks: The tasks.

    Returns:
        What `words_of` says of each, every sentence once.
    """
    said = [words_of(task) for task in tasks]
    return " ".join(dict.fromkeys(part for part in said if part))


def scored_on(tasks: Sequence[Task]) -> str:
    """Name the samples that the scores of several tasks are scores on.

    Args:
        tasks: The tasks, at least one.

    Returns:
        `test`, `training`, or `test or training`.
    """
    return " or ".join(sorted({task.scored_on for task in tasks}))


class Labelled(Protocol):
    """A record that says what its scores are scores on; empty where that stands elsewhere."""

    @property
    def scored_on(self) -> str:
        """`test`, `training`, or both."""

    @property
    def scoring(self) -> str:
        """The same in words."""


def said_scores(record: Labelled) -> dict[str, str]:
    """Give what a record says of its scores.

    Args:
        record: The record.

    Returns:
        Plain JSON types: `scored_on` and `scoring`; nothing where it says nothing.
    """
    if not record.scored_on:
        return {}
    return {"scored_on": record.scored_on, "scoring": record.scoring}


def _names(tasks: Sequence[Mapping[str, Any]]) -> str:
    names = [repr(task["name"]) for task in tasks]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
