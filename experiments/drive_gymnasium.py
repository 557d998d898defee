"""Drive a Gymnasium environment, on the host, from a file that `jaxmbrl export` has written.

    jaxmbrl train pets pendulum --run-dir runs/pendulum && jaxmbrl export runs/pendulum
    python experiments/drive_gymnasium.py runs/pendulum/act.jaxexport Pendulum-v1 --episodes 5

Needs JAX (with flatbuffers) and Gymnasium only. The environment's observations and actions must be those that the run
was trained on.
"""

import argparse
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import jax
import jax.export
import jax.numpy as jnp
import numpy as np


def drive(path: Path, name: str, episodes: int) -> list[float]:
    """The return of each episode."""
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except struct.error as error:
        raise ValueError(f"{path} was not written by jax.export") from error
    act = jax.jit(exported.call)
    shapes, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    _, memory, expected, *_ = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    env = gymnasium.make(name)
    takes, acts = env.action_space.shape, exported.out_avals[0].shape
    if env.observation_space.shape != expected.shape:
        shows = env.observation_space.shape
        raise ValueError(f"{name} shows observations {shows}, and {path} was trained on {expected.shape}")
    if takes != acts:
        raise ValueError(f"{name} takes actions {takes}, and {path} gives {acts}")
    returns, steps = [], 0
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        reward, first, ended, total = 0.0, True, False, 0.0
        while not ended:
            key = jax.random.key_data(jax.random.key(steps))
            seen = jnp.asarray(obs, expected.dtype), jnp.asarray(reward, jnp.float32), jnp.asarray(first)
            action, memory = act(key, memory, *seen)
            obs, reward, terminated, truncated, _ = env.step(np.asarray(action))
            first, ended = False, terminated or truncated
            total, steps = total + float(reward), steps + 1
        returns.append(total)
    return returns


class Parser(argparse.ArgumentParser):
    """One whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        """Say it, and end with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def whole_number(text: str) -> int:
    """A type for argparse: a whole number that is at least 1."""
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"got {text!r}, needs a whole number, at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the returns; a mistake is one line and code 2."""
    parser: Any = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("env", nargs="?", default="Pendulum-v1")
    parser.add_argument("--episodes", type=whole_number, default=5)
    options = parser.parse_args(argv)
    try:
        returns = drive(options.file, options.env, options.episodes)
    except (OSError, ValueError, gymnasium.error.Error) as error:
        parser.error(str(error))
    print(
        f"return {np.mean(returns):.4g} ± {np.std(returns):.3g} over {len(returns)} episode{'s' * (len(returns) > 1)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
