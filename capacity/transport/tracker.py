"""Track J_t along a training loop: the observer of a run, and the front door for anybody's loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from capacity.checks import one_of, positive_float, positive_int
from capacity.curvature.lanczos import random_signs
from capacity.dynamics.flat import FlatModel, flatten
from capacity.dynamics.updates import SGD, Adam, Momentum, RMSprop, State, UpdateMap
from capacity.estimate import Estimate
from capacity.tasks.task import LOSSES, LossFunction
from capacity.transport.hessian_products import Loss
from capacity.transport.jacobian import TrainingJacobian, push
from capacity.transport.log_volume import LogVolume
from capacity.transport.spectrum import Spectrum, spectrum
from capacity.transport.trajectory import DEFAULT_BUDGET, PathCheck, TrainingStep, Trajectory


class PhaseTracker:
    """Follows one phase: records the trajectory, pushes tangents, accumulates the log-volume.

    Attributes:
        trajectory: The steps so far.
        probes: Rademacher tangents of theta at the start of the phase (K, P), after the first step.
    """

    def __init__(
        self,
        loss: Loss,
        update: UpdateMap,
        *,
        tangents: int,
        log_volume_probes: int,
        log_volume_nodes: int,
        generator: torch.Generator,
        budget: int = DEFAULT_BUDGET,
    ) -> None:
        self.trajectory = Trajectory(loss, update, budget=budget)
        self._count, self._generator = tangents, generator
        self._log_volume = LogVolume(
            self.trajectory.products,
            update,
            probes=log_volume_probes,
            nodes=log_volume_nodes,
            generator=generator,
        )
        self.probes: Tensor | None = None
        self._tangents: State = ()

    @torch.no_grad()
    def step(
        self, state: State, x: Tensor, y: Tensor, lr: float, update: UpdateMap | None = None
    ) -> TrainingStep:
        """Follow one step.

        Args:
            state: Optimiser state before the step; tensors (P,), theta first.
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
            update: Update map of this step, where a schedule moves more than the rate.

        Returns:
            The step.
        """
        if self.probes is None:
            count = min(self._count, state[0].numel())
            self.probes = random_signs(count, state[0], self._generator)
            self._tangents = (self.probes, *(torch.zeros_like(self.probes) for _ in state[1:]))
        seen = self.trajectory.record(state, x, y, lr, update)
        self._tangents = push(self.trajectory, seen, self._tangents)
        self._log_volume.observe(state[0], x, y, lr)
        return seen

    @property
    def images(self) -> Tensor:
        """J V for the probes (K, P).

        Raises:
            ValueError: If no step was taken.
        """
        if not self._tangents:
            raise ValueError("no step was tracked; track the training before asking for J_t")
        return self._tangents[0]

    def log_volume(self) -> Estimate:
        """Estimate log|det J| of the phase.

        Returns:
            The estimate in nats; `not_defined` for an optimiser with moments.
        """
        return self._log_volume.estimate()

    def log_volume_steps(self) -> Tensor:
        """Give log|det| of every step.

        Returns:
            One number per step, float64; empty for an optimiser with moments.
        """
        return self._log_volume.steps

    def spectrum(self, *, top: int, sweeps: int, generator: torch.Generator) -> Spectrum:
        """Resolve the top of the phase's spectrum.

        Args:
            top: Singular values wanted.
            sweeps: Most forward-and-adjoint passes to spend.
            generator: Source of the starting block.

        Returns:
            The spectrum.
        """
        images = self.images
        assert self.probes is not None
        return spectrum(
            TrainingJacobian([self.trajectory]),
            self.probes,
            images,
            top=min(top, self.trajectory.size),
            sweeps=sweeps,
            generator=generator,
        )


class TransportTracker:
    """Tracks the training Jacobian J_t = d theta_t / d theta_0 in a training loop of your own.

    Call `observe(x, y)` with each batch *before* the optimiser moves the parameters. Nothing of the
    training is touched: not the parameters, their gradients, the optimiser or the random state. A
    step that the observed batch and loss do not explain is refused when the next one is observed.

    Args:
        model: The module that is trained; only `requires_grad` parameters count.
        loss: `cross_entropy`, `mse`, or a function of (outputs, targets) that returns the mean.
        optimizer: A `torch.optim` SGD, Adam, AdamW or RMSprop, whose learning rate and moments are
            read at each step. None: plain gradient descent, whose rate `observe` is told.
        tangents: Random tangents K pushed forward with every step; None takes 64, or P if that
            is less.
        seed: Seed of the tracker's own random numbers.

    Example:
        >>> import torch, capacity
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> tracker = capacity.TransportTracker(model, "cross_entropy", optimizer, tangents=4)
        >>> x, y = torch.randn(8, 3), torch.randint(2, (8,))
        >>> for _ in range(5):
        ...     tracker.observe(x, y)
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()
        >>> tracker.log_volume().value < 0
        True
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | LossFunction,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        tangents: int | None = None,
        log_volume_probes: int = 4,
        log_volume_nodes: int = 3,
        seed: int = 0,
    ) -> None:
        self._module, self._optimizer = model, optimizer
        self._flat = FlatModel(model)
        if isinstance(loss, str):
            loss = LOSSES[one_of("loss", loss, LOSSES)]
        elif not callable(loss):
            raise ValueError(f"loss = {loss!r} must be a name or a function of (outputs, targets)")
        bound = loss
        if tangents is None:
            tangents = min(64, self._flat.size)
        if positive_int("tangents", tangents) > self._flat.size:
            raise ValueError(
                f"tangents = {tangents} exceeds the {self._flat.size} trainable parameters"
            )
        device = self._flat.initial().device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._phase = PhaseTracker(
            lambda theta, x, y: bound(self._flat.outputs(theta, x), y),
            SGD() if optimizer is None else _first_update(optimizer, model),
            tangents=tangents,
            log_volume_probes=positive_int("log_volume_probes", log_volume_probes, minimum=2),
            log_volume_nodes=positive_int("log_volume_nodes", log_volume_nodes),
            generator=self._generator,
        )
        self._path = PathCheck(self._phase.trajectory.loss)

    def observe(self, x: Tensor, y: Tensor, *, lr: float | None = None) -> None:
        """Follow the step that is about to be taken on a batch.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate; needed without an optimiser, and read from it otherwise.

        Raises:
            ValueError: If `lr` is missing or superfluous, the optimiser's options turned into those
                of another kind of step, or its last step was not the observed one.
        """
        theta = flatten(self._module)
        update = self._phase.trajectory.update
        if self._optimizer is None:
            if lr is None:
                raise ValueError("lr is missing; without an optimizer, observe(x, y, lr=...)")
            state: State = (theta,)
            rate = positive_float("lr", lr)
        else:
            if lr is not None:
                raise ValueError("lr was given, but the optimizer has one; leave lr out")
            rate = float(self._optimizer.param_groups[0]["lr"])
            state = self._state(theta)
            update = _update_now(self._optimizer, update)
        self._path.compare(state)
        self._path.expect(self._phase.step(state, x, y, rate, update))

    def jacobian(self) -> TrainingJacobian:
        """Give J_t as an operator, for products of your own.

        Returns:
            The Jacobian of the steps so far, with `forward` and `adjoint`.
        """
        return TrainingJacobian([self._phase.trajectory])

    def log_volume(self) -> Estimate:
        """Estimate log|det J_t|.

        Returns:
            The estimate in nats; `not_defined` for an optimiser with moments.
        """
        return self._phase.log_volume()

    def spectrum(self, *, top: int = 10, sweeps: int = 12) -> Spectrum:
        """Resolve the top of J_t's singular spectrum.

        Args:
            top: Singular values wanted.
            sweeps: Most forward-and-adjoint passes over the trajectory.

        Returns:
            The spectrum; every value says whether it is resolved.
        """
        return self._phase.spectrum(top=top, sweeps=sweeps, generator=self._generator)

    def _state(self, theta: Tensor) -> State:
        """Read the optimiser's moments, which are empty before its first step."""
        assert self._optimizer is not None
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        moments = []
        for key in _MOMENTS[type(self._phase.trajectory.update)]:
            parts = []
            for parameter in parameters:
                held = self._optimizer.state.get(parameter, {}).get(key)
                parts.append(torch.zeros_like(parameter) if held is None else held)
            moments.append(torch.cat([p.detach().reshape(-1) for p in parts]))
        return (theta, *moments)


