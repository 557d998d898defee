"""Ensembles: identities that hold for any weights, and particles that keep to their members."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import systems

from jaxmbrl.config import ConfigError
from jaxmbrl.models import ensemble, one_step
from jaxmbrl.models.ensemble import PROPAGATIONS
from jaxmbrl.types import TimeStep

OBS, ACTION = jnp.array([0.3, -0.2]), jnp.array([0.5])
TIMESTEP = TimeStep(None, OBS, *[jnp.zeros(())] * 3)


@functools.cache
def base(family="gaussian"):
    return one_step.make(systems.KNOWN, one_step.Config(hidden=(8,), family=family))


@functools.cache
def build(propagation, size=3, elites=3, particles=6, family="gaussian"):
    """An ensemble and its compiled step."""
    model = ensemble.transform(base(family), size=size, elites=elites, particles=particles, propagation=propagation)
    return model, jax.jit(model.world.step)


@pytest.fixture(scope="module")
def params():
    """Three members that disagree."""
    return build("ts1")[0].world.init(jax.random.key(7))


def begin(model, params, key, steps=1):
    """The belief some steps after `TIMESTEP`."""
    state = model.world.start(params, key, TIMESTEP)
    for _ in range(steps - 1):
        state, _ = model.world.step(params, key, state, ACTION)
    return state


def close(tree, other, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), tree, other
    )


def same_members(params):
    return params._replace(members=jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), params.members))


def means(model, params, obs=OBS):
    """Each member's mean outcome, in turn."""
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], params.members) for i in range(3)]
    return [model.base.mean_outcome(member, obs, ACTION) for member in members]


@pytest.mark.parametrize("propagation", ["ts1", "tsinf"])
def test_ensemble_of_one_deterministic_model_is_that_model(propagation, key):
    model, step = build(propagation, 1, 1, 4, "deterministic")
    params = jax.jit(model.world.init)(key)
    member = jax.tree.map(lambda leaf: leaf[0], params.members)
    state, prediction = step(params, key, begin(model, params, key), ACTION)
    expected = model.base.outcome(member, key, OBS, ACTION)
    close(state, jnp.broadcast_to(expected.next_obs, (1, 4, 2)))
    close(prediction.reward, jnp.full((1, 4), expected.reward))


def test_ensemble_of_one_has_the_models_loss(key):
    model, _ = build("tsinf", 1, 1, 4)
    params, batch = jax.jit(model.world.init)(key), systems.transitions(key, 8)
    member = jax.tree.map(lambda leaf: leaf[0], params.members)
    close(model.world.loss(params, key, batch), one_step.world_model(model.base).loss(member, key, batch))


def test_loss_is_the_members_mean(params, key):
    model, _ = build("tsinf")
    batch, single = systems.transitions(key, 8), one_step.world_model(model.base).loss
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], params.members) for i in range(3)]
    expected = np.mean([single(member, key, batch)[0] for member in members])
    close(model.world.loss(params, key, batch)[0], expected)


def test_permuting_members_permutes_particles_and_nothing_else(params, key):
    order = jnp.array([2, 0, 1])
    shuffled = params._replace(members=jax.tree.map(lambda leaf: leaf[order], params.members))
    model, step = build("expectation")
    close(step(params, key, OBS, ACTION), step(shuffled, key, OBS, ACTION))
    close(*(ensemble.uncertainty(model, p, OBS, ACTION) for p in (params, shuffled)))

    model, step = build("tsinf", family="deterministic")
    params, shuffled = (
        p._replace(members=p.members._replace(network=_half(p.members.network), family={})) for p in (params, shuffled)
    )
    state = begin(model, params, key)
    close(step(params, key, state, ACTION)[0][order], step(shuffled, key, state, ACTION)[0])


def _half(network):
    """The mean's half of a Gaussian network's output layer."""
    layers = dict(network["params"])
    layers["layer_1"] = jax.tree.map(lambda leaf: leaf[..., :2], layers["layer_1"])
    return {"params": layers}


def test_ts1_is_tsinf_for_identical_deterministic_members(key):
    model, ts1 = build("ts1", family="deterministic")
    _, tsinf = build("tsinf", family="deterministic")
    params = same_members(jax.jit(model.world.init)(key))
    state = jax.random.normal(key, (3, 2, 2))  # particles apart: one out of its place would show
    close(ts1(params, key, state, ACTION), tsinf(params, key, state, ACTION))


