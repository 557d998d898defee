"""A system that compiles in a moment and learns nothing useful: for tests of what runs systems."""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import agents, replay
from jaxmbrl.agents.presets import Preset, choose
from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Agent

ARGUMENTS = ("tiny", "pendulum", "--env.episode_length", "8")  # An episode ends in every second epoch.


@configurable
class Config:
    rate: float = option(0.1, "step size", above=0.0)
    size: int = option(3, "copies of the weights", low=1)
    poison: int = option(0, "update that turns something into nan; 0 never", low=0)
    place: str = option("parameter", "what it turns", choices=("parameter", "gradient", "action"))

    def check(self):
        if self.poison > 1000:
            raise ConfigError(f"poison: got {self.poison}, needs at most 1000")


class State(NamedTuple):
    weights: jax.Array  # [size, O]
    empty: jax.Array  # [0, 2]
    updates: jax.Array  # int32 []
    key: jax.Array


def make(spec, config=None, *, env=None):
    config = config or Config()
    return Agent(
        init=partial(_init, spec, config),
        memory=lambda state, key: jax.random.normal(key),
        act=partial(_act, config),
        fit=partial(_fit, config),
        improve=lambda state, key, store: (state, {"noise": jax.random.uniform(key)}),
    )


def preset(name, spec):
    table = {"small": lambda spec: Preset(Config(), Schedule(epochs=4, prefill=4, epoch_steps=8, num_envs=2))}
    return choose(name, spec, table)


def install(monkeypatch=None):
    """Make ``agents.load("tiny")`` find this module, until ``monkeypatch`` ends."""
    for table, name, entry in (
        (agents.SYSTEMS, "tiny", "for tests"),
        (sys.modules, "jaxmbrl.agents.tiny", sys.modules[__name__]),
    ):
        monkeypatch.setitem(table, name, entry) if monkeypatch else table.__setitem__(name, entry)


def _init(spec, config, key):
    key_weights, key_own = jax.random.split(key)
    weights = jax.random.normal(key_weights, (config.size, spec.obs_size))
    return State(weights, jnp.zeros((0, 2)), jnp.zeros((), jnp.int32), key_own)


def _act(config, state, key, memory, timestep, *, explore):
    noise = 0.1 * jax.random.normal(key) if explore else 0.0
    action = jnp.tanh(jnp.mean(state.weights @ timestep.obs) + noise + 0.01 * memory)
    return jnp.where(poisoned(config, "action", state.updates), jnp.nan, action)[None], memory * 0.9, ()


def _fit(config, state, key, store):
    key_own, key_noise = jax.random.split(state.key)
    batch = replay.sample(key, store, 4)
    change = jnp.mean(batch.next_obs - batch.obs, axis=0) + 0.01 * jax.random.normal(key_noise)
    updates = state.updates + 1

    def gain(weights):
        return jnp.sum(weights * change) * jnp.where(poisoned(config, "gradient", updates), jnp.nan, 1.0)

    weights = state.weights + config.rate * jax.grad(gain)(state.weights)
    weights = weights.at[0, 1].set(jnp.where(poisoned(config, "parameter", updates), jnp.nan, weights[0, 1]))
    return State(weights, state.empty, updates, key_own), {"model_loss": jnp.sum(change**2)}


def poisoned(config, place, updates):
    return (updates == config.poison) & (config.place == place) & (config.poison > 0)
