"""Examine a finished or running run: episodes without exploration, and a viewer of one of them."""

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.training import checkpoint, compiling, devices, manifest, runner
from jaxmbrl.training.evaluation import evaluate, rollout
from jaxmbrl.types import Array, Key, PyTree, TimeStep

FILE = "evaluation.json"
CONTEXT, FORESEEN = 5, 45  # steps that a model is shown, and that it then imagines (Hafner et al. 2019, Fig. 6)
STREAM = 0x6576616C  # Folded into the key, so that no evaluation shares its randomness with the training of a seed.
# Options that shape what the learner sees of an environment, not how it is drawn.
NOT_PHYSICS = ("episode_length", "action_repeat", "frame_stack", "forward_velocity", "size")


class Examination(NamedTuple):
    """What was seen.

    Attributes:
        seeds: the S seeds of the run.
        epoch: completed epochs of the checkpoint.
        returns: [S, episodes], undiscounted.
        path: ``evaluation.json``.
        pictures: the page or picture of an episode, of the seed with the highest mean return; and what the model
            imagined of it, where there is a model that tells observations and the episode lasted.
    """

    seeds: tuple[int, ...]
    epoch: int
    returns: np.ndarray
    path: Path
    pictures: tuple[Path, ...]


def examine(directory: Path, episodes: int, seed: int) -> Examination:
    """Run episodes without exploration from a run's latest checkpoint, and write what was seen into its directory.

    Args:
        directory: of the run.
        episodes: for each seed of the run, all in one compiled program.
        seed: of the evaluation.

    Raises:
        ConfigError: the directory holds no run or no checkpoint, or damaged ones.
    """
    run, _ = manifest.read(directory)
    epoch, program, state = load(directory, run)
    key_returns, key_viewer = jax.random.split(jax.random.fold_in(jax.random.key(seed), STREAM))
    agents = seeds_first(run, state.agent)
    begin = time.monotonic()
    run_episodes = jax.jit(
        devices.over_seeds(evaluate(program.env, program.agent, episodes), run.seeds),
        compiler_options=compiling.options(program.env.spec),
    )
    returns = np.asarray(run_episodes(agents, jax.random.split(key_returns, run.seeds)))
    by_seed = zip(run.all_seeds, returns, strict=True)
    content = {
        "epoch": epoch,
        "env_steps": int(jnp.max(state.env_steps)),
        "episodes": episodes,
        "evaluation_seed": seed,
        **_summary(returns),
        "seeds": [{"seed": name, **_summary(row), "returns": row.tolist()} for name, row in by_seed],
        "wall_seconds": round(time.monotonic() - begin, 3),
    }
    path = directory / FILE
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    best = int(np.argmax(returns.mean(axis=1)))
    agent = jax.device_put(jax.tree.map(lambda leaf: leaf[best], agents), jax.devices()[0])
    pictures = _draw(run, program, agent, key_viewer, directory)
    return Examination(tuple(run.all_seeds), epoch, returns, path, pictures)


def load(directory: Path, run: manifest.Run) -> tuple[int, runner.Program, PyTree]:
    """A run's latest checkpoint: completed epochs, program and state. Raises `ConfigError` as `examine` does."""
    if not checkpoint.epochs(directory / runner.CHECKPOINTS):
        raise ConfigError(f"run: got {directory}, which holds no checkpoint yet, needs at least one")
    program = runner.build(run)
    found = runner.restore_latest(directory, program)
    assert found is not None  # There is one, or an error.
    state, epoch = found
    return epoch, program, state


def seeds_first(run: manifest.Run, tree: PyTree) -> PyTree:
    """Leaves [S, ...], also where the run has a single seed."""
    return tree if run.seeds > 1 else jax.tree.map(lambda leaf: leaf[None], tree)


def physics(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an environment's options that its simulator takes, and a picture needs."""
    return {name: value for name, value in options.items() if name not in NOT_PHYSICS}


def _draw(
    run: manifest.Run, program: runner.Program, agent_state: PyTree, key: Key, directory: Path
) -> tuple[Path, ...]:
    """Record an episode, and what the agent's model imagines of it."""
    key_episode, key_imagine = jax.random.split(key)
    timesteps, actions = jax.jit(rollout(program.env, program.agent))(agent_state, key_episode)
    last = int(np.argmax(timesteps.terminated | timesteps.truncated))  # the first that ended it; an episode always ends
    timesteps = jax.tree.map(lambda leaf: leaf[: last + 1], timesteps)
    seen = (view(run, jax.device_get(timesteps), directory),)
    return seen + imagined(program, agent_state, key_imagine, timesteps, actions, directory)


def imagined(
    program: runner.Program, agent_state: PyTree, key: Key, timesteps: TimeStep, actions: Array, directory: Path
) -> tuple[Path, ...]:
    """Draw what the agent's model imagines of an episode [T + 1]; nothing where it has none, or was over at once."""
    length = min(len(timesteps.reward) - 1, CONTEXT + FORESEEN)
    if program.agent.foresee is None or length <= CONTEXT:
        return ()
    from jaxmbrl.diagnostics import open_loop

    known = jax.tree.map(lambda leaf: leaf[: length + 1], timesteps)
    foresee = jax.jit(partial(program.agent.foresee, context=CONTEXT))
    told = foresee(agent_state, key, known, actions[:length])
    grid = program.env.spec.is_grid
    return open_loop.draw(told.seen, told.imagined, CONTEXT, directory / "open_loop", grid=grid)


def view(run: manifest.Run, timesteps: TimeStep, directory: Path) -> Path:
    """Write an episode [T + 1]: a page for Brax's environments, an animated picture for the others."""
    from jaxmbrl.diagnostics import animation, viewer

    simulator = physics(run.options)
    if run.env.startswith("brax/"):
        return viewer.write_html(
            directory / "episode.html", run.env, timesteps, np.asarray(timesteps.reward)[1:], **simulator
        )
    width = timesteps.obs.shape[-1] // run.options.get("frame_stack", 1)  # of the latest observation among them
    return animation.animate(run.env, timesteps.obs[..., -width:], directory / "episode.gif", **simulator)


def _summary(returns: np.ndarray) -> dict[str, float]:
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
