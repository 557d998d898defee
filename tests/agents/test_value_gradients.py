"""Gradients through a model on linear-quadratic problems, against the analytic policy gradient in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.agents import sac_svg, svg
from jaxmbrl.agents.expansion import Parts
from jaxmbrl.models.ensemble import Ensemble
from jaxmbrl.models.one_step import Outcome
from jaxmbrl.policies.actor_critic import ActorCritic
from jaxmbrl.types import Transition

GAMMA, STD, T = 0.9, 0.3, 8
A = np.array([[1.0, 0.1], [-0.2, 0.9]])
B = np.array([[0.0], [0.5]])
GAIN = np.array([[-0.4, -0.7]])
VALUE = np.array([[2.0, 0.3], [0.3, 1.0]])  # V(s) = -s' VALUE s


def reward(obs, action):
    return -jnp.sum(obs**2) - 0.5 * jnp.sum(action**2)


def outcome(params, obs, action, noise=0.0):
    next_obs = jnp.asarray(A, jnp.float32) @ obs + jnp.asarray(B, jnp.float32) @ action + noise
    return Outcome(next_obs, reward(obs, action), jnp.ones(()))


class Model:
    """The true model, with additive noise."""

    mean_outcome = staticmethod(outcome)
    noisy_outcome = staticmethod(outcome)

    @staticmethod
    def infer_noise(params, transition):
        return transition.next_obs - outcome(params, transition.obs, transition.action).next_obs


LEARNER = ActorCritic(
    init=None,
    act=None,
    update=None,
    policy=lambda gain, noise, obs: (gain @ obs + STD * noise, jnp.zeros(())),
    infer_noise=lambda gain, obs, action: (action - gain @ obs) / STD,
    values=lambda critics, obs, action: -(obs @ jnp.asarray(VALUE, jnp.float32) @ obs)[None],
    bootstrap=None,
    learn=None,
    temperature=lambda state: jnp.zeros(()),
    discount=GAMMA,
)
MEMBERS = jnp.zeros((1, 1))


class State:
    actor = jnp.asarray(GAIN, jnp.float32)
    critics = ()


def analytic(states, actions, last, terminal):
    """dJ/dK of J = sum_t gamma^t r_t + terminal gamma^T V(s_T), by the adjoint recursion."""
    adjoint = -2 * VALUE @ last if terminal else np.zeros(2)
    gradient = np.zeros_like(GAIN)
    for obs, action in zip(states[::-1], actions[::-1], strict=True):
        for_action = -action + GAMMA * B.T @ adjoint  # 0.5 * 2 from the quadratic cost
        gradient = np.outer(for_action, obs) + GAMMA * gradient
        adjoint = -2 * obs + GAMMA * A.T @ adjoint + GAIN.T @ for_action
    return gradient


def trajectory(noise_policy, noise_model):
    obs, states, actions = np.array([1.0, -0.5]), [], []
    for eta, xi in zip(noise_policy, noise_model, strict=True):
        action = GAIN @ obs + STD * eta
        states.append(obs)
        actions.append(action)
        obs = A @ obs + B @ action + xi
    return np.array(states), np.array(actions), obs


@pytest.mark.parametrize(("horizon", "terminal"), [(1, True), (T, False), (T, True)])
def test_svg_is_the_analytic_gradient(horizon, terminal):
    """SVG(1), SVG(inf), and what lies between, along a noisy trajectory: relative error below 1e-4."""
    rng = np.random.default_rng(0)
    states, actions, last = trajectory(rng.normal(size=(horizon, 1)), 0.1 * rng.normal(size=(horizon, 2)))
    following = np.concatenate([states[1:], last[None]])
    never = jnp.zeros(horizon, bool)
    window = Transition(
        *(jnp.asarray(x, jnp.float32) for x in (states, actions, np.zeros(horizon), following)), never, never
    )
    parts = Parts(LEARNER, Ensemble(Model, 1, 1, None), None, horizon, every_reward=False)

    def value(gain):
        return svg.trajectory_value(parts, MEMBERS[0], State, gain, window, jnp.zeros(1), bootstrap=terminal)[0]

    expected = analytic(states, actions, last, terminal)
    np.testing.assert_allclose(jax.grad(value)(State.actor), expected, rtol=1e-4)


def test_sac_svg_is_the_analytic_gradient():
    """The same in imagination, from given noise, without the model's."""
    noise = np.random.default_rng(1).normal(size=(T + 1, 1))
    states, actions, last = trajectory(noise[:T], np.zeros((T, 2)))
    parts = Parts(LEARNER, Ensemble(Model, 1, 1, None), None, T, every_reward=False)

    def value(gain):
        obs, draws = jnp.asarray(states[0], jnp.float32), jnp.asarray(noise, jnp.float32)
        return sac_svg.imagined_value(parts, MEMBERS, State, gain, obs, draws)[0]

    expected = analytic(states, actions, last, True)
    np.testing.assert_allclose(jax.grad(value)(State.actor), expected, rtol=1e-4)