def test_expectation_is_the_mean_of_the_members(params, key):
    model, step = build("expectation")
    state, prediction = step(params, key, begin(model, params, key), ACTION)
    expected = means(model, params)
    close(state, np.mean([outcome.next_obs for outcome in expected], axis=0))
    close(prediction.reward, np.mean([outcome.reward for outcome in expected]))
    close(prediction.discount, np.mean([outcome.discount for outcome in expected]))


def test_tsinf_members_are_isolated(params, key):
    """Changing one member's weights changes its own particles alone, at every later step too."""
    model, step = build("tsinf")
    members = jax.tree.map(lambda leaf: leaf.at[1].add(0.1), params.members.network)
    changed = params._replace(members=params.members._replace(network=members))
    state, other = (begin(model, p, key, steps=3) for p in (params, changed))
    state, other = step(params, key, state, ACTION)[0], step(changed, key, other, ACTION)[0]
    np.testing.assert_array_equal(state[jnp.array([0, 2])], other[jnp.array([0, 2])])
    assert np.all(np.abs(state[1] - other[1]) > 1e-4)


def test_ts1_deals_every_member_its_share_and_keeps_particles_in_place(key):
    """Members move a particle by 1, 2 or 3 and particles start far apart: who met whom can be read off."""
    model, step = build("ts1", family="deterministic")
    params = jax.jit(model.world.init)(key)
    network = jax.tree.map(jnp.zeros_like, params.members.network)
    network["params"]["layer_1"]["bias"] = jnp.arange(1.0, 4.0)[:, None] * jnp.ones(2)
    params = params._replace(members=params.members._replace(network=network))
    place = 100.0 * jnp.arange(6.0).reshape(3, 2, 1) * jnp.ones(2) - 50.0
    step = jax.jit(jax.vmap(model.world.step, in_axes=(None, 0, None, None)))
    states, predictions = step(params, jax.random.split(key, 600), place, ACTION)
    met = np.asarray(states - place)[..., 0]
    assert set(np.unique(met)) == {1.0, 2.0, 3.0}
    np.testing.assert_array_equal(np.sort(met.reshape(600, 6), axis=1), np.tile([1, 1, 2, 2, 3, 3], (600, 1)))
    np.testing.assert_allclose(predictions.reward, place[..., 0] + 5.0 + 100.0 * states[..., 1], rtol=1e-5)
    np.testing.assert_array_equal(predictions.discount, np.where(states[..., 0] > 0, 0.0, 1.0))
    share = np.stack([(met == member).mean(axis=0) for member in (1, 2, 3)])
    assert np.all(np.abs(share - 1 / 3) < 5 * np.sqrt(2 / 9 / 600))  # false alarm 6e-7 an entry


def test_actions_of_their_own_stay_with_their_particles(key):
    model, step = build("ts1", family="deterministic")
    params = same_members(jax.jit(model.world.init)(key))
    state, action = jax.random.normal(key, (3, 2, 2)), jnp.linspace(-1.0, 1.0, 6).reshape(3, 2, 1)
    successors, prediction = step(params, key, state, action)
    member = jax.tree.map(lambda leaf: leaf[0], params.members)
    for i, j in np.ndindex(3, 2):
        expected = model.base.mean_outcome(member, state[i, j], action[i, j])
        close((successors[i, j], prediction.reward[i, j]), (expected.next_obs, expected.reward))


def test_moment_matching_keeps_the_clouds_moments(params, key):
    """The redrawn cloud has the moments of the cloud that trajectory sampling gives."""
    num = 6000
    model, matched = build("moment_matching", particles=num)
    _, sampled = build("tsinf", particles=num)
    state = begin(model, params, key)
    cloud, loose = (np.asarray(step(params, key, state, ACTION)[0]).reshape(num, 2) for step in (matched, sampled))
    # Five standard errors of a difference of two samples of ``num``: false alarm 6e-7 an entry.
    assert np.all(np.abs(cloud.mean(axis=0) - loose.mean(axis=0)) < 5 * loose.std(axis=0) * np.sqrt(2 / num))
    np.testing.assert_allclose(cloud.std(axis=0), loose.std(axis=0), rtol=5 * np.sqrt(1 / num))
    assert not np.allclose(cloud, loose), "the cloud is drawn anew"
    by_member = cloud.reshape(3, -1, 2).mean(axis=1)
    assert np.all(np.abs(by_member - cloud.mean(axis=0)) < 5 * cloud.std(axis=0) / np.sqrt(num / 3)), "and mixed"


