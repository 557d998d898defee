r"""An actor and a critic that learn from imagined trajectories (Dreamer: Hafner et al. 2020, 2021, 2023).

    imagine H steps from each belief, the actor choosing
    returns:  G_t = r_t + gamma d_t [(1 - lambda) V(s_{t+1}) + lambda G_{t+1}]
    actor:    maximise G through the model (``dynamics``), or log pi(a) times the advantage (``reinforce``), and entropy
    critic:   regress G

Every step is weighed by gamma^t and the chance that imagination has got there: what lies beyond an imagined or a real
end counts for nothing. The model meets actions within their bounds only, as those that it has learned from. It is asked
only for what every `WorldModel` has, with a belief of shape ().

Sources: arXiv:1912.01603 (v1, dynamics), 2010.02193 (v2, both, the slow critic), 2301.04104 (v3, returns scaled by
their range). Differs from v3: the critic does not learn from replayed returns too.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import sharding
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import actions, heads, optimisers
from jaxmbrl.models.heads import Head
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.models.rollouts import Imagined, imagine
from jaxmbrl.policies import action_heads
from jaxmbrl.policies.action_heads import ActionHead
from jaxmbrl.policies.actor_critic import descend, track
from jaxmbrl.types import Array, Box, Discrete, Key, Metrics, Prediction, PyTree, Spec, WorldModel
from jaxmbrl.values.returns import lambda_returns


@configurable
class Config:
    """Options of `make`; the defaults are Dreamer v1's."""

    horizon: int = option(15, "steps that are imagined (H)", low=1)
    hidden: tuple[int, ...] = option((400, 400, 400), "widths of the hidden layers, actor and critic alike", low=1)
    activation: str = option("elu", "activation function", choices=tuple(ACTIVATIONS))
    norm: bool = option(False, "normalise the units of each layer")
    distribution: str = option("tanh_normal", "of continuous actions", choices=tuple(action_heads.CONTINUOUS))
    gradient: str = option("dynamics", "how the actor learns", choices=("dynamics", "reinforce"))
    through_policy: bool = option(
        False, "dynamics: gradient also through what later actions answer to, as SVG's; Dreamer stops it there"
    )
    discount: float = option(0.99, "gamma", low=0.0, high=1.0)
    lambda_: float = option(0.95, "how much of the imagined return is used", low=0.0, high=1.0)
    entropy: float = option(0.0, "bonus for the policy's entropy, a nat", low=0.0)
    scale_returns: bool = option(False, "divide returns by their range from the 5th to the 95th percentile, if above 1")
    head: str = option("normal", "how the critic learns", choices=tuple(heads.HEADS))
    slow_rate: float = option(1.0, "by how much the slow critic moves towards the critic", low=0.0, high=1.0)
    slow_bootstrap: bool = option(True, "the slow critic values what lies beyond; else it only holds the critic back")
    optimiser: optimisers.Config = option(optimisers.Config(learning_rate=8e-5, max_norm=100.0), "of both networks")


class State(NamedTuple):
    """What learns, and what follows.

    Attributes:
        actor: parameters.
        critic: parameters.
        slow: a slowly following copy of the critic.
        actor_optimiser: the optimiser's state.
        critic_optimiser: the optimiser's state.
        spread: [2], the 5th and 95th percentile of returns, smoothed.
    """

    actor: PyTree
    critic: PyTree
    slow: PyTree
    actor_optimiser: PyTree
    critic_optimiser: PyTree
    spread: Array


class Behaviour(NamedTuple):
    """A policy that learns in imagination.

    Attributes:
        init: ``(key) -> State``.
        act: ``(state, key, features [F], *, explore) -> action`` within the bounds.
        update: ``(state, key, params, beliefs, weight [N]) -> (state, metrics)``: one gradient step of actor and
            critic, from N beliefs (leaves [N, ...]) of the model with ``params``; a weight of 0 where an episode has
            ended.
        actor_loss: ``(state, actor, key, params, beliefs, weight) -> (loss [], (dream, spread, metrics))``, of which
            ``update`` takes the gradient.
    """

    init: Callable[[Key], State]
    act: Callable[..., Array]
    update: Callable[[State, Key, PyTree, PyTree, Array], tuple[State, Metrics]]
    actor_loss: Callable[..., tuple[Array, tuple["Dream", Array, Metrics]]]


