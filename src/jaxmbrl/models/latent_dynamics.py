r"""Deterministic latent dynamics with rewards of several tasks (Byravan et al. 2019, arXiv:1910.04142, Sec. 3).

    filter:      h_t = f([h_{t-1} moved by a_{t-1}], embed(obs_t))
    transition:  h'  = g(h, a)                              imagination: the same latents, moved by actions alone
    heads:       rewards r_k(h, a, h') of K tasks; on h: the observation, and whether the episode goes on

The model learns to tell what it sees, and what it will see: from every filtered latent it imagines ``ahead`` steps
under the actions that were taken, and is held to observations, rewards and continuations there. Imagined latents are
also pulled towards those that filtering arrives at, so that heads and policies read them alike. Nothing but the reward
head depends on tasks, which is why the model can serve another one.

Differs from the paper, of which there is no public code: sizes and weights are ours; the pull between imagined and
filtered latents replaces losses of a pixel decoder over longer horizons; no value is learned with the model.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.models import actions, sensors
from jaxmbrl.models.frames import Frames, frames
from jaxmbrl.models.latent_model import Filtered, LatentModel
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.types import Array, Key, Metrics, Prediction, PyTree, Spec, TimeStep, Transition, WorldModel


@configurable
class Config:
    """Sizes and losses."""

    units: int = option(128, "of a latent (D)", low=1)
    hidden: int = option(128, "units of the layer that moves a latent, and of the one that corrects it", low=1)
    layers: tuple[int, ...] = option((128, 128), "hidden layers of heads, and of the sensors of vectors", low=1)
    embedding: int = option(128, "size of an encoded observation, for vectors and grids", low=1)
    depth: int = option(32, "channels of the first convolution, for images and grids", low=1)
    activation: str = option("elu", "activation function", choices=tuple(ACTIVATIONS))
    norm: bool = option(False, "normalise the units of each layer")
    ahead: int = option(5, "steps that are imagined from each latent to learn from", low=1)
    observation_scale: float = option(1.0, "weight of the observations' loss", low=0.0)
    reward_scale: float = option(1.0, "weight of the rewards' loss", low=0.0)
    agreement_scale: float = option(1.0, "weight of the pull between imagined and filtered latents", low=0.0)


class _Design(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    num_tasks: int
    sensor: sensors.Sensor
    modules: dict[str, Any]

    def apply(self, params: PyTree, name: str, *inputs: Array) -> Array:
        return jnp.asarray(self.modules[name].apply(params[name], *inputs))


class SharedModel(NamedTuple):
    """One model of the world for K tasks.

    Attributes:
        model: with the reward of the first task. Its sequences have rewards [T, K], or [T] where there is one task.
        of_task: a WorldModel whose ``params`` are pairs ``(params, task)``, task an int32 [] that may be traced.
    """

    model: LatentModel
    of_task: WorldModel


def make(spec: Spec, config: Config | None = None, *, num_tasks: int = 1) -> SharedModel:
    """Bind the model to an environment's spec. Raises ConfigError for observations that no sensor reads."""
    config = config or Config()
    layer = partial(MLP, activation=config.activation, norm=config.norm)
    modules = {
        "transition": layer((config.hidden,), config.units, silent=True),
        "filter": layer((config.hidden,), config.units),
        "reward": layer(config.layers, num_tasks, silent=True),
        "discount": layer(config.layers, 1),
    }
    sensor = sensors.make(
        spec, layer, layers=config.layers, embedding=config.embedding, depth=config.depth, activation=config.activation
    )
    design = _Design(spec, config, num_tasks, sensor, modules)
    perceive = partial(_perceive, design)

    def start(params: PyTree, key: Key, timestep: TimeStep) -> Array:
        return perceive(params, key, _initial(design), _arrival(spec, timestep))

    def observe(params: PyTree, key: Key, state: Array, action: Array, timestep: TimeStep) -> Array:
        frame = _arrival(spec, timestep)._replace(action=action, first=jnp.zeros((), bool))
        return perceive(params, key, state, frame)

    world = WorldModel(
        init=partial(_init, design),
        loss=partial(_loss, design),
        start=start,
        observe=observe,
        step=lambda params, key, state, action: _step(design, (params, 0), key, state, action),
        features=lambda params, state: state,
    )
    model = LatentModel(
        world=world,
        initial=partial(_initial, design),
        perceive=perceive,
        filter=partial(_filter, design),
        evidence=partial(_evidence, design),
        seen=sensor.seen,
        reconstruct=lambda params, state: sensor.reconstruct(params["sensor"], state),
    )
    of_task = world._replace(
        start=lambda params, *seen: start(params[0], *seen),
        observe=lambda params, *seen: observe(params[0], *seen),
        step=partial(_step, design),
    )
    return SharedModel(model, of_task)


def _arrival(spec: Spec, timestep: TimeStep) -> Frames:
    """The first frame of an episode."""
    return Frames(timestep.obs, actions.none(spec.action), timestep.reward, jnp.ones(()), jnp.ones((), bool))


def _initial(design: _Design) -> Array:
    return jnp.zeros(design.config.units)


