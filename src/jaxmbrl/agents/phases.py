"""Phases of learning as data: one agent that plans first, imitates next, and fine-tunes last.

`lax.cond` runs both branches under ``vmap`` where its predicate differs along the batch. A phase that follows from a
count of fits is the same in all the runs of a program; `shared` tells ``vmap`` so, and the branch that is not taken
costs nothing.
"""

import jax
from jax.custom_batching import custom_vmap

from jaxmbrl.types import Array


@custom_vmap
def shared(value: Array) -> Array:
    """``value``, which every member of any batch has in common; under ``vmap`` the first one's, without a batch axis.

    Where members differ after all, they are taken for the first: use it only for what the program alone decides.
    """
    return value


@shared.def_vmap
def _(axis_size: int, in_batched: list[bool], value: Array) -> tuple[Array, bool]:
    del axis_size, in_batched  # it is called for batched values only
    return jax.numpy.asarray(value)[0], False
