"""The kinds of network, data and plan that `kinds.py` tries at every door, each tiny."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import capacity

SAMPLES, WIDTH, CLASSES, WORDS, LENGTH = 24, 6, 2, 20, 5
PLAN: dict[str, Any] = {"lr": 0.05, "epochs": 2, "batch_size": 8}


class Kind(NamedTuple):
    """What a user brings."""

    model: nn.Module
    old: Any
    new: Any
    plan: dict[str, Any] = PLAN
    loss: Any = "cross_entropy"


def vectors(classes: int = CLASSES) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    y = torch.arange(SAMPLES) % classes
    return (x, y), (x.flip(1), (y + 1) % classes)


def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x = torch.randn(SAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(SAMPLES) % CLASSES
    return (x, y), (x.flip(3), 1 - y)


def tokens() -> tuple[Tensor, Tensor]:
    x = torch.randint(1, WORDS, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    return x, torch.arange(SAMPLES) % CLASSES


class Layer(nn.Module):
    """A layer given by its function of input and mode."""

    def __init__(self, function: Callable[[Tensor, bool], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """Run it."""
        return self.function(x, self.training)


class Square(torch.autograd.Function):
    """An autograd.Function of the old kind, without `setup_context`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Square."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Pull back."""
        return 2 * grads[0] * ctx.saved_tensors[0]


class Checkpointed(nn.Linear):
    """A layer that is computed again on the way back."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        made: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return made


class Recurrent(nn.Module):
    """Words, a recurrent layer, and a head on its last output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4)
        self.inner = kind(4, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Run it."""
        made: Tensor = self.head(self.inner(self.words(ids))[0][:, -1])
        return made


class Attention(nn.Module):
    """Words, an encoder layer of torch with dropout inside, and a head on their mean."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.inner = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Run it."""
        hidden = None if attention_mask is None else attention_mask == 0
        seen = self.inner(self.words(input_ids), src_key_padding_mask=hidden)
        made: Tensor = self.head(seen.mean(1))
        return made


class TwoInputs(nn.Module):
    """A network of two arguments that returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """Run it."""
        return {"logits": self.head(torch.cat([left, right], 1))}


class Tied(nn.Module):
    """Words read and written with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 6)
        self.head = nn.Linear(6, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Run it."""
        made: Tensor = self.head(torch.tanh(self.words(ids)))
        return made


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, CLASSES).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        made: Tensor = self.base(x) + self.up(self.down(x))
        return made


class Rows(Dataset[Any]):
    """A map-style data set of dictionaries."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"left": self.x[index, :2], "right": self.x[index, 2:], "labels": self.y[index]}


def mlp(*middle: nn.Module, width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, width), *middle, nn.Tanh(), nn.Linear(width, CLASSES))


def with_vectors(make: Callable[[], nn.Module], **more: Any) -> Callable[[], Kind]:
    return lambda: Kind(make(), *vectors(), **more)


def with_plan(**plan: Any) -> Callable[[], Kind]:
    return with_vectors(mlp, plan=PLAN | plan)


