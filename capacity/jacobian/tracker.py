"""Track J_t along a training loop of your own."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad

from capacity.base.ambient import in_own_precision
from capacity.base.checks import one_of, positive_float, positive_int
from capacity.base.in_place import Guarded
from capacity.jacobian.drawn_batches import DrawnBatches
from capacity.jacobian.layer_blocks import layer_projector
from capacity.jacobian.lyapunov import LyapunovSpectrum, lyapunov
from capacity.jacobian.own_step_check import CHECKED_STEPS, accepted, check_step
from capacity.jacobian.path_check import PathCheck
from capacity.jacobian.phase_tracker import PhaseTracker
from capacity.jacobian.projected_maps import Projector
from capacity.jacobian.singular_value_counts import Thresholds
from capacity.jacobian.spectrum_record import Spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import DEFAULT_BUDGET, TrainingStep
from capacity.jacobian.unexplained_share import Unexplained, qualified
from capacity.networks.calling import call
from capacity.networks.copies import unwrapped
from capacity.networks.door import fit_batch
from capacity.networks.flat_model import FlatModel, flatten
from capacity.networks.purity import check_derivatives, trains_otherwise
from capacity.networks.replays import check_replays
from capacity.optimizers.sgd import SGD
from capacity.optimizers.torch_optimizers import clipped, first_update, moments, rate_of, update_now
from capacity.optimizers.update_map import State, UpdateMap
from capacity.products.hessian_products import DRAWN, HessianProducts
from capacity.records.estimate import Estimate
from capacity.tasks.batches import lay_out
from capacity.tasks.task import LOSSES, LossFunction


class TransportTracker:
    """Tracks the training Jacobian J_t = d theta_t / d theta_0 in a training loop of your own.

    Call `observe(x, y)` with each batch *before* the optimiser moves the parameters. Nothing of the
    training is touched: not the parameters, their gradients, the optimiser or the random state. In
    training mode dropout and batch norm are followed, too: the masks are those that the network
    draws when it is called next, so nothing may draw between `observe` and that call. A step that
    the observed batch and loss do not explain is refused when the next one is observed; what little
    they leave unexplained is said with every figure, and where it is no rounding (a penalty that is
    stepped on and not in the loss) figures are `not_resolved`.

    Args:
        model: The module that is trained; only `requires_grad` parameters count.
        loss: `cross_entropy`, `mse`, or a function of (outputs, targets) that returns the mean.
        optimizer: A `torch.optim` SGD, Adam, AdamW or RMSprop, whose learning rate and moments are
            read at each step. None: plain gradient descent, or the steps of `update`, whose rate
            `observe` is told.
        update: The step that your loop takes instead of an optimiser's: a `GradientStep`, a
            `BatchStep`, or any other update map. Its moments are worked out beside your loop.
        clip_norm: Largest norm of the gradient, in a loop with `clip_grad_norm_`.
        tangents: Random tangents K pushed forward with every step; None takes 64, or P if that
            is less.
        budget: Bytes for the states and batches of the steps, from which the spectrum is resolved;
            states that do not fit are recomputed. 0 keeps none and follows the tangents only.
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
        update: UpdateMap | None = None,
        clip_norm: float | None = None,
        tangents: int | None = None,
        budget: int = DEFAULT_BUDGET,
        log_volume_probes: int = 4,
        log_volume_nodes: int = 3,
        seed: int = 0,
    ) -> None:
        self._flat = FlatModel(model)
        model = unwrapped(model)
        self._module, self._optimizer = model, optimizer
        if isinstance(loss, str):
            loss = LOSSES[one_of("loss", loss, LOSSES)]
        elif not callable(loss):
            raise ValueError(f"loss = {loss!r} must be a name or a function of (outputs, targets)")
        self._loss: LossFunction = Guarded(loss)
        self._looked = False
        self._drawn: DrawnBatches | None = None
        if tangents is None:
            tangents = min(64, self._flat.size)
        if positive_int("tangents", tangents) > self._flat.size:
            raise ValueError(
                f"tangents = {tangents} exceeds the {self._flat.size} trainable parameters"
            )
        if optimizer is not None and update is not None:
            raise ValueError("optimizer and update are both given; a loop takes one kind of step")
        if optimizer is None:
            update = clipped(SGD() if update is None else accepted(update), clip_norm)
        else:
            update = first_update(optimizer, model, clip_norm)
        device = self._flat.initial().device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._follow = partial(
            PhaseTracker,
            self._batch_loss,
            update,
            tangents=tangents,
            log_volume_probes=positive_int("log_volume_probes", log_volume_probes, minimum=2),
            log_volume_nodes=positive_int("log_volume_nodes", log_volume_nodes),
            generator=self._generator,
            budget=budget,
            layout=self._flat.layout,
        )
        self._phase = self._follow()
        self._path = PathCheck(self._batch_loss, moments_read=optimizer is not None)
        self._ahead: State = ()
        self._gradient: Tensor | None = None
        self._volume: tuple[Estimate, Unexplained, Estimate] | None = None

    @in_own_precision
    def observe(self, x: Any, y: Tensor, *, lr: float | None = None) -> None:
        """Follow the step that is about to be taken on a batch.

        Args:
            x: Inputs of the batch: a tensor, or a mapping or tuple of tensors, which are the
                arguments of the network and have the same shapes in every batch.
            y: Targets of the batch.
            lr: Learning rate; needed without an optimiser, and read from it otherwise.

        Raises:
            ValueError: If `lr` is missing or superfluous, a parameter has another shape than at the
                first step, the optimiser's options turned into those of another kind of step, its
                last step was not the observed one, or a step of your own cannot be differentiated.
        """
        self._flat.check_same(self._module)
        theta, x = flatten(self._module), self._rows(x)
        if not self._looked:
            self._look(theta, x, y)
        trajectory = self._phase.trajectory
        update = trajectory.update
        if self._optimizer is None:
            if lr is None:
                raise ValueError("lr is missing; without an optimizer, observe(x, y, lr=...)")
            rate = positive_float("lr", lr)
            # The user's moments are not seen: those of the observed steps stand for them.
            state: State = (theta, *self._ahead[1:]) if self._ahead else update.init(theta)
        else:
            if lr is not None:
                raise ValueError("lr was given, but the optimizer has one; leave lr out")
            rate = rate_of(self._optimizer)
            state = (theta, *moments(self._optimizer, update, self._module))
            update = update_now(self._optimizer, update)
        self._path.compare(state)
        index = None
        if self._drawn is not None:
            if trajectory.lost:
                self._drawn.forget()
            y = index = self._drawn.append(x, y)
        step = TrainingStep(state, x, y, rate, len(trajectory) + 1, update)
        if step.count <= CHECKED_STEPS:
            check_step(trajectory.loss, step)
        with trajectory.products.keeping_gradient() as kept:
            seen = self._phase.step(state, x, y, rate, update, index=index)
        self._gradient = kept[0] if kept else None
        self._ahead = self._path.expect(seen, self._gradient)

    def _look(self, theta: Tensor, x: Tensor, y: Tensor) -> None:
        """Look at network and loss before the first step."""
        if trains_otherwise(self._flat, theta, x):
            self._flat.two_modes = True
            self._flat.modes.switch(training=False)
            check_replays(self._flat, theta, x)
            with self._flat.training(0, moving=False):
                check_derivatives(self._flat, theta, x, twice=True)
            self._drawn = DrawnBatches()
            self._phase = self._follow(
                data=self._drawn, products=HessianProducts(self._batch_loss, untraced=DRAWN)
            )
        self._loss = fit_batch(self._flat, theta, self._loss, x, y)
        self._looked = True

    def _batch_loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Evaluate the loss of a batch; in training mode that of a batch with its masks."""
        if self._drawn is None:
            return self._loss(self._flat.outputs(theta, x), y)
        y, draw = self._drawn.drawn(y)
        with self._flat.training(draw, moving=False):
            return self._loss(self._flat.outputs(theta, x), y)

    def _rows(self, x: Any) -> Tensor:
        """Lay a batch of several tensors out in the rows of one."""
        if isinstance(x, Tensor):
            return x
        rows, layout = lay_out("the observed batch", [x])
        known = self._flat.batches
        if known is None and not self._looked:
            self._flat.batches = known = layout
        if known is None or [f.shape for f in known.fields] != [f.shape for f in layout.fields]:
            raise ValueError(
                f"the observed batch holds {layout.described}, and the first one "
                f"{'one tensor' if known is None else known.described}; pad every batch alike, as "
                "tokenizer(..., padding='max_length')"
            )
        return rows

    def backward(self, x: Any, y: Tensor, *, lr: float | None = None) -> None:
        """Follow the step that is about to be taken, and give the parameters their gradients.

        In place of `observe` and of the loop's own `zero_grad`, forward and backward pass: the
        gradient is on the way of the tangents' products, so all share one primal pass. It is that
        of the loss to rounding; the loss itself is not evaluated. `.grad` is replaced, not added
        to. Refuses what `observe` refuses.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: As in `observe`.
        """
        self.observe(x, y, lr=lr)
        gradient = self._gradient
        if gradient is None:  # a step that looks at the batch by itself
            rows = self._rows(x)
            batch = y if self._drawn is None else self._drawn.latest
            gradient = grad(self._batch_loss)(flatten(self._module), rows, batch)
        if self._drawn is not None:  # the loop's own forward pass draws, and moves statistics
            with torch.no_grad():
                call(self._module, {}, x)
        parameters = dict(self._module.named_parameters())
        for name, part in self._flat.unflatten(gradient).items():
            parameters[name].grad = part.clone()

    @property
    def unexplained(self) -> Unexplained:
        """How much of the steps so far the observed loss does not explain.

        The last step is compared with the parameters as they are now, if they moved since.
        """
        now = {n: p.shape for n, p in self._module.named_parameters() if p.requires_grad}
        state: State | None = None
        steps = len(self._phase.trajectory)
        if steps and list(now.items()) == list(
            zip(self._flat.names, self._flat.shapes, strict=True)
        ):
            theta, update = flatten(self._module), self._phase.trajectory.update
            if self._optimizer is None:
                state = (theta, *self._ahead[1:])
            else:
                state = (theta, *moments(self._optimizer, update, self._module))
        return self._path.unexplained(state, steps)

    def jacobian(self) -> TrainingJacobian:
        """Give J_t as an operator, for products of your own.

        Returns:
            The Jacobian of the steps so far, with `forward` and `adjoint`. It says in `unexplained`
            how much of the steps it does not know of, and in a warning if that is no rounding.
        """
        made = TrainingJacobian([self._phase.trajectory])
        made.unexplained = self.unexplained
        if made.unexplained.systematic:
            warnings.warn(made.unexplained.note, stacklevel=2)
        return made

    @in_own_precision
    def log_volume(self) -> Estimate:
        """Estimate log|det J_t|.

        Returns:
            The estimate in nats. With momentum, adaptive or clipped steps it takes all P columns of
            J_t: the first call is slow, and above P = 2000 the estimate is `not_defined`.
        """
        volume, unexplained = self._phase.log_volume(), self.unexplained
        if self._volume is None or self._volume[:2] != (volume, unexplained):
            self._volume = volume, unexplained, qualified(volume, unexplained)
        return self._volume[2]

    @in_own_precision
    def lyapunov(self, *, top: int = 5, every: int = 10) -> LyapunovSpectrum:
        """Estimate the largest finite-time Lyapunov exponents of the training.

        Args:
            top: Exponents wanted.
            every: Steps between two orthonormalisations.

        Returns:
            The exponents, with their standard errors.
        """
        made = lyapunov([self._phase.trajectory], top=top, every=every, generator=self._generator)
        return qualified(made, self.unexplained)

    @in_own_precision
    def spectrum(
        self,
        *,
        top: int = 10,
        sweeps: int = 24,
        moved_sweeps: int = 0,
        thresholds: Thresholds | None = None,
        layer: str | None = None,
        projector: Projector | None = None,
        method: str = "auto",
        vectors: bool = False,
    ) -> Spectrum:
        """Resolve J_t's singular spectrum: its ends, counts, ranks, and the alignment of the bulk.

        Args:
            top: Largest singular values wanted.
            sweeps: Most forward-and-adjoint passes over the trajectory; fewer if all is resolved.
            moved_sweeps: Most further passes to count the singular values of J_t - 1; with 0 their
                count is a lower bound.
            thresholds: Where singular values are counted.
            layer: Name of a module: resolve the block of J_t on its own parameters.
            projector: Resolve Pi J_t Pi on the range of this symmetric idempotent map of rows.
            method: `krylov`, `dense` (P up to 2,000), or `auto`, the cheaper of the two.
            vectors: Keep the singular vectors of the largest values.

        Returns:
            The spectrum; every figure says whether it is resolved.

        Raises:
            ValueError: If `layer` and `projector` are given, or one of them does not fit.
        """
        if layer is not None:
            if projector is not None:
                raise ValueError("layer and projector were both given; a layer is a projector")
            projector = layer_projector(layer, self._flat.names, self._flat.sizes)
        made = self._phase.spectrum(
            top=top,
            sweeps=sweeps,
            generator=self._generator,
            moved_sweeps=moved_sweeps,
            thresholds=thresholds,
            projector=projector,
            method=method,
            vectors=vectors,
        )
        return qualified(made, self.unexplained)
