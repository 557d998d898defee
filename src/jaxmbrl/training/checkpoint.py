"""Checkpoints of a whole run state, kept with Orbax: atomic, asynchronous, bit for bit.

A state of any structure is stored as a flat dictionary from the path of a leaf to the leaf, so that a checkpoint can
be opened without the code that wrote it. Orbax refuses arrays of size zero; those hold no information, so they are
left out and put back from a template.
"""

import contextlib
import gc
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxmbrl.config import ConfigError
from jaxmbrl.types import Array, PyTree

KEEP = 2  # The latest, and one before it in case the latest is damaged.


@contextlib.contextmanager
def manager(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints in ``directory``; on leaving, wait until the last one is on disk."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True)
    handler = ocp.StandardCheckpointHandler()  # Named here, or a fresh process could not ask for shapes.
    with ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handler) as opened:
        yield opened
        opened.wait_until_finished()


def save(opened: ocp.CheckpointManager, epoch: int, state: PyTree) -> None:
    """Save ``state`` as of ``epoch`` completed epochs; returns once it is copied, and writes in the background."""
    opened.save(epoch, args=ocp.args.StandardSave(_stored(state)))


def latest(directory: Path) -> int | None:
    """The number of completed epochs in the latest finished checkpoint, or None."""
    if not directory.is_dir():
        return None
    with manager(directory) as opened:
        return opened.latest_step()


def shapes(directory: Path, epoch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's leaves by path, keys as their data. Raises `ConfigError` where it cannot be read."""
    with _damaged(directory / str(epoch)), manager(directory) as opened:
        return {name: tuple(leaf.shape) for name, leaf in opened.item_metadata(epoch).items()}


def restore(directory: Path, epoch: int, template: PyTree) -> PyTree:
    """Load the checkpoint of ``epoch``.

    Args:
        directory: where the checkpoints are.
        epoch: which of them.
        template: structure, shapes and dtypes of the state, as from ``jax.eval_shape``; a leaf is put where its
            ``sharding`` says, whatever it was saved from, or on the first device without one.

    Raises:
        ConfigError: the checkpoint is damaged, or holds a state of another structure.
    """
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or first)
        for name, leaf in _stored(template).items()
    }
    # Asked first, since a restore that fails leaves a trail of complaints from its threads.
    _check_shapes(directory / str(epoch), shapes(directory, epoch), wanted)
    with _damaged(directory / str(epoch)), manager(directory) as opened:
        stored = opened.restore(epoch, args=ocp.args.StandardRestore(wanted))
    flat, structure = jax.tree_util.tree_flatten_with_path(template)
    leaves = [stored[_name(path)] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in flat]
    return jax.tree.unflatten(structure, leaves)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _stored(tree: PyTree) -> dict[str, Array]:
    """The leaves that a checkpoint holds, by path."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    stored = {_name(path): leaf for path, leaf in flat if leaf.size}
    if len(stored) != sum(leaf.size > 0 for _, leaf in flat):
        raise ValueError("two leaves of the state have the same path: a dictionary key holds a '.'")
    return stored


def _check_shapes(where: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raise `ConfigError` unless a checkpoint holds the leaves that are wanted."""
    for name in sorted(found.keys() ^ wanted.keys()):
        got, needs = ("no such leaf", "one") if name in wanted else ("a leaf", "none")
        raise ConfigError(f"{where}: {name}: got {got}, needs {needs}: written by another version or configuration")
    for name, leaf in wanted.items():
        shape = jax.eval_shape(jax.random.key_data, leaf).shape if _is_key(leaf) else leaf.shape
        if found[name] != shape:
            raise ConfigError(f"{where}: {name}: got shape {found[name]}, needs {shape}")


def _is_key(leaf: jax.ShapeDtypeStruct) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@contextlib.contextmanager
def _damaged(where: Path) -> Iterator[None]:
    """Report a failure to read in one line, in place of what Orbax and its abandoned coroutines have to say."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    except Exception as error:  # Orbax raises whatever its layers raise.
        raise ConfigError(f"{where}: damaged ({type(error).__name__}), needs a complete checkpoint") from error
    finally:
        gc.collect()
        sys.unraisablehook = hook