def with_images(*middle: Callable[[], nn.Module]) -> Callable[[], Kind]:
    def make() -> Kind:
        body = (nn.Conv2d(3, 4, 3), *(m() for m in middle), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return Kind(nn.Sequential(*body, nn.Flatten(), nn.Linear(4, CLASSES)), *images())

    return make


def with_words(make: Callable[[], nn.Module]) -> Callable[[], Kind]:
    def kind() -> Kind:
        x, y = tokens()
        return Kind(make(), (x, y), (x.flip(1), 1 - y))

    return kind


def masked_words(dropout: float) -> Callable[[], Kind]:
    def kind() -> Kind:
        x, y = tokens()
        mask = (torch.arange(LENGTH) < 2 + torch.arange(SAMPLES)[:, None] % 4).long()
        tasks = [{"input_ids": ids, "attention_mask": mask, "labels": y} for ids in (x, x.flip(1))]
        return Kind(Attention(dropout), *tasks)

    return kind


def token_labels() -> Kind:
    x, _ = tokens()
    return Kind(Tied(), (x, (x + 1) % WORDS), (x, (x + 3) % WORDS))


def maps() -> Kind:
    (x, _), (z, _) = images()
    wanted = [(part[:, 0] > 0).long() for part in (x, z)]
    return Kind(nn.Conv2d(3, CLASSES, 3, padding=1), (x, wanted[0]), (z, wanted[1]))


def several_labels() -> Kind:
    (x, _), (z, _) = vectors()
    loss = nn.BCEWithLogitsLoss()
    return Kind(mlp(), (x, (x[:, :2] > 0).float()), (z, (z[:, :2] > 0).float()), PLAN, loss)


def squares() -> Kind:
    (x, _), (z, _) = vectors()
    return Kind(mlp(), (x, x[:, :2].clone()), (z, z[:, :2].clone()), PLAN, "mse")


def loaders() -> Kind:
    tasks = [DataLoader(TensorDataset(*pair), batch_size=8, shuffle=True) for pair in vectors()]
    return Kind(mlp(), *tasks, plan={"lr": 0.05, "epochs": 2})


def dictionaries() -> Kind:
    return Kind(TwoInputs(), *(Rows(*pair) for pair in vectors()))


def own_losses(losses: Callable[[Any, Any], Any]) -> Callable[[], Kind]:
    def kind() -> Kind:
        tasks = [
            capacity.Task(name=name, train=dict(zip("xy", pair, strict=True)), losses=losses)
            for name, pair in zip(("old", "new"), vectors(), strict=True)
        ]
        return Kind(mlp(), *tasks)

    return kind


def per_sample(model: Any, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def asked_twice(model: Any, batch: Any) -> Tensor:
    return per_sample(model, batch) + (model(batch["x"]) - model(-batch["x"])).square().mean(1)


def per_token(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    outputs = model(batch["x"]).movedim(-1, 1)
    each = functional.cross_entropy(outputs, batch["y"], reduction="none")
    return each.sum(1), (batch["y"] >= 0).sum(1)


def own_token_losses() -> Kind:
    x, _ = tokens()
    short = torch.arange(LENGTH) >= 2 + torch.arange(SAMPLES)[:, None] % 4
    tasks = [
        capacity.Task(
            name=f"+{turn}", losses=per_token,
            train={"x": x, "y": ((x + turn) % WORDS).masked_fill(short, -100)},
        )
        for turn in (1, 3)
    ]  # fmt: skip
    return Kind(Tied(), *tasks)


class Endless(IterableDataset):
    """Draws its samples anew at each pass."""

    def __init__(self, column: int) -> None:
        self.column = column

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        while True:
            x = torch.randn(WIDTH)
            yield x, int(x[self.column] > 0)


def streamed_by_index() -> Kind:
    return Kind(mlp(), *(capacity.Streamed(TensorDataset(*pair)) for pair in vectors()))


def streamed_in_order() -> Kind:
    return Kind(mlp(), *(capacity.Streamed(Endless(k), samples=SAMPLES) for k in range(2)))


def odd_name() -> Kind:
    parts = [capacity.Split(*pair) for pair in vectors()]
    tasks = [
        capacity.Task(name=name, train=part, test=part)
        for name, part in zip(("first", "sec\x1bond"), parts, strict=True)
    ]
    return Kind(mlp(), *tasks)


def bytes_as_images() -> Kind:
    (x, y), (z, w) = images()
    made = with_images()()
    return made._replace(old=((x * 9).byte(), y), new=((z * 9).byte(), w))


def without_labels() -> Kind:
    (x, _), (z, _) = vectors()
    return Kind(TwoInputs(), *({"left": p[:, :2], "right": p[:, 2:]} for p in (x, z)))


def growing_head() -> Kind:
    from types import SimpleNamespace

    from avalanche.models import IncrementalClassifier

    (x, y), (z, w) = vectors()
    head = IncrementalClassifier(6)
    head.adaptation(SimpleNamespace(classes_in_this_experience=[2, 3]))
    return Kind(nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), head), (x, y + 2), (z, w))


def hugging_face(training: bool) -> Callable[[], Kind]:
    def kind() -> Kind:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8, num_labels=CLASSES,
        )  # fmt: skip
        made = masked_words(0.0)()
        return made._replace(model=BertForSequenceClassification(config).train(training))

    return kind


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0]))
SMOOTH = nn.CrossEntropyLoss(label_smoothing=0.1)
GROUPS = [{"parameters": ["*.bias"], "weight_decay": 0.0}]

