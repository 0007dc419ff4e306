"""Online EWC (Schwarz et al. 2018), a strategy of one's own: one Fisher runs over all old tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from capacity.strategies import Price, Strategy, register
from capacity.strategies.contribution import Contribution
from capacity.strategies.importance import empirical_fisher
from capacity.strategies.penalties import Quadratic


class OnlineEWC(Strategy):
    """Importance F <- gamma F + F_new, around the weights after the last task."""

    name = "online_ewc"
    title = "online EWC"
    strength: Annotated[float, Field(gt=0)] = 10.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    samples: Annotated[int, Field(ge=1)] = 128

    def prepare(self, model, theta, old, state, source, watched=None):
        split = old[-1].train.first(self.samples)
        curvature = self.strength * empirical_fisher(model, theta, old[-1], split)
        if state is not None:
            curvature = curvature + self.gamma * state.curvature
        return Quadratic.around(theta, curvature)

    def contribution(self, model, old, new, training, state, source):
        return Contribution(training=training, penalty=state)

    def price(self, gradient, old, outputs):
        each = gradient * old
        return Price(self.samples * each, each)


register(OnlineEWC)
