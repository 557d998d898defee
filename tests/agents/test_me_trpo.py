"""ME-TRPO in worlds made by hand: what a broken model is worth, who is judged by it, and when an epoch's loop ends."""

import integrator
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import replay as replays
from jaxmbrl.agents import me_trpo
from jaxmbrl.models import ensemble, fitting
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import on_policy, trpo
from jaxmbrl.types import Learner, Prediction, Transition, WorldModel

SPEC = integrator.make().spec
HORIZON = 3


def imagined_rows():
    """Three episodes of three steps at -1 a step: one to its horizon, one that breaks at its second, one that ends."""
    no = jnp.zeros((3, 3), bool)
    broken, terminated = no.at[1, 1].set(True), no.at[2, 1].set(True)
    obs = jnp.ones((3, 3, 1))
    reward = jnp.where(broken, 0.0, -1.0)
    return Transition(obs, 0.1 * obs, reward, obs, terminated, broken.at[0, 2].set(True), extras=broken)


def test_a_broken_step_is_no_end_of_value_0(key):
    """Where a critic expects -10 of what follows, a policy that breaks the model gains nothing by it."""
    batch = me_trpo.without_beyond(imagined_rows())
    np.testing.assert_array_equal(batch.terminated, [[0, 0, 1], [0, 0, 0], [0, 1, 0]])
    config, value = trpo.Config(discount=1.0, lambda_=1.0), MLP((4,), 1, "tanh")
    network = jax.tree.map(jnp.zeros_like, value.init(key, jnp.zeros(1)))
    critic = on_policy.Critic(network, (), jnp.float32(-10.0), jnp.float32(1.0))
    _, target = on_policy.estimate(config, value, critic, batch.obs, batch.obs, batch)
    np.testing.assert_allclose(target[:, :2], [[-3.0, -2.0], [-11.0, -10.0], [-2.0, -1.0]], rtol=1e-6)


def test_broken_episodes_judge_nobody():
    returns, sound = me_trpo.first_episodes(imagined_rows())
    np.testing.assert_array_equal(sound, [True, False, True])
    np.testing.assert_allclose(returns[sound], [-3.0, -2.0])
    later = imagined_rows()._replace(terminated=jnp.zeros((3, 3), bool).at[:, 0].set(True))
    returns, sound = me_trpo.first_episodes(later)  # what breaks after the first end is of another episode
    np.testing.assert_array_equal(sound, [True] * 3)
    np.testing.assert_allclose(returns, [-1.0] * 3)


def gains(change):
    """A learner whose policy is a gain, which an update changes by ``change``; -2 is the integrator's optimum."""
    return Learner(
        init=lambda key: jnp.float32(0.0),
        act=lambda gain, key, obs, *, explore: gain * obs,
        update=lambda gain, key, batch: (gain + change, {"ended": jnp.mean(batch.terminated.astype(jnp.float32))}),
    )


def never(obs, action):
    return jnp.zeros(obs.shape[:-1], bool)


def world(sign=(1.0, 1.0), breaks=never):
    """The integrator as two members, paid -x^2 times ``sign`` [M]; ``breaks`` tells where, of [M, P/M, 1] each."""

    def step(params, key, belief, action):
        after = belief + 0.5 * action
        reward = -jnp.asarray(sign)[:, None] * after[..., 0] ** 2
        after = jnp.where(breaks(belief, action)[..., None], 1e9, after)
        return after, Prediction(reward, jnp.ones(reward.shape))

    return WorldModel(*[None] * 4, step=step, features=lambda params, belief: belief)


def parts(world, change=0.0, **changes):
    network = ensemble.Members(size=2, elites=2)
    config = me_trpo.Config(horizon=HORIZON, rollouts=8, validate_every=2, max_updates=6, model=network, **changes)
    model = ensemble.Ensemble(None, 2, 2, world)
    fitter = fitting.Fitter(init=None, fit=lambda state, key, replay: (state, {}))
    return me_trpo._Parts(SPEC, config, model, model, fitter, gains(change))


