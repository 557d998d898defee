"""Off-policy actor-critics: what SAC and TD3 share, and the hooks by which a model enters them.

A model enters an actor-critic in two places. It can make better *targets* for the critics (MVE, STEVE): whoever has a
model builds `Examples` from the learner's `Bootstrap`. Or it can make a better *objective* for the actor (SVG): whoever
has a model passes ``objective`` to `ActorCritic.learn`. Without either, `update` is the published model-free learner.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.models.angles import encode
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import squashed
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec, Transition


class Bootstrap(NamedTuple):
    """What the target networks say of a state.

    Attributes:
        action: [A], the policy's.
        values: [C], of that action, by each target critic.
        bonus: [], what entropy adds to the value of the state; 0 for a deterministic policy.
    """

    action: Array
    values: Array
    bonus: Array

    @property
    def value(self) -> Array:
        """[], the least of the critics' values, and the bonus."""
        return jnp.min(self.values) + self.bonus


class Examples(NamedTuple):
    """What critics are regressed on.

    Attributes:
        obs: [N, O].
        action: [N, A].
        target: [N], or [N, C] for a target of its own for each critic.
        weight: [N], not negative; the loss is the weighted mean.
    """

    obs: Array
    action: Array
    target: Array
    weight: Array


class PolicyLoss(NamedTuple):
    """What an actor minimises, and how random it was.

    Attributes:
        loss: [].
        log_prob: [B], of the actions in the batch's states.
        metrics: what else to tell of it, [] each, or None.
    """

    loss: Array
    log_prob: Array
    metrics: Metrics | None = None


Objective: TypeAlias = Callable[[Any, PyTree, Key, Array], PolicyLoss]  # (state, actor, key, obs [B, O])


class ActorCritic(NamedTuple):
    """A `Learner` that says how it bootstraps, and takes targets and objectives from elsewhere.

    Attributes:
        init: ``(key) -> state``.
        act: ``(state, key, obs [O], *, explore) -> action [A]``.
        update: ``(state, key, transitions [B]) -> (state, metrics)``: `learn` on one-step targets.
        policy: ``(actor, noise [A], obs [O]) -> (action [A], log_prob [])``, differentiable in all three; ``noise`` is
            standard normal, and of no effect on a deterministic policy, whose log_prob is 0.
        infer_noise: ``(actor, obs [O], action [A]) -> [A]``, the noise with which the policy takes that action.
        values: ``(critics, obs [O], action [A]) -> [C]``, differentiable.
        bootstrap: ``(state, noise [A], obs [O]) -> Bootstrap``, by the target networks.
        learn: ``(state, key, obs [B, O], examples, *, objective=None) -> (state, metrics)``: one gradient step of the
            critics on ``examples``, then one of the actor in ``obs``.
        temperature: ``(state) -> []``, the weight of the entropy, 0 for a deterministic policy.
        discount: [], gamma.
    """

    init: Callable[[Key], Any]
    act: Callable[..., Array]
    update: Callable[[Any, Key, Transition], tuple[Any, Metrics]]
    policy: Callable[[PyTree, Array, Array], tuple[Array, Array]]
    infer_noise: Callable[[PyTree, Array, Array], Array]
    values: Callable[[PyTree, Array, Array], Array]
    bootstrap: Callable[[Any, Array, Array], Bootstrap]
    learn: Callable[..., tuple[Any, Metrics]]
    temperature: Callable[[Any], Array]
    discount: float | Array

    @property
    def learner(self) -> Learner:
        """Only what every learner has."""
        return Learner(self.init, self.act, self.update)


def one_step_examples(learner: ActorCritic, state: Any, key: Key, batch: Transition) -> Examples:
    r"""Temporal-difference targets :math:`r_t + \gamma d_t V(s_{t+1})`, one for each transition [B].

    ``d`` is 0 at a termination and 1 at a time limit, beyond which the true next observation still has a value.
    """
    noise = jax.random.normal(key, batch.action.shape)
    value = jax.vmap(lambda noise, obs: learner.bootstrap(state, noise, obs).value)(noise, batch.next_obs)
    target = batch.reward + learner.discount * batch.discount * value
    return Examples(batch.obs, batch.action, target, jnp.ones_like(target))


