"""NaN never spreads silently: wherever it is put in, a run stops with one line, and its last checkpoint is good."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_system

from jaxmbrl import cli, envs, planners
from jaxmbrl.agents import mpc
from jaxmbrl.models import fitting
from jaxmbrl.schedule import Schedule
from jaxmbrl.training import finite, manifest, runner
from jaxmbrl.types import Prediction, WorldModel

EPISODE, STEP = 16, 7  # steps; the seventh of the first episode is made in the second epoch: 2 random ones, then 4 each
TINY = ["train", "tiny", "pendulum", "--env.episode_length", str(EPISODE), "--schedule.epochs", "4"]


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    """JAX's own checks are off, as they are for users."""
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    jax.config.update("jax_debug_nans", False)
    yield
    jax.config.update("jax_debug_nans", True)


def broken(make, place):
    """``envs.make`` with environments that show nan at one step of an episode, and are well before and after."""

    def wrapped(name, **options):
        env = make(name, **options)

        def reset(key):
            timestep = env.reset(key)
            return timestep._replace(state=(timestep.state, timestep.obs, jnp.int32(0)))

        def step(key, timestep, action):
            inner, obs, count = timestep.state
            after = env.step(key, timestep._replace(state=inner, obs=obs), action)
            count += 1
            bad = jnp.where(count == STEP, jnp.nan, 0.0)
            shown = {"obs": after.obs + bad} if place == "obs" else {"reward": after.reward + bad}
            return after._replace(state=(after.state, after.obs, count), **shown)

        return env._replace(reset=reset, step=step)

    return wrapped


@pytest.mark.parametrize("place", ["obs", "reward", "parameter", "gradient", "action"])
def test_it_is_named_and_the_checkpoint_is_good(place, monkeypatch, capfd):
    """Observation and reward are finite again when the epoch ends; what was stored, or summed up, is not."""
    words = [] if place in ("obs", "reward") else ["--agent.poison", "2", "--agent.place", place]
    if not words:
        monkeypatch.setattr(envs, "make", broken(envs.make, place))
    assert cli.main([*TINY, *words, "--run-dir", "run"]) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    named = {"obs": "replay.next_obs", "reward": "replay.reward", "action": "replay.action"}.get(place, "agent.weights")
    assert line.startswith(f"jaxmbrl: error: seed 0, epoch 2, step 14: not finite (nan or infinite): {named}")
    program = runner.build(manifest.read(Path("run"))[0])
    state, epoch = runner.restore_latest(Path("run"), program)
    assert epoch == 1
    for leaf in jax.tree.leaves((state.agent.weights, state.timestep, state.replay)):
        assert not np.issubdtype(leaf.dtype, np.inexact) or np.isfinite(leaf).all()


PLAN = Schedule(prefill=4, epoch_steps=20, num_envs=2)


def told(metrics, good, since):
    with pytest.raises(finite.NonFiniteError) as caught:
        finite.check([7, 8], 5, PLAN, {"env_steps": np.array([104, 104]), **metrics}, finite.Watched(good, since))
    return str(caught.value)


def test_what_is_not_finite_is_named_with_its_seed():
    """Without a bad row in the store only the epoch is known; with one, its step, and what came first."""
    fine, bad = np.array([True, True]), np.array([True, False])
    loss = {"model_loss": np.array([1.0, np.inf])}
    good = {"agent.a": fine, "agent.b": bad, "memory": bad, "obs": bad}
    none = {name: np.array([0, 0]) for name in ("obs", "action", "reward", "next_obs")}
    line = "seed 8, epoch 5, {}: not finite (nan or infinite): {}"
    assert told(loss, good, none) == line.format("steps 85 to 104", "agent.b, model_loss, memory and 1 more")
    shown = {**none, "obs": np.array([0, 2]), "next_obs": np.array([0, 3])}
    assert told(loss, good, shown) == line.format("step 100", "replay.next_obs, model_loss, agent.b and 3 more")
    acted = {**none, "action": np.array([0, 1]), "next_obs": np.array([0, 1])}
    assert told({}, good, acted) == line.format("step 104", "agent.b, replay.action, replay.next_obs and 2 more")
    no_episode = {"episodes": np.array(0), "episode_return": np.array(np.nan), "env_steps": np.array(24)}
    finite.check([7], 1, PLAN, no_episode, finite.Watched({}, {}))


@pytest.mark.parametrize("bad", [False, True])
def test_an_imagined_state_shows_in_the_action(bad):
    """A model that imagines nothing finite supports no action; one that does for some candidates supports theirs."""
    spec = envs.make("pendulum").spec

    def step(params, key, state, action):
        state = jnp.where(bad | (action[0] > 0), jnp.nan, state + action)
        return state, Prediction(-jnp.sum(state**2), jnp.ones(()))

    world = WorldModel(
        init=lambda key: (),
        loss=lambda params, key, batch: (jnp.zeros(()), {}),
        start=lambda params, key, timestep: jnp.ones(1),
        observe=lambda params, key, state, action, timestep: state,
        step=step,
        features=lambda params, state: state,
    )
    planner = planners.make((3, 1), -1.0, 1.0, planners.cem.Config(population=30, elites=3, iterations=2))
    agent = mpc.compose(world, fitting.nothing(world), planner)
    key_init, key_memory, key_reset, key_act = jax.random.split(jax.random.key(0), 4)
    state = agent.init(key_init)
    timestep = envs.make("pendulum").reset(key_reset)
    act = jax.jit(agent.act, static_argnames="explore")
    action, *_ = act(state, key_act, agent.memory(state, key_memory), timestep, explore=True)
    assert action.shape == (spec.box.size,)
    assert bool(jnp.isnan(action).all()) if bad else bool((action <= 0).all())
