"""Mixture densities against SciPy, and sequences against the same sequences run apart and step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmbrl.models import mdn_rnn, vae
from jaxmbrl.models.mdn_rnn import Belief, Mixture
from jaxmbrl.types import Box, Discrete, Spec, TimeStep, Transition

BOX = Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 6.0], np.float32))
SPEC = Spec("any", jax.ShapeDtypeStruct((3,), jnp.float32), BOX, 10)
SMALL = vae.Config(latent=4, hidden=(8,))


@functools.cache
def build(cell, mixtures=3):
    model = mdn_rnn.make(SPEC, mdn_rnn.Config(autoencoder=SMALL, cell=cell, hidden=6, mixtures=mixtures))
    return model, jax.jit(model.world.init)(jax.random.key(0)), jax.jit(model.loss)


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    logits, mean, log_std = rng.normal(size=(3, 4, 3))
    log_weights = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return Mixture(*(jnp.float32(leaf) for leaf in (log_weights, mean, np.exp(log_std))))


def test_log_prob_is_scipys(three):
    value = np.linspace(-3, 3, 4)
    weights, mean, std = np.exp(np.float64(three.log_weights)), np.float64(three.mean), np.float64(three.std)
    expected = np.log(np.sum(weights * stats.norm(mean, std).pdf(value[:, None]), axis=-1))
    np.testing.assert_allclose(mdn_rnn.log_prob(three, jnp.float32(value)), expected, rtol=1e-5)


def test_a_mixture_of_one_is_a_gaussian():
    model, params, _ = build("lstm", mixtures=1)
    one = model.mixture(params, model.memory())
    assert one.mean.shape == (4, 1) and np.all(one.log_weights == 0)
    value = jnp.linspace(-2.0, 2.0, 4)
    expected = stats.norm(np.float64(one.mean[:, 0]), np.float64(one.std[:, 0])).logpdf(value)
    np.testing.assert_allclose(mdn_rnn.log_prob(one, value), expected, rtol=1e-5)
    warm = mdn_rnn.heated(one, 4.0)
    np.testing.assert_allclose(warm.std, 2 * one.std)
    np.testing.assert_array_equal(warm.mean, one.mean)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.25])
def test_samples_have_the_moments_of_the_heated_mixture(three, key, temperature):
    """Released code: weights pi^(1/tau), made to sum to 1; standard deviations times sqrt(tau)."""
    draw = jax.jit(jax.vmap(lambda key: mdn_rnn.sample(key, mdn_rnn.heated(three, temperature))))
    latents = np.asarray(draw(jax.random.split(key, 200_000)), np.float64)
    weights = np.exp(np.float64(three.log_weights)) ** (1 / temperature)
    weights /= weights.sum(axis=-1, keepdims=True)
    mean = np.sum(weights * three.mean, axis=-1)
    second = np.sum(weights * (np.float64(three.mean) ** 2 + temperature * np.float64(three.std) ** 2), axis=-1)
    std = np.sqrt(second - mean**2)
    np.testing.assert_allclose(latents.mean(axis=0), mean, atol=5 * std.max() / 450)
    np.testing.assert_allclose(latents.std(axis=0), std, rtol=0.02)


def sequence(key, length, ends=()):
    """Random latents without uncertainty, so that a loss has no noise; some steps end an episode."""
    keys = jax.random.split(key, 4)
    seen, after = (vae.Posterior(jax.random.normal(k, (length, 4)), jnp.zeros((length, 4))) for k in keys[:2])
    action = jax.random.uniform(keys[2], (length, 2), minval=BOX.low, maxval=BOX.high)
    over = jnp.isin(jnp.arange(length), jnp.array(ends, jnp.int32))
    odd = jnp.arange(length) % 2 == 1
    return Transition(seen, action, jax.random.normal(keys[3], (length,)), after, over & odd, over & ~odd)


@pytest.mark.parametrize("cell", sorted(mdn_rnn.CELLS))
def test_sequences_with_resets_equal_the_same_sequences_run_apart(key, cell):
    _, params, loss = build(cell)
    whole = sequence(key, 12, ends=(2, 5, 8, 11))  # time limits and terminations in turn
    pieces = [jax.tree.map(lambda leaf, i=i, j=j: leaf[i:j], whole) for i, j in ((0, 3), (3, 6), (6, 9), (9, 12))]
    _, together = loss(params, key, whole)
    for name in together:
        apart = np.mean([loss(params, key, piece)[1][name] for piece in pieces])
        np.testing.assert_allclose(together[name], apart, rtol=1e-5)
    unbroken = whole._replace(truncated=jnp.zeros(12, bool))
    assert abs(loss(params, key, unbroken)[1]["latent_loss"] - together["latent_loss"]) > 1e-4


@pytest.mark.parametrize("cell", sorted(mdn_rnn.CELLS))
def test_loss_is_what_steps_by_hand_predict(key, cell):
    """Advance the belief along a sequence: the mixture, the reward and the end are those that the loss judges."""
    model, params, loss = build(cell)
    params = params._replace(reward_mean=jnp.float32(2.0), reward_std=jnp.float32(3.0))
    data = sequence(key, 4, ends=(3,))  # a termination
    assert data.terminated[3]
    belief, latent_loss, reward_loss, end_loss = Belief(data.obs.mean[0], model.memory()), 0.0, 0.0, 0.0
    for t in range(4):
        belief = belief._replace(latent=data.obs.mean[t])
        memory = model.advance(params, belief, data.action[t])
        density = mdn_rnn.log_prob(model.mixture(params, memory), data.next_obs.mean[t])
        after, prediction = model.world.step(params, key, belief, data.action[t])
        jax.tree.map(np.testing.assert_allclose, after.memory, memory)
        latent_loss -= float(np.mean(density)) / 4
        reward_loss += 0.5 * float((prediction.reward - data.reward[t]) / 3.0) ** 2 / 4
        end_loss -= np.log(prediction.discount if t < 3 else 1.0 - prediction.discount) / 4
        belief = belief._replace(memory=memory)
    _, metrics = loss(params, key, data)
    np.testing.assert_allclose(metrics["latent_loss"], latent_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["reward_loss"], reward_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["end_loss"], end_loss, rtol=1e-5)


def test_belief_starts_empty_and_observes_what_it_sees(key):
    model, params, _ = build("lstm")
    no = jnp.zeros((), bool)
    seen = TimeStep((), jnp.array([1.0, -2.0, 0.5]), jnp.zeros(()), no, no)
    belief = model.world.start(params, key, seen)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(belief.memory))
    action = jnp.array([0.5, 3.0])
    after = model.world.observe(params, jax.random.key(1), belief, action, seen._replace(obs=jnp.ones(3)))
    jax.tree.map(np.testing.assert_allclose, after.memory, model.advance(params, belief, action))
    posterior = model.autoencoder.encode(params.autoencoder, jnp.ones(3))
    np.testing.assert_allclose(after.latent, vae.sample(jax.random.key(1), posterior))
    features = model.world.features(params, after)
    np.testing.assert_array_equal(features, np.concatenate([after.latent, after.memory[1]]))


def test_no_gradient_of_the_recurrent_part_reaches_the_autoencoder(key):
    """The whole loss on sequences of observations: its gradient of V is that of V's loss alone."""
    model, params, _ = build("gru")
    obs = jax.random.normal(key, (2, 4, 3))
    data = sequence(key, 4, ends=(1,))._replace(obs=obs[0], next_obs=obs[1])
    batch = jax.tree.map(lambda leaf: leaf[None], data)
    gradient = jax.jit(jax.grad(lambda params: model.world.loss(params, key, batch)[0]))(params)
    alone = jax.jit(jax.grad(lambda params: model.world.loss(params, key, batch)[1]["vae_loss"]))(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), gradient.autoencoder, alone.autoencoder)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient.cell)) > 1e-4
    assert gradient.reward_mean == gradient.reward_std == 0


def test_discrete_actions_are_one_hot(key):
    spec = SPEC._replace(action=Discrete(3))
    model = mdn_rnn.make(spec, mdn_rnn.Config(autoencoder=SMALL, hidden=6))
    params = jax.jit(model.world.init)(key)
    belief = Belief(jnp.ones(4), model.memory())
    memories = [model.advance(params, belief, jnp.int32(action))[1] for action in range(3)]
    assert all(np.any(memories[i] != memories[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
