"""SAC's and TD3's losses against slow twins in float64, and densities against numerical change of variables."""

import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxmbrl.policies import actor_critic, sac, squashed, td3
from jaxmbrl.policies.actor_critic import Examples
from jaxmbrl.types import Box, Spec, Transition

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 3.0], np.float32)
SPEC = Spec("toy", jax.ShapeDtypeStruct((3,), jnp.float32), Box(LOW, HIGH), episode_length=10, angles=(1,))
RATE, GAMMA, TAU = 1e-2, 0.9, 0.25
LEARNERS = {
    "sac": sac.make(
        SPEC, sac.Config(hidden=(8,), learning_rate=RATE, discount=GAMMA, target_rate=TAU, initial_temperature=0.3)
    ),
    "td3": td3.make(
        SPEC,
        td3.Config(hidden=(8,), learning_rate=RATE, discount=GAMMA, target_rate=TAU, delay=1, saturation_penalty=0.1),
    ),
}


@pytest.fixture(params=sorted(LEARNERS))
def name(request):
    return request.param


def batch_of(key, num=6):
    keys = jax.random.split(key, 5)
    obs, next_obs = (jax.random.normal(k, (num, 3)) for k in keys[:2])
    action = jax.random.uniform(keys[2], (num, 2), minval=LOW, maxval=HIGH)
    terminated, truncated = jnp.arange(num) == 1, jnp.arange(num) == 2
    return Transition(obs, action, jax.random.normal(keys[3], (num,)), next_obs, terminated, truncated)


def mlp(params, x):
    """A float64 twin of a network with one hidden layer."""
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    hidden = np.maximum(x @ layers["layer_0"]["kernel"] + layers["layer_0"]["bias"], 0)
    return hidden @ layers["layer_1"]["kernel"] + layers["layer_1"]["bias"]


def encoded(obs):
    return np.array([obs[0], obs[2], np.sin(obs[1]), np.cos(obs[1])], np.float64)


def q(critics, index, obs, action):
    unit = (np.asarray(action, np.float64) - LOW) / (HIGH - LOW) * 2 - 1
    one = jax.tree.map(lambda leaf: leaf[index], critics)
    return mlp(one, np.concatenate([encoded(obs), unit]))[0]


def sac_policy(actor, noise, obs):
    mean, log_std = np.split(mlp(actor, encoded(obs)), 2)
    x = mean + np.exp(log_std) * np.asarray(noise, np.float64)
    log_prob = stats.norm.logpdf(x, mean, np.exp(log_std)).sum() - np.log(1 - np.tanh(x) ** 2).sum()
    return LOW + (np.tanh(x) + 1) / 2 * (HIGH - LOW), log_prob


def td3_policy(actor, noise, obs):
    unit = np.clip(np.tanh(mlp(actor, encoded(obs))) + np.clip(0.2 * noise, -0.5, 0.5), -1, 1)
    return LOW + (unit + 1) / 2 * (HIGH - LOW), 0.0


def test_density_of_the_squashed_gaussian_integrates_to_one():
    mean, log_std = jnp.array([0.4]), jnp.array([-0.2])

    def density(unit):
        noise = squashed.infer_noise(mean, log_std, jnp.array([unit]))
        return float(jnp.exp(squashed.act(mean, log_std, noise)[1]))

    total, _ = integrate.quad(density, -1 + 1e-6, 1 - 1e-6, limit=200, epsabs=1e-4)
    np.testing.assert_allclose(total, 1.0, rtol=2e-3)


def test_noise_is_inferred(key):
    learner = LEARNERS["sac"]
    state = learner.init(key)
    obs, noise = jnp.array([0.3, 2.0, -1.0]), jnp.array([1.5, -0.7])
    action, _ = learner.policy(state.actor, noise, obs)
    np.testing.assert_allclose(learner.infer_noise(state.actor, obs, action), noise, rtol=1e-3)
    assert np.all(action > LOW) and np.all(action < HIGH)


def test_targets_are_the_papers(name, key):
    """The target r + gamma d (min_c Q'_c(s', a') - alpha log pi); a time limit bootstraps, a termination doesn't."""
    learner, batch = LEARNERS[name], batch_of(jax.random.key(1))
    state = learner.init(key)
    state = state._replace(targets=jax.tree.map(lambda leaf: leaf + 0.1, state.targets))  # tell them from the critics
    if name == "td3":  # nor the target policy from the policy
        state = state._replace(target_actor=jax.tree.map(lambda leaf: leaf + 0.1, state.target_actor))
    key_target = jax.random.key(2)
    examples = actor_critic.one_step_examples(learner, state, key_target, batch)
    noise = np.asarray(jax.random.normal(key_target, (6, 2)))
    for i in range(6):
        if name == "sac":
            action, log_prob = sac_policy(state.actor, noise[i], batch.next_obs[i])
        else:
            action, log_prob = td3_policy(state.target_actor, noise[i], batch.next_obs[i])
        value = min(q(state.targets, c, batch.next_obs[i], action) for c in range(2)) - 0.3 * log_prob
        expected = batch.reward[i] + GAMMA * (i != 1) * value
        np.testing.assert_allclose(examples.target[i], expected, rtol=1e-4, atol=1e-5)


def numerical_gradient(function, tree, step=1e-3):
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    flat = np.asarray(flat, np.float64)
    moved = [[function(unravel(jnp.asarray(flat + sign * step * e))) for sign in (1, -1)] for e in np.eye(len(flat))]
    return np.array([(up - down) / (2 * step) for up, down in moved])


