"""Mitigation strategies: what is added to a training against forgetting.

A strategy is a frozen record of options with two pure functions. `prepare` runs after each task and
returns what the strategy remembers of it; `contribution` says what that adds to learning the next
one: a penalty on theta, a distillation or a memory in the loss, a projector of the gradient, a mask
of frozen parameters, or a changed plan. The training loop and the forecast's simulation read the
same contribution (theory.md#strategies).
"""
