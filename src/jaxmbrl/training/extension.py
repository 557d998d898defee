"""Resume into a larger experience store: where a run is extended, a store that holds the whole run grows."""

import jax
import jax.numpy as jnp

from jaxmbrl.replay import Replay


def before(template: Replay, shape: tuple[int, ...] | None) -> Replay:
    """The store's template as a checkpoint holds it.

    Args:
        template: as the run needs it now, words [S, rows, num_envs, W] or [rows, num_envs, W].
        shape: of the checkpoint's words, None if it has none.

    Returns:
        ``template`` with as many rows as the checkpoint has, where those are fewer.
    """
    axis, wanted = template.size.ndim, template.data.shape
    if shape is None or len(shape) != len(wanted):
        return template
    same_but_rows = shape[:axis] + shape[axis + 1 :] == wanted[:axis] + wanted[axis + 1 :]
    smaller = same_but_rows and shape[axis] < wanted[axis]
    if not smaller:
        return template
    return template.replace(data=jax.ShapeDtypeStruct(shape, template.data.dtype, sharding=template.data.sharding))


def grow(replay: Replay, template: Replay) -> Replay:
    """Add empty rows up to the template's.

    Only for a store that was never full before its run's end, hence never written over: its rows are in order of time,
    and the next one goes behind the last.

    Args:
        replay: words [S, rows, num_envs, W] or [rows, num_envs, W].
        template: the same with at least as many rows.
    """
    axis, data = template.size.ndim, replay.data
    missing = template.data.shape[axis] - data.shape[axis]
    if not missing:
        return replay
    cursor = jnp.copy(replay.size)  # A buffer of its own: the state is donated, and none may be given twice.
    padded = jnp.pad(data, [(0, missing if i == axis else 0) for i in range(data.ndim)])
    return replay.replace(data=padded, cursor=cursor)
