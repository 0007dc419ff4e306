"""A transformers.Trainer is forecast as it stands, and stays as it is."""

import copy
import math

import pytest
import torch

import capacity

transformers = pytest.importorskip("transformers")

PLAN = capacity.Training(lr=1e-3, epochs=6, batch_size=8, optimizer="adamw")


def texts(n, seed, turn=False):
    source = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        length = int(torch.randint(4, 10, (), generator=source))
        ids = torch.randint(1, 60, (length,), generator=source).tolist()
        label = int(ids[0] > 30)
        rows.append({"input_ids": ids, "label": 1 - label if turn else label, "text": "words"})
    return rows


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
    mask = [[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in rows]
    labels = [row["label"] for row in rows]
    named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.tensor(value) for name, value in named.items()}


def network():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def trainer(path, kind=None, **more):
    kind = transformers.Trainer if kind is None else kind
    arguments = transformers.TrainingArguments(
        output_dir=str(path), num_train_epochs=6, per_device_train_batch_size=8, report_to=[],
        use_cpu=True, dataloader_pin_memory=False, learning_rate=1e-3, **more,
    )  # fmt: skip
    return kind(
        model=network(), args=arguments, train_dataset=texts(60, 1, turn=True),
        data_collator=collate,
    )  # fmt: skip


def test_a_trainer_says_what_it_will_train(tmp_path):
    given = trainer(tmp_path, remove_unused_columns=False)
    before = copy.deepcopy(given.model.state_dict())
    mode = given.model.training
    made = capacity.forecast(given, old={"wiki": texts(60, 2)}, training=PLAN)
    assert math.isfinite(made.old[0].loss_increase.value)
    assert all(torch.equal(before[name], t) for name, t in given.model.state_dict().items())
    assert given.model.training is mode
    assert given.optimizer is None
    # The same by hand: the collator's batches, in training mode.
    old, new = (collate(texts(60, seed, turn)) for seed, turn in ((2, False), (1, True)))
    by_hand = capacity.forecast(given.model.train(), old={"wiki": old}, new=new, training=PLAN)
    assert by_hand.old[0].loss_increase.value == pytest.approx(made.old[0].loss_increase.value)


def test_old_tasks_keep_their_names(tmp_path):
    given = trainer(tmp_path, remove_unused_columns=False)
    made = capacity.forecast(given, old={"wiki": texts(30, 2), "code": texts(30, 3)}, training=PLAN)
    assert len(made.old) == 2


class OwnLoss(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **more):
        raise NotImplementedError


def test_a_loss_of_its_own_is_not_guessed(tmp_path):
    given = trainer(tmp_path, OwnLoss, remove_unused_columns=False)
    with pytest.raises(ValueError, match=r"OwnLoss computes a loss of its own.*pass loss="):
        capacity.forecast(given, old=texts(30, 2), training=PLAN)
    made = capacity.forecast(
        given, old=texts(30, 2), training=PLAN, loss=torch.nn.functional.cross_entropy
    )
    assert math.isfinite(made.old[0].loss_increase.value)


def test_a_language_model_is_scored_on_the_next_token(tmp_path):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)

    def batch(rows):
        ids = torch.tensor([row["input_ids"][:4] for row in rows])
        return {"input_ids": ids % 40, "labels": ids % 40}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        report_to=[],
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )  # fmt: skip
    given = transformers.Trainer(
        model=model, args=arguments, train_dataset=texts(40, 1), data_collator=batch
    )
    made = capacity.forecast(given, old=texts(40, 2), training=PLAN, budget=math.inf)
    given.args.label_smoothing_factor = 0.1
    with pytest.raises(ValueError, match=r"label_smoothing_factor = 0\.1 is known for"):
        capacity.forecast(given, old=texts(40, 2), training=PLAN)
    ids = batch(texts(40, 2))
    with torch.no_grad():
        own = float(model.eval()(**ids).loss)
    now = made.old[0].loss_increase
    assert now.status.value != "not_defined"
    assert own == pytest.approx(math.log(40), rel=0.05), "nothing is learned yet"
    assert abs(now.value) < 1


def test_a_callback_forecasts_measures_and_disturbs_nothing(tmp_path):
    from capacity.integrations.trainer_callback import CapacityCallback

    ends = []
    for watched in (False, True):
        given = trainer(tmp_path / str(watched), remove_unused_columns=False, logging_steps=50)
        callback = CapacityCallback(
            given, old={"wiki": texts(60, 2)}, strategies=["replay"], training=PLAN
        )
        if watched:
            given.add_callback(callback)
        given.train()
        ends.append({name: t.clone() for name, t in given.model.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert callback.forecast.by_strategy.keys() == {"replay"}
    logged = {key for entry in given.state.log_history for key in entry}
    for kind in ("forecast", "measured"):
        assert f"capacity/{kind}/wiki/loss_increase" in logged
    task = capacity.hold_out(collate(texts(60, 2)))
    batch = task.layout.unpack(task.test.x)
    with torch.no_grad():
        now, then = network().eval(), given.model.eval()
        loss = [
            float(torch.nn.functional.cross_entropy(model(**batch).logits, task.test.y))
            for model in (now, then)
        ]
    rise = callback.measured["wiki"].loss_increase
    assert rise.value == pytest.approx(loss[1] - loss[0], abs=1e-5)
    assert rise.n == len(task.test)