_REFUSED: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("dampening", "maximize"),
    torch.optim.Adam: ("amsgrad", "maximize"),
    torch.optim.AdamW: ("amsgrad", "maximize"),
    torch.optim.RMSprop: ("momentum", "centered", "maximize"),
}

_MOMENTS: dict[type, tuple[str, ...]] = {
    SGD: (),
    Momentum: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq"),
    RMSprop: ("square_avg",),
}


def _first_update(optimizer: torch.optim.Optimizer, model: nn.Module) -> UpdateMap:
    """Translate a torch optimiser at the door."""
    update = _update_of(optimizer)
    if optimizer.state:
        raise ValueError("optimizer has taken steps already; start the tracker with a new one")
    trained = {id(p) for p in optimizer.param_groups[0]["params"]}
    if trained != {id(p) for p in model.parameters() if p.requires_grad}:
        raise ValueError("optimizer does not hold exactly the model's trainable parameters")
    return update


def _update_now(optimizer: torch.optim.Optimizer, started: UpdateMap) -> UpdateMap:
    """Read the options anew: schedules like OneCycleLR move the momentum with the rate."""
    update = _update_of(optimizer)
    if update == started:
        return started  # one object for all steps, where nothing moves
    if type(update) is not type(started) or update.plain != started.plain:
        raise ValueError(
            f"optimizer started as {started.name} and is now {update.name} with other options "
            f"({update}); momentum and weight decay can move while it is tracked, not come or go"
        )
    return update


def _update_of(optimizer: torch.optim.Optimizer) -> UpdateMap:
    """Translate a torch optimiser's options, refusing by name what has no update map here."""
    kind = type(optimizer)
    if kind not in _REFUSED:
        raise ValueError(
            f"optimizer is a {kind.__name__}; accepted: "
            f"{', '.join(f'torch.optim.{known.__name__}' for known in _REFUSED)}"
        )
    groups = optimizer.param_groups
    if len(groups) != 1:
        raise ValueError(f"optimizer has {len(groups)} parameter groups; one is accepted")
    group: dict[str, Any] = groups[0]
    for option in _REFUSED[kind]:
        if group.get(option):
            raise ValueError(f"optimizer has {option} = {group[option]!r}, which is not tracked")
    decay = float(group["weight_decay"])
    if kind is torch.optim.RMSprop:
        return RMSprop(group["alpha"], group["eps"], decay)
    if kind is not torch.optim.SGD:
        decoupled = kind is torch.optim.AdamW
        name = "adamw" if decoupled else "adam"
        beta1, beta2 = group["betas"]
        return Adam(beta1, beta2, group["eps"], decay, decoupled=decoupled, name=name)
    if group["momentum"]:
        return Momentum(group["momentum"], bool(group["nesterov"]), decay)
    return SGD(decay)