class _Design(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    world: WorldModel
    actor: MLP
    critic: MLP
    actions: ActionHead
    head: Head


class Dream(NamedTuple):
    """N imagined trajectories, as the losses read them.

    Attributes:
        features: [N, H, F], of the states that were acted in.
        action: [N, H, A], as they were drawn: Gaussian ones may lie beyond the bounds.
        returns: [N, H].
        value: [N, H], the critic's.
        weight: [N, H].
    """

    features: Array
    action: Array
    returns: Array
    value: Array
    weight: Array


def make(spec: Spec, world: WorldModel, feature_size: int, config: Config | None = None) -> Behaviour:
    """Bind an imagined actor-critic to a model.

    Args:
        spec: of the environment.
        world: a model with beliefs of shape ().
        feature_size: length of ``world.features`` (F).
        config: options.

    Raises:
        ConfigError: discrete actions with ``gradient="dynamics"``: no gradient flows through a choice; or
            ``"reinforce"`` with ``"tanh_normal"``, whose saturated actions have no density.
    """
    config = config or Config()
    continuous = isinstance(spec.action, Box)
    if config.gradient == "dynamics" and not continuous:
        raise ConfigError(f"gradient: got dynamics, needs reinforce: {spec.name} has discrete actions")
    if config.gradient == "reinforce" and continuous and config.distribution == "tanh_normal":
        raise ConfigError("distribution: got tanh_normal, needs normal: with reinforce, actions need a density")
    head, action_head = heads.HEADS[config.head](), action_heads.make(spec, config.distribution)
    network = partial(MLP, config.hidden, activation=config.activation, norm=config.norm)
    actor, critic = network(outputs=action_head.num_outputs), network(outputs=head.num_outputs, silent=True)
    design = _Design(spec, config, world, actor, critic, action_head, head)
    return Behaviour(
        partial(_init, design, feature_size),
        partial(_act, design),
        partial(_update, design),
        partial(_actor_loss, design),
    )


def _init(design: _Design, feature_size: int, key: Key) -> State:
    key_actor, key_critic = jax.random.split(key)
    optimiser = optimisers.make(design.config.optimiser)
    actor = design.actor.init(key_actor, jnp.zeros(feature_size))
    critic = design.critic.init(key_critic, jnp.zeros(feature_size))
    slow = jax.tree.map(jnp.copy, critic)
    return State(actor, critic, slow, optimiser.init(actor), optimiser.init(critic), jnp.zeros(2))


def _act(design: _Design, state: State, key: Key, features: Array, *, explore: bool) -> Array:
    outputs = _outputs(design, state.actor, features)
    chosen = design.actions.sample(key, outputs) if explore else design.actions.mode(outputs)
    if not isinstance(design.spec.action, Box):
        return chosen
    return actions.from_unit(jnp.clip(chosen, -1.0, 1.0), design.spec.action)


def _outputs(design: _Design, actor: PyTree, features: Array) -> Array:
    return jnp.asarray(design.actor.apply(actor, features))


def _value(design: _Design, critic: PyTree, features: Array) -> Array:
    return design.head.mean(jnp.asarray(design.critic.apply(critic, features)))


def _dream(
    design: _Design, state: State, actor: PyTree, key: Key, params: PyTree, beliefs: PyTree, weight: Array
) -> Dream:
    """Imagine from each belief under ``actor``, and value what is imagined."""
    config, world = design.config, design.world

    def step(params: PyTree, key: Key, belief: PyTree, action: Array) -> tuple[PyTree, Prediction]:
        return world.step(params, key, belief, _within(design.spec.action, action))

    def policy(key: Key, features: Array) -> Array:
        features = features if config.through_policy else jax.lax.stop_gradient(features)
        chosen = design.actions.sample(key, _outputs(design, actor, features))
        return actions.from_unit(chosen, design.spec.action) if isinstance(design.spec.action, Box) else chosen

    def trajectory(key: Key, belief: PyTree, weight: Array) -> Dream:
        imagined: Imagined = imagine(world._replace(step=step), params, key, belief, policy, config.horizon)
        features = jax.vmap(partial(world.features, params))(imagined.state)
        features = jnp.concatenate([features, world.features(params, imagined.last)[None]])
        value = jax.vmap(partial(_value, design, state.critic))(features)
        value_tp1 = jax.vmap(partial(_value, design, state.slow))(features[1:]) if config.slow_bootstrap else value[1:]
        reward, discount = imagined.prediction.reward, config.discount * imagined.prediction.discount
        never = jnp.zeros(config.horizon, bool)
        returns = lambda_returns(reward, discount, value_tp1, never, lambda_=config.lambda_)
        reached = weight * jnp.concatenate([jnp.ones(1), jnp.cumprod(discount)[:-1]])
        return Dream(features[:-1], imagined.action, returns, value[:-1], jax.lax.stop_gradient(reached))

    dream = sharding.vmap(trajectory)(jax.random.split(key, len(weight)), beliefs, weight)
    return dream if config.gradient == "dynamics" else jax.lax.stop_gradient(dream)


def _actor_loss(
    design: _Design, state: State, actor: PyTree, key: Key, params: PyTree, beliefs: PyTree, weight: Array
) -> tuple[Array, tuple[Dream, Array, Metrics]]:
    config = design.config
    key_dream, key_entropy = jax.random.split(key)
    dream = _dream(design, state, actor, key_dream, params, beliefs, weight)
    spread = _follow(state.spread, dream.returns)
    scale = jnp.maximum(1.0, spread[1] - spread[0]) if config.scale_returns else jnp.ones(())
    features = jax.lax.stop_gradient(dream.features)
    outputs = jax.vmap(jax.vmap(partial(_outputs, design, actor)))(features)
    keys = jax.random.split(key_entropy, (*weight.shape, config.horizon))
    entropy = jax.vmap(jax.vmap(design.actions.entropy))(keys, outputs)
    gain = dream.returns
    if config.gradient == "reinforce":
        gain = _log_prob(design, outputs, dream.action) * (dream.returns - dream.value)
    loss = -jnp.mean(dream.weight * (gain / scale + config.entropy * entropy))
    metrics = {"actor_loss": loss, "entropy": jnp.mean(entropy), "imagined_return": jnp.mean(dream.returns)}
    return loss, (jax.lax.stop_gradient(dream), spread, metrics)


def _critic_loss(design: _Design, slow: PyTree, critic: PyTree, dream: Dream) -> tuple[Array, Array]:
    """The critic's loss, and its mean value."""

    def one(features: Array, target: Array) -> tuple[Array, Array]:
        outputs = jnp.asarray(design.critic.apply(critic, features))
        loss = design.head.loss(outputs, target)
        if not design.config.slow_bootstrap:
            loss += design.head.loss(outputs, _value(design, slow, features))
        return loss, design.head.mean(outputs)

    loss, value = jax.vmap(jax.vmap(one))(dream.features, dream.returns)
    return jnp.mean(dream.weight * loss), jnp.mean(value)


def _update(
    design: _Design, state: State, key: Key, params: PyTree, beliefs: PyTree, weight: Array
) -> tuple[State, Metrics]:
    optimiser = optimisers.make(design.config.optimiser)
    actor_loss = partial(_actor_loss, design, state, key=key, params=params, beliefs=beliefs, weight=weight)
    gradient, (dream, spread, metrics) = jax.grad(actor_loss, has_aux=True)(state.actor)
    actor, actor_optimiser = descend(optimiser, gradient, state.actor, state.actor_optimiser)
    critic_loss = partial(_critic_loss, design, state.slow, dream=dream)
    (loss, value), gradient = jax.value_and_grad(critic_loss, has_aux=True)(state.critic)
    critic, critic_optimiser = descend(optimiser, gradient, state.critic, state.critic_optimiser)
    slow = track(state.slow, critic, design.config.slow_rate)
    metrics |= {"critic_loss": loss, "value": value}
    return State(actor, critic, slow, actor_optimiser, critic_optimiser, spread), metrics


def _within(kind: Box | Discrete, action: Array) -> Array:
    """An action within its bounds, as an environment is given it."""
    return jnp.clip(action, kind.low, kind.high) if isinstance(kind, Box) else action


def _log_prob(design: _Design, outputs: Array, action: Array) -> Array:
    box = design.spec.action
    chosen = actions.to_unit(action, box) if isinstance(box, Box) else action
    return jax.vmap(jax.vmap(design.actions.log_prob))(outputs, chosen)


def _follow(spread: Array, returns: Array, rate: float = 0.01) -> Array:
    """The smoothed 5th and 95th percentile of returns (Hafner et al. 2023, Eq. 7)."""
    now = jnp.percentile(jax.lax.stop_gradient(returns), jnp.array([5.0, 95.0]))
    return spread + rate * (now - spread)
