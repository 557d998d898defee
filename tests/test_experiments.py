"""Experiments: systems beside variants of themselves, and mistakes in one line before anything compiles."""

import csv
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_system

from jaxmbrl import replay as replays
from jaxmbrl.types import Transition

ROOT = Path(__file__).parent.parent


@pytest.fixture
def learning_curves(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    tiny_system.install(monkeypatch)
    from experiments import learning_curves

    return learning_curves


def test_variants_run_beside_their_system(learning_curves, tmp_path):
    """Each has its own fields, its own curve and its own label."""
    systems = "tiny,tiny:agent.rate=0.5:schedule.epochs=2"
    argv = [systems, "pendulum", "--seeds", "2", "--eval-episodes", "1", "--out", str(tmp_path / "curves")]
    learning_curves.run(argv)
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert list(rows[0]) == ["env", "system", "seed", "env_steps", "eval_return"]
    labels = [row["system"] for row in rows]
    assert [labels.count(label) for label in ("tiny", "tiny (rate=0.5)")] == [2 * 4, 2 * 2]
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_comma_within_parentheses_belongs_to_a_value(learning_curves):
    first, second = learning_curves.variants("sac:agent.policy.hidden=(8,8):agent.updates=2,mve")
    assert first.words["agent"] == {"policy.hidden": "(8,8)", "updates": "2"}
    assert (first.system, second.system, second.label) == ("sac", "mve", "mve")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tny", "pendulum"], "system: got 'tny', needs one of"),
        (["tiny", "pendlum"], "env: got 'pendlum', needs the name of an environment"),
        (["tiny:rate=1", "pendulum"], "systems: got 'tiny:rate=1', needs SYSTEM or SYSTEM:agent.FIELD=VALUE"),
        (["tiny:agent.rate", "pendulum"], "got no value"),
        (["tiny:agent.size=0", "pendulum"], "agent.size: got 0, needs at least 1"),
        (["tiny:agent.sice=2", "pendulum"], "agent.sice: no such field; did you mean size"),
        (["tiny:env.masss=2", "pendulum"], "env.masss: no such option"),
        (["tiny,tiny", "pendulum"], "needs each of them once"),
        (["sac", "pixels/pendulum"], "sac does not fit pixels/pendulum"),
        (["tiny", "pendulum", "--preset", "paper"], "preset: got 'paper', needs one of small"),
        (["tiny", "pendulum", "--seeds", "0"], "needs a whole number, at least 1"),
    ],
)
def test_mistakes_are_one_line(learning_curves, monkeypatch, capsys, argv, message):
    monkeypatch.setattr(sys, "argv", ["learning_curves.py", *argv])
    assert learning_curves.main() == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("car_racing", ["--epochs", "0"], "argument --epochs: got '0', needs a whole number, at least 1"),
        ("car_racing", ["--size", "33"], "image: got shape (33, 33, 3), needs (S, S, channels)"),
        ("transfer", ["pendulum"], "the following arguments are required: --target"),
        ("transfer", ["pendulum", "--target", "nothing"], "env.reward: got 'nothing', needs one of usual"),
        ("transfer", ["pendulum", "--target", "lean", "--rehearsal", "9"], "argument --rehearsal: got 9, needs --keep"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, name, words, told):
    monkeypatch.syspath_prepend(str(ROOT))
    experiment = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    assert experiment.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}") and said.count("\n") == 1


def steps(first, count):
    """Transitions that happened at ``first``, ``first + 1``, ..."""
    time = jnp.arange(first, first + count, dtype=jnp.float32)[:, None]
    never = jnp.zeros((count, 1), bool)
    return Transition(time[..., None], -time[..., None], 100.0 + time, time[..., None] + 1.0, never, never)


def test_a_kept_store_comes_before_what_is_seen_next(monkeypatch):
    """Oldest step first, rewarded anew; no sequence goes on from its last step; there is room for all that comes."""
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import transfer

    seen = replays.from_rows(jax.tree.map(lambda leaf: jnp.roll(leaf, 2, axis=0), steps(0, 5)), cursor=2, size=5)
    fresh = replays.from_rows(steps(50, 4), cursor=1, size=1)
    both = transfer.behind(seen, fresh, lambda obs, action, next_obs: (1000.0 * obs + 10.0 * action + next_obs)[0])
    assert both.size == both.cursor == 6
    assert len(both.data) == 9
    for step in (61, 62, 63):
        both = replays.add(both, jax.tree.map(lambda leaf: leaf[0], steps(step, 1)))
    rows = jax.tree.map(lambda leaf: leaf[:, 0], replays.latest(both, 9))
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 3, 4, 50, 61, 62, 63])
    old = np.arange(5)
    np.testing.assert_array_equal(rows.reward, [*(1000 * old - 10 * old + old + 1), 150, 161, 162, 163])
    np.testing.assert_array_equal(rows.truncated, [0, 0, 0, 0, 1, 0, 0, 0, 0])