def test_uncertainty_is_the_law_of_total_variance(params, key):
    model, _ = build("tsinf")
    distributions = [
        model.base.distribution(jax.tree.map(lambda leaf, i=i: leaf[i], params.members), OBS, ACTION) for i in range(3)
    ]
    mean, var = (np.stack([x(d) for d in distributions]) for x in (lambda d: d.mean(), lambda d: d.variance()))
    split = ensemble.uncertainty(model, params, OBS, ACTION)
    close(split, ensemble.Uncertainty(mean.var(axis=0), var.mean(axis=0)))
    assert np.all(split.epistemic > 0)
    assert np.all(ensemble.uncertainty(model, same_members(params), OBS, ACTION).epistemic < 1e-10)


@pytest.mark.parametrize("propagation", sorted(PROPAGATIONS))
def test_only_elites_predict(propagation, params, key):
    """Members 2 and 0 of three: whatever member 1 says."""
    model, step = build(propagation, elites=2, particles=4)
    params = params._replace(elites=jnp.array([2, 0], jnp.int32))
    spoiled = jax.tree.map(lambda leaf: leaf.at[1].add(5.0), params.members.network)
    spoiled = params._replace(members=params.members._replace(network=spoiled))
    state = begin(model, params, key)
    close(step(params, key, state, ACTION), step(spoiled, key, state, ACTION), rtol=0, atol=0)
    swapped = params._replace(elites=jnp.array([1, 0], jnp.int32))
    assert np.any(step(params, key, state, ACTION)[0] != step(swapped, key, state, ACTION)[0])


def test_spread_gives_every_row_one_members_prediction(params, key):
    model, step = build("tsinf", family="deterministic")
    params = jax.jit(model.world.init)(key)
    batch = jax.random.normal(key, (12, 2))
    cloud = ensemble.spread(batch, 3)
    np.testing.assert_array_equal(cloud.reshape(12, 2), batch)
    successors = step(params, key, cloud, ACTION)[0].reshape(12, 2)
    for row in range(12):
        expected = means(model, params, batch[row])[row // 4]
        close(successors[row], expected.next_obs)
    with pytest.raises(ValueError, match="batch: got 12 states, needs a multiple of the members \\(5\\)"):
        ensemble.spread(batch, 5)


def test_start_and_observe_put_every_particle_on_the_observation(params, key):
    for propagation, shape in (("ts1", (3, 2)), ("expectation", ())):
        world = build(propagation)[0].world
        for state in (
            world.start(params, key, TIMESTEP),
            world.observe(params, key, world.start(params, key, TIMESTEP) + 1.0, ACTION, TIMESTEP),
        ):
            np.testing.assert_array_equal(state, np.broadcast_to(OBS, (*shape, 2)))


def test_bad_configs_are_named():
    for bad, words in (
        ({"size": 3}, "elites: got 5, needs at most size \\(3\\)"),
        ({"particles": 7}, "particles: got 7, needs a multiple of elites \\(5\\)"),
        ({"size": 0}, "size"),
        ({"propagation": "magic"}, "propagation"),
    ):
        with pytest.raises(ConfigError, match=words):
            ensemble.Config(**bad)
    with pytest.raises(ConfigError, match="learn_reward"):
        ensemble.make(systems.UNKNOWN)


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "moment_matching"])
@pytest.mark.parametrize("own_actions", [False, True])
def test_members_in_turn_are_members_together(propagation, own_actions, key):
    """The same numbers, whether all candidates share an action or each particle has its own."""
    action = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2, 1) if own_actions else ACTION
    results = []
    for in_turn in (False, True):
        config = ensemble.Config(
            member=one_step.Config(hidden=(8,)),
            size=3,
            elites=3,
            particles=6,
            propagation=propagation,
            in_turn=in_turn,
        )
        world = ensemble.make(systems.KNOWN, config).world
        params = world.init(key)
        state = jnp.broadcast_to(OBS, (3, 2, 2))
        results.append(jax.jit(world.step)(params, key, state, action))
    close(*results)
