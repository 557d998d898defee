"""What agents around a latent model share: remembering what was seen, and learning from replayed sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl import replay as replays
from jaxmbrl import sharding
from jaxmbrl.config import configurable, option
from jaxmbrl.models import actions as encodings
from jaxmbrl.models import optimisers
from jaxmbrl.models.frames import Frames, frames
from jaxmbrl.models.latent_model import LatentModel
from jaxmbrl.policies.actor_critic import descend
from jaxmbrl.replay import Replay
from jaxmbrl.types import Array, Box, Key, Metrics, PyTree, Spec, TimeStep, Transition


@configurable
class Fit:
    """How a latent model learns; the defaults are PlaNet's."""

    optimiser: optimisers.Config = option(optimisers.Config(epsilon=1e-4, max_norm=1000.0), "of the model")
    batch_size: int = option(50, "sequences of a gradient step (B)", low=1)
    length: int = option(50, "frames a sequence (T)", low=2)


class ModelState(NamedTuple):
    """A model's parameters, and its optimiser's state."""

    params: PyTree
    optimiser: PyTree


class Memory(NamedTuple):
    """What an agent remembers within an episode.

    Attributes:
        state: the belief after the last frame.
        action: [A], the last action.
        first: bool [], nothing has been seen yet.
    """

    state: PyTree
    action: Array
    first: Array


class Learning(NamedTuple):
    """A model's learning, bound.

    Attributes:
        init: ``(key) -> ModelState``.
        update: ``(ModelState, key, replay) -> (ModelState, metrics, states [B, T], frames [B, T])``: one gradient step;
            ``states`` are the beliefs that it filtered on its way.
        window: consecutive transitions that a sequence is made of, T - 1.
    """

    init: Callable[[Key], ModelState]
    update: Callable[[ModelState, Key, Replay], tuple[ModelState, Metrics, PyTree, Frames]]
    window: int


def learning(
    model: LatentModel, config: Fit, relabel: Callable[[Transition], Transition] = lambda window: window
) -> Learning:
    """Bind learning to a model, which reads replayed windows [T] as ``relabel`` shows them."""
    optimiser = optimisers.make(config.optimiser)

    def init(key: Key) -> ModelState:
        params = model.world.init(key)
        return ModelState(params, optimiser.init(params))

    return Learning(init, partial(_update, model, config, optimiser, relabel), config.length - 1)


def _update(
    model: LatentModel,
    config: Fit,
    optimiser: optax.GradientTransformation,
    relabel: Callable[[Transition], Transition],
    state: ModelState,
    key: Key,
    replay: Replay,
) -> tuple[ModelState, Metrics, PyTree, Frames]:
    key_sample, key_loss = jax.random.split(key)
    windows = replays.sample_sequences(key_sample, replay, config.batch_size, config.length - 1)
    sequences = jax.vmap(lambda window: frames(relabel(window)))(windows)

    def loss(params: PyTree) -> tuple[Array, tuple[Metrics, PyTree]]:
        keys = jax.random.split(key_loss, config.batch_size)
        losses, metrics, states = sharding.vmap(partial(model.evidence, params))(keys, sequences)
        return jnp.mean(losses), (jax.tree.map(jnp.mean, metrics), states)

    gradient, (metrics, states) = jax.grad(loss, has_aux=True)(state.params)
    metrics |= {"model_gradient_norm": optax.tree.norm(gradient)}
    return ModelState(*descend(optimiser, gradient, *state)), metrics, states, sequences


def nothing_seen(model: LatentModel, spec: Spec) -> Memory:
    """The memory at the start of an episode."""
    return Memory(model.initial(), encodings.none(spec.action), jnp.ones((), bool))


def perceive(model: LatentModel, params: PyTree, key: Key, memory: Memory, timestep: TimeStep) -> PyTree:
    """The belief after one more frame."""
    frame = Frames(timestep.obs, memory.action, timestep.reward, jnp.ones(()), memory.first)
    return model.perceive(params, key, memory.state, frame)


def remember(state: PyTree, action: Array) -> Memory:
    """The memory after acting."""
    return Memory(state, action, jnp.zeros((), bool))


def disturb(key: Key, action: Array, box: Box, std: float | Array) -> Array:
    """Add noise to an action [A], its std in units of half the range, within the bounds."""
    noise = std * (box.high - box.low) / 2.0 * jax.random.normal(key, action.shape)
    return jnp.clip(action + noise, box.low, box.high)


def mean_of(metrics: Any) -> Any:
    """Metrics of several updates [U] as their means."""
    return jax.tree.map(partial(jnp.mean, axis=0), metrics)
