"""One run from the first task to the last: forecast, train, measure, write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capacity import interruption
from capacity.compatibility.transition import CapacityRecord, assess
from capacity.config import Recipe
from capacity.dynamics.batches import DataOrder
from capacity.dynamics.evaluate import Score, evaluate
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.seeds import stream, stream_seed
from capacity.dynamics.strategies.contribution import Contribution
from capacity.dynamics.strategies.registry import Mitigation
from capacity.dynamics.strategies.step import StrategyStep
from capacity.dynamics.strategies.terms import Source
from capacity.dynamics.train import train
from capacity.dynamics.updates import from_training
from capacity.estimate import from_samples
from capacity.forecasting.forecast import forecast_replicas
from capacity.forecasting.predictors.record import Setting
from capacity.forecasting.predictors.registry import predict
from capacity.runs.directory import RunDirectory
from capacity.runs.judge import Along, judge_transition
from capacity.runs.observe import PhaseTransport, composed_spectrum
from capacity.runs.progress import Progress
from capacity.runs.result import Measurements
from capacity.tasks.task import TaskSequence
from capacity.thermo.path import PathObserver
from capacity.transport.jacobian import TrainingJacobian
from capacity.transport.trajectory import LostTrajectory

CONTROLS = ("new_task_loss", "path_bound")
"""Simpler predictors that every run shows beside its forecasts; they cost one gradient."""


class Execution:
    """Carries one run through its tasks and keeps `result.json` current.

    Every random stream is named after what it is for, so a measurement that is switched off
    changes no other number.
    """

    def __init__(
        self,
        recipe: Recipe,
        sequence: TaskSequence,
        new_model: Callable[[int], nn.Module],
        directory: RunDirectory,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._recipe, self._directory, self._progress = recipe, directory, progress
        self._tasks = sequence.to(device)
        seeds = [stream_seed(recipe.seed, "init", r) for r in range(recipe.replicas)]
        models = [FlatModel(new_model(seed)) for seed in seeds]
        self._model = models[0].to(device)
        self._theta = torch.stack([model.initial() for model in models]).to(device)
        _check_head(self._model, self._theta[0], self._tasks)
        self._mitigation = Mitigation(
            recipe.training.strategy, self._model, Source(recipe.seed, ("strategy",))
        )
        self._plan = Contribution(training=recipe.training)
        self._zero: list[Score] = []
        self._found = Measurements(
            recipe, self._model, self._tasks, states=["not_started"] * len(self._tasks)
        )
        self._steps, self._time = 0, 0.0
        self._displacement = 0.0
        self._along = Along(self._theta, 0, 0)
        self._spent = 0.0

    def run(self) -> str:
        """Do everything.

        Returns:
            The final state: finished or diverged.

        Raises:
            KeyboardInterrupt: If it was interrupted; what was measured is in `result.json`.
        """
        state = "running"
        try:
            with interruption.deferred():
                state = self._carry_out()
        except KeyboardInterrupt:
            state = "interrupted"
            self._found.states = [
                "interrupted" if s == "training" else s for s in self._found.states
            ]
            raise
        finally:
            self._progress.close()
            if state != "running":
                self._directory.write_json("result.json", self._found.result(state))
                self._directory.compact_metrics()
        return state

    def _carry_out(self) -> str:
        self._directory.write_tensors("checkpoints/initial.safetensors", {"theta": self._theta})
        self._zero = self._evaluate_all()
        for i in range(len(self._tasks)):
            self._before(i)
            self._learn(i)
            if i in self._found.diverged:
                self._compose(i)
                return "diverged"
            self._after(i)
            self._directory.write_json("result.json", self._found.result("running"))
        self._compose(len(self._tasks))
        return "finished"

    def _compose(self, count: int) -> None:
        """Resolve J_t over the learned tasks."""
        measure = self._recipe.measure
        if not (measure.transport and measure.composed_spectrum and count):
            return
        self._progress.start(f"spectrum over {count} tasks", 1)
        with self._directory.timed("transport"):
            self._found.composed = composed_spectrum(
                [self._found.transports[i] for i in range(count)],
                measure,
                stream(self._recipe.seed, "composed", device=self._theta.device),
            )

    def _before(self, i: int) -> None:
        """Forecast what learning task i will do, and measure the room that is left for it."""
        if i == 0:
            return
        recipe, task = self._recipe, self._tasks[i]
        old = self._tasks.tasks[:i]
        self._plan = self._mitigation.plan(task, recipe.training)
        self._found.planned[i] = self._plan.training
        if recipe.measure.forecast:
            self._progress.start(f"task {i + 1}/{len(self._tasks)} forecast", 1)
            with self._directory.timed("forecast"):
                self._found.forecasts[i] = forecast_replicas(
                    self._model,
                    self._theta,
                    old,
                    task,
                    self._plan.training,
                    self._order(i, "forecast"),
                    self._plan,
                )
                setting = Setting(
                    model=self._model,
                    theta=self._theta,
                    old=old,
                    new=task,
                    training=self._plan.training,
                )
                self._found.controls[i] = {
                    name: said[0].loss_increase.to_dict()
                    for name, said in predict(setting, CONTROLS).items()
                }
        self._progress.start(f"task {i + 1}/{len(self._tasks)} capacity", 1)
        with self._directory.timed("capacity"):
            try:
                self._found.capacities[i] = self._assess(i)
            except (FloatingPointError, LostTrajectory, torch.linalg.LinAlgError) as error:
                self._found.capacities[i] = None
                said = f"Capacity and dimension could not be measured: {error}"
                self._found.notes[i] = f"{self._found.notes.get(i, '')} {said}".strip()
                self._progress.line(f"task {i + 1}: {self._found.notes[i]}")

    def _assess(self, i: int) -> CapacityRecord:
        recipe, device = self._recipe, self._theta.device
        phases = [
            self._found.transports[k].trajectory for k in range(i) if recipe.measure.transport
        ]
        old, new = self._tasks.tasks[:i], self._tasks[i]
        record = assess(
            self._model,
            self._theta[0],
            old,
            new,
            TrainingJacobian(phases) if phases else None,
            recipe.measure,
            displacement=self._displacement,
            generator=stream(recipe.seed, "capacity", i, device=device),
        )
        if not recipe.measure.verdicts:
            return record
        return judge_transition(
            self._model,
            self._theta[0],
            old,
            new,
            self._plan.training,
            record,
            along=self._along,
            time=self._spent,
            strategy="" if self._plan.plain else recipe.training.strategy.name,
            seed=recipe.seed,
        )

    def _learn(self, i: int) -> None:
        """Train every replica on task i, watched."""
        recipe, task = self._recipe, self._tasks[i]
        label = f"task {i + 1}/{len(self._tasks)} train"
        training = self._plan.training
        self._progress.start(label, training.epochs)
        self._found.states[i] = "training"
        order = self._order(i, "order")
        update = from_training(training, seed=order.seed, path=order.path)
        strategy = None
        if not self._plan.plain:
            strategy = StrategyStep(self._model, task, self._plan, recipe.replicas)
        path = PathObserver()
        observers: list[Any] = [path, *self._mitigation.observers()]
        if recipe.measure.transport:
            self._found.transports[i] = PhaseTransport(
                self._model,
                task,
                update,
                recipe.measure,
                stream(recipe.seed, "tangents", i, device=self._theta.device),
                strategy,
            )
            observers.append(self._found.transports[i])
        start, first = self._theta, self._steps
        before = evaluate(self._model, start, task, task.train)
        time = self._time
        rates = training.learning_rates(len(task.train))
        self._write_epoch(i, 0, first, time, rates[0], before, self._latest())
        last = i + 1 == len(self._tasks)
        self._along = Along(start, training.epochs, 0 if last else recipe.measure.closure_points)

        def on_epoch(epoch: int, steps: int, learned: float, theta: Tensor) -> None:
            train_score = evaluate(self._model, theta, task, task.train)
            tests = [evaluate(self._model, theta, t, t.test) for t in self._tasks.tasks]
            rate = rates[steps - 1]
            self._write_epoch(i, epoch, first + steps, time + learned, rate, train_score, tests)
            self._along.epoch(epoch, learned, theta)
            self._progress.advance(f"loss {float(train_score.loss.mean()):.3f}")

        with self._directory.timed("train"):
            phase = train(
                self._model,
                start,
                task,
                training,
                order,
                observers=observers,
                on_epoch=on_epoch,
                update=update,
                strategy=strategy,
            )
        self._theta = phase.theta
        self._steps, self._spent = first + phase.steps, phase.learning_time
        self._time = time + phase.learning_time
        if phase.diverged is not None:
            self._found.states[i] = "diverged"
            self._found.diverged[i] = phase.diverged
            lost = ", ".join(map(str, phase.diverged.replicas))
            self._progress.line(
                f"task {i + 1}/{len(self._tasks)} ({task.name}) diverged at step "
                f"{phase.diverged.step}: replica {lost} is "
                "no longer finite; a smaller training.lr usually helps"
            )
            return
        # Only a finished phase has a cost; a diverged one would mix finite and lost replicas.
        after = evaluate(self._model, self._theta, task, task.train)
        full = training.batch_size >= len(task.train) and strategy is None
        self._found.costs[i] = path.cost(
            before.loss,
            after.loss,
            plain=update.plain and strategy is None,  # or the loss is another than the task's
            full=full,
            noisy=recipe.training.temperature is not None,
        )
        moved = (self._theta - start).double().square().sum(-1).mean()
        self._displacement = float(moved.sqrt())
        with self._directory.timed("strategy"):
            self._mitigation.learned(task, self._theta)

    def _after(self, i: int) -> None:
        """Measure what learning task i did."""
        with self._directory.timed("measure"):
            self._found.scores.append(self._evaluate_all())
        self._found.states[i] = "learned"
        name = f"checkpoints/task{i}.safetensors"
        self._directory.write_tensors(name, {"theta": self._theta})
        if i in self._found.transports:
            self._progress.start(f"task {i + 1}/{len(self._tasks)} spectrum", 1)
            with self._directory.timed("transport"):
                self._found.transports[i].finish(
                    stream(self._recipe.seed, "spectrum", i, device=self._theta.device)
                )
            tensors = {
                f"task{k}.{key}": tensor
                for k, transport in self._found.transports.items()
                for key, tensor in transport.tensors().items()
            }
            self._directory.write_tensors("spectra.safetensors", tensors)
        self._progress.line(self._said(i))

    def _said(self, i: int) -> str:
        task, latest = self._tasks[i], self._found.scores[-1]
        text = f"task {i + 1}/{len(self._tasks)} ({task.name}) learned: "
        kind = "accuracy" if task.classifies else "loss"
        text += f"{kind} {float(getattr(latest[i], kind).mean()):.3f}"
        if i:
            measured = self._measured(i)
            mean = np.mean([cell["value"] for cell in measured if cell["value"] is not None])
            text += f"; forgot {mean:.3f} of {kind} on {i} earlier"
            if i in self._found.forecasts:
                cells = [
                    f.accuracy_drop if t.classifies else f.loss_increase
                    for f, t in zip(self._found.forecasts[i].old, self._tasks.tasks, strict=False)
                ]
                values = [cell.value for cell in cells if cell.value is not None]
                if values:
                    text += f" (forecast {np.mean(values):.3f})"
        return text

    def _measured(self, i: int) -> list[dict[str, Any]]:
        kind = "accuracy_drop" if self._tasks[i].classifies else "loss_increase"
        return [self._found.forgotten(i, j)[kind] for j in range(i)]

    def _latest(self) -> list[Score]:
        return self._found.scores[-1] if self._found.scores else self._zero

    def _evaluate_all(self) -> list[Score]:
        return [evaluate(self._model, self._theta, t, t.test) for t in self._tasks.tasks]

    def _order(self, i: int, purpose: str) -> DataOrder:
        return DataOrder(
            samples=len(self._tasks[i].train),
            batch_size=self._recipe.training.batch_size,
            epochs=self._plan.training.epochs,
            replicas=self._recipe.replicas,
            seed=self._recipe.seed,
            path=(purpose, i),
        )

    def _write_epoch(
        self, i: int, epoch: int, step: int, time: float, lr: float, fit: Score, tests: list[Score]
    ) -> None:
        row: dict[str, Any] = {"task": i, "epoch": epoch, "step": step, "learning_time": time}
        row |= {"lr": lr, **_mean_and_error("train_loss", [fit.loss], single=True)}
        row |= _mean_and_error("test_accuracy", [s.accuracy for s in tests])
        row |= _mean_and_error("test_loss", [s.loss for s in tests])
        self._directory.append_metrics(row)


def _mean_and_error(name: str, values: list[Tensor], *, single: bool = False) -> dict[str, Any]:
    made = [from_samples(v.tolist()) for v in values]
    mean, error = [e.value for e in made], [e.stderr for e in made]
    if single:
        return {name: mean[0], f"{name}_stderr": error[0]}
    return {name: mean, f"{name}_stderr": error}


def _check_head(model: FlatModel, theta: Tensor, tasks: TaskSequence) -> None:
    """Run one sample through the network, so that a misfit dies before any work."""
    x = tasks[0].train.x[:1]
    try:
        with torch.no_grad():
            width = model.outputs(theta, x).shape[-1]
    except RuntimeError as error:
        raise ValueError(
            f"model does not take inputs of shape {tuple(x.shape[1:])} and dtype {x.dtype}: {error}"
        ) from error
    for task in tasks.tasks:
        task.check_outputs(width)