def test_svg_of_no_steps_is_the_deterministic_policy_gradient():
    """With Q(s, a) = -(s'Ps + s'Ma + R a'a): the sum over states of dQ/da at the policy's actions, times s'."""
    cross, curvature, rng = np.array([[0.7], [-1.2]]), 0.8, np.random.default_rng(2)
    states, noise = rng.normal(size=(5, 2)), rng.normal(size=(5, 1, 1))

    def values(critics, obs, action):
        mixed = obs @ jnp.asarray(cross, jnp.float32) @ action + curvature * action @ action
        return -(obs @ jnp.asarray(VALUE, jnp.float32) @ obs + mixed)[None]

    parts = Parts(LEARNER._replace(values=values), Ensemble(Model, 1, 1, None), None, 0, every_reward=False)

    def total(gain):
        value = functools.partial(sac_svg.imagined_value, parts, MEMBERS, State, gain)
        return jnp.sum(jax.vmap(value)(jnp.asarray(states, jnp.float32), jnp.asarray(noise, jnp.float32))[0])

    actions = states @ GAIN.T + STD * noise[:, 0]
    expected = -(states @ cross + 2 * curvature * actions).T @ states
    np.testing.assert_allclose(jax.grad(total)(State.actor), expected, rtol=1e-4)


TEMPERATURE, EDGE = 0.3, 1.5  # the model's episodes end beyond the edge
SLOPES = np.array([[0.5, -0.2], [-0.4, 0.3]])  # of two critics' values of an action, by state


class Ending(Model):
    """The true model, whose episodes end where the first entry gets beyond the edge."""

    @staticmethod
    def mean_outcome(params, obs, action):
        after = outcome(params, obs, action)
        return after._replace(discount=jnp.where(after.next_obs[0] > EDGE, 0.0, 1.0))


def entropic(np, gain, noise, obs):
    """An action and its log-probability, by a policy whose std depends on the state, in any array library."""
    log_std = np.log(STD) + 0.5 * np.tanh(gain @ obs)
    log_prob = np.sum(-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi))
    return gain @ obs + np.exp(log_std) * noise, log_prob


def critics(np, obs, action):
    return -(obs @ np.asarray(VALUE, obs.dtype) @ obs) + np.asarray(SLOPES, obs.dtype) @ obs * action[0]


ENTROPIC = LEARNER._replace(
    act=lambda policy, key, obs, *, explore: jnp.zeros(1),
    policy=functools.partial(entropic, jnp),
    infer_noise=lambda gain, obs, action: (action - gain @ obs) / jnp.exp(jnp.log(STD) + 0.5 * jnp.tanh(gain @ obs)),
    values=lambda _, obs, action: critics(jnp, obs, action),
    temperature=lambda state: jnp.float32(TEMPERATURE),
)
ACTOR = GAIN + np.array([[0.2, -0.1]])  # the one that learns; noise is inferred for GAIN


def value_of_last(gain, noise, obs):
    action, log_prob = entropic(np, gain, noise, obs)
    return critics(np, obs, action).min() - TEMPERATURE * log_prob


