"""Classic tasks against Gymnasium's own code, Lagrangian mechanics, SciPy, and a dense solution of the LQ problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, PendulumEnv
from scipy.integrate import solve_ivp

from jaxmbrl.envs import classic
from jaxmbrl.envs.classic import cartpole_swingup, linear_quadratic, reacher
from jaxmbrl.types import TimeStep


def step_from(env, task, state, action):
    """One step of an environment from any state, without its reset."""
    zero, false = jnp.zeros(()), jnp.zeros((), bool)
    before = TimeStep(state, task.observe(task.parameters, state), zero, false, false)
    return env.step(jax.random.key(0), before, action)


def rollout(env, key, actions):
    def step(timestep, action):
        after = env.step(key, timestep, action)
        return after, (timestep.obs, after)

    return jax.lax.scan(step, env.reset(key), actions)[1]


# --- Gymnasium ---------------------------------------------------------------------------------------------------


def gymnasium_action(simulator, action):
    """A continuous action for a simulator that knows discrete ones only: scale what its largest one does."""
    if isinstance(simulator, CartPoleEnv):
        simulator.force_mag = 10.0 * float(action[0])
        return 1
    if isinstance(simulator, AcrobotEnv):
        simulator.AVAIL_TORQUE = [float(action[0])]
        return 0
    return action


@pytest.mark.parametrize(
    ("name", "make_simulator", "scale", "actions"),
    [
        ("pendulum", PendulumEnv, (7.0, 9.0), (-3.0, 3.0)),  # beyond the bounds of torque and speed
        ("cartpole", CartPoleEnv, (3.0, 3.0, 0.3, 3.0), (-1.0, 1.0)),
        ("acrobot", AcrobotEnv, (3.1, 3.1, 12.0, 25.0), (-1.0, 1.0)),
        ("mountain_car", Continuous_MountainCarEnv, (0.9, 0.07), (-1.0, 1.0)),
    ],
)
def test_step_is_gymnasiums(name, make_simulator, scale, actions):
    rng = np.random.default_rng(0)
    states = (np.array(scale) * rng.uniform(-1.0, 1.0, (512, len(scale)))).astype(np.float32)
    if name == "mountain_car":
        states[:, 0] -= 0.3  # the track is [-1.2, 0.6]
    actions = rng.uniform(*actions, (512, 1)).astype(np.float32)
    env, task, simulator = classic.make(name), classic.TASKS[name], make_simulator()
    ours = jax.jit(jax.vmap(lambda state, action: step_from(env, task, state, action)))(states, actions)
    obs, reward, terminated = [], [], []
    for state, action in zip(states, actions, strict=True):
        simulator.reset(seed=0)
        simulator.state = state.astype(np.float64)
        result = simulator.step(gymnasium_action(simulator, action))
        obs.append(result[0])
        reward.append(result[1])
        terminated.append(result[2])
    np.testing.assert_allclose(ours.obs, np.array(obs), atol=2e-4, rtol=2e-5)
    np.testing.assert_allclose(ours.reward, np.array(reward), atol=2e-4, rtol=2e-5)
    np.testing.assert_array_equal(ours.terminated, np.array(terminated))
    assert name == "pendulum" or 0 < np.sum(terminated) < 512


# --- Lagrangian mechanics ----------------------------------------------------------------------------------------


def rod_energy(mass, point, q, v):
    """Kinetic energy of a uniform rod; ``point(q, s)`` is the place of the fraction s. Simpson's rule is exact here."""
    velocities = [jax.jvp(lambda q, s=s: point(q, s), (q,), (v,))[1] for s in (0.0, 0.5, 1.0)]
    return 0.5 * mass * sum(w * jnp.sum(u**2) for w, u in zip((1 / 6, 4 / 6, 1 / 6), velocities, strict=True))


def pole_point(q, s):
    return jnp.stack([q[0] + 0.6 * s * jnp.sin(q[1]), 0.6 * s * jnp.cos(q[1])])


def swingup_energies(q, v):
    kinetic = 0.5 * 0.5 * v[0] ** 2 + rod_energy(0.5, pole_point, q, v)
    return kinetic, 0.5 * 9.82 * pole_point(q, 0.5)[1]


