"""Where a model predicts what is not finite or out of any range: it is counted, and what it imagined is left out."""

from types import SimpleNamespace

import integrator
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import replay as replays
from jaxmbrl.agents import mbpo, sac_svg, steve
from jaxmbrl.agents.expansion import Expansion
from jaxmbrl.models import ensemble, fitting
from jaxmbrl.models.one_step import Outcome
from jaxmbrl.types import Prediction, Transition, WorldModel

SPEC = integrator.make().spec
NAN = np.nan


@pytest.mark.parametrize(
    ("reward", "continues", "value", "share"),
    [
        ([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], 0.0),
        ([1.0, NAN], [1.0, 1.0], [1.0, NAN], 0.5),
        ([1.0, 1.0], [1.0, 1.0], [1.0, NAN], 0.5),
        ([NAN, NAN], [1.0, 1.0], [1.0, 1.0], 1.0),
        ([1.0, NAN], [1.0, 0.0], [1.0, NAN], 0.5),
    ],
)
def test_steve_counts_the_models_that_break(reward, continues, value, share):
    """Of two models' rollouts of one step, with two critics: each one's reward, chance to go on, and last value."""
    parts = SimpleNamespace(learner=SimpleNamespace(discount=0.9))
    with jax.debug_nans(False):
        rows = Expansion(
            obs=jnp.zeros((2, 2, 1)),
            action=jnp.zeros((2, 2, 1)),
            reward=jnp.array([[1.0, 1.0], reward])[..., None],
            continues=jnp.array([[1.0, 1.0], continues]),
            value=jnp.stack([jnp.ones((2, 2)), jnp.array([value, [1.0, 1.0]]).T]),
        )
        examples, metrics = steve.weighed(parts, rows)
        assert metrics["broken_rollouts"] == share
        assert np.isfinite(examples.target[0])


def test_steve_does_not_count_what_follows_an_end():
    row, zeros = np.array([1.0, NAN, NAN])[:, None], jnp.zeros((3, 1, 1))
    with jax.debug_nans(False):
        rows = Expansion(
            zeros, zeros, jnp.array(row)[..., None], jnp.array([[0.0], [1.0], [1.0]]), jnp.array(row)[..., None]
        )
        _, metrics = steve.weighed(SimpleNamespace(learner=SimpleNamespace(discount=0.9)), rows)
    assert metrics["broken_rollouts"] == 0.0


def test_sac_svg_counts_the_rollouts_that_break(key):
    """The model goes from x to x + 1, breaks beyond 3.5 and ends at 2: three steps from each start below."""

    def outcome(params, obs, action):
        return Outcome(jnp.where(obs > 3.5, 1e9, obs + 1), jnp.float32(1.0), 1.0 * jnp.all(obs != 2.0))

    learner = SimpleNamespace(
        discount=0.9,
        temperature=lambda policy: jnp.float32(0.1),
        act=lambda policy, key, obs, *, explore: obs,
        policy=lambda actor, noise, obs: (actor * obs, jnp.float32(0.0)),
        values=lambda critics, obs, action: obs,
    )
    model = SimpleNamespace(base=SimpleNamespace(mean_outcome=outcome))
    parts = SimpleNamespace(learner=learner, model=model, horizon=3)

    def broken(*starts):
        policy, obs = SimpleNamespace(critics=()), jnp.array(starts)[:, None]
        return sac_svg.policy_loss(parts, jnp.zeros((1, 1)), policy, jnp.ones(()), key, obs).metrics["broken_rollouts"]

    assert broken(0.5, -1.0, -2.5, 0.0) == 0.0
    assert broken(0.5, 1.5, 2.5, 9.0) == 0.5
    assert broken(2.0, 1.0) == 0.0  # an end comes first


def imagining(breaks):
    """MBPO with a model that moves x to x + 1, and breaks where ``breaks(x)``, from starts at 0, 10, ..., 70."""

    def step(params, key, belief, action):
        after = jnp.where(breaks(belief), 1e9, belief + 1.0)
        return after, Prediction(belief[..., 0], jnp.ones(belief.shape[:-1]))

    world = WorldModel(*[None] * 4, step=step, features=lambda params, belief: belief)
    model = ensemble.Ensemble(None, 2, 2, world)
    config = mbpo.Config(model=ensemble.Members(size=2, elites=2), rollouts=40, first_length=2, last_length=2, keep=3)
    learner = SimpleNamespace(init=lambda key: (), act=lambda policy, key, obs, *, explore: jnp.zeros(1))
    params = ensemble.Params(jnp.zeros((2, 1)), jnp.arange(2))
    fitter = fitting.Fitter(lambda key: fitting.State(params, ()), lambda state, key, replay: (state, {}))
    return mbpo._Parts(SPEC, config, learner, model, fitter)


def starts():
    obs = 10.0 * jnp.arange(8.0)[:, None, None]
    no = jnp.zeros((8, 1), bool)
    return replays.from_rows(Transition(obs, obs, obs[..., 0], obs, no, no), cursor=0, size=8)


def test_mbpo_leaves_broken_transitions_out(key):
    """Rollouts from 40 on break at once, those from 30 at their second step; the share is of all 80 transitions."""
    parts = imagining(lambda x: x > 30.5)
    params = parts.fitter.init(key).params
    imagined, broken = mbpo.imagine(parts, params, (), key, starts(), jnp.int32(2))
    x = np.asarray(imagined.obs[:, 0])
    assert len(x) == 80 and np.all(x < 30.5) and {0.0, 1.0, 30.0} <= set(x)
    np.testing.assert_array_equal(imagined.next_obs[:, 0], x + 1)
    np.testing.assert_array_equal(imagined.reward, x)
    assert 0.3 < broken < 0.7


def test_where_all_breaks_mbpo_imagines_steps_that_stay_where_they_began(key):
    wild = imagining(lambda x: x > -1)
    params = wild.fitter.init(key).params
    imagined, broken = mbpo.imagine(wild, params, (), key, starts(), jnp.int32(2))
    assert broken == 1.0
    np.testing.assert_array_equal(imagined.next_obs, imagined.obs)
    np.testing.assert_array_equal(imagined.reward, np.zeros(80))
