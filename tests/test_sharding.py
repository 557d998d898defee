"""One run over several devices: the numbers of one device, real shares, and nothing at all without a mesh."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import cli, sharding
from jaxmbrl.config import ConfigError

TESTS = Path(__file__).parent

SHARES = """
import jax, jax.numpy as jnp, numpy as np
from jaxmbrl import sharding
assert jax.device_count() == 4, jax.devices()

def inner(key, x):  # [5] -> []
    return jnp.sum(jax.lax.scan(lambda c, a: (jnp.tanh(c + a), None), jax.random.normal(key, (3,)), x)[0])

def score(key, xs):  # [N, 5] -> [N]
    return sharding.vmap(inner, in_axes=(None, 0))(key, xs)

def scores(keys, xs):  # the outer axis is split, or where it is short the inner one
    return sharding.vmap(score, in_axes=(0, None))(keys, xs)

def per_device(place):
    return place.shard_shape((6, 32))

xs = jax.random.normal(jax.random.key(1), (32, 5))
for outer, number, share in ((2, 4, (2, 8)), (4, 4, (1, 32)), (6, 2, (3, 32))):
    keys = jax.random.split(jax.random.key(0), outer)
    expected = jax.jit(lambda *a: scores(*a))(keys, xs)
    with jax.set_mesh(sharding.mesh(number)):
        program = jax.jit(lambda *a: scores(*a))
        got = program(keys, xs)
        text = program.lower(keys, xs).compile().as_text()
    assert got.sharding.shard_shape(got.shape) == share, (got.sharding, share)
    assert f"f32[{share[0]},{share[1]},3]" in text.replace("f32[8,2,3]", "f32[2,8,3]"), text  # what the loop carries
    np.testing.assert_allclose(got, expected, rtol=1e-6)

# Five members on two and on four devices: XLA pads, and a mean over members does not see the padding.
def descend(members):
    def step(members, _):
        members = sharding.vmap(lambda w: w - 0.1 * jnp.tanh(w) + jnp.sum(w) / 7)(members)
        return members, jnp.mean(1.0 / members)
    return jax.lax.scan(step, members, length=4)
members = 1.0 + jax.random.uniform(jax.random.key(2), (5, 8))
expected = jax.jit(lambda m: descend(m))(members)
for number in (2, 4):
    with jax.set_mesh(sharding.mesh(number)):
        program = jax.jit(lambda m: descend(m), out_shardings=sharding.everywhere())
        got = program(members)
        assert f"f32[{-(-5 // number)},8]" in program.lower(members).compile().as_text()
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5)
"""

RUNS = """
import dataclasses, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from jaxmbrl import sharding
from jaxmbrl.agents import pets
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.planners import cem
from jaxmbrl.schedule import Schedule
from jaxmbrl.training import runner
from jaxmbrl.training.manifest import Run
assert jax.device_count() == 4, jax.devices()

def same(got, expected, rtol):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6)

def words(state):  # as the numbers that they are
    return state._replace(replay=jax.lax.bitcast_convert_type(state.replay.data, jnp.float32))

# Candidates (an odd number of them) and members; a run that stops on two devices and goes on with one.
member = one_step.Config(hidden=(8,))
agent = pets.Config(
    model=ensemble.Config(member=member, size=4, elites=4, particles=4),
    fit=fitting.Config(passes=2), planner=cem.Config(population=25, elites=4, iterations=2), horizon=3,
)
schedule = Schedule(epochs=2, prefill=12, epoch_steps=6, eval_episodes=0)
run = Run("pets", "pendulum", "small", {}, agent, schedule)
root = Path(sys.argv[1])
straight = runner.train(run, root / "one").state
assert len(jax.tree.leaves(straight)[0].sharding.device_set) == 1
with jax.set_mesh(sharding.mesh(2)):
    runner.train(run._replace(schedule=dataclasses.replace(schedule, epochs=1)), root / "two")
