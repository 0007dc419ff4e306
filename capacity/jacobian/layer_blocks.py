"""J_t layer by layer: what a layer's own start does to its own end.

The block J[layer, layer] is J_t between projectors on the layer's parameters: its Frobenius norm
and its largest singular values say how far the layer keeps, stretches or forgets where it began,
other layers' starts left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from capacity.base.checks import one_of
from capacity.jacobian.projected_maps import Coordinates


def layer_projectors(names: Sequence[str], sizes: Sequence[int]) -> dict[str, Coordinates]:
    """Make a projector for every layer.

    Args:
        names: Parameter names in theta's order, as `FlatModel.names`.
        sizes: Their numbers of elements.

    Returns:
        Projectors by the name of the module that holds the parameters; a parameter of the network
        itself goes by its own name. Modules whose parameters are not neighbours are split.
    """
    made: dict[str, Coordinates] = {}
    first = 0
    pairs = zip(names, sizes, strict=True)
    for layer, group in groupby(pairs, key=lambda pair: pair[0].rpartition(".")[0] or pair[0]):
        held = list(group)
        rank = sum(size for _, size in held)
        made[layer if layer not in made else held[0][0]] = Coordinates(first, rank)
        first += rank
    return made


def layer_projector(layer: str, names: Sequence[str], sizes: Sequence[int]) -> Coordinates:
    """Make the projector of one layer.

    Args:
        layer: Its name; one that does not exist is a `ValueError` that lists those that do.
        names: Parameter names in theta's order.
        sizes: Their numbers of elements.

    Returns:
        The projector.
    """
    known = layer_projectors(names, sizes)
    return known[one_of("layer", layer, known)]