class Design(NamedTuple):
    """What the functions of a learner are bound to; ``config`` is its own, with the fields that `design` reads.

    The critics are C networks with a common input, parameters [C, ...].
    """

    spec: Spec
    num_inputs: int  # of the encoded observation
    config: Any
    actor: MLP
    critic: MLP
    optimiser: optax.GradientTransformation


def design(spec: Spec, config: Any, outputs: int) -> Design:
    """An actor with ``outputs`` numbers for each action dimension, critics, and Adam for both.

    Raises:
        ValueError: observations are no vectors, or actions are discrete.
    """
    actor = MLP(config.hidden, outputs * spec.box.size, config.activation)
    critic = MLP(config.hidden, 1, config.activation)
    return Design(spec, spec.obs_size + len(spec.angles), config, actor, critic, optax.adam(config.learning_rate))


def bind(design: Design, **functions: Callable[..., Any]) -> ActorCritic:
    """The learner whose ``functions`` are those fields of `ActorCritic` that differ, each of which takes its design."""
    learner = ActorCritic(
        update=lambda state, key, batch: _update(learner, state, key, batch),
        values=partial(values, design),
        discount=design.config.discount,
        **{name: partial(function, design) for name, function in functions.items()},
    )
    return learner


def _update(learner: ActorCritic, state: Any, key: Key, batch: Transition) -> tuple[Any, Metrics]:
    key_target, key_learn = jax.random.split(key)
    return learner.learn(state, key_learn, batch.obs, one_step_examples(learner, state, key_target, batch))


def init_networks(design: Design, key: Key) -> tuple[PyTree, PyTree]:
    """The actor's parameters, and those of independently initialised critics, leaves [C, ...]."""
    key_actor, key_critics = jax.random.split(key)
    obs = jnp.zeros(design.num_inputs)
    inputs = jnp.concatenate([obs, jnp.zeros(design.spec.box.size)])
    critics = jax.vmap(design.critic.init, in_axes=(0, None))(
        jax.random.split(key_critics, design.config.critics), inputs
    )
    return design.actor.init(key_actor, obs), critics


def outputs(design: Design, actor: PyTree, obs: Array) -> Array:
    """What the actor's network says of a state [O]."""
    return jnp.asarray(design.actor.apply(actor, encode(obs, design.spec.angles)))


def values(design: Design, critics: PyTree, obs: Array, action: Array) -> Array:
    """Each critic's value [C] of an action [A] in a state [O]."""
    inputs = jnp.concatenate([encode(obs, design.spec.angles), squashed.to_unit(action, design.spec.box)])
    return jax.vmap(lambda params: jnp.asarray(design.critic.apply(params, inputs))[0])(critics)


def critic_step(
    design: Design, critics: PyTree, optimiser_state: PyTree, examples: Examples
) -> tuple[PyTree, PyTree, Metrics]:
    """One gradient step on half the squared error, summed over critics, a weighted mean over examples."""
    target = jax.lax.stop_gradient(examples.target)
    target = target if target.ndim == 2 else target[:, None]
    share = examples.weight / jnp.maximum(jnp.sum(examples.weight), 1e-8)

    def loss(critics: PyTree) -> tuple[Array, Array]:
        predicted = jax.vmap(partial(values, design, critics))(examples.obs, examples.action)  # [N, C]
        return 0.5 * jnp.sum(share[:, None] * jnp.square(predicted - target)), jnp.mean(predicted)

    (loss_value, mean_value), gradient = jax.value_and_grad(loss, has_aux=True)(critics)
    critics, optimiser_state = descend(design.optimiser, gradient, critics, optimiser_state)
    return critics, optimiser_state, {"critic_loss": loss_value, "value": mean_value}


def descend(
    optimiser: optax.GradientTransformation, gradient: PyTree, params: PyTree, optimiser_state: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of an optimiser: the new parameters and the optimiser's new state."""
    updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
    return jax.tree.map(jnp.add, params, updates), optimiser_state


def track(targets: PyTree, params: PyTree, rate: float | Array) -> PyTree:
    """Move target parameters by ``rate`` towards the learned ones."""
    return jax.tree.map(lambda target, param: target + rate * (param - target), targets, params)