there = runner.resume(root / "two", epochs=2).state
assert len(jax.tree.leaves(there)[0].sharding.device_set) == 1
same(words(there), words(straight), 1e-5)
with jax.set_mesh(sharding.mesh(4)):
    back = runner.resume(root / "two", epochs=3).state
    program = runner.build(run)
    text = jax.jit(program.loop.epoch).lower(program.template).compile().as_text()
assert len(jax.tree.leaves(back)[0].sharding.device_set) == 4
assert "f32[1,7,4,1,8]" in text and "f32[1,25,4,1,8]" not in text, "hidden units [1, 25, M, P/M, 8] in shares of 7"
same(words(back), words(runner.resume(root / "one", epochs=3).state), 1e-5)
"""

ROLLOUTS = """
import jax, jax.numpy as jnp, numpy as np
from jaxmbrl import envs, replay, sharding
from jaxmbrl.agents import mbpo
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.policies import sac
from jaxmbrl.types import Transition

# A cloud of imagined rollouts, dealt to the members anew at each step.
spec = envs.make("pendulum").spec
member = one_step.Config(hidden=(8,))
model = ensemble.Members(member=member, size=3, elites=2)
config = mbpo.Config(
    policy=sac.Config(hidden=(8,)), model=model, fit=fitting.Config(holdout_every=2), rollouts=32, last_length=3
)
parts = mbpo.make(spec, config).fit.args[0]
state = mbpo._init(parts, jax.random.key(0))
obs, no = jax.random.normal(jax.random.key(1), (20, 3)), jnp.zeros(20, bool)
seen = Transition(obs, obs[:, :1], obs[:, 0], obs, no, no)
store = replay.init(jax.tree.map(lambda leaf: leaf[0], seen), capacity=20, num_envs=20)
arguments = state.model.params, state.policy, jax.random.key(2), replay.add(store, seen), jnp.int32(3)

def program():  # traced anew
    return jax.jit(lambda *arguments: mbpo.imagine(parts, *arguments))

expected, _ = program()(*arguments)
with jax.set_mesh(sharding.mesh(4)):
    compiled = program().lower(*arguments).compile()
    got, _ = program()(*arguments)
assert "f32[2,4,3]" in compiled.as_text(), "the cloud [M, P/M, O] in shares of P/M = 16"
for one, other in zip(got[:6], expected[:6]):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
"""


def python(script, *words):
    """Run a script in a process with four CPU devices."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_NUM_CPU_DEVICES": "4",
    }
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_outermost_axis_that_is_long_enough_is_split():
    python(SHARES)


def test_runs_have_the_numbers_of_one_device_and_move_between_them(tmp_path):
    """PETS stopped on two devices, resumed on one, then on four: to float tolerance."""
    python(RUNS, tmp_path)


def test_imagined_rollouts_are_those_of_one_device():
    python(ROLLOUTS)


def test_a_mesh_has_the_devices_that_it_was_asked_for():
    for number in (0, -1, jax.local_device_count() + 1):
        with pytest.raises(ConfigError, match=f"mesh: got {number} devices, needs 1 to "):
            sharding.mesh(number)


def test_without_a_mesh_nothing_is_there():
    def double(x):
        return 2 * x

    plain = jax.make_jaxpr(jax.vmap(double))(jnp.arange(4.0))
    assert str(jax.make_jaxpr(sharding.vmap(double))(jnp.arange(4.0))) == str(plain)
    tree = {"x": np.zeros((4, 2))}
    assert sharding.split(tree) is tree
    assert sharding.everywhere() is None


@pytest.mark.parametrize("words", [["--seeds", "2"], ["--seeds", "4", "--profile"]])
def test_several_seeds_are_not_sharded_too(words, capsys, tmp_path):
    command = ["train", "pets", "pendulum", "--shard", *words, "--run-dir", str(tmp_path / "run")]
    assert cli.main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"shard: got {words[1]} seeds, needs 1" in said
    assert not (tmp_path / "run").exists()
