"""Seeds spread over virtual devices: the numbers of `vmap`, runs that move to another number of devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_system

from jaxmbrl.training import devices, metrics, runner

TESTS = Path(__file__).parent.parent

RUNS = f"""
import shutil, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
import tiny_system
from jaxmbrl import cli
tiny_system.install()
straight, halted, copy = (Path(sys.argv[1], name) for name in ("straight", "halted", "copy"))
for directory, epochs in (straight, "4"), (halted, "2"):
    words = ["--seed", "3", "--seeds", "4", "--schedule.epochs", epochs, "--run-dir", str(directory)]
    assert cli.main(["train", *tiny_system.ARGUMENTS, *words]) == 0
import jax
assert jax.device_count() == 2, jax.devices()
shutil.copytree(halted, copy)
assert cli.main(["resume", str(halted), "--epochs", "4"]) == 0
assert cli.main(["evaluate", str(halted), "--episodes", "2"]) == 0
"""

LOOPS_OF_THEIR_OWN = """
import jax, jax.numpy as jnp
from jaxmbrl.training import devices

assert jax.device_count() == 2, jax.devices()

def halvings(key, number):  # how often, and what is left with some noise: seeds differ in their trips
    count, rest = jax.lax.while_loop(lambda c: c[1] >= 1, lambda c: (c[0] + 1, c[1] / 2), (0, number))
    return {"count": count, "rest": rest + jax.random.normal(key), "none": jnp.zeros((0, 2))}

keys, numbers = jax.random.split(jax.random.key(0), 4), jnp.array([1.0, 100.0, 3.0, 1e6])
got = jax.jit(devices.over_seeds(halvings, 4))(keys, numbers)
expected = jax.jit(jax.vmap(halvings))(keys, numbers)
for name in ("count", "rest", "none"):
    assert (got[name] == expected[name]).all(), name
assert got["count"].tolist() == [1, 7, 2, 20]
assert len(got["rest"].sharding.device_set) == 2
text = jax.jit(devices.over_seeds(halvings, 4)).lower(keys, numbers).compile().as_text()
assert "all-reduce" not in text and "all-gather" not in text
assert devices.over_seeds(halvings, 3)(keys[:3], numbers[:3])["count"].tolist() == [1, 7, 2]
"""


def python(script, *words):
    """Run a script in a process with two CPU devices."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_NUM_CPU_DEVICES": "2",
    }
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows(directory):
    found = metrics.read(directory / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in found]


def test_each_device_runs_its_own_loops():
    python(LOOPS_OF_THEIR_OWN)


def test_a_run_moves_to_another_number_of_devices(tmp_path, monkeypatch):
    """Four seeds: begun on two devices and resumed on two, bit for bit; resumed on one, to float tolerance."""
    said = python(RUNS, tmp_path)
    assert "cores" not in said
    straight = rows(tmp_path / "straight")
    assert rows(tmp_path / "halted") == straight
    assert len(straight) == 16

    tiny_system.install(monkeypatch)
    runner.resume(tmp_path / "copy", epochs=4)
    for got, expected in zip(rows(tmp_path / "copy"), straight, strict=True):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert got[name] == (value if value is None else pytest.approx(value, rel=1e-5)), name


def test_shares_are_equal_or_said_not_to_be(monkeypatch):
    monkeypatch.setattr(devices, "_cores", lambda: 1)
    assert devices.idle(3) is None
    monkeypatch.setattr(devices, "_cores", lambda: 2)
    assert devices.idle(3) == "3 seeds run on 1 of 2 cores: a multiple of 2 would use them all"
    assert devices.idle(4) is None  # this process has one device by choice, and says nothing of it
    assert [devices.largest_divisor(n, 8) for n in (1, 7, 10, 11, 16, 24)] == [1, 7, 5, 1, 8, 8]


def test_one_device_is_plain_vmap():
    devices.request(8)  # JAX runs already: no effect, no complaint
    got = devices.over_seeds(lambda x: 2 * x, 3)(jnp.arange(3))
    np.testing.assert_array_equal(got, [0, 2, 4])
    template = devices.placed(jax.eval_shape(lambda: jnp.zeros((3, 2))), 3)
    assert (template.shape, template.sharding.num_devices) == ((3, 2), 1)
