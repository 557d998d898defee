"""LAPACK's decompositions under ``vmap``, on a CPU whose cores are devices (`training.over_seeds`).

XLA's CPU backend shares a batch of large matrices out among threads, and waits for them. Those threads are the ones
that run the program: where each of them runs a device's share, all wait for one that is free, for ever (jaxlib 0.10).
Batches of small matrices are worked through where they are, such as STEVE's 4 x 4.
"""

from collections.abc import Callable
from typing import Any

import jax


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of arrays, which on a CPU takes the elements of a batch one after another."""
    one_by_one = jax.custom_batching.sequential_vmap(function)
    return lambda *arrays: jax.lax.platform_dependent(*arrays, cpu=one_by_one, default=function)
