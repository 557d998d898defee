"""Environments by name: what is listed, what is refused, and that every one can be carried through a scan."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import classic, documented
from jaxmbrl.types import Box


def test_every_name_has_options():
    assert len(set(envs.names())) == len(envs.names())
    for name in envs.names():
        options = envs.options(name)
        assert options["episode_length"] > 0 and options["action_repeat"] == options["frame_stack"] == 1
    assert {"pendulum", "cartpole", "cartpole_swingup", "acrobot", "mountain_car", "reacher"} < set(envs.names())
    assert any(name.startswith("brax/") for name in envs.names())


def test_every_option_is_documented():
    """And no line of the tables has lost its option."""
    used = {name: set(envs.options(name)) for name in envs.names()}
    for name, options in used.items():
        assert not [option for option in options if not documented.document(name, option)], name
    listed = {*documented._OF_ALL, *documented._CLASSIC, *documented._BRAX, *documented._PIXELS}
    assert listed <= set.union(*used.values())
    assert all(set(own) <= used[name] for name, own in documented._OWN.items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pendulm", {}, r"env: got 'pendulm', needs the name of an environment; did you mean pendulum"),
        ("brax/swimmer", {}, r"env: got 'brax/swimmer', which does not run on current jax"),
        ("brax/hoper", {}, r"env: got 'brax/hoper'.*did you mean (brax/)?hopper"),
        ("xyzzy", {}, r"env: got 'xyzzy'.*one of acrobot, cartpole"),
        (
            "pendulum",
            {"gravty": 1.0},
            r"env.gravty: no such option of pendulum; did you mean gravity\?; options: gravity",
        ),
        ("pendulum", {"gravity": "9.8"}, r"env.gravity: got '9.8', needs a finite number"),
        ("pendulum", {"gravity": True}, r"env.gravity: got True, needs a finite number"),
        ("pendulum", {"gravity": float("nan")}, r"env.gravity: got nan, needs a finite number"),
        ("pendulum", {"mass": 0.0}, r"env.mass: got 0.0, needs a number above 0"),
        ("pendulum", {"episode_length": 0}, r"env.episode_length: got 0, needs a whole number of at least 1"),
        ("pendulum", {"episode_length": 20.0}, r"env.episode_length: got 20.0, needs a whole number"),
        ("pendulum", {"action_repeat": -1}, r"env.action_repeat: got -1, needs a whole number of at least 1"),
        ("linear_quadratic", {"state_size": 0}, r"env.state_size: got 0, needs at least 1"),
        ("linear_quadratic", {"state_size": 2.0}, r"env.state_size: got 2.0, needs a whole number"),
        ("linear_quadratic", {"action_cost": 0.0}, r"env.action_cost: got 0.0, needs a number above 0"),
    ],
)
def test_bad_input_gives_one_clear_line(name, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        envs.make(name, **options)
    assert "\n" not in str(error.value)


def test_default_episode_lengths():
    lengths = {name: envs.make(name).spec.episode_length for name in classic.NAMES}
    assert lengths == {
        "acrobot": 500,
        "cartpole": 200,
        "cartpole_swingup": 200,
        "linear_quadratic": 50,
        "mountain_car": 999,
        "pendulum": 200,
        "reacher": 100,
    }


def test_episode_length_counts_simulator_steps(key):
    env = envs.make("pendulum", episode_length=7, action_repeat=2)
    assert env.spec.episode_length == 4

    def step(timestep, _):
        after = env.step(key, timestep, jnp.zeros(1))
        return after, after.truncated

    assert jax.lax.scan(step, env.reset(key), length=4)[1].tolist() == [False, False, False, True]


def test_sizes_of_linear_quadratic():
    spec = envs.make("linear_quadratic", state_size=5, action_size=3).spec
    assert spec.obs_size == 5
    assert spec.box.size == 3


def test_physics_varies_under_vmap(key):
    def second_obs(gravity):
        env = envs.make("pendulum", gravity=gravity)
        return env.step(key, env.reset(key), jnp.zeros(1)).obs

    obs = jax.vmap(second_obs)(jnp.array([0.0, 10.0]))
    assert obs[0, 2] == envs.make("pendulum").reset(key).obs[2]  # without gravity nothing turns it
    assert obs[1, 2] != obs[0, 2]


@pytest.mark.parametrize("name", classic.NAMES)
def test_time_steps_are_a_scan_carry(name):
    env = envs.make(name)
    first = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((env.spec.box.size,), jnp.float32)
    second = jax.eval_shape(env.step, jax.random.key(0), first, action)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for before, after in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        assert not before.weak_type and not after.weak_type
    assert first.obs.shape == env.spec.observation.shape and first.obs.dtype == jnp.float32
    assert (first.reward.dtype, first.terminated.dtype, first.truncated.dtype) == (jnp.float32, bool, bool)
    assert isinstance(env.spec.action, Box) and np.all(env.spec.action.low < env.spec.action.high)


def test_a_loop_is_traced_once():
    env, traces = envs.make("cartpole", mass_pole=0.2, action_repeat=2), []

    @jax.jit
    def run(timestep, key):
        traces.append(1)
        return jax.lax.scan(lambda t, k: (env.step(k, t, jnp.zeros(1)), None), timestep, jax.random.split(key, 5))[0]

    timestep = env.reset(jax.random.key(0))  # not jitted, where weak types would show
    run(run(timestep, jax.random.key(1)), jax.random.key(2))
    assert len(traces) == 1


def test_import_is_light():
    heavy = {"brax", "mujoco", "distrax", "gymnax", "mujoco_playground"}
    code = f"import sys, jaxmbrl.envs as e; e.names(); print({heavy} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
