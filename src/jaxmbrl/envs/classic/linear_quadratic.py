"""Linear-quadratic control of any size, with the exact optimum: the yardstick of planners.

    x_{t+1} = A x_t + B u_t,    reward_t = -(x_t' Q x_t + u_t' R u_t)

Source: Bertsekas 2017, "Dynamic Programming and Optimal Control", 4th edition, section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.envs.classic.task import Task, bind, box
from jaxmbrl.types import Array, Environment, Key

EPISODE_LENGTH = 50
ACTION_LIMIT = 5.0  # well outside of what the optimum of a default system uses (about 1)


class System(NamedTuple):
    """A linear system and its cost.

    Attributes:
        A: [S, S], the dynamics.
        B: [S, A], what actions do.
        Q: [S, S], the cost of states, positive semi-definite.
        R: [A, A], the cost of actions, positive definite.
    """

    A: Array
    B: Array
    Q: Array
    R: Array


def random_system(
    *,
    state_size: int = 2,
    action_size: int = 1,
    seed: int = 0,
    spectral_radius: float = 1.0,
    action_cost: float = 0.1,
) -> System:
    """Draw a system: Gaussian A of a given spectral radius, Gaussian B with columns of length 1, Q = I.

    Args:
        state_size: S.
        action_size: A.
        seed: of the draw; the same seed gives the same system.
        spectral_radius: the largest magnitude of an eigenvalue of A; above 1 the system is unstable.
        action_cost: R is this times the identity.
    """
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((state_size, state_size)), rng.standard_normal((state_size, action_size))
    A = A / np.abs(np.linalg.eigvals(A)).max()
    B = B / np.linalg.norm(B, axis=0)
    return System(
        A=spectral_radius * jnp.asarray(A, jnp.float32),
        B=jnp.asarray(B, jnp.float32),
        Q=jnp.eye(state_size),
        R=action_cost * jnp.eye(action_size),
    )


def make(system: System) -> Environment:
    """The system as an environment that is fully observed, starts in [-1, 1]^S and never terminates."""
    return bind(
        Task(
            name="linear_quadratic",
            parameters=system,
            positive=(),
            action=box(-ACTION_LIMIT, ACTION_LIMIT, size=system.B.shape[1]),
            episode_length=EPISODE_LENGTH,
            initial=initial,
            dynamics=dynamics,
            observe=observe,
            reward=reward,
        ),
        system,
    )


def initial(system: System, key: Key) -> Array:
    """State [S], uniform in [-1, 1]^S."""
    return jax.random.uniform(key, system.A.shape[:1], minval=-1.0, maxval=1.0)


def dynamics(system: System, state: Array, action: Array) -> Array:
    """A x + B u."""
    return system.A @ state + system.B @ action


def observe(system: System, state: Array) -> Array:
    """Obs [S]: the state itself."""
    del system
    return state


def reward(system: System, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward -(x' Q x + u' R u) of the state before the step."""
    del next_obs
    return -(obs @ system.Q @ obs + action @ system.R @ action)


def riccati(system: System, horizon: int) -> tuple[Array, Array]:
    """Solve the finite-horizon problem exactly, backwards from P_H = 0.

        K_t = (R + B' P_{t+1} B)^-1 B' P_{t+1} A,    P_t = Q + A' P_{t+1} (A - B K_t)

    Args:
        system: the problem.
        horizon: H, number of actions.

    Returns:
        gains [H, A, S]: the optimal action at time t is -gains[t] @ x_t.
        cost [S, S]: P_0; the optimal return from x_0 is -x_0' P_0 x_0.
    """
    A, B, Q, R = system

    def backwards(P: Array, _: None) -> tuple[Array, Array]:
        gain = jnp.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        return Q + A.T @ P @ (A - B @ gain), gain

    cost, gains = jax.lax.scan(backwards, jnp.zeros_like(Q), None, length=horizon, reverse=True)
    return gains, cost


def optimal_return(system: System, state: Array, horizon: int) -> Array:
    """The largest possible sum of ``horizon`` rewards from ``state`` [S], where actions are unbounded."""
    return -state @ riccati(system, horizon)[1] @ state
