"""The parts of the benchmarks that compute a figure, against hand-made cases."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def tiny():
    from benchmarks import sizes

    return sizes.Sizes(4, 2, (2,), "cartpole", 64, 2, members=2, population=8, particles=4, horizon=3, iterations=2)


def test_flops_are_those_that_xla_counts():
    from benchmarks import planning

    counted, ours = planning.counted_flops(tiny()), planning.flops(tiny())
    assert ours == 2 * 3 * 2 * 8 * 4 * (7 * 64 + 64 * 64 + 64 * 8)  # steps x particles x weights, two each
    assert ours < counted < 1.25 * ours  # XLA counts activations and the like too


@pytest.mark.parametrize("unrolled", [False, True])
def test_gemm_chain_multiplies_every_member(unrolled):
    from benchmarks import gemm

    outputs = jnp.concatenate(jax.tree.leaves(gemm.chain([3, 8, 2], 2, 4, unrolled=unrolled)()), axis=None)
    assert outputs.size == 2 * 4 * 3
    assert bool(jnp.all(jnp.isfinite(outputs)))


def test_gemm_layouts_compute_the_same():
    from benchmarks import gemm

    batched, unrolled = (gemm.chain([3, 8, 2], 2, 4, unrolled=case)() for case in (False, True))
    np.testing.assert_allclose(batched[0], np.stack(unrolled), rtol=1e-4, atol=1e-6)  # type: ignore[index]


def test_planning_call_stays_within_bounds():
    from benchmarks import planning

    action = planning.make_call(tiny())()
    assert action.shape == (2,)
    assert bool(jnp.all(jnp.abs(action) <= 1))


def test_sizes_follow_the_small_preset():
    from benchmarks import sizes

    from jaxmbrl import envs
    from jaxmbrl.agents import pets

    config = pets.preset("small", envs.make("cartpole").spec).agent
    assert sizes.named("small").population == config.planner.population
    assert sizes.override(sizes.named("small"), ["population=7"]).population == 7
    with pytest.raises(SystemExit, match="nonsense=1"):
        sizes.override(sizes.named("small"), ["nonsense=1"])


def test_episodes_are_cut_and_numbered():
    from benchmarks import learning

    reward = np.arange(10.0)
    ended = np.isin(np.arange(10), [1, 3, 6, 8])
    found = learning.episodes(reward, ended)
    assert [(e.number, e.env_steps, e.episode_return) for e in found] == [(1, 2, 1), (2, 4, 5), (3, 7, 15), (4, 9, 15)]


def test_summary_counts_only_who_was_in_time():
    from benchmarks.learning import Episode, Goal, summarise

    runs = [
        [Episode(1, 10, 0.0), Episode(2, 20, 5.0), Episode(3, 30, 7.0)],
        [Episode(1, 10, 0.0), Episode(2, 20, 4.0), Episode(3, 30, 5.0)],
        [Episode(1, 10, 0.0), Episode(2, 20, 1.0), Episode(3, 30, 2.0)],
    ]
    summary = summarise(runs, Goal(threshold=5.0, within=2))
    assert summary["reached"] == "1 of 3"
    assert summary["episodes_until"] == [2, 3, None]
    assert summary["last_three_mean"] == [4.0, 3.0, 1.0]


def test_replay_steps_fill_the_store():
    from benchmarks import replay

    run = replay.make_run(capacity=16, held=8, steps=4)
    assert bool(jnp.isfinite(run()))
    assert bool(jnp.isfinite(run()))  # the donated store was handed on


def test_alternation_takes_turns():
    from benchmarks.timing import Timing, alternate, ratio

    order = []

    def run(name, wall):
        order.append(name)
        return Timing(wall, 2 * wall)

    timings = alternate({"a": lambda: run("a", 3.0), "b": lambda: run("b", 1.0)}, repeats=2)
    assert order == ["a", "b"] * 3  # one untimed round
    assert ratio(timings["a"], timings["b"]) == Timing(3.0, 3.0)
