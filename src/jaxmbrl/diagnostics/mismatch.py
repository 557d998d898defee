"""Does the model's error matter? Likelihood against return, and what an error costs, step by step.

A model is fitted for likelihood and used for return; the two need not go together (Lambert et al. 2020,
arXiv:2002.04523).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmbrl.models import simulator
from jaxmbrl.planners import receding
from jaxmbrl.types import Array, Environment, Key, TimeStep

Plan = Callable[[Key, TimeStep], Array]  # -> actions [H, A]
MeanStep = Callable[[Array, Array], tuple[Array, Array, Array]]  # (obs [O], action [A]) -> (next_obs, reward, discount)


class Regret(NamedTuple):
    """True returns of plans from N states, all of H steps.

    Attributes:
        learned: [N], planned with the learned model.
        true: [N], planned with the simulator.
        random: [N], of random actions: the scale of what planning can gain.
    """

    learned: Array
    true: Array
    random: Array


def rank_correlation(x: ArrayLike, y: ArrayLike) -> Array:
    """Spearman's correlation of two vectors [N], ties sharing their mean rank; nan where one is constant."""

    def ranks(values: Array) -> Array:
        smaller = jnp.sum(values[None, :] < values[:, None], axis=1)
        equal = jnp.sum(values[None, :] == values[:, None], axis=1)
        rank = smaller + 0.5 * equal
        return rank - jnp.mean(rank)

    a, b = ranks(jnp.asarray(x)), ranks(jnp.asarray(y))
    norm = jnp.sqrt(jnp.sum(a * a) * jnp.sum(b * b))
    return jnp.where(norm > 0, jnp.sum(a * b) / jnp.where(norm > 0, norm, 1.0), jnp.nan)


def value_sensitivity(step: MeanStep, obs: Array, actions: Array, *, discount: float | Array = 1.0) -> Array:
    r"""How the imagined return of H steps answers to an error in each of its steps.

    With :math:`s_{t+1} = f(s_t, a_t) + \epsilon_t`, the derivative
    :math:`\partial \sum_t \gamma^t (\prod_{k<t} d_k) r_t \,/\, \partial \epsilon` at :math:`\epsilon = 0`. A step's own
    reward is taken before its error, so that the last step's error changes nothing.

    Args:
        step: the model, at its mean.
        obs: [O], where it starts.
        actions: [H, A].
        discount: gamma.

    Returns:
        [H, O].
    """

    def total(errors: Array) -> Array:
        def advance(
            carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]
        ) -> tuple[tuple[Array, Array, Array], None]:
            state, weight, value = carry
            action, error = inputs
            successor, reward, going = step(state, action)
            return (successor + error, weight * discount * going, value + weight * reward), None

        start = (obs, jnp.ones(()), jnp.zeros(()))
        return jax.lax.scan(advance, start, (actions, errors))[0][2]

    return jax.grad(total)(jnp.zeros((len(actions), *obs.shape)))


def planner_regret(
    env: Environment, key: Key, timesteps: TimeStep, plan: Plan, plan_on_truth: Plan, random: Callable[[Key], Array]
) -> Regret:
    """Plan from the same states with the learned and with the true model, and score both in the true simulator.

    Args:
        env: the simulator.
        key: consumed; the plans of a state share theirs, so that differences are due to the models.
        timesteps: leaves [N, ...], where to plan from.
        plan: ``(key, timestep) -> actions [H, A]``, with the learned model.
        plan_on_truth: the same with the true one.
        random: ``(key) -> actions [H, A]``.
    """
    true = simulator.make(env)

    def one(key: Key, timestep: TimeStep) -> Regret:
        key_plan, key_random, key_score = jax.random.split(key, 3)
        plans = (plan(key_plan, timestep), plan_on_truth(key_plan, timestep), random(key_random))
        return Regret(*(receding.discounted_return((), key_score, timestep, actions, model=true) for actions in plans))

    return jax.vmap(one)(jax.random.split(key, timesteps.reward.shape[0]), timesteps)
