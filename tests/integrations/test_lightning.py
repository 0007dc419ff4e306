"""A Lightning fit is forecast, measured, and not disturbed."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import capacity
from capacity.networks.training_steps import step_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

PLAN = capacity.Training(lr=0.1, epochs=1)
pytestmark = pytest.mark.filterwarnings("ignore")


def loader(seed, turn=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(48, 4, generator=source)
    y = (x[:, :2].argmax(1) + turn) % 2
    return DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)
        self.criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))

    def training_step(self, batch, number):
        x, y = batch
        loss = self.criterion(self.head(self.encoder(x)), y)
        self.log("loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=48)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def fitted(path, callbacks, module=None, **more):
    torch.manual_seed(0)
    module = Module() if module is None else module
    start = {name: t.clone() for name, t in module.state_dict().items()}
    options = {"max_epochs": 8, "accelerator": "cpu", "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "enable_checkpointing": False} | more
    logger = lightning.pytorch.loggers.CSVLogger(path)
    trainer = lightning.Trainer(callbacks=callbacks, logger=logger, **options)
    trainer.fit(module, loader(1, turn=1))
    written = path / "lightning_logs" / "version_0" / "metrics.csv"
    return module, start, written.read_text() if written.exists() else ""


@pytest.mark.slow  # two fits and a rehearsal
def test_a_fit_is_forecast_measured_and_the_same(tmp_path):
    from capacity.integrations.lightning_callback import CapacityCallback

    callback = CapacityCallback(old={"first": loader(0)}, strategies=["replay"])
    module, start, logged = fitted(tmp_path / "watched", [callback], gradient_clip_val=1.0)
    alone, _, _ = fitted(tmp_path / "alone", [], gradient_clip_val=1.0)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name
    assert callback.forecast.by_strategy.keys() == {"replay"}
    for kind in ("forecast", "measured"):
        assert f"capacity/{kind}/first/loss_increase" in logged
    # By hand: the weighted loss on the samples that were held out, before and after.
    task = callback._tasks[0]
    x, y = task.layout.unpack(task.test.x)
    values = []
    before = Module()
    before.load_state_dict(start)
    for model in (before.eval(), module.eval()):
        with torch.no_grad():
            values.append(float(model.criterion(model.head(model.encoder(x)), y)))
    rise = callback.measured["first"].loss_increase
    assert rise.value == pytest.approx(values[1] - values[0], abs=1e-5)
    # The rehearsal has the plan of the fit: a data order of its own, and little else.
    assert callback.forecast.loss_increase.value == pytest.approx(
        rise.value, abs=0.5 * abs(rise.value)
    )


def test_the_plan_is_the_trainers(tmp_path, monkeypatch):
    from capacity.integrations import lightning_callback

    plans = []

    def seen(*_, training, **__):
        plans.append(training)
        raise KeyboardInterrupt

    monkeypatch.setattr(lightning_callback, "forecast", seen)
    callback = lightning_callback.CapacityCallback(old=loader(0))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fitted(tmp_path, [callback], gradient_clip_val=0.5, accumulate_grad_batches=2)
    (plan,) = plans
    assert (plan.optimizer, plan.batch_size, plan.accumulate) == ("adamw", 8, 2)
    assert plan.clip_norm == 0.5
    assert plan.max_steps == 24
    assert plan.learning_rates(48)[-1] == pytest.approx(0.05 * (1 - 0.9 * 23 / 48))


class Penalised(Module):
    def training_step(self, batch, number):
        penalty = self.head.weight.square().sum()
        return super().training_step(batch, number)["loss"] + penalty


class Silent(Module):
    def training_step(self, batch, number):
        return None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Penalised, r"no function of what 'head' returns .*capacity\.Task\(name=\.\.\., train="),
        (Silent, "training_step returns NoneType and no loss"),
    ],
)
def test_a_step_that_is_no_loss_of_outputs_is_refused(kind, said):
    module = kind()
    module.log = lambda *_, **__: None
    batch = next(iter(loader(0)))
    with pytest.raises(ValueError, match=said):
        step_loss(module, batch, lambda m, b: m.training_step(b, 0), "training_step")


def test_the_network_of_a_step_is_its_last_part_that_learns():
    module = Module()
    module.log = lambda *_, **__: None
    x, y = next(iter(loader(0)))
    made = step_loss(module, (x, y), lambda m, b: m.training_step(b, 0), "training_step")
    assert made.network == "head"
    outputs = torch.randn(8, 2)
    by_hand = functional.cross_entropy(outputs, y, weight=torch.tensor([1.0, 2.0]))
    assert float(made.replay(outputs, (x, y))) == pytest.approx(float(by_hand))


@pytest.mark.slow  # a run
def test_a_lightning_module_runs(tmp_path, quick_run):
    """What the callback reads is a task like any other."""
    module = Module()
    module.log = lambda *_, **__: None
    batch = next(iter(loader(0)))
    step = step_loss(module, batch, lambda m, b: m.training_step(b, 0), "training_step")
    tasks = [capacity.Task(name=str(k), train=loader(k, turn=k), loss=step) for k in range(2)]
    made = capacity.run(
        tasks,
        model=module.eval(),
        training=capacity.Training(lr=0.1, epochs=1),
        out=tmp_path,
        quiet=True,
    )
    assert made.status == "finished"
    assert made.result["loss"]["mean"][1][0] > 0
