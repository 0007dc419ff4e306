"""A network as a function of one flat vector: the point theta that training moves."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from capacity.base.in_place import own_copy, writes
from capacity.base.randomness import RandomState, kept_random_state
from capacity.networks.asking import Runs
from capacity.networks.belief import Belief
from capacity.networks.calling import call
from capacity.networks.copies import copied, unwrapped
from capacity.networks.differentiable_attention import differentiable, is_recurrent
from capacity.networks.training_mode import TrainingMode, check_one_mode
from capacity.tasks.batches import BatchLayout
from capacity.tasks.streamed import read_rows
from capacity.tasks.task import Task

_LAYERS = 8
"""Layers up to which a description names them all."""


class FlatModel:
    """A module seen as a pure function of its trainable parameters, flattened.

    theta lists the parameters with `requires_grad`, in `named_parameters` order
    (theory.md#parameters); everything else (frozen parameters, buffers) is held fixed. The module
    itself is copied and never changed. Nor are inputs: a module that writes into its input is given
    a copy.

    Attributes:
        names: Parameter names, in order.
        shapes: Their shapes, in order.
        sizes: Their numbers of elements, in order.
        size: P, the length of theta.
        plain_kernels: Whether oneDNN's and cuDNN's kernels are left aside, whose recurrent layers
            have no second derivative.
        table: Shape of a sample's outputs where they are a table, which is laid out in one row.
        traced: What was traced of this network, for the next task of the same kind.
        modes: Its layers' modes.
        two_modes: Whether it trains otherwise than it is evaluated, so that `training` makes a
            difference; the door sees to that.
        transforms: Whether the function transforms of torch go through it (`torch.func`), which an
            autograd.Function of the old kind does not let them; plain autograd does.
        batches: How batches of several tensors lie in its inputs; None where each is one tensor.
        asking: What stands for its outputs where tasks have losses of their own; else None.
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"model is a {type(module).__name__}; pass a torch.nn.Module")
        module = copied(unwrapped(module))
        trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        lazy = [n for n, p in trainable.items() if isinstance(p, UninitializedParameter)]
        if lazy:
            raise ValueError(
                f"model parameter {lazy[0]!r} has no shape yet (a lazy layer); call the model on "
                "one batch first"
            )
        if any(t.is_meta for t in (*module.parameters(), *module.buffers())):
            raise ValueError(
                "model has its parameters on the meta device, where they have no values; load them "
                "with model.to_empty(device='cpu') and load_state_dict first"
            )
        if not trainable:
            raise ValueError(
                "model has no trainable parameters; set requires_grad=True on those to train"
            )
        dtypes = {p.dtype for p in trainable.values()}
        if len(dtypes) > 1:
            raise ValueError(
                f"model has trainable parameters of dtypes {sorted(map(str, dtypes))}; "
                "convert them to one, as with model.float()"
            )
        self._module = module
        self._writes: dict[tuple[torch.dtype, int], bool] = {}
        (self._dtype,) = dtypes
        self._fixed = {
            **{n: p.detach() for n, p in module.named_parameters() if not p.requires_grad},
            **{n: b.detach() for n, b in module.named_buffers()},
        }
        self.names = tuple(trainable)
        self.shapes = tuple(p.shape for p in trainable.values())
        self.sizes = tuple(p.numel() for p in trainable.values())
        self.size = sum(self.sizes)
        self.plain_kernels = is_recurrent(module)
        self.table: tuple[int, ...] | None = None
        self.traced: dict[object, Any] = {}
        self.modes = TrainingMode(module)
        self.two_modes = False
        self.transforms = True
        self._others: dict[int, FlatModel] = {}
        self._stays = self._still = False
        self.batches: BatchLayout | None = None
        self.asking: Runs | None = None

    def initial(self) -> Tensor:
        """Read theta from the module as it was handed over.

        Returns:
            theta (P,), detached.
        """
        return flatten(self._module)

    @property
    def layout(self) -> tuple[tuple[str, int], ...]:
        """Names and sizes of the parameters, in order."""
        return tuple(zip(self.names, self.sizes, strict=True))

    def check_same(self, module: nn.Module) -> None:
        """Check that a module still has the parameters that this model was made of.

        Args:
            module: The module, later in its training.

        Raises:
            ValueError: If a trainable parameter came, went or changed its shape.
        """
        changed = self.difference(module)
        if changed is None:
            return
        name, before, now = changed
        raise ValueError(
            f"model parameter {name!r} was {before} and now {now}; theta must stay the same list "
            "of parameters while it is tracked: start a new tracker when the model changes"
        )

    def difference(self, module: nn.Module) -> tuple[str, str, str] | None:
        """Find a trainable parameter in which a module is laid out otherwise than this model.

        Args:
            module: The module.

        Returns:
            The parameter's name, and what it is here and there; None where there is none.
        """
        there = {n: p.shape for n, p in module.named_parameters() if p.requires_grad}
        here = dict(zip(self.names, self.shapes, strict=True))
        differing = sorted(n for n in {**here, **there} if there.get(n) != here.get(n))
        if not differing:
            return None
        name = differing[0]
        one, other = (
            str(tuple(has[name])) if name in has else "not trainable or absent"
            for has in (here, there)
        )
        return name, one, other

    def layers(self) -> dict[str, nn.Module]:
        """List the layers of this model's own copy of the module.

        Returns:
            Submodules by name. They are there to be looked at and hooked, never changed.
        """
        return dict(self._module.named_modules())

    def needs_beside_inputs(self) -> list[str]:
        """List what a call of the module needs beside its inputs.

        Returns:
            Names of the arguments of its `forward` that have no default, but the first.
        """
        asked = list(inspect.signature(self._module.forward).parameters.values())[1:]
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [a.name for a in asked if a.default is a.empty and a.kind not in kinds]

    def describe(self) -> str:
        """Name the architecture in one line.

        Returns:
            The layers that have parameters, with their parameter shapes; of many the first and the
            last ones.
        """
        layers = [
            f"{type(part).__name__}({'x'.join(str(n) for n in next(part.parameters()).shape)})"
            for part in self._module.modules()
            if not any(part.children()) and any(True for _ in part.parameters(recurse=False))
        ]
        if len(layers) > _LAYERS:
            ends = _LAYERS // 2
            layers[ends:-ends] = [f"{len(layers) - 2 * ends} more"]
        return f"{type(self._module).__name__}: " + ", ".join(layers)

    def to(self, device: torch.device) -> FlatModel:
        """Move the fixed tensors and the module's copy to a device.

        Args:
            device: Where to.

        Returns:
            This model.
        """
        self._module.to(device)
        self._fixed = {n: t.to(device) for n, t in self._fixed.items()}
        return self

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split theta into named parameters.

        Args:
            theta: Parameters (P,).

        Returns:
            Views of theta by parameter name.
        """
        parts = theta.split(self.sizes)
        named = zip(self.names, self.shapes, parts, strict=True)
        return {name: part.view(shape) for name, shape, part in named}

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """Run the network.

        Args:
            theta: Parameters (P,).
            x: Inputs (n, ...).

        Returns:
            Outputs (n, n_outputs).
        """
        x = read_rows(x)
        fixed = self._fixed
        if theta.dtype != self._dtype:  # the same network in another precision
            fixed = {n: t.to(theta.dtype) if t.is_floating_point() else t for n, t in fixed.items()}
        if self._still:  # what moves in this call is its own
            fixed = {n: t.clone() for n, t in fixed.items()}
        mode = self.modes.switched(training=False) if self._stays else nullcontext()
        with differentiable(recurrent=self.plain_kernels), mode:
            if self.writes_into(x):
                x = own_copy(x, theta)
            made = self._called(*self._at(theta, fixed), x)
        return made if self.table is None else made.flatten(1)

    @property
    def one_by_one(self) -> bool:
        """Whether gradients are taken replica by replica, by plain autograd."""
        return self.two_modes or not self.transforms

    def _at(self, theta: Tensor, fixed: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """Give what is called, and its tensors: of a belief that trains the network at a draw."""
        belief = self.belief
        if belief is None or not belief.training:
            return self._module, {**self.unflatten(theta), **fixed}
        # Not through the belief's own call: what is not drawn for it costs half of a small one's.
        start, count = len(belief.in_it), len(self.names) // 2
        drawn = belief.point(theta).split(self.sizes[count:])
        named = zip(self.names[count:], self.shapes[count:], drawn, strict=True)
        tensors = {name[start:]: part.view(shape) for name, shape, part in named}
        return belief.network, tensors | {name[start:]: t for name, t in fixed.items()}

    def _called(self, module: nn.Module, tensors: dict[str, Tensor], x: Tensor) -> Any:
        batch = x if self.batches is None else self.batches.unpack(x)
        if self.asking is not None:
            return self.asking.outputs(module, tensors, batch)
        return call(module, tensors, batch)

    def copies_of_fixed(self) -> dict[str, Tensor]:
        """Copy what is no trainable parameter.

        Returns:
            Frozen parameters and buffers by name, which a call may change.
        """
        return {name: part.clone() for name, part in self._fixed.items()}

    @contextmanager
    def training(self, draw: int | RandomState, *, moving: bool = True) -> Iterator[None]:
        """Run as the network trains: in its own modes, with running statistics that move along.

        While they move, derivatives are torch's own within (`torch.autograd`), since its function
        transforms do not go through statistics that move.

        Args:
            draw: Seed of the random masks, or the random states that they are drawn from.
            moving: Whether running statistics move along; they stay where they are otherwise, and
                the call is a pure function of theta and inputs.

        Yields:
            Nothing.
        """
        if not self.two_modes:
            yield
            return
        before, self._still = self._still, not moving
        try:
            with kept_random_state(draw), self.modes.switched(True):
                yield
        finally:
            self._still = before

    def apart(self) -> FlatModel:
        """Give the same network with buffers of its own, which move when it trains.

        Returns:
            A model that shares all else with this one, which stays where it is; this one itself
            where training moves no buffers.
        """
        if not self.two_modes:
            return self
        other = copy.copy(self)
        other._fixed = {n: t.clone() for n, t in self._fixed.items()}
        other._others, other.traced = {}, {}
        return other

    def as_it_is(self) -> FlatModel:
        """Give a network that stays in evaluation mode, with its statistics of now: a teacher.

        Returns:
            The network, also within `training`; this one where training makes no difference.
        """
        if not self.two_modes:
            return self
        other = self.apart()
        other._stays = True
        return other

    def of_replica(self, replica: int) -> FlatModel:
        """Give the network of one replica of a run, with running statistics of its own.

        Args:
            replica: Its number; 0 is this model itself.

        Returns:
            Its network; this one where training moves no buffers.
        """
        if replica == 0 or not self.two_modes:
            return self
        if replica not in self._others:
            self._others[replica] = self.apart()
        return self._others[replica]

    def statistics(self) -> dict[str, Tensor]:
        """Give the buffers that training may have moved.

        Returns:
            Tensors by replica and name; none where it moves no buffers.
        """
        if not self.two_modes:
            return {}
        names = {name for name, _ in self._module.named_buffers()}
        models = {0: self, **self._others}
        return {
            f"{replica}/{name}": tensor
            for replica, model in models.items()
            for name, tensor in model._fixed.items()
            if name in names
        }

    def restore(self, statistics: Mapping[str, Tensor]) -> None:
        """Put the buffers back to where `statistics` was taken.

        Args:
            statistics: What it gave.
        """
        for key, tensor in statistics.items():
            replica, _, name = key.partition("/")
            self.of_replica(int(replica))._fixed[name].copy_(tensor)

    def at(self, statistics: Mapping[str, Tensor]) -> FlatModel:
        """Give the same network with other running statistics.

        Args:
            statistics: What `statistics` gave of replica 0; none leaves those of now.

        Returns:
            A network of its own; this one where there are none.
        """
        if not statistics:
            return self
        other = self.apart()
        other.restore(statistics)
        return other

    def run_like(self, other: FlatModel) -> None:
        """Run this network in the way that the door found for another of its kind.

        Args:
            other: The network that was looked at.
        """
        self.table, self.batches, self.asking = other.table, other.batches, other.asking
        self.plain_kernels, self.two_modes = other.plain_kernels, other.two_modes
        self.transforms = other.transforms
        if self.two_modes:
            self.modes.switch(training=False)

    def check_one_mode(self) -> None:
        """Refuse by ValueError a network of layers that train otherwise than they are evaluated."""
        check_one_mode(self._module)

    @property
    def has_buffers(self) -> bool:
        """Whether the network has buffers, which training may move."""
        return any(True for _ in self._module.buffers())

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return self._dtype

    def changes(self, theta: Tensor, x: Tensor) -> tuple[Tensor, list[str]]:
        """Run the network and see what it leaves changed in itself.

        Args:
            theta: Parameters (P,).
            x: Inputs (n, ...).

        Returns:
            Outputs (n, n_outputs), and the names of the buffers that the call wrote to or replaced;
            they are as before again.
        """
        held = {n: b for n, b in self._fixed.items() if b.numel()}
        before = {n: b.clone() for n, b in held.items()}
        after: dict[str, Tensor] = {}

        def look(module: nn.Module, *_: object) -> None:
            # A buffer that was assigned is back in its place once the call is over.
            after.update(module.named_buffers())

        hook = self._module.register_forward_hook(look)
        try:
            made = self.outputs(theta, x)
        finally:
            hook.remove()
        seen = {**held, **{n: b for n, b in after.items() if n in before}}
        changed = [n for n, b in before.items() if not _same(b, seen[n])]
        for name in changed:
            held[name].copy_(before[name])
        return made, changed

    @contextmanager
    def shaken(self, name: str) -> Iterator[None]:
        """Replace a buffer by random numbers of its kind, for a while.

        Args:
            name: The buffer.

        Yields:
            Nothing.
        """
        kept = self._fixed[name]
        if kept.is_floating_point():
            source = torch.Generator().manual_seed(0)
            self._fixed[name] = 0.5 + torch.rand(kept.shape, generator=source).to(kept)
        else:
            self._fixed[name] = kept + 1
        try:
            yield
        finally:
            self._fixed[name] = kept

    def writes_into(self, x: Tensor) -> bool:
        """Tell whether the module writes into its input, so that each call needs a copy.

        Tried out once per kind of input, by a call of the module, which is why hooks that record
        calls are hung up after this.

        Args:
            x: Inputs (n, ...).

        Returns:
            Whether it does.
        """
        kind = (x.dtype, x.dim())
        if kind not in self._writes:
            (self._writes[kind],) = writes(self._alone, x)
        return self._writes[kind]

    def _alone(self, x: Tensor) -> None:
        # Call the module at its own parameters, on buffers that may change.
        fixed = self.copies_of_fixed()
        own = {n: p.detach() for n, p in self._module.named_parameters() if p.requires_grad}
        self._called(self._module, {**own, **fixed}, x)

    def loss(self, task: Task) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Bind a task's loss to this network.

        Args:
            task: The task.

        Returns:
            A pure function of (theta (P,), x (n, ...), y (n, ...)) that gives the mean loss.
        """

        def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.over_draws(lambda: task.loss_of(self.outputs(theta, x), y))

        return loss

    def over_draws(self, value: Callable[[], Tensor]) -> Tensor:
        """Average what is made of the outputs over the draws of a belief.

        Args:
            value: Runs the network, once or more, and makes a tensor of its outputs.

        Returns:
            The mean over antithetic pairs in training mode; what `value` gives of any other network
            and in evaluation mode, whose outputs are averaged already.
        """
        belief = self.belief
        if belief is None or belief.passes == 1:
            return value()
        made = []
        for turn in range(belief.passes):
            with belief.at_turn(turn):
                made.append(value())
        return torch.stack(made).mean(0)

    @property
    def belief(self) -> Belief | None:
        """The belief that this network is; None where its parameters are a point."""
        return self._module if isinstance(self._module, Belief) else None


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def flatten(module: nn.Module) -> Tensor:
    """Concatenate a module's trainable parameters.

    Args:
        module: Any module with trainable parameters.

    Returns:
        theta (P,), detached, in `named_parameters` order.
    """
    parts = [p.detach().reshape(-1) for p in module.parameters() if p.requires_grad]
    return torch.cat(parts)