def arm_point(q, s):
    return 0.5 * s * jnp.stack([jnp.cos(q[0]), jnp.sin(q[0])])


def forearm_point(q, s):
    return arm_point(q, 1.0) + 0.5 * s * jnp.stack([jnp.cos(q[0] + q[1]), jnp.sin(q[0] + q[1])])


def reacher_energies(q, v):
    return rod_energy(0.5, arm_point, q, v) + rod_energy(0.5, forearm_point, q, v), 0.0


def accelerations(energies, q, v, forces):
    """Euler-Lagrange: d/dt (dL/dv) - dL/dq = forces, solved for the accelerations."""

    def lagrangian(q, v):
        kinetic, potential = energies(q, v)
        return kinetic - potential

    mass = jax.hessian(lagrangian, 1)(q, v)
    drift = jax.jacfwd(jax.grad(lagrangian, 1), 0)(q, v) @ v
    return jnp.linalg.solve(mass, forces + jax.grad(lagrangian, 0)(q, v) - drift)


def test_swing_up_accelerations_follow_from_the_lagrangian(key):
    states, forces = 3.0 * jax.random.normal(key, (64, 4)), jnp.linspace(-10.0, 10.0, 64)
    params = cartpole_swingup.Params()

    def both(state, force):
        q, v = state[jnp.array([0, 2])], state[jnp.array([1, 3])]
        expected = accelerations(swingup_energies, q, v, jnp.stack([force - 0.1 * v[0], 0.0 * force]))
        return expected, cartpole_swingup.derivative(params, force, state)

    expected, slopes = jax.jit(jax.vmap(both))(states, forces)
    np.testing.assert_allclose(slopes[:, [1, 3]], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(slopes[:, [0, 2]], states[:, [1, 3]])


def test_reacher_accelerations_follow_from_the_lagrangian(key):
    states, torques = 2.0 * jax.random.normal(key, (64, 6)), jax.random.normal(jax.random.key(1), (64, 2))
    params = reacher.Params()

    def both(state, torque):
        expected = accelerations(reacher_energies, state[:2], state[2:4], torque - 0.1 * state[2:4])
        return expected, reacher.derivative(params, torque, state)

    expected, slopes = jax.jit(jax.vmap(both))(states, torques)
    np.testing.assert_allclose(slopes[:, 2:4], expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(slopes[:, :2], states[:, 2:4])
    np.testing.assert_array_equal(slopes[:, 4:], 0.0)


@pytest.mark.parametrize(
    ("name", "frictionless", "energies", "places", "tolerance"),
    [
        ("cartpole_swingup", {"friction": 0.0}, swingup_energies, ([0, 2], [1, 3]), 2e-3),
        ("reacher", {"damping": 0.0}, reacher_energies, ([0, 1], [2, 3]), 2e-3),
    ],
)
def test_energy_is_conserved(name, frictionless, energies, places, tolerance):
    task = classic.TASKS[name]
    params = task.parameters._replace(**frictionless)
    states = jax.vmap(lambda key: task.initial(params, key))(jax.random.split(jax.random.key(0), 8))
    states = states.at[:, places[1]].set(3.0)

    def energy(state):
        kinetic, potential = energies(state[jnp.array(places[0])], state[jnp.array(places[1])])
        return kinetic + potential

    def step(state, _):
        state = task.dynamics(params, state, jnp.zeros(task.action.size))
        return state, energy(state)

    _, history = jax.jit(jax.vmap(lambda state: jax.lax.scan(step, state, length=100)))(states)
    before = jax.vmap(energy)(states)
    scale = 0.5 * 0.5 * 9.82 * 0.6 if name == "cartpole_swingup" else np.abs(before).max()
    assert np.abs(history - before[:, None]).max() < tolerance * scale


def test_swing_up_step_agrees_with_scipy():
    def slope(_, state, force):
        mass = np.array([[1.0, 0.15 * np.cos(state[2])], [0.15 * np.cos(state[2]), 0.06]])
        centrifugal = 0.15 * np.sin(state[2]) * state[3] ** 2
        weight = 0.15 * 9.82 * np.sin(state[2])
        rates = np.linalg.solve(mass, [force - 0.1 * state[1] + centrifugal, weight])
        return [state[1], rates[0], state[3], rates[1]]

    rng = np.random.default_rng(0)
    states = rng.uniform([-1, -2, -np.pi, -10], [1, 2, np.pi, 10], (32, 4)).astype(np.float32)
    actions = rng.uniform(-1, 1, (32, 1)).astype(np.float32)
    task = classic.TASKS["cartpole_swingup"]
    ours = jax.jit(jax.vmap(lambda s, a: task.dynamics(task.parameters, s, a)))(states, actions)
    for state, action, result in zip(states, actions, ours, strict=True):
        exact = solve_ivp(slope, (0.0, 0.04), state, args=(10.0 * action[0],), rtol=1e-10, atol=1e-10).y[:, -1]
        np.testing.assert_allclose(result, exact, atol=1e-3)


# --- What each task says of itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", classic.NAMES)
def test_known_functions_are_the_steps_own(name, key):
    env = classic.make(name)
    high = env.spec.box.high
    actions = 1.5 * high * jax.random.uniform(key, (50, env.spec.box.size), minval=-1.0, maxval=1.0)
    obs, after = jax.jit(lambda: rollout(env, key, actions))()
    assert env.spec.reward is not None
    known = jax.jit(jax.vmap(env.spec.reward))(obs, actions, after.obs)
    np.testing.assert_allclose(known, after.reward, rtol=1e-6, atol=1e-6)
    clipped = jax.jit(jax.vmap(env.spec.reward))(obs, jnp.clip(actions, -high, high), after.obs)
    np.testing.assert_array_equal(known, clipped)
    if env.spec.termination is None:
        assert not after.terminated.any()
    else:
        np.testing.assert_array_equal(jax.vmap(env.spec.termination)(obs, actions, after.obs), after.terminated)


def test_swing_up_reward_is_one_upright_at_the_middle():
    reward = classic.make("cartpole_swingup", pole_length=0.8).spec.reward
    rest = jnp.zeros(5)

    def at(x, angle, action):
        return float(reward(rest, jnp.array([action]), jnp.array([x, 9.0, np.sin(angle), np.cos(angle), 9.0])))

    assert at(0.0, 0.0, 0.0) == pytest.approx(1.0)
    assert at(0.0, 0.0, 1.0) == pytest.approx(0.99)
    assert at(0.8, 0.0, 0.0) == pytest.approx(np.exp(-1.0), rel=1e-5)
    assert at(0.0, np.pi, 0.0) == pytest.approx(np.exp(-4.0), rel=1e-5)
    assert at(-0.8, np.pi / 2, 0.0) == pytest.approx(np.exp(-1.0), rel=1e-5)


def test_reacher_reward_is_the_distance_of_tip_and_target():
    env, task = classic.make("reacher"), classic.TASKS["reacher"]
    state = jnp.array([0.3, -1.2, 0.5, 2.0, 0.1, 0.4])
    after = step_from(env, task, state, jnp.array([0.5, -0.5]))
    angle, fold = float(after.state[0]), float(after.state[0] + after.state[1])
    tip = 0.5 * np.array([np.cos(angle) + np.cos(fold), np.sin(angle) + np.sin(fold)])
    assert float(after.reward) == pytest.approx(-np.linalg.norm(tip - [0.1, 0.4]) - 0.1 * 0.5, abs=1e-5)


def test_starts_are_random_and_as_documented():
    keys = jax.random.split(jax.random.key(0), 256)
    states = {name: np.array(jax.vmap(classic.make(name).reset)(keys).state) for name in classic.NAMES}
    assert all(np.ptp(state, axis=0).max() > 0 for state in states.values())
    assert np.abs(states["cartpole"]).max() <= 0.05
    assert np.abs(states["cartpole_swingup"][:, 2] - np.pi).max() < 0.6
    assert np.ptp(states["pendulum"][:, 0]) > 6.0
    assert states["mountain_car"][:, 0].min() >= -0.6 and states["mountain_car"][:, 0].max() <= -0.4
    radius = np.linalg.norm(states["reacher"][:, 4:], axis=1)
    assert radius.max() <= 1.0 and np.mean(radius**2) == pytest.approx(0.5, abs=0.06)  # uniform over the disc


def test_a_wrong_action_shape_is_named(key):
    env = classic.make("pendulum")
    with pytest.raises(AssertionError, match="shape"):
        env.step(key, env.reset(key), jnp.zeros(2))


# --- Fit for JAX -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", classic.NAMES)
def test_return_has_finite_gradients(name, key):
    env = classic.make(name)
    actions = 0.1 * jax.random.normal(key, (20, env.spec.box.size))
    gradient = jax.jit(jax.grad(lambda actions: rollout(env, key, actions)[1].reward.sum()))(actions)
    assert np.isfinite(gradient).all()
    if name not in ("cartpole", "acrobot"):  # whose rewards are steps
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("pendulum", "gravity", (5.0, 10.0, 15.0)),
        ("cartpole", "mass_pole", (0.1, 0.5, 1.0)),
        ("cartpole_swingup", "pole_length", (0.4, 0.6, 0.8)),
        ("acrobot", "inertia", (0.5, 1.0, 2.0)),
        ("mountain_car", "power", (0.0005, 0.0015, 0.003)),
        ("reacher", "length_2", (0.3, 0.5, 0.7)),
        ("linear_quadratic", "spectral_radius", (0.5, 1.0, 1.5)),
    ],
)
def test_physics_varies_under_vmap(name, parameter, values, key):
    actions = jnp.ones((20, classic.make(name).spec.box.size))

    def final_obs(value):
        return rollout(classic.make(name, **{parameter: value}), key, actions)[1].obs[-1]

    together = jax.jit(jax.vmap(final_obs))(jnp.array(values))
    apart = [jax.jit(final_obs, static_argnums=0)(value) for value in values]
    np.testing.assert_allclose(together, np.array(apart), rtol=2e-4, atol=2e-4)
    assert np.ptp(together, axis=0).max() > 1e-3


