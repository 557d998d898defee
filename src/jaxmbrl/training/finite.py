"""Are the numbers of a run that feed on one another still numbers? One jitted reduction, and one line where not."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl import replay as replays
from jaxmbrl.replay import Replay
from jaxmbrl.schedule import Schedule
from jaxmbrl.training import metrics as metrics_log
from jaxmbrl.types import Array, PyTree, TimeStep

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


class Watched(NamedTuple):
    """What `watch` saw of S seeds.

    Attributes:
        good: from the path of a leaf of the state to whether it is finite, bool [S] or [].
        since: from the path of a leaf of the stored transitions to how many rows ago it first was not, int32 [S] or
            []: 1 for the newest row, 0 where all of the epoch's are finite.
    """

    good: Mapping[str, Any]
    since: Mapping[str, Any]


def watch(schedule: Schedule, *, batch_axes: int) -> Callable[[Any], Watched]:
    """A compiled ``state -> Watched`` of a `LoopState`: what feeds on itself, what is seen now, what the epoch stored.

    What is seen may be finite again at the end of an epoch, after a reset; what is stored stays.

    Args:
        schedule: of the run.
        batch_axes: as in `flags`.
    """

    @jax.jit
    def look(agent: PyTree, memory: PyTree, episodes: PyTree, timestep: TimeStep, replay: Replay) -> Watched:
        seen = {"obs": timestep.obs, "reward": timestep.reward}
        good = flags({"agent": agent, "memory": memory, "episodes": episodes, **seen}, batch_axes=batch_axes)
        stored = partial(_since, schedule=schedule)
        return Watched(good, (jax.vmap(stored) if batch_axes else stored)(replay))

    return lambda state: look(state.agent, state.memory, state.episodes, state.timestep, state.replay)


def _since(replay: Replay, *, schedule: Schedule) -> dict[str, Array]:
    """`Watched.since` of the rows of the last epoch, and of the steps before the first epoch, which none saw."""
    rows = (schedule.prefill + schedule.epoch_steps) // schedule.num_envs
    rows = min(rows, schedule.replay_capacity // schedule.num_envs)
    by_row = {name: ~row for name, row in flags(replays.latest(replay, rows), batch_axes=1).items()}  # [rows]
    return {name: jnp.where(jnp.any(bad), rows - jnp.argmax(bad), 0) for name, bad in by_row.items()}


def check(seeds: Sequence[int], epoch: int, schedule: Schedule, metrics: Mapping[str, Any], watched: Watched) -> None:
    """Raise `NonFiniteError` where a measured metric, a leaf of the state or what was stored is not finite.

    Args:
        seeds: the S seeds of a run.
        epoch: which epoch the values come from.
        schedule: of the run.
        metrics: [S] or [] arrays.
        watched: what `watch` returned.
    """
    measured = {
        name: np.isfinite(np.atleast_1d(np.asarray(value))) | ~metrics_log.measured(name, metrics)
        for name, value in metrics.items()
    }
    good = measured | {name: np.atleast_1d(np.asarray(flag)) for name, flag in watched.good.items()}
    for i, seed in enumerate(seeds):
        since = {name: int(np.atleast_1d(rows)[i]) for name, rows in watched.since.items()}
        bad = _first_ones([name for name, flag in good.items() if not flag[i]], since)
        if bad:
            more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            end, longest = int(np.atleast_1d(metrics["env_steps"])[i]), max(since.values(), default=0)
            begin = end - schedule.epoch_steps + 1 if epoch > 1 else 1
            step = f"step {end - (longest - 1) * schedule.num_envs}" if longest else f"steps {begin} to {end}"
            named = ", ".join(bad[:NAMED])
            raise NonFiniteError(f"seed {seed}, epoch {epoch}, {step}: not finite (nan or infinite): {named}{more}")


def _first_ones(bad: list[str], since: Mapping[str, int]) -> list[str]:
    """Names of bad values, those first that may have spoiled the others.

    In one row of the store an observation comes before the action, which comes before what follows from it. A bad
    action on a good observation is the agent's doing, whose own leaves then lead.
    """
    longest = max(since.values(), default=0)
    origin = [f"replay.{name}" for name, rows in since.items() if rows == longest > 0]
    agent = [name for name in bad if name.startswith("agent.")] if not origin or origin[0] == "replay.action" else []
    later = [f"replay.{name}" for name, rows in since.items() if longest > rows > 0]
    return list(dict.fromkeys(agent + origin + bad + later))
