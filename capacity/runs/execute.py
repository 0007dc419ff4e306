"""One run from the first task to the last: forecast, train, measure, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capacity.base import interruption
from capacity.base.beside import possible
from capacity.base.random_streams import stream, stream_seed
from capacity.networks.calibration import calibration_error
from capacity.networks.door import fit
from capacity.networks.evaluate import Score, evaluate
from capacity.networks.own_losses_door import check_outputs_are_known
from capacity.networks.replicas import check_same_function
from capacity.networks.running_statistics import statistics_record
from capacity.optimizers.from_recipe import check_plan
from capacity.recipe.config import Recipe
from capacity.records.estimate import from_samples
from capacity.runs.aside import Aside, Made
from capacity.runs.before_task import BeforeTask
from capacity.runs.directory import RunDirectory
from capacity.runs.epochs import epoch_row, networks, path_row
from capacity.runs.journal import Entry
from capacity.runs.journal_replay import path_needed, rows_so_far
from capacity.runs.observe import PhaseTransport, composed_spectrum
from capacity.runs.old_tasks import scores_of
from capacity.runs.progress import Progress
from capacity.runs.repeatable import check_same, threads_for, threads_of
from capacity.runs.report_door import ReportSoFar
from capacity.runs.result import Measurements
from capacity.runs.saving import Summary
from capacity.runs.task_training import Lesson, NotRepeatedError
from capacity.runs.two_modes import check_two_modes
from capacity.runs.verdicts_along import Along, moments_of
from capacity.strategies.contribution import Contribution
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.streamed import in_order
from capacity.tasks.task import TaskSequence
from capacity.training.data_order import DataOrder
from capacity.training.train import Divergence

_BESIDE = 2
"""Rooms that are measured at a time: the next is begun while the last takes longer than a task."""


class _Latest(NamedTuple):
    """What the last epoch of a training ended with: parameters, scores on training and tests."""

    theta: Tensor
    fit: Score
    tests: list[Score]


class Execution:
    """Carries one run through its tasks and keeps `result.json` current.

    Every random stream is named after what it is for, so a measurement that is switched off
    changes no other number. Every stage that is done is in the journal; a run that was cut off goes
    through the same stages again and takes what is there from the journal.
    """

    def __init__(
        self,
        recipe: Recipe,
        sequence: TaskSequence,
        new_model: Callable[[int], nn.Module],
        directory: RunDirectory,
        device: torch.device,
        progress: Progress,
        *,
        checkpoint_minutes: float = 5.0,
        threads: int | None = None,
        processes: int = 1,
        report: ReportSoFar | None,
    ) -> None:
        self._recipe, self._directory, self._progress = recipe, directory, progress
        self._report = report
        self._tasks = sequence.to(device)
        models = networks(recipe, new_model)
        # Before the first is moved: the others stay where they were built.
        self._theta = torch.stack([model.initial() for model in models]).to(device)
        self._model = models[0].to(device)
        measured = recipe.measure.transport or recipe.measure.capacity
        self._tasks = replace(
            self._tasks,
            tasks=fit(
                self._model, self._theta[0], self._tasks.tasks, twice=measured, two_modes=True
            ),
        )
        if recipe.measure.capacity:
            check_outputs_are_known(self._tasks.tasks, "R_A, m_B and verdicts")
        check_two_modes(self._model, self._theta[0], self._tasks[0], recipe)
        some = self._tasks[0].train.first(2).x
        for replica, other in enumerate(models[1:], start=1):
            check_same_function(self._model, other, some, replica)
        self._mitigation = Mitigation(
            recipe.training.strategy, self._model, Source(recipe.seed, ("strategy",))
        )
        self._mitigation.check(self._tasks.tasks, recipe.training)
        for options in recipe.measure.strategies:  # one that cannot work with them dies here
            Mitigation(options, self._model).check(self._tasks.tasks, recipe.training)
        check_plan(recipe.training, self._model.layout, [len(t.train) for t in self._tasks.tasks])
        self._plan = Contribution(training=recipe.training)
        self._zero: list[Score] = []
        self._latest: _Latest | None = None
        self._found = Measurements(
            recipe, self._model, self._tasks, states=["not_started"] * len(self._tasks)
        )
        self._old = self._found.old
        self._steps, self._time = 0, 0.0
        self._displacement = 0.0
        self._along = Along(self._theta, 0, 0)
        self._spent = 0.0
        self._journal = directory.journal(recipe)
        self._every = checkpoint_minutes
        self._trajectories: dict[int, PhaseTransport] = {}
        self._summary = Summary(directory, self._found)
        self._new = False
        self._threads = threads or threads_for(self._model, device)
        two = processes > 1 and self._threads == 1 and device.type == "cpu" and possible()
        self._aside = Aside(two, directory.spent)
        self._rooms: dict[int, BeforeTask] = {}

    def prepare(self) -> int:
        """Look at what is done already, before anything is written.

        A damaged record, another run's, or a machine that would not go on bit for bit is a
        ValueError.

        Returns:
            How many stages there are.
        """
        self._directory.verify()
        self._journal.check()
        check_same(self._journal, self._theta.device)
        return len(self._journal)

    def run(self) -> str:
        """Do everything that is not done yet.

        Returns:
            The final state: finished or diverged.

        Raises:
            KeyboardInterrupt: If it was interrupted; what was measured is in `result.json`.
            NotRepeatedError: If a training that has to be taken again leads elsewhere now.
        """
        state, self._new = "failed", not self._journal
        try:
            with (
                interruption.deferred(),
                threads_of(self._journal, self._theta.device, self._threads),
            ):
                state = self._carry_out()
        except (KeyboardInterrupt, NotRepeatedError):
            state = "interrupted"
            self._found.states = [
                "interrupted" if s == "training" else s for s in self._found.states
            ]
            raise
        finally:
            self._aside.stop()
            if self._report is not None:
                self._report.stop()
            self._progress.close()
            self._end(state)
        return state

    def _end(self, state: str) -> None:
        """Write down how the run ended, and leave what was measured before as it is."""
        ended = state in {"finished", "diverged"}
        try:
            if ended or self._new:
                self._directory.write(self._summary.files(state))
                self._directory.compact_metrics()
            elif before := self._directory.result():
                # It ended before it had caught up with what was measured.
                self._directory.write({"result.json": before | {"status": state}})
        except OSError:
            # Else the full disk, say, is what ended the run: that error is on its way.
            if ended:
                raise

    def _carry_out(self) -> str:
        count = len(self._tasks)
        self._directory.write_metrics(rows_so_far(self._journal, count))
        self._save()
        self._directory.write({"checkpoints/initial.safetensors": {"theta": self._theta}})
        self._zero = self._evaluate(self._old.tested(0))
        self._progress.plan(self._kinds(count))
        for i in range(count):
            before = self._before(i) if i else None
            self._learn(i)
            if before is not None:
                self._rooms[i] = before  # measured beside, it may take until here, or longer
            if i in self._found.diverged:
                self._compose(i)
                self._catch_up()
                return "diverged"
            self._after(i)
            self._catch_up(going=_BESIDE)
        self._compose(count)
        if self._report is not None:
            self._report.ahead()
        self._catch_up()
        return "finished"

    def _catch_up(self, going: int = 0) -> None:
        """Write down the rooms that were measured beside; wait until only so many are going."""
        for i, before in list(self._rooms.items()):
            room = f"task{i}.capacity"
            done = room not in self._aside or self._aside.done(room)
            if done or len(self._rooms) > going:
                self._room(i, before)
                del self._rooms[i]

    def _kinds(self, count: int) -> list[str]:
        """List the kinds of the stages ahead, by the names of their timers."""
        measure = self._recipe.measure
        spectra = count + (measure.composed_spectrum and count > 0) if measure.transport else 0
        kinds = {
            "train": count,
            "transport": spectra,
            "forecast": (count - 1) * measure.forecast,
            "capacity": (count - 1) * measure.capacity,
        }
        return [kind for kind, times in kinds.items() for _ in range(times)]

    def _save(self) -> None:
        """Write down what is known so far; a run that is catching up has nothing to add."""
        if self._new:
            self._summary.stage()

    def _stage(
        self,
        name: str,
        label: str,
        timer: str,
        measure: Callable[[], Made],
    ) -> Entry:
        """Measure one stage, or wait for it, unless that was done before."""
        kept = self._journal.get(name)
        if kept is None:
            if label:
                self._progress.start(label, 1, timer)
            with self._directory.timed(timer):
                beside = name in self._aside
                record, tensors = self._aside.result(name, timer) if beside else measure()
            kept = self._journal.put(name, record, tensors)
            self._new = True
        elif label:
            self._progress.passed(timer)
        return kept

    def _compose(self, count: int) -> None:
        """Resolve J_t over the learned tasks."""
        measure = self._recipe.measure
        if not (measure.transport and measure.composed_spectrum and count):
            return

        def measured() -> tuple[Any, dict[str, Tensor]]:
            paths = [self._trajectories[i].trajectory for i in range(count)]
            source = stream(self._recipe.seed, "composed", device=self._theta.device)
            return composed_spectrum(paths, measure, source), {}

        label = f"spectrum over {count} tasks"
        self._found.composed = self._stage("composed", label, "transport", measured).record

    def _before(self, i: int) -> BeforeTask:
        """Forecast what learning task i will do, and begin to measure the room that is left."""
        self._plan = self._mitigation.plan(self._tasks[i], self._recipe.training)
        self._found.planned[i] = self._plan.training
        before = BeforeTask(
            model=self._model,
            theta=self._theta,
            old=tuple(self._tasks[j] for j in self._old.before(i)),
            numbers=self._old.before(i),
            new=self._tasks[i],
            plan=self._plan,
            recipe=self._recipe,
            order=self._order(i, "forecast"),
            phases=[self._trajectories[k].trajectory for k in range(i) if k in self._trajectories],
            displacement=self._displacement,
            generator=stream(self._recipe.seed, "capacity", i, device=self._theta.device),
            along=self._along,
            time=self._spent,
        )
        forecast, room = f"task{i}.forecast", f"task{i}.capacity"
        self._begin(i, before, forecast, room)
        if forecast in self._aside:
            self._room(i, before)
        if self._recipe.measure.forecast:
            label = f"task {i + 1}/{len(self._tasks)} forecast"
            kept = self._stage(forecast, label, "forecast", before.forecast)
            self._found.forecasts[i] = kept.record
        if room not in self._aside:
            self._room(i, before)
        if self._report is not None and self._report.arrived():  # a page reads what is written next
            self._say_report()
        self._save()
        return before

    def _begin(self, i: int, before: BeforeTask, forecast: str, room: str) -> None:
        """Begin beside what takes longest: the room that is left for task i."""
        measure = self._recipe.measure
        if not (self._aside.wanted and measure.capacity) or room in self._journal:
            return
        if i > 1 or len(self._tasks) == 2:
            self._catch_up(going=_BESIDE - 1)
            self._aside.begin(room, before.room, before.here().room)
        elif measure.forecast and forecast not in self._journal:
            # The first is measured here: its traced graphs are there for the processes to come.
            self._aside.begin(forecast, before.forecast, before.forecast)

    def _room(self, i: int, before: BeforeTask) -> None:
        """Measure the room that is left for task i, or wait for the process that does."""
        if i in self._found.capacities:
            return
        wanted = self._recipe.measure.capacity
        label = f"task {i + 1}/{len(self._tasks)} capacity" if wanted else ""
        new = f"task{i}.capacity" not in self._journal
        kept = self._stage(f"task{i}.capacity", label, "capacity", before.room).record
        if new and kept["note"]:
            self._progress.line(f"task {i + 1}: {kept['note']}")
        self._found.capacities[i] = kept["measured"]
        if kept["note"]:
            self._found.notes[i] = kept["note"]

    def _learn(self, i: int) -> None:
        """Train every replica on task i, watched."""
        task = self._tasks[i]
        before = {name: part.clone() for name, part in self._model.statistics().items()}
        watchers = dict(zip(("strategy",), self._mitigation.observers(), strict=False))
        lesson = Lesson(
            i,
            self._model,
            task,
            self._plan,
            self._order(i, "order"),
            self._theta,
            recipe=self._recipe,
            journal=self._journal,
            watchers=watchers,
            checkpoint_minutes=self._every,
        )
        if lesson.transport is not None:
            self._trajectories[i] = lesson.transport
        kept = self._journal.get(f"task{i}.learned")
        if kept is None:
            self._found.states[i] = "training"
            kept = self._train(i, lesson)
            self._new = True
        else:
            again = kept.record["diverged"] is None and path_needed(
                self._journal, i, len(self._tasks), self._recipe.measure
            )
            if again and lesson.transport is not None:
                self._progress.start(f"task {i + 1}/{len(self._tasks)} train again", 1)
            lesson.recall(kept, retrace=again)
            self._progress.passed("train")
        lesson.forget("inside")
        device, record = self._theta.device, kept.record
        self._model.restore(kept.part("statistics", device))
        self._theta = kept.tensors["theta"].to(device)
        self._steps += record["steps"]
        self._time += record["learning_time"]
        self._spent = record["learning_time"]
        self._along = Along(self._theta, 0, 0)
        self._along.moments = moments_of(kept, device)
        if (lost := record["diverged"]) is not None:
            self._found.states[i] = "diverged"
            self._found.diverged[i] = Divergence(lost["step"], tuple(lost["replicas"]))
            self._progress.line(
                f"task {i + 1}/{len(self._tasks)} ({task.name}) diverged at step {lost['step']}: "
                f"replica {', '.join(map(str, lost['replicas']))} is "
                "no longer finite; a smaller training.lr usually helps"
            )
            return
        self._found.costs[i] = record["cost"]
        self._found.statistics[i] = statistics_record(before, self._model.statistics())
        self._displacement = record["displacement"]
        with self._directory.timed("strategy"):
            self._mitigation.learned(task, self._theta)

    def _train(self, i: int, lesson: Lesson) -> Entry:
        """Train, and write down what came of it."""
        recipe, task, training = self._recipe, self._tasks[i], self._plan.training
        start, first, time = self._theta, self._steps, self._time
        rates = training.learning_rates(len(task.train))
        before = evaluate(self._model, start, task, task.train)
        done = lesson.epochs_done
        label = f"task {i + 1}/{len(self._tasks)} train"
        self._progress.start(label, training.passes(len(task.train)) - (done or 0), "train")
        alone = lesson.strategy is None  # or the loss is another than the task's
        kind = {
            "plain": lesson.update.plain and alone,
            # A stage of a curriculum draws from a part of them, some of it twice.
            "full": training.samples_per_step >= len(task.train)
            and training.curriculum is None
            and alone,
            "noisy": recipe.training.noisy,
        }
        layout = self._model.layout
        if done is None:
            row = epoch_row(
                i, 0, first, time, rates[0], before, self._found.scores[-1] if i else self._zero
            )
            row |= path_row(None, layout, None, before.loss, before.loss, **kind)
            self._write_row(lesson, row)
        last = i + 1 == len(self._tasks)
        points = 0 if last else recipe.measure.closure_points
        along = Along(start, training.passes(len(task.train)), points, self._model.statistics)

        def on_epoch(epoch: int, steps: int, learned: float, theta: Tensor) -> None:
            fit = evaluate(self._model, theta, task, task.train)
            tests = scores_of(self._model, theta, self._tasks.tasks, self._old.tested(i))
            self._latest = _Latest(theta, fit, tests)
            rate, now = rates[steps - 1], time + learned
            row = epoch_row(i, epoch, first + steps, now, rate, fit, tests)
            row |= path_row(lesson.path, layout, theta, before.loss, fit.loss, **kind)
            self._write_row(lesson, row)
            along.epoch(epoch, learned, theta)
            self._progress.advance(f"loss {float(fit.loss.mean()):.3f}")

        with self._directory.timed("train"):
            phase = lesson.learn(along, on_epoch)
        record: dict[str, Any] = {
            "steps": phase.steps,
            "learning_time": phase.learning_time,
            "diverged": None,
            "cost": None,
            "displacement": None,
            "along": [moment.time for moment in along.moments],
            "rows": lesson.rows,
        }
        tensors = {"theta": phase.theta, **lesson.statistics()}
        if phase.diverged is not None:
            # Only a finished phase has a cost; a diverged one would mix finite and lost replicas.
            lost = phase.diverged
            record["diverged"] = {"step": lost.step, "replicas": list(lost.replicas)}
            record["along"] = []
        else:
            latest = self._latest_at(phase.theta)
            after = latest.fit if latest else evaluate(self._model, phase.theta, task, task.train)
            record["cost"] = lesson.path.cost(before.loss, after.loss, **kind).to_dict()
            if training.belief is not None:
                from capacity.thermo.belief_cost import belief_cost  # scipy takes a second to load

                record["cost"]["belief"] = belief_cost(
                    self._model, start, phase.theta, task, training,
                    time=phase.learning_time, seed=stream_seed(recipe.seed, "belief", i),
                    alone=alone,
                ).to_dict()  # fmt: skip
            moved = (phase.theta - start).double().square().sum(-1).mean()
            record["displacement"] = float(moved.sqrt())
            tensors |= along.tensors()
            tensors |= lesson.watched()
            lesson.put_away()
        return self._journal.put(f"task{i}.learned", record, tensors)

    def _after(self, i: int) -> None:
        """Measure what learning task i did."""

        def scored() -> tuple[Any, dict[str, Tensor]]:
            latest, wanted = self._latest_at(self._theta), self._old.scored(i)
            known = latest is not None and wanted == self._old.tested(i)
            made = latest.tests if latest and known else self._evaluate(wanted)
            record = {"calibration": self._calibration(i), "generation": self._generation(i)}
            return record, {
                "accuracy": torch.stack([score.accuracy for score in made]),
                "loss": torch.stack([score.loss for score in made]),
            }

        device = self._theta.device
        stage = self._stage(f"task{i}.scores", "", "measure", scored)
        kept = stage.tensors
        self._found.calibrations[i] = stage.record.get("calibration")
        self._found.generations[i] = stage.record.get("generation")
        pairs = zip(kept["accuracy"].to(device), kept["loss"].to(device), strict=True)
        self._found.scores.append([Score(*pair) for pair in pairs])
        self._found.states[i] = "learned"
        self._directory.write({f"checkpoints/task{i}.safetensors": {"theta": self._theta}})
        if i in self._trajectories:
            label = f"task {i + 1}/{len(self._tasks)} spectrum"
            source = stream(self._recipe.seed, "spectrum", i, device=device)
            spectrum = self._stage(
                f"task{i}.spectrum",
                label,
                "transport",
                lambda: self._trajectories[i].finish(source),
            )
            self._found.transports[i] = spectrum.record
            self._summary.spectra |= {
                f"task{i}.{key}": part for key, part in spectrum.tensors.items()
            }
            self._journal.drop(f"task{i}.tracker")
        self._save()
        if self._new:
            label = f"task {i + 1}/{len(self._tasks)} ({self._tasks[i].name})"
            self._progress.line(f"{label} {self._found.spoken(i)}")
            report = self._report if i + 1 < len(self._tasks) else None
            if report is not None and report(beside=self._aside.wanted):
                self._say_report()

    def _say_report(self) -> None:
        self._progress.line(f"report so far: {self._directory.path / 'report.html'}")

    def _calibration(self, i: int) -> list[dict[str, Any]] | None:
        """Score a belief's confidence on the i-th task and old ones; None for a point."""
        if self._model.belief is None:
            return None
        found = (
            calibration_error(self._model, self._theta, t, t.test)
            for t in (self._tasks[j] for j in self._old.tested(i) if j <= i)
            if t.classifies
        )
        return [from_samples(errors.tolist()).to_dict() for errors in found]

    def _generation(self, i: int) -> dict[str, Any] | None:
        """Judge what replica 0 makes after the i-th task; None where tasks make nothing."""
        generator, theta = self._tasks[i].generator, self._theta[0]
        if generator is None:
            return None
        return generator.judge(lambda x: self._model.outputs(theta, x), theta)

    def _latest_at(self, theta: Tensor) -> _Latest | None:
        """Give the scores that the last epoch ended with, if it ended there."""
        latest = self._latest
        return latest if latest is not None and torch.equal(latest.theta, theta) else None

    def _evaluate(self, chosen: tuple[int, ...]) -> list[Score]:
        return scores_of(self._model, self._theta, self._tasks.tasks, chosen)

    def _order(self, i: int, purpose: str) -> DataOrder:
        return DataOrder.planned(
            self._plan.training,
            len(self._tasks[i].train),
            replicas=self._recipe.replicas,
            seed=self._recipe.seed,
            path=(purpose, i),
            in_order=in_order(self._tasks[i].train.x),
        )

    def _write_row(self, lesson: Lesson, row: dict[str, Any]) -> None:
        lesson.rows.append(row)
        self._directory.append_metrics(row)