# --- Linear-quadratic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state_size", "action_size"), [(2, 1), (5, 2)])
def test_riccati_is_the_dense_optimum(state_size, action_size):
    horizon = 15
    system = linear_quadratic.random_system(state_size=state_size, action_size=action_size, seed=3)
    A, B, Q, R = (np.array(matrix, np.float64) for matrix in system)
    # All states as one linear function of all actions: x = free @ x_0 + forced @ u, for t = 0 .. H-1.
    free = np.concatenate([np.linalg.matrix_power(A, t) for t in range(horizon)])
    forced = np.zeros((horizon * state_size, horizon * action_size))
    for t in range(horizon):
        for s in range(t):
            block = np.linalg.matrix_power(A, t - 1 - s) @ B
            forced[t * state_size : (t + 1) * state_size, s * action_size : (s + 1) * action_size] = block
    states, actions = np.kron(np.eye(horizon), Q), np.kron(np.eye(horizon), R)
    start = np.linspace(-1.0, 1.0, state_size)
    plan = -np.linalg.solve(forced.T @ states @ forced + actions, forced.T @ states @ free @ start)
    path = free @ start + forced @ plan
    best = -(path @ states @ path + plan @ actions @ plan)
    assert float(linear_quadratic.optimal_return(system, jnp.array(start), horizon)) == pytest.approx(best, rel=1e-4)
    gains, _ = linear_quadratic.riccati(system, horizon)
    np.testing.assert_allclose(-gains[0] @ start, plan[:action_size], atol=1e-4)


def test_riccati_gains_reach_the_optimum_within_the_bounds(key):
    system = linear_quadratic.random_system(state_size=4, action_size=2)
    env, horizon = linear_quadratic.make(system), 50
    gains, _ = linear_quadratic.riccati(system, horizon)

    def play(key):
        def step(timestep, gain):
            action = -gain @ timestep.obs
            after = env.step(key, timestep, action)
            return after, (after.reward, jnp.abs(action).max())

        start = env.reset(key)
        _, (rewards, sizes) = jax.lax.scan(step, start, gains)
        return rewards.sum(), linear_quadratic.optimal_return(system, start.obs, horizon), sizes.max()

    returns, optimum, largest = jax.jit(jax.vmap(play))(jax.random.split(key, 64))
    np.testing.assert_allclose(returns, optimum, rtol=1e-4, atol=1e-5)
    assert largest.max() < env.spec.box.high.min() / 2
