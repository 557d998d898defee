"""Are the numbers of a run that feed on one another still numbers? One jitted reduction, and one line where not."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.training import metrics as metrics_log
from jaxmbrl.types import Array, PyTree

NAMED = 3  # How many of the bad values a message names; the rest are counted.


class NonFiniteError(RuntimeError):
    """A run holds a value that is not finite, told in one line: what went bad, and when."""


def flags(tree: PyTree, *, batch_axes: int) -> dict[str, Array]:
    """Whether each floating leaf is finite.

    Args:
        tree: leaves of shape [S, ...], or [...] where ``batch_axes`` is 0.
        batch_axes: leading axes to keep apart, 0 or 1 (the seeds).

    Returns:
        From the path of a leaf to [S] or [] bool.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.isfinite(leaf).all(_axes(leaf, batch_axes))
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }


def _axes(leaf: Array, batch_axes: int) -> tuple[int, ...]:
    return tuple(range(batch_axes, leaf.ndim))


def check(seeds: Sequence[int], epoch: int, metrics: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    """Raise `NonFiniteError` where a measured metric is not finite, or a leaf is flagged.

    Args:
        seeds: the S seeds of a run.
        epoch: which epoch the values come from.
        metrics: [S] or [] arrays.
        leaves: what `flags` returned.
    """
    good = {
        name: np.isfinite(np.atleast_1d(np.asarray(value))) | ~metrics_log.measured(name, metrics)
        for name, value in metrics.items()
    } | {name: np.atleast_1d(np.asarray(flag)) for name, flag in leaves.items()}
    for i, seed in enumerate(seeds):
        bad = [name for name, flag in good.items() if not flag[i]]
        if bad:
            more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            named = ", ".join(bad[:NAMED])
            raise NonFiniteError(f"seed {seed}, epoch {epoch}: not finite (nan or infinite): {named}{more}")