KINDS: dict[str, Callable[[], Kind]] = {
    "MLP": with_vectors(mlp),
    "CNN": with_images(),
    "layer norm": with_vectors(lambda: mlp(nn.LayerNorm(6))),
    "group norm": with_images(lambda: nn.GroupNorm(2, 4)),
    "instance norm": with_images(lambda: nn.InstanceNorm2d(4, affine=True)),
    "instance norm, running statistics": with_images(
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    ),
    "batch norm, training": with_vectors(lambda: mlp(nn.BatchNorm1d(6))),
    "batch norm of images, training": with_images(lambda: nn.BatchNorm2d(4)),
    "batch norm, evaluation": with_vectors(lambda: mlp(nn.BatchNorm1d(6)).eval()),
    "batch norm without statistics": with_vectors(
        lambda: mlp(nn.BatchNorm1d(6, track_running_stats=False))
    ),
    "dropout, training": with_vectors(lambda: mlp(nn.Dropout(0.2))),
    "dropout, evaluation": with_vectors(lambda: mlp(nn.Dropout(0.2)).eval()),
    "dropout of channels": with_images(lambda: nn.Dropout2d(0.2)),
    "dropout by function": with_vectors(
        lambda: mlp(Layer(lambda x, t: functional.dropout(x, 0.2, t)))
    ),
    "dropout that never ends": with_vectors(
        lambda: mlp(Layer(lambda x, _: functional.dropout(x, 0.2)))
    ),
    "noise while it trains": with_vectors(
        lambda: mlp(Layer(lambda x, t: x + 0.1 * torch.randn_like(x) if t else x))
    ),
    "stochastic depth": with_vectors(
        lambda: mlp(Layer(lambda x, t: x * (torch.rand(len(x), 1) > 0.2) if t else x))
    ),
    "spectral norm": with_vectors(
        lambda: mlp(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)))
    ),
    "weight norm": with_vectors(
        lambda: mlp(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))
    ),
    "legacy weight norm": with_vectors(lambda: mlp(nn.utils.weight_norm(nn.Linear(6, 6)))),
    "RNN": with_words(lambda: Recurrent(nn.RNN)),
    "GRU": with_words(lambda: Recurrent(nn.GRU)),
    "LSTM": with_words(lambda: Recurrent(nn.LSTM)),
    "transformer layer": with_words(Attention),
    "transformer layer with dropout": with_words(lambda: Attention(0.1)),
    "attention mask": masked_words(0.0),
    "attention mask and dropout": masked_words(0.1),
    "BERT, training": hugging_face(True),
    "BERT, evaluation": hugging_face(False),
    "tied weights, a label per token": token_labels,
    "a label per pixel": maps,
    "low-rank adapter, frozen base": with_vectors(Adapted),
    "DataParallel": with_vectors(lambda: nn.DataParallel(mlp())),
    "compiled": with_vectors(lambda: torch.compile(mlp())),
    "a tuple as output": with_vectors(
        lambda: nn.Sequential(mlp(), Layer(lambda x, _: (x, x.sum(1))))
    ),
    "a lazy layer": with_vectors(lambda: nn.LazyLinear(CLASSES)),
    "a layer that writes into its input": with_vectors(
        lambda: nn.Sequential(Layer(lambda x, _: x.sub_(0.1)), mlp())
    ),
    "gradient checkpointing": with_vectors(lambda: Checkpointed(WIDTH, CLASSES)),
    "an old autograd.Function": with_vectors(lambda: mlp(Layer(lambda x, _: Square.apply(x)))),
    "float64": lambda: Kind(mlp().double(), *((x.double(), y) for x, y in vectors())),
    "bfloat16": with_vectors(lambda: mlp().bfloat16()),
    "a head that grows": growing_head,
    "data sets of dictionaries": dictionaries,
    "losses per sample of one's own": own_losses(per_sample),
    "losses that call the model twice": own_losses(asked_twice),
    "losses and counts of tokens": own_token_losses,
    "streamed by index": streamed_by_index,
    "streamed in order": streamed_in_order,
    "loaders": loaders,
    "control characters in a name": odd_name,
    "bytes as images": bytes_as_images,
    "batches without labels": without_labels,
    "class weights": with_vectors(mlp, loss=WEIGHTED),
    "label smoothing": with_vectors(mlp, loss=SMOOTH),
    "a sum as loss": with_vectors(mlp, loss=nn.CrossEntropyLoss(reduction="sum")),
    "several labels per sample": several_labels,
    "regression": squares,
    "momentum": with_plan(optimizer="momentum"),
    "AdamW with warmup": with_plan(optimizer="adamw", lr=0.01, warmup=2, weight_decay=0.01),
    "clipped gradients": with_plan(clip_norm=0.5),
    "accumulated gradients": with_plan(accumulate=2),
    "parameter groups": with_plan(weight_decay=0.1, groups=GROUPS),
    "steps in place of epochs": with_plan(max_steps=3),
    "a cosine": with_plan(schedule="cosine"),
    "a rate that is too large": with_plan(lr=1e4),
    "replay with dropout": with_vectors(
        lambda: mlp(nn.Dropout(0.2)), plan=PLAN | {"strategy": {"name": "replay", "memory": 8}}
    ),
    "EWC with batch norm": with_vectors(
        lambda: mlp(nn.BatchNorm1d(6)), plan=PLAN | {"strategy": {"name": "ewc"}}
    ),
}