def actor_loss(name, state, actor, noise, obs):
    losses = []
    for i in range(len(obs)):
        if name == "sac":
            action, log_prob = sac_policy(actor, noise[i], obs[i])
            value = min(q(state.critics, c, obs[i], action) for c in range(2))
            losses.append(float(jnp.exp(state.log_temperature)) * log_prob - value)
        else:
            x = mlp(actor, encoded(obs[i]))
            action = LOW + (np.tanh(x) + 1) / 2 * (HIGH - LOW)
            losses.append(0.1 * np.mean(x**2) - q(state.critics, 0, obs[i], action))
    return np.mean(losses)


def test_actor_and_temperature_losses_are_the_papers(name, key):
    """The losses reported, and the signs of the first steps: Adam's first step is the rate against the gradient."""
    learner, batch = LEARNERS[name], batch_of(jax.random.key(1))
    state, key_learn = learner.init(key), jax.random.key(3)
    examples = Examples(batch.obs, batch.action, jnp.linspace(-1.0, 1.0, 6), jnp.array([1.0, 2, 0, 1, 1, 1]))
    after, metrics = jax.jit(learner.learn)(state, key_learn, batch.obs, examples)
    noise = np.asarray(jax.random.normal(key_learn, (6, 2)))
    share = np.array([1, 2, 0, 1, 1, 1]) / 6
    predicted = np.array([[q(state.critics, c, batch.obs[i], batch.action[i]) for c in range(2)] for i in range(6)])
    expected = 0.5 * np.sum(share[:, None] * (predicted - np.linspace(-1, 1, 6)[:, None]) ** 2)
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-4)
    updated = after._replace(log_temperature=state.log_temperature) if name == "sac" else after
    loss = functools.partial(actor_loss, name, updated, noise=noise, obs=batch.obs)
    np.testing.assert_allclose(metrics["actor_loss"], loss(state.actor), rtol=1e-4)
    gradient = numerical_gradient(loss, state.actor)
    flat = lambda tree: np.asarray(jax.flatten_util.ravel_pytree(tree)[0])  # noqa: E731
    clear = np.abs(gradient) > 1e-3
    assert clear.sum() > 20
    np.testing.assert_allclose(
        (flat(after.actor) - flat(state.actor))[clear], -RATE * np.sign(gradient)[clear], rtol=0.02
    )
    np.testing.assert_allclose(
        flat(after.targets), flat(state.targets) * (1 - TAU) + flat(after.critics) * TAU, rtol=1e-4, atol=1e-6
    )
    if name == "td3":
        moved = flat(state.target_actor) * (1 - TAU) + flat(after.actor) * TAU
        np.testing.assert_allclose(flat(after.target_actor), moved, rtol=1e-4, atol=1e-6)
    if name == "sac":
        entropy = -np.mean([sac_policy(state.actor, noise[i], batch.obs[i])[1] for i in range(6)])
        np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-4)
        assert entropy > -2.0  # above its target of -1 a dimension: the temperature falls
        np.testing.assert_allclose(after.log_temperature - state.log_temperature, -RATE, rtol=1e-3)


def test_td3_waits_for_its_delay(key):
    learner, batch = td3.make(SPEC, td3.Config(hidden=(4,), delay=3)), batch_of(jax.random.key(1))
    update = jax.jit(learner.update)
    states = [learner.init(key)]
    for seed in range(3):
        states.append(update(states[-1], jax.random.key(seed), batch)[0])

    def still(part):
        pairs = [(getattr(a, part), getattr(b, part)) for a, b in itertools.pairwise(states)]
        return [all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b))) for a, b in pairs]

    assert still("actor") == still("targets") == still("target_actor") == [True, True, False]
    assert not any(still("critics"))


def test_exploration(name, key):
    learner = LEARNERS[name]
    state, obs = learner.init(key), jnp.array([0.3, 2.0, -1.0])
    act = functools.partial(learner.act, state)
    keys = jax.random.split(key, 200)
    still = jax.vmap(lambda key: act(key, obs, explore=False))(keys)
    noisy = jax.vmap(lambda key: act(key, obs, explore=True))(keys)
    assert np.ptp(still, axis=0).max() == 0 and np.all(np.std(noisy, axis=0) > 0.05)
    assert np.all((noisy >= LOW) & (noisy <= HIGH))


@pytest.mark.parametrize("learner", [sac, td3])
def test_images_are_refused_when_a_learner_is_made(learner):
    image = jax.ShapeDtypeStruct((32, 32, 3), jnp.uint8)
    with pytest.raises(ValueError, match="needs one vector"):
        learner.make(SPEC._replace(observation=image))


def test_an_objective_may_tell_more(name, key):
    """What `PolicyLoss` carries is among the metrics, and does not change what is learned."""
    learner, batch = LEARNERS[name], batch_of(jax.random.key(1))
    state = learner.init(key)
    examples = actor_critic.one_step_examples(learner, state, jax.random.key(2), batch)

    def objective(state, actor, key, obs, **more):
        action, log_prob = jax.vmap(functools.partial(learner.policy, actor))(jnp.zeros((len(obs), 2)), obs)
        return actor_critic.PolicyLoss(jnp.sum(action), log_prob, **more)

    told = functools.partial(objective, metrics={"told": jnp.float32(0.25)})
    alone, beside = (
        learner.learn(state, jax.random.key(3), batch.obs, examples, objective=one) for one in (objective, told)
    )
    assert beside[1].pop("told") == 0.25 and set(beside[1]) == set(alone[1])
    jax.tree.map(np.testing.assert_array_equal, beside[0], alone[0])
