"""Checkpoints of a whole run state, kept with Orbax: atomic, asynchronous, bit for bit.

A state of any structure is stored as a flat dictionary from the path of a leaf to the leaf, so that a checkpoint can
be opened without the code that wrote it. Orbax refuses arrays of size zero; those hold no information, so they are
left out and put back from a template.

Orbax loads a flipped byte as if nothing had happened. So each checkpoint carries a seal: what run it is of, and a
checksum of every leaf, taken from memory before it was written and compared with what was read.
"""

import contextlib
import gc
import logging
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxmbrl.config import ConfigError
from jaxmbrl.types import Array, PyTree

KEEP = 2  # The latest, and one before it in case the latest is damaged.
SEAL = "seal"  # uint32 [1 + leaves]: the identity of the run, and the CRC-32 of each leaf by order of names.


class StorageError(RuntimeError):
    """A checkpoint could not be written, told in one line."""


@contextlib.contextmanager
def manager(directory: Path, *, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints in ``directory``; on leaving, wait until the last one is on disk.

    Unless ``read_only``, what a killed process has left unfinished is removed.

    Raises:
        StorageError: the directory cannot be written, or the last checkpoint could not be.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    alone = _alone()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP,
        create=False,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        multiprocessing_options=alone,
        enable_async_checkpointing=jax.process_count() == 1,  # or it waits for signals of other processes
    )
    # Named here, or a fresh process could not ask for shapes.
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with _unwritable(directory):
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)  # Orbax does not, where there are several processes.
        opened = ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handler)
    with opened:
        yield opened
        with _unwritable(directory):
            opened.wait_until_finished()


def _alone() -> ocp.options.MultiprocessingOptions:
    """Each process keeps checkpoints of its own, and waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(index, {index}, f"process-{index}")


def save(opened: ocp.CheckpointManager, epoch: int, state: PyTree, identity: int = 0) -> None:
    """Save ``state`` as of ``epoch`` completed epochs; returns once it is copied, and writes in the background.

    Args:
        opened: from `manager`.
        epoch: completed epochs, more than in any checkpoint there is.
        state: of the run.
        identity: 32 bits that tell this run's configuration from others.

    Raises:
        StorageError: this checkpoint, or the one before it, could not be written.
    """
    stored = _stored(state)
    if jax.process_count() > 1:  # Orbax takes arrays of a single process only where all processes share them.
        stored = {name: np.array(_data(leaf)) for name, leaf in stored.items()}
    with _unwritable(Path(opened.directory)):
        opened.save(epoch, args=ocp.args.StandardSave({**stored, SEAL: _seal(stored, identity)}))


def epochs(directory: Path) -> list[int]:
    """The numbers of completed epochs of all finished checkpoints, the latest first."""
    if not directory.is_dir():
        return []
    with manager(directory, read_only=True) as opened:
        return sorted(opened.all_steps(), reverse=True)


def latest(directory: Path) -> int | None:
    """The number of completed epochs in the latest finished checkpoint, or None."""
    return next(iter(epochs(directory)), None)


def set_aside(directory: Path, after: int) -> None:
    """Rename the checkpoints of later epochs than ``after`` to ``damaged-EPOCH``, so that they are written anew."""
    for epoch in epochs(directory):
        if epoch > after:
            place = directory / f"damaged-{epoch}"
            shutil.rmtree(place, ignore_errors=True)
            (directory / str(epoch)).rename(place)


def shapes(directory: Path, epoch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's leaves by path, keys as their data. Raises `ConfigError` where it cannot be read."""
    with _damaged(directory / str(epoch)), manager(directory, read_only=True) as opened:
        return {name: tuple(leaf.shape) for name, leaf in opened.item_metadata(epoch).items()}


