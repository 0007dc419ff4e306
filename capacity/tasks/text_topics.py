"""Texts by topic, as numbers of tokens for a pretrained transformer: data without a download.

The texts are those of `docstrings.py`; the tokenizer is the one of the network that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from capacity.recipe.config import TaskStream
from capacity.tasks.assemble import Piece, assemble
from capacity.tasks.batches import BatchLayout, lay_out
from capacity.tasks.docstrings import TOPICS, Snippet, snippets
from capacity.tasks.pretrained import MINILM, tokenizer
from capacity.tasks.sampling import holdout, subsample
from capacity.tasks.scenarios import class_groups
from capacity.tasks.sources import DataSource
from capacity.tasks.task import Split, TaskSequence

CLASSES = len(TOPICS)
TOKENS = 32
"""Length of every text, in tokens: longer ones are cut, shorter ones are filled up."""
MIXED = ("docstrings", "source code", "words shuffled", "five topics only", "topics swapped")
"""Names of the tasks of the mixed scenario, in their order."""


def tasks(stream: TaskStream) -> TaskSequence:
    """Build the tasks of a recipe.

    Args:
        stream: A recipe's `tasks` section with dataset = 'text-topics'.

    Returns:
        The sequence. A sample is a mapping of `input_ids` and `attention_mask`.
    """
    items = snippets()
    topics = torch.tensor([item.topic for item in items])
    kept, held = holdout(topics, stream.test_fraction, seed=stream.seed)
    pieces = []
    for number, (texts, y) in enumerate(_variants(stream, items, topics)):
        wanted = y >= 0
        x, layout = _tokens(stream, texts)
        train, test = kept[wanted[kept]], held[wanted[held]]
        pieces.append(
            Piece(
                subsample(
                    Split(x[train], y[train]),
                    stream.samples,
                    seed=stream.seed,
                    where=f"task {number}",
                ),
                Split(x[test], y[test]),
                number if stream.heads else 0,
            )
        )
    return assemble("text-topics", pieces, "cross_entropy", layout=layout)


def _tokens(stream: TaskStream, texts: Sequence[str]) -> tuple[Tensor, BatchLayout]:
    read = tokenizer(stream.tokenizer or MINILM)
    batch = read(
        list(texts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt",
        return_token_type_ids=False, return_attention_mask=True,
    )  # fmt: skip
    return lay_out("tasks", [batch])


def _variants(
    stream: TaskStream, items: Sequence[Snippet], topics: Tensor
) -> list[tuple[list[str], Tensor]]:
    """Give the texts and labels of each task; a label of -1 leaves a text out."""
    plain = [item.text for item in items]
    if stream.scenario == "split":
        groups = class_groups(stream, CLASSES)
        return [(plain, _only(topics, list(group))) for group in groups]
    random = np.random.default_rng((stream.seed, 4))
    shuffled = [" ".join(random.permutation(text.split())) for text in plain]
    swapped = torch.arange(CLASSES).reshape(-1, 2).flip(1).flatten()
    made = [
        (plain, topics),
        ([item.code for item in items], topics),
        (shuffled, topics),
        (plain, _only(topics, list(range(CLASSES // 2, CLASSES)))),
        (plain, swapped[topics]),
    ]
    return made[: stream.experiences]


def _only(topics: Tensor, wanted: list[int]) -> Tensor:
    return topics.where(torch.isin(topics, torch.tensor(wanted)), -1)


SOURCE = DataSource(
    scenarios=("split", "mixed"),
    classes=CLASSES,
    takes=("heads", "samples", "test_fraction", "tokenizer"),
    downloads=False,
    mixed=MIXED,
    build=tasks,
)