def matches(loss, twin):
    """A loss of the actor and its gradient against a float64 twin and its finite differences.

    Not compiled: at the suite's level of optimisation XLA made the gradient infinite, at others it is this one.
    """
    found, gradient = jax.value_and_grad(loss)(jnp.asarray(ACTOR, jnp.float32))
    np.testing.assert_allclose(found, twin(ACTOR), rtol=1e-5)
    steps = 1e-6 * np.eye(2)[:, None]
    exact = [(twin(ACTOR + step) - twin(ACTOR - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient[0], exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("horizon", [0, 4])
def test_sac_svgs_objective_is_its_formula(key, horizon):
    """With a temperature, two critics, and an imagined episode that ends: its reward counts, and nothing after it."""
    starts = np.array([[0.5, -0.5], [1.2, 2.8], [-1.0, 0.3]])
    noise = np.asarray(jax.random.normal(key, (3, horizon + 1, 1)), np.float64)
    parts = Parts(ENTROPIC, Ensemble(Ending, 1, 1, None), None, horizon, every_reward=False)
    ends = []

    def one(gain, obs, noise):
        total, weight = 0.0, 1.0
        for step in range(horizon):
            action, log_prob = entropic(np, gain, noise[step], obs)
            total += weight * (-obs @ obs - 0.5 * action @ action - TEMPERATURE * log_prob)
            obs = A @ obs + B @ action
            weight *= GAMMA
            if obs[0] > EDGE:
                ends.append(step)
                return total
        return total + weight * value_of_last(gain, noise[horizon], obs)

    def twin(gain):
        return -np.mean([one(gain, *row) for row in zip(starts, noise, strict=True)]) / max(horizon, 1)

    def loss(gain):
        return sac_svg.policy_loss(parts, MEMBERS, State, gain, key, jnp.asarray(starts, jnp.float32)).loss

    matches(loss, twin)
    assert set(ends) == ({1} if horizon else set()), "one of the episodes ends on the way"


def test_svgs_objective_is_its_formula(key):
    """Windows of four real steps: on their way, terminated, at a time limit; what follows is of another episode."""
    rng, length = np.random.default_rng(3), 4
    obs, action = rng.normal(size=(3, length, 2)), 0.5 * rng.normal(size=(3, length, 1))
    following = obs @ A.T + action @ B.T + 0.1 * rng.normal(size=(3, length, 2))
    terminated, truncated = np.zeros((3, length), bool), np.zeros((3, length), bool)
    terminated[1, 1] = truncated[2, 2] = True
    reals = (jnp.asarray(x, jnp.float32) for x in (obs, action, np.zeros((3, length)), following))
    windows = Transition(*reals, jnp.asarray(terminated), jnp.asarray(truncated))
    parts = Parts(ENTROPIC, Ensemble(Model, 1, 1, None), None, length, every_reward=False)
    last, fresh = (np.asarray(jax.random.normal(k, (3, 1)), np.float64) for k in jax.random.split(key))

    def one(gain, i):
        state, total, weight = obs[i, 0], 0.0, 1.0
        for t in range(length):
            std = np.exp(np.log(STD) + 0.5 * np.tanh(GAIN @ obs[i, t]))
            chosen, _ = entropic(np, gain, (action[i, t] - GAIN @ obs[i, t]) / std, state)
            total += weight * (-state @ state - 0.5 * chosen @ chosen)
            state = A @ state + B @ chosen + following[i, t] - A @ obs[i, t] - B @ action[i, t]
            weight *= GAMMA * (not terminated[i, t])
            if terminated[i, t] or truncated[i, t]:
                break
        return total + weight * value_of_last(GAIN, last[i], state)

    def twin(gain):
        entropy = -np.mean([entropic(np, gain, fresh[i], obs[i, 0])[1] for i in range(3)])
        return -TEMPERATURE * entropy - np.mean([one(gain, i) for i in range(3)]) / length

    config, begin = svg.Config(horizon=length), windows.obs[:, 0]
    matches(lambda gain: svg.policy_loss(parts, config, MEMBERS[0], windows, State, gain, key, begin).loss, twin)