def store():
    """Starts at 0.5 and 1."""
    obs = jnp.tile(jnp.array([0.5, 1.0]), 5)[:, None, None]
    no = jnp.zeros((10, 1), bool)
    return replays.from_rows(Transition(obs, obs, obs[..., 0], obs, no, no), cursor=0, size=10)


def epoch(parts, gain, key):
    """The gain after an epoch, and the epoch's metrics."""
    state = me_trpo.State(fitting.State((), ()), jnp.float32(gain))
    state, metrics = jax.jit(lambda key: me_trpo._fit(parts, state, key, store()))(key)
    return float(state.policy), jax.device_get(metrics)


def test_members_judge_by_episodes_in_which_they_hold(key):
    """The first one breaks from 1, so that it judges by starts at 0.5; the second one below 0.5, in all episodes."""

    def breaks(obs, action):
        return jnp.where(jnp.array([[True], [False]]), obs[..., 0] > 0.75, obs[..., 0] < 0.5)

    broken = parts(world(breaks=breaks), change=-0.1, min_improved=0.0)  # better wherever the model holds
    _, metrics = epoch(broken, -1.0, key)
    assert metrics["improved_members"] == 0.5
    np.testing.assert_allclose(metrics["imagined_return"], -(0.1**2 + 0.02**2 + 0.004**2), rtol=1e-4)  # a gain of -1.6


def test_looks_compare_by_the_starts_that_hold_at_both():
    """Better there, though worse over all that hold at each; no such start, and fewer or more hold; no change."""
    before = [[-9.0, -4.0, 0.0], [-1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]
    after = [[-6.0, -3.0, 0.0], [0.0, -2.0, 9.0], [-7.0, -8.0, -9.0], [-1.0, -1.0, -1.0]]
    held = [[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]]
    holds = [[1, 1, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    looks = (
        me_trpo.Look(jnp.array(returns), jnp.array(sound, bool)) for returns, sound in ((before, held), (after, holds))
    )
    np.testing.assert_array_equal(me_trpo.improves(*looks), [True, False, True, False])


def test_breaking_the_model_is_no_improvement(key):
    """Each step costs: a policy that goes wrong and breaks every member at once would return 0, the best there is."""
    cheating = parts(world(breaks=lambda obs, action: action[..., 0] > 2.5 * obs[..., 0]), change=3.0)
    _, metrics = epoch(cheating, 0.0, key)  # gains of 0 and 3, and 6 at the first look
    assert metrics["improved_members"] == 0 and metrics["policy_updates"] == 2
    assert metrics["ended"] == 0.0  # the last update was on episodes that break at once


def test_broken_is_counted_over_all_updates(key):
    """Gains of 0 to 5 imagine, of which those above 2.5 break the model at each step."""
    breaks = parts(world(breaks=lambda obs, action: action[..., 0] > 2.5 * obs[..., 0]), change=1.0, min_improved=0.0)
    assert epoch(breaks, 0.0, key)[1]["imagined_broken"] == 0.5


@pytest.mark.parametrize(
    ("sign", "gain", "change", "min_improved", "updates", "improved"),
    [
        ((1.0, 1.0), -2.0, -0.1, 1.0, 2, 0.0),  # away from the optimum
        ((1.0, 1.0), -2.0, -0.1, 0.0, 6, 0.0),
        ((1.0, 1.0), -1.0, -0.1, 1.0, 6, 1.0),  # towards it
        ((1.0, 1.0), -1.5, -0.2, 1.0, 4, 0.0),  # past it: worse than at the look before, better than at first
        ((1.0, -1.0), -1.0, -0.1, 0.6, 2, 0.5),  # members disagree
        ((1.0, -1.0), -1.0, -0.1, 0.5, 6, 0.5),
    ],
)
def test_updates_end_at_the_first_look_that_finds_too_few_members_improved(
    key, sign, gain, change, min_improved, updates, improved
):
    after, metrics = epoch(parts(world(sign), change=change, min_improved=min_improved), gain, key)
    assert metrics["policy_updates"] == updates and metrics["improved_members"] == improved
    np.testing.assert_allclose(after, gain + change * updates, rtol=1e-5)
    assert metrics["imagined_broken"] == 0.0
    np.testing.assert_allclose(metrics["ended"], 1 / HORIZON, rtol=1e-6)
