"""Resume into a larger experience store: where a run is extended, a store that holds the whole run grows."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxmbrl.replay import Replay
from jaxmbrl.types import Array


def before(template: Replay, shapes: Mapping[str, tuple[int, ...]]) -> Replay:
    """The store's template as a checkpoint holds it.

    Args:
        template: as the run needs it now, leaves [S, rows, ...] or [rows, ...].
        shapes: of the checkpoint's leaves, by path within the store.

    Returns:
        ``template`` with as many rows as the checkpoint has, where those are fewer.
    """
    axis = template.size.ndim

    def shrink(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = shapes.get(jax.tree_util.keystr(path, simple=True, separator="."), leaf.shape)
        same_but_rows = shape[:axis] + shape[axis + 1 :] == leaf.shape[:axis] + leaf.shape[axis + 1 :]
        smaller = len(shape) == leaf.ndim and same_but_rows and shape[axis] < leaf.shape[axis]
        return jax.ShapeDtypeStruct(shape, leaf.dtype) if smaller else leaf

    return template._replace(data=jax.tree_util.tree_map_with_path(shrink, template.data))


def grow(replay: Replay, template: Replay) -> Replay:
    """Add empty rows up to the template's.

    Only for a store that was never full before its run's end, hence never written over: its rows are in order of time,
    and the next one goes behind the last.

    Args:
        replay: leaves [S, rows, ...] or [rows, ...].
        template: the same with at least as many rows.
    """
    axis = template.size.ndim

    def pad(leaf: Array, wanted: jax.ShapeDtypeStruct) -> Array:
        missing = wanted.shape[axis] - leaf.shape[axis]
        return jnp.pad(leaf, [(0, missing if i == axis else 0) for i in range(leaf.ndim)])

    rows, wanted = (jax.tree.leaves(store.data)[0].shape[axis] for store in (replay, template))
    if rows == wanted:
        return replay
    cursor = jnp.copy(replay.size)  # A buffer of its own: the state is donated, and none may be given twice.
    return replay._replace(data=jax.tree.map(pad, replay.data, template.data), cursor=cursor)