def _init(design: _Design, key: Key) -> PyTree:
    key_sensor, key_networks = jax.random.split(key)
    latent, action = _initial(design), jnp.zeros(actions.size(design.spec.action))
    inputs = {
        "transition": (jnp.concatenate([latent, action]),),
        "filter": (jnp.concatenate([latent, jnp.zeros(design.sensor.size)]),),
        "reward": (jnp.concatenate([latent, action, latent]),),
        "discount": (latent,),
    }
    params = {"sensor": design.sensor.init(key_sensor, latent)}
    for name, key_network in zip(inputs, jax.random.split(key_networks, len(inputs)), strict=True):
        params[name] = design.modules[name].init(key_network, *inputs[name])
    return params


def _move(design: _Design, params: PyTree, latent: Array, action: Array) -> Array:
    """The latent [D] that an encoded action leads to."""
    return latent + design.apply(params, "transition", jnp.concatenate([latent, action]))


def _rewards(design: _Design, params: PyTree, latent: Array, action: Array, moved: Array) -> Array:
    """Rewards [K] of an encoded action that leads from one latent to another."""
    return design.apply(params, "reward", jnp.concatenate([latent, action, moved]))


def _step(
    design: _Design, params: tuple[PyTree, Array | int], key: Key, state: Array, action: Array
) -> tuple[Array, Prediction]:
    del key  # nothing is drawn
    weights, task = params
    encoded = actions.encode(action, design.spec.action)
    moved = _move(design, weights, state, encoded)
    reward = _rewards(design, weights, state, encoded, moved)[task]
    return moved, Prediction(reward, jax.nn.sigmoid(design.apply(weights, "discount", moved)[0]))


def _correct(design: _Design, params: PyTree, state: Array, frame: Frames, embedding: Array) -> Array:
    """Filter by one frame."""
    moved = _move(design, params, state, actions.encode(frame.action, design.spec.action))
    moved = jnp.where(frame.first, 0.0, moved)
    return moved + design.apply(params, "filter", jnp.concatenate([moved, embedding]))


def _perceive(design: _Design, params: PyTree, key: Key, state: Array, frame: Frames) -> Array:
    del key
    return _correct(design, params, state, frame, design.sensor.embed(params["sensor"], frame.obs))


def _filter(design: _Design, params: PyTree, key: Key, sequence: Frames) -> Filtered:
    del key
    embeddings = jax.vmap(partial(design.sensor.embed, params["sensor"]))(sequence.obs)

    def step(state: Array, inputs: tuple[Frames, Array]) -> tuple[Array, Array]:
        state = _correct(design, params, state, *inputs)
        return state, state

    latents = jax.lax.scan(step, _initial(design), (sequence._replace(obs=()), embeddings))[1]
    return Filtered(latents, latents, latents)


def _evidence(design: _Design, params: PyTree, key: Key, sequence: Frames) -> tuple[Array, Metrics, Array]:
    """Losses at each frame as it is filtered, and at each of the frames ahead as it is imagined."""
    config, length = design.config, len(sequence.first)
    filtered = _filter(design, params, key, sequence).state
    rewards = sequence.reward.reshape(length, design.num_tasks)

    def told(latent: Array, frame: Frames) -> tuple[Array, Array]:
        seen = design.sensor.loss(params["sensor"], latent, frame.obs)
        logit = design.apply(params, "discount", latent)[0]
        return seen, optax.sigmoid_binary_cross_entropy(logit, frame.discount)

    def ahead(begin: Array) -> dict[str, Array]:
        def step(carry: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], dict[str, Array]]:
            latent, running = carry
            place = jnp.minimum(begin + offset, length - 1)
            frame = jax.tree.map(lambda leaf: leaf[place], sequence)
            running = running & ~frame.first & (begin + offset < length)
            action = actions.encode(frame.action, design.spec.action)
            moved = _move(design, params, latent, action)
            error, latent = _rewards(design, params, latent, action, moved) - rewards[place], moved
            seen, discount = told(latent, frame)
            apart = 0.5 * jnp.sum(jnp.square(latent - filtered[place]))
            losses = {"observation": seen, "reward": 0.5 * jnp.sum(error**2), "discount": discount, "agreement": apart}
            counted = jax.tree.map(lambda loss: jnp.where(running, loss, 0.0), losses)
            return (latent, running), counted | {"count": jnp.asarray(running, jnp.float32)}

        first = (filtered[begin], jnp.ones((), bool))
        return jax.lax.scan(step, first, 1 + jnp.arange(config.ahead))[1]

    imagined = jax.tree.map(jnp.sum, jax.vmap(ahead)(jnp.arange(length)))
    count = jnp.maximum(imagined.pop("count"), 1.0)
    imagined = jax.tree.map(lambda total: total / count, imagined)
    seen, discount = jax.tree.map(jnp.mean, jax.vmap(told)(filtered, sequence))
    parts = {
        "reconstruction": seen,
        "prediction": imagined["observation"],
        "reward": imagined["reward"],
        "discount": discount + imagined["discount"],
        "agreement": imagined["agreement"],
    }
    scales = {
        "reconstruction": config.observation_scale,
        "prediction": config.observation_scale,
        "reward": config.reward_scale,
        "agreement": config.agreement_scale,
    }
    loss = sum((scales.get(name, 1.0) * part for name, part in parts.items()), jnp.zeros(()))
    return loss, {f"{name}_loss": part for name, part in parts.items()} | {"model_loss": loss}, filtered


def _loss(design: _Design, params: PyTree, key: Key, batch: Transition) -> tuple[Array, Metrics]:
    keys = jax.random.split(key, len(batch.reward))
    losses, metrics, _ = jax.vmap(partial(_evidence, design, params))(keys, jax.vmap(frames)(batch))
    return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)
