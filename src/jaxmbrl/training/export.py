"""How a system acts, as one file that JAX alone can load: no learning, no environment, nothing of this package.

    (key uint32 [2], memory, obs, reward [], first bool []) -> (action, memory)

is `Agent.act` without exploration, its parameters inside. ``memory`` (warm start, belief, ...) is a tuple of arrays
that is handed back as it came; where ``first`` is true, as at an episode's first step, it is not read but begun anew,
so that zeros of its shapes will do. ``reward`` is what the last action brought, 0 at first. To load and drive it:

    exported = jax.export.deserialize(bytearray(Path("act.jaxexport").read_bytes()))
    act = jax.jit(exported.call)
    shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    _, memory, *_ = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    action, memory = act(jax.random.key_data(key), memory, obs, reward, first)
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import wrappers
from jaxmbrl.training import manifest, runner
from jaxmbrl.types import Agent, Array, Environment, PyTree, TimeStep

FILE = "act.jaxexport"
PLATFORMS = ("cpu", "cuda", "tpu")
CALLS, LONGEST = 100, 10.0  # of the latency: that many calls, or as many as fit into so many seconds


class Export(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        epoch: completed epochs of the checkpoint.
        num_bytes: size of the file.
        milliseconds: of a call, on this machine: the median.
        calls: how many were timed.
    """

    path: Path
    epoch: int
    num_bytes: int
    milliseconds: float
    calls: int


def export(directory: Path, path: Path | None = None, seed: int | None = None) -> Export:
    """Write how a run's agent acts after its latest checkpoint.

    Args:
        directory: of the run.
        path: of the file; ``act.jaxexport`` in the run's directory by default.
        seed: which of the run's seeds; its first by default.

    Raises:
        ConfigError: the directory holds no run or no good checkpoint, or none of that seed; the file cannot be written;
            or the system reads the simulator's own state, which nobody else has.
    """
    run, _ = manifest.read(directory)
    seed = run.seed if seed is None else seed
    if seed not in run.all_seeds:
        raise ConfigError(f"seed: got {seed}, needs one of the run's: {', '.join(map(str, run.all_seeds))}")
    path = path or directory / FILE
    manifest.check_output(path)
    program = runner.build(run)
    found = runner.restore_latest(directory, program)
    if found is None:
        raise ConfigError(f"run: got {directory}, which holds no checkpoint yet, needs at least one")
    state, epoch = found
    one = state.agent if run.seeds == 1 else jax.tree.map(lambda leaf: leaf[seed - run.seed], state.agent)
    exported = acting(program.env, program.agent, jax.device_put(one, jax.devices()[0]), f"{run.system}_{run.env}")
    content = exported.serialize()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"output: got {path}, which cannot be written ({error.strerror})") from error
    milliseconds, calls = _latency(path)
    return Export(path, epoch, path.stat().st_size, milliseconds, calls)


def acting(env: Environment, agent: Agent, agent_state: PyTree, name: str) -> jax.export.Exported:
    """The function above, with ``agent_state`` inside. Raises ConfigError where it reads the simulator's own state."""
    key = jax.eval_shape(jax.random.key, 0)
    timestep = jax.eval_shape(env.reset, key)
    memory = jax.tree.leaves(jax.eval_shape(agent.memory, agent_state, key))
    raw = jax.eval_shape(lambda key, memory: (_data(key), tuple(map(_data, memory))), key, memory)
    shapes = (*raw, timestep.obs, timestep.reward, jax.ShapeDtypeStruct((), jnp.bool_))
    asked = _export(partial(_act, agent, agent_state), name, *shapes, timestep.state)
    if max(asked.module_kept_var_idx, default=0) >= len(jax.tree.leaves(shapes)):
        raise ConfigError(
            f"{name}: its actions depend on the simulator's own state, needs a system with a learned model"
        )
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), timestep.state)

    def act(key: Array, memory: tuple, obs: PyTree, reward: Array, first: Array) -> tuple[Array, tuple]:
        return _act(agent, agent_state, key, memory, obs, reward, first, state)

    return _export(act, name, *shapes)


def _act(
    agent: Agent,
    agent_state: PyTree,
    key: Array,
    memory: tuple,
    obs: PyTree,
    reward: Array,
    first: Array,
    state: PyTree,
) -> tuple[Array, tuple]:
    key_memory, key_act = jax.random.split(jax.random.wrap_key_data(key))
    fresh = agent.memory(agent_state, key_memory)
    leaves, structure = jax.tree.flatten(fresh)
    kept = [jax.random.wrap_key_data(x) if _is_key(leaf) else x for x, leaf in zip(memory, leaves, strict=True)]
    memory = wrappers.select(first, fresh, jax.tree.unflatten(structure, kept))
    timestep = TimeStep(state, obs, reward, jnp.zeros((), bool), jnp.zeros((), bool))
    action, memory, _ = agent.act(agent_state, key_act, memory, timestep, explore=False)
    return action, tuple(map(_data, jax.tree.leaves(memory)))


def _export(function: Callable[..., Any], name: str, *shapes: PyTree) -> jax.export.Exported:
    def named(*arguments: PyTree) -> Any:
        return function(*arguments)

    named.__name__ = "".join(letter if letter.isalnum() else "_" for letter in name)
    return jax.export.export(jax.jit(named), platforms=PLATFORMS)(*shapes)


def _latency(path: Path) -> tuple[float, int]:
    """Median milliseconds of a call of what was written, and of how many calls."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    act = jax.jit(exported.call)
    shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    key, memory, obs, reward, first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    jax.block_until_ready(act(key, memory, obs, reward, first))
    times, end = [], time.perf_counter() + LONGEST
    while len(times) < CALLS and time.perf_counter() < end:
        begin = time.perf_counter()
        _, memory = jax.block_until_ready(act(key, memory, obs, reward, first))
        times.append(1e3 * (time.perf_counter() - begin))
    return median(times), len(times)


def _is_key(leaf: Array | jax.ShapeDtypeStruct) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