def restore(directory: Path, epoch: int, template: PyTree, identity: int = 0) -> PyTree:
    """Load the checkpoint of ``epoch``.

    Args:
        directory: where the checkpoints are.
        epoch: which of them.
        template: structure, shapes and dtypes of the state, as from ``jax.eval_shape``; a leaf is put where its
            ``sharding`` says, whatever it was saved from, or on the first device without one.
        identity: as it was saved with.

    Raises:
        ConfigError: the checkpoint is damaged, or of another run, or holds a state of another structure.
    """
    where = directory / str(epoch)
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or first)
        for name, leaf in _stored(template).items()
    }
    places = dict(wanted)
    wanted[SEAL] = jax.ShapeDtypeStruct((1 + len(wanted),), jnp.uint32, sharding=first)
    # Asked first, since a restore that fails leaves a trail of complaints from its threads.
    _check_shapes(where, shapes(directory, epoch), wanted)
    with _damaged(where), manager(directory, read_only=True) as opened:
        if jax.process_count() > 1:
            wanted = {name: np.empty(*_plain(leaf)) for name, leaf in wanted.items()}
        stored = dict(opened.restore(epoch, args=ocp.args.StandardRestore(wanted)))
    _check_seal(where, np.asarray(stored.pop(SEAL)), stored, identity)
    stored = {name: _like(places[name], found) for name, found in stored.items()}
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


def _seal(stored: Mapping[str, Array | np.ndarray], identity: int) -> np.ndarray:
    """uint32 [1 + leaves]. On a CPU the bytes are read where they lie."""
    sums = (zlib.crc32(_bytes(stored[name])) for name in sorted(stored))
    return np.array([identity, *sums], np.uint32)


def _bytes(leaf: Array | np.ndarray) -> memoryview:
    return np.ascontiguousarray(_data(leaf)).reshape(-1).view(np.uint8).data


def _data(leaf: Array | np.ndarray) -> Array | np.ndarray:
    """The numbers of a leaf, which may be of keys."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _plain(leaf: jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the numbers of a leaf."""
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return data.shape, data.dtype


def _like(leaf: jax.ShapeDtypeStruct, found: Any) -> Array:
    """What was read, as the leaf of a state."""
    if _is_key(leaf) and not _is_key(found):
        found = jax.random.wrap_key_data(found)
    return jax.device_put(found, leaf.sharding)


def _check_seal(where: Path, seal: np.ndarray, stored: Mapping[str, Array], identity: int) -> None:
    """Raise `ConfigError` unless ``stored`` is what was saved, of this run."""
    wrong = np.flatnonzero(seal[1:] != _seal(stored, identity)[1:])
    if wrong.size:
        name = sorted(stored)[wrong[0]]
        raise ConfigError(f"{where}: damaged ({name} is not what was saved), needs a complete checkpoint")
    if seal[0] != identity:
        raise ConfigError(f"{where}: written under another configuration, needs that of config.json")


def _check_shapes(where: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raise `ConfigError` unless a checkpoint holds the leaves that are wanted."""
    for name in sorted(found.keys() ^ wanted.keys()):
        got, needs = ("no such leaf", "one") if name in wanted else ("a leaf", "none")
        raise ConfigError(f"{where}: {name}: got {got}, needs {needs}: written by another version or configuration")
    for name, leaf in wanted.items():
        shape, _ = _plain(leaf)
        if found[name] != shape:
            raise ConfigError(f"{where}: {name}: got shape {found[name]}, needs {shape}")


def _is_key(leaf: Array | np.ndarray | jax.ShapeDtypeStruct) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@contextlib.contextmanager
def _unwritable(directory: Path) -> Iterator[None]:
    """Report a failure to write in one line."""
    try:
        yield
    except Exception as error:  # Orbax raises whatever its layers raise.
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{directory}: a checkpoint could not be written ({reason})") from error


@contextlib.contextmanager
def _damaged(where: Path) -> Iterator[None]:
    """Report a failure to read in one line, in place of what Orbax and its abandoned coroutines have to say."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    except Exception as error:  # Orbax raises whatever its layers raise.
        gc.collect()  # They speak up as they go; it takes seconds in a process with many compiled programs.
        hook = partial(_unless_abandoned, hook)  # Some of them speak up much later,
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # here too.
        raise ConfigError(f"{where}: damaged ({type(error).__name__}), needs a complete checkpoint") from error
    finally:
        sys.unraisablehook = hook


def _unless_abandoned(hook: Callable[[Any], Any], unraisable: Any) -> None:
    if "Event loop is closed" not in str(unraisable.exc_value):
        hook(unraisable)
