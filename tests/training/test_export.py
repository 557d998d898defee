"""An exported run acts as its agent does, in a process that knows nothing of this package."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_system

from jaxmbrl import agents, cli, envs
from jaxmbrl.agents import pets, sac
from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, one_step, simulator
from jaxmbrl.planners import cem
from jaxmbrl.policies import sac as sac_policy
from jaxmbrl.training import export

ENV = envs.make("pendulum", episode_length=8)
MEMBERS = ensemble.Config(member=one_step.Config(hidden=(8,)), size=2, elites=2, particles=2)
CONFIGS = {
    "pets": pets.Config(horizon=3, model=MEMBERS, planner=cem.Config(12, 3, 2)),
    "sac": sac.Config(policy=sac_policy.Config(hidden=(4,))),
}
LOADER = """
import sys, numpy as np, jax, jax.export, jax.numpy as jnp
from pathlib import Path
exported = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
act = jax.jit(exported.call)
shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
_, memory, obs, reward, first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
for step in range(2):
    key = jax.random.key_data(jax.random.key(step))
    action, memory = act(key, memory, obs + 0.1 * step, reward, first | (step == 0))
assert not any(name.startswith(("jaxmbrl", "flax", "brax", "optax")) for name in sys.modules)
print(*np.asarray(action))
"""


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_it_acts_as_the_agent(name):
    """Three steps of an episode with what is remembered between them, then the first of another."""
    agent = agents.load(name).make(ENV.spec, CONFIGS[name])
    state = agent.init(jax.random.key(0))
    exported = jax.export.deserialize(bytearray(export.acting(ENV, agent, state, name).serialize()))
    act = jax.jit(exported.call)
    shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    _, remembered, *_ = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1, leaf.dtype), shapes)
    timestep = ENV.reset(jax.random.key(1))
    actions, memory = [], None
    for step, first in enumerate([True, False, False, True]):
        key = jax.random.key(10 + step)
        key_memory, key_act = jax.random.split(key)
        memory = agent.memory(state, key_memory) if first else memory
        expected, memory, _ = agent.act(state, key_act, memory, timestep, explore=False)
        action, remembered = act(
            jax.random.key_data(key), remembered, timestep.obs, timestep.reward, jnp.asarray(first)
        )
        np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)
        timestep = ENV.step(key, timestep, expected)
        actions.append(float(action[0]))
    assert len(set(actions)) > 1


def test_a_system_that_reads_the_simulator_is_refused():
    config = pets.Config(horizon=3, model=simulator.Config(), planner=cem.Config(12, 3, 2))
    agent = pets.make(ENV.spec, config, env=ENV)
    with pytest.raises(ConfigError, match="needs a system with a learned model"):
        export.acting(ENV, agent, agent.init(jax.random.key(0)), "pets on its simulator")


def test_a_run_through_the_command(tmp_path, capsys, monkeypatch):
    """The last line is the file, another process loads it with JAX alone; mistakes are one line."""
    tiny_system.install(monkeypatch)
    run = tmp_path / "run"
    words = [*tiny_system.ARGUMENTS, "--seed", "3", "--seeds", "2", "--schedule.epochs", "1", "--run-dir", str(run)]
    assert cli.main(["train", *words]) == 0
    file = tmp_path / "act.jaxexport"
    capsys.readouterr()
    assert cli.main(["export", str(run), "-o", str(file), "--seed", "4"]) == 0
    *_, latency, last = capsys.readouterr().out.splitlines()
    assert last == str(file) and "ms" in latency
    loaded = subprocess.run([sys.executable, "-c", LOADER, str(file)], capture_output=True, text=True, check=True)
    assert np.isfinite(float(loaded.stdout))
    for words, expected in (
        (["export", str(run), "--seed", "5"], "seed: got 5, needs one of the run's: 3, 4"),
        (["export", str(tmp_path)], "holds no config.json"),
        (["export", str(run), "-o", str(tmp_path / "none" / "act")], "output: got"),
    ):
        assert cli.main(words) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and expected in said[0]
