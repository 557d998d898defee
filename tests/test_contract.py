"""The contract that every component keeps; a new component is a new row of a table below.

A row is a pair of functions: ``begin(key) -> carry`` and ``advance(key, carry) -> (carry, output)``, the way the
component is used in a compiled loop. Outputs hold all that it computes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import agents, envs, models, planners
from jaxmbrl import replay as replays
from jaxmbrl.agents import (
    dqn,
    dreamer,
    ivg,
    latent,
    mbpo,
    me_trpo,
    mpc,
    mve,
    nagabandi,
    pets,
    planet,
    poplin,
    random_shooting,
    sac,
    sac_svg,
    steve,
    svg,
    world_models,
)
from jaxmbrl.cli import listing
from jaxmbrl.envs import classic, wrappers
from jaxmbrl.models import ensemble, fitting, latent_dynamics, mdn_rnn, one_step, optimisers, rssm, simulator, vae
from jaxmbrl.planners import cem
from jaxmbrl.policies import dqn as dqn_policy
from jaxmbrl.policies import imagination, imitation, ppo, td3, trpo
from jaxmbrl.policies import sac as sac_policy
from jaxmbrl.training import checkpoint
from jaxmbrl.training.loop import random_action
from jaxmbrl.types import Discrete
from jaxmbrl.values import state_value

ENV = envs.make("cartpole", episode_length=20)  # it terminates, and its reward and termination are known
DISCRETE = ENV._replace(  # the same, pushed by one of three forces
    spec=ENV.spec._replace(action=Discrete(3)),
    step=lambda key, timestep, action: ENV.step(key, timestep, (action[None] - 1.0) * ENV.spec.box.high),
)
MEMBER = one_step.Config(hidden=(8,))
PARTICLES = ensemble.Config(member=MEMBER, size=3, elites=3, particles=6)


class Row(NamedTuple):
    begin: Callable[[Any], Any]
    advance: Callable[[Any, Any], tuple[Any, Any]]


def planner_row(config):
    planner = planners.make((4, 2), -1.0, 2.0, config)

    def objective(key, candidates):
        noise = 1e-3 * jax.random.normal(key, candidates.shape[:1])
        return noise - jnp.sum((candidates - 0.5) ** 2, axis=(1, 2))

    def advance(key, plan):
        solution, plan, info = planner.plan(key, objective, plan)
        return plan, (solution, info)

    return Row(lambda key: planner.init(), advance)


def model_row(world, batch=lambda key: experience(key, 4)):
    """One imagined step, the loss of a batch, and an observation."""

    def begin(key):
        key_params, key_reset, key_start = jax.random.split(key, 3)
        params = world.init(key_params)
        return params, world.start(params, key_start, ENV.reset(key_reset))

    def advance(key, carry):
        params, state = carry
        key_step, key_loss, key_reset, key_observe, key_data = jax.random.split(key, 5)
        action = jnp.full((1,), 0.5)
        successor, prediction = world.step(params, key_step, state, action)
        loss = world.loss(params, key_loss, batch(key_data))
        seen = world.observe(params, key_observe, successor, action, ENV.reset(key_reset))
        return (params, successor), (prediction, loss, seen, world.features(params, successor))

    return Row(begin, advance)


def sequence_model_row(world):
    """A model that learns from sequences."""

    def batch(key):
        return jax.tree.map(lambda leaf: leaf.reshape((2, 3, *leaf.shape[1:])), experience(key, 6))

    return model_row(world, batch)


def system_row(name, config, **options):
    """An act, a slow and a fast update, as an epoch has them; the store holds what the act gave as ``extras``."""
    world = DISCRETE if name == "dqn" else ENV
    agent = agents.load(name).make(world.spec, config, **options)

    def begin(key):
        key_init, key_memory = jax.random.split(key)
        state = agent.init(key_init)
        return state, agent.memory(state, key_memory)

    def advance(key, carry):
        state, memory = carry
        key_reset, key_act, key_fit, key_improve, key_data = jax.random.split(key, 5)
        action, memory, extras = agent.act(state, key_act, memory, world.reset(key_reset), explore=True)
        store = filled_store(key_data, extras, world)
        state, fit_metrics = agent.fit(state, key_fit, store)
        state, metrics = agent.improve(state, key_improve, store)
        return (state, memory), (action, extras, fit_metrics, metrics)

    return Row(begin, advance)


def learner_row(learner, axes=(6,), world=ENV):
    """Acting with and without exploration, and an update on a batch with ``axes`` (B; or B, T for trajectories)."""

    def advance(key, state):
        key_explore, key_exploit, key_data, key_update = jax.random.split(key, 4)
        batch = experience(key_data, 6, world)
        explored = learner.act(state, key_explore, batch.obs[0], explore=True)
        exploited = learner.act(state, key_exploit, batch.obs[0], explore=False)
        batch = jax.tree.map(lambda leaf: leaf.reshape((*axes, *leaf.shape[1:])), batch)
        state, metrics = learner.update(state, key_update, batch)
        return state, (explored, exploited, metrics)

    return Row(learner.init, advance)


def env_row(env):
    step = functools.partial(wrappers.auto_reset_step, env)

    def advance(key, timestep):
        key_action, key_step = jax.random.split(key)
        transition, timestep = step(key_step, timestep, random_action(key_action, env.spec))
        return timestep, transition

    return Row(env.reset, advance)


def experience(key, num, world=ENV):
    """``num`` first steps of episodes under random actions."""

    def one(key):
        key_reset, key_action, key_step = jax.random.split(key, 3)
        action = random_action(key_action, world.spec)
        return wrappers.auto_reset_step(world, key_step, world.reset(key_reset), action)[0]

    return jax.vmap(one)(jax.random.split(key, num))


def filled_store(key, extras, world):
    data = experience(key, 12, world)._replace(extras=jax.tree.map(lambda leaf: jnp.stack([leaf] * 12), extras))
    return replays.from_rows(jax.tree.map(lambda leaf: leaf[:, None], data), cursor=0, size=12)


FIT = fitting.Config(batch_size=4, passes=2, holdout_every=4, patience=1)
VALUE = state_value.Config(hidden=(8,), batch_size=4, steps=2)
PLANNERS = {
    "cem": planners.cem.Config(population=12, elites=3, iterations=2),
    "cmaes": planners.cmaes.Config(population=6, iterations=2),
    "es": planners.es.Config(population=6, iterations=2),
    "gradient": planners.gradient.Config(restarts=2, iterations=2),
    "icem": planners.icem.Config(population=12, elites=3, iterations=2, keep=1),
    "mppi": planners.mppi.Config(population=12, iterations=2),
    "random_shooting": planners.random_shooting.Config(population=12),
}
LATENT = rssm.Config(deter=4, stoch=2, hidden=4, layers=(4,), embedding=4)
LATENT_FIT = latent.Fit(batch_size=2, length=4)
MODELS = {
    "one_step": lambda: one_step.world_model(one_step.make(ENV.spec, MEMBER)),
    "simulator": lambda: simulator.make(ENV),
    **{
        f"ensemble/{name}": lambda name=name: (
            ensemble.make(
                ENV.spec, ensemble.Config(member=MEMBER, size=3, elites=3, particles=6, propagation=name)
            ).world
        )
        for name in ("expectation", "moment_matching", "ts1", "tsinf")
    },
}
RSSM = {
    "gaussian": dataclasses.replace(LATENT, overshooting=1),
    "classes": dataclasses.replace(LATENT, classes=2, norm=True, reward_head="symexp_twohot"),
}
RECURRENT = mdn_rnn.Config(autoencoder=vae.Config(latent=2, hidden=(4,)), cell="lstm", hidden=4, mixtures=2)
SEQUENCE_MODELS = {
    f"mdn_rnn/{cell}": lambda cell=cell: mdn_rnn.make(ENV.spec, dataclasses.replace(RECURRENT, cell=cell)).world
    for cell in mdn_rnn.CELLS
}
SEQUENCE_MODELS["latent_dynamics"] = lambda: latent_dynamics.make(ENV.spec, SYSTEMS["ivg"].model).model.world
POLICY = sac_policy.Config(hidden=(4,), learning_rate=1e-2)
ONE_MODEL, TWO_MODELS = (
    ensemble.Members(member=one_step.Config(hidden=(8,), family="deterministic"), size=size, elites=size)
    for size in (1, 2)
)
ON_POLICY_SIZES = {"hidden": (4,), "value_hidden": (4,), "value_epochs": 1, "value_batch_size": 4}
TRUST = trpo.Config(**ON_POLICY_SIZES)
CLONED = imitation.Config(hidden=(4,), passes=2)
ONE_PARTICLE = ensemble.Config(member=MEMBER, size=1, elites=1, particles=1)
Q_NETWORK = dqn_policy.Config(hidden=(4,), optimiser="adam", learning_rate=1e-2, target_every=2, first_epsilon=0.5)
SYSTEMS = {
    "dqn": dqn.Config(policy=Q_NETWORK, batch_size=4, updates=2),
    "dreamer": dreamer.Config(
        model=LATENT, fit=LATENT_FIT, starts=3, policy=imagination.Config(hidden=(4,), horizon=2), updates=2
    ),
    "ivg": ivg.Config(
        model=latent_dynamics.Config(units=4, hidden=4, layers=(4,), embedding=4, ahead=2),
        fit=LATENT_FIT,
        starts=3,
        policy=imagination.Config(hidden=(4,), horizon=2),
    ),
    "mbpo": mbpo.Config(
        policy=POLICY,
        model=ensemble.Members(member=MEMBER, size=3, elites=2),
        fit=FIT,
        batch_size=4,
        updates=2,
        rollouts=4,
        keep=2,
        last_length=2,
    ),
    "me_trpo": me_trpo.Config(
        horizon=3,
        rollouts=4,
        validate_every=1,
        max_updates=2,
        model=ensemble.Members(member=MEMBER, size=2, elites=2),
        fit=FIT,
        policy=TRUST,
    ),
    "mve": mve.Config(policy=POLICY, model=ONE_MODEL, fit=FIT, horizon=2, batch_size=4, updates=2),
    "nagabandi": nagabandi.Config(
        mpc=random_shooting.Config(horizon=3, model=ONE_PARTICLE, fit=FIT, planner=PLANNERS["random_shooting"]),
        plan_fits=1,
        dagger_rounds=0,
        round_steps=4,
        demonstrations=4,
        batch_rounds=2,
        cloning=imitation.Config(passes=2),
        tuning=TRUST,
    ),
    "pets": pets.Config(horizon=3, model=PARTICLES, fit=FIT, planner=PLANNERS["cem"]),
    "planet": planet.Config(horizon=3, updates=2, model=LATENT, fit=LATENT_FIT, planner=PLANNERS["cem"]),
    "poplin": poplin.Config(horizon=3, model=PARTICLES, fit=FIT, planner=PLANNERS["cem"], policy=CLONED),
    "random_shooting": random_shooting.Config(
        horizon=3,
        model=ONE_PARTICLE,
        fit=FIT,
        planner=PLANNERS["random_shooting"],
    ),
    "sac": sac.Config(policy=POLICY, batch_size=4, updates=2),
    "sac_svg": sac_svg.Config(policy=POLICY, model=ONE_MODEL, fit=FIT, horizon=2, batch_size=4, updates=2),
    "steve": steve.Config(policy=POLICY, model=TWO_MODELS, fit=FIT, horizon=2, batch_size=4, updates=2),
    "svg": svg.Config(policy=POLICY, model=ONE_MODEL, fit=FIT, horizon=2, batch_size=4, updates=2),
    "world_models": world_models.Config(
        model=RECURRENT,
        autoencoder_steps=2,
        autoencoder_batch=4,
        recurrent_steps=2,
        sequences=2,
        length=3,
        planner=PLANNERS["cmaes"],
        evolve_in="dream",
        episodes=2,
        horizon=3,
    ),
}
DREAMER_V3 = dataclasses.replace(
    SYSTEMS["dreamer"],
    model=RSSM["classes"],
    fit=latent.Fit(optimiser=optimisers.Config("laprop", warmup=3), batch_size=2, length=4),
    policy=imagination.Config(
        hidden=(4,), horizon=2, gradient="reinforce", distribution="normal", scale_returns=True, slow_bootstrap=False
    ),
)
LEARNERS = {
    "sac": lambda: sac_policy.make(ENV.spec, POLICY).learner,
    "td3": lambda: td3.make(ENV.spec, td3.Config(hidden=(4,))).learner,
    **{
        f"imitation/{family}": lambda f=family: imitation.make(ENV.spec, imitation.Config(hidden=(4,), family=f))
        for family in imitation.FAMILIES
    },
}
ON_POLICY = {
    "ppo": lambda: ppo.make(ENV.spec, ppo.Config(epochs=1, batch_size=3, **ON_POLICY_SIZES)),
    "trpo": lambda: trpo.make(ENV.spec, TRUST),
}
ROWS: dict[str, Callable[[], Row]] = {
    **{f"planner/{name}": lambda c=config: planner_row(c) for name, config in PLANNERS.items()},
    **{f"model/{name}": lambda m=make: model_row(m()) for name, make in MODELS.items()},
    **{
        f"model/rssm/{name}": lambda c=config: sequence_model_row(rssm.make(ENV.spec, c).world)
        for name, config in RSSM.items()
    },
    **{f"model/{name}": lambda m=make: sequence_model_row(m()) for name, make in SEQUENCE_MODELS.items()},
    **{f"learner/{name}": lambda m=make: learner_row(m()) for name, make in LEARNERS.items()},
    "learner/dqn": lambda: learner_row(dqn_policy.make(DISCRETE.spec, Q_NETWORK), world=DISCRETE),
    **{f"learner/{name}": lambda m=make: learner_row(m(), (2, 3)) for name, make in ON_POLICY.items()},
    **{f"system/{name}": lambda n=name, c=config: system_row(n, c) for name, config in SYSTEMS.items()},
    "system/pets_on_simulator": lambda: system_row(
        "pets", pets.Config(horizon=3, model=simulator.Config(), planner=cem.Config(12, 3, 2)), env=ENV
    ),
    "system/world_models_in_environment": lambda: system_row(
        "world_models", dataclasses.replace(SYSTEMS["world_models"], evolve_in="environment"), env=ENV
    ),
    **{f"env/{name}": lambda n=name: env_row(envs.make(n, episode_length=2)) for name in classic.NAMES},
    **{
        f"env/{name}": lambda n=name: env_row(envs.make(n, episode_length=2))
        for name in ("gymnax/Breakout-MinAtar", "gymnax/CartPole-v1")
        if name in envs.names()
    },
    "env/car_racing": lambda: env_row(envs.make("car_racing", size=8, episode_length=2)),
    "env/pixels": lambda: env_row(
        envs.make("pixels/cartpole", size=8, frame_stack=2, action_repeat=2, episode_length=4)
    ),
}

# Simulators that take up to a minute each to compile, and what is like a row above.
SLOW: dict[str, Callable[[], Row]] = {
    f"env/{name}": lambda n=name, o=options: env_row(envs.make(n, **o))
    for name, options in {
        **{name: {"episode_length": 2} for name in envs.names() if name.startswith(("brax/", "gymnax/"))},
        **{name: {"size": 8, "episode_length": 2} for name in envs.names() if name.startswith("pixels/")},
    }.items()
    if f"env/{name}" not in ROWS and not name.startswith("pixels/brax/")
}
SLOW |= {  # systems with other options than above, whose parts have rows and tests of their own
    "system/dreamer_v3": lambda: system_row("dreamer", DREAMER_V3),
    "system/poplin_p": lambda: system_row(
        "poplin", dataclasses.replace(SYSTEMS["poplin"], variant="p_sep", distillation="average")
    ),
    "system/pets_with_value": lambda: system_row("pets", dataclasses.replace(SYSTEMS["pets"], terminal_value=VALUE)),
    "system/svg_inf": lambda: system_row("svg", dataclasses.replace(SYSTEMS["svg"], bootstrap=False, recent=4)),
    "system/pets_with_prior": lambda: system_row("pets", dataclasses.replace(SYSTEMS["pets"], prior=CLONED)),
}
SLOW["env/pixels/brax"] = lambda: env_row(envs.make("pixels/brax/inverted_pendulum", size=8, episode_length=2))


def test_every_component_has_a_row():
    """Of what is registered, and of what is a module with ``Config`` and ``make``."""
    rows = set(ROWS) | set(SLOW)
    assert set(PLANNERS) == set(planners.PLANNERS) == {name for name, _ in listing.parts("planners")}
    assert {name.removeprefix("ensemble/") for name in MODELS if "/" in name} == set(ensemble.PROPAGATIONS)
    assert {name.split("/")[0] for name in MODELS} == set(mpc.MODELS) | {"one_step"}
    parts_of_models = {"fitting", "optimisers", "vae"}  # in the rows of what they are parts of
    assert {name for name, _ in listing.parts("models")} - parts_of_models == set(models.MODELS)
    for name in models.MODELS:
        assert any(row.split("/")[:2] == ["model", name] for row in rows), name
    for name in {name for name, _ in listing.parts("policies")} - {"imagination"}:  # in the rows of dreamer
        assert any(row.split("/")[:2] == ["learner", name] for row in rows), name
    assert set(SYSTEMS) == set(agents.SYSTEMS)
    by_hand = ("playground/", "pixels/playground/")  # an extra that CI does not have
    bodies = ("pixels/brax/",)  # pictures of what has a row
    assert {f"env/{name}" for name in envs.names() if not name.startswith(by_hand + bodies)} <= rows


class Compiled(NamedTuple):
    name: str
    row: Row
    begin: Any
    advance: Any
    traces: list


@functools.cache
def compiled(name):
    row, traces = (ROWS | SLOW)[name](), []

    @jax.jit
    def advance(key, carry):
        traces.append(name)
        return row.advance(key, carry)

    return Compiled(name, row, jax.jit(row.begin), advance, traces)


# A row's tests share its compilations, so that one worker gets them all (``--dist loadgroup``).
@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.xdist_group(name)] + [pytest.mark.slow] * (name in SLOW))
        for name in sorted(ROWS | SLOW)
    ]
)
def case(request):
    return compiled(request.param)


STEPS = 2
SEEDS = np.array([17, 18])


# JAX's checker takes a gather of some keys, or a scan over them under vmap, for the use of all of them.
MISREAD = {
    "system/world_models",
    "system/world_models_in_environment",
    "planner/icem",
    "model/rssm/classes",
    "model/rssm/gaussian",
    "system/dreamer",
    "system/dreamer_v3",
    "system/ivg",
    "system/nagabandi",
    "system/planet",
}


def begin_keys(index=0):
    """One problem's keys, made anew: for ``begin``, and for each step of ``advance``."""
    key_begin, key_steps = jax.random.split(jax.random.key(SEEDS[index]))
    return key_begin, list(jax.random.split(key_steps, STEPS))


def kinds(tree):
    """Of the leaves by path; mjx's states hold arrays beside their leaves, so that two of them have no ``==``."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda: tree))
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype, leaf.weak_type) for path, leaf in leaves}


def numbers(tree):
    return jax.tree.map(
        lambda leaf: np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf),
        tree,
    )


def close(tree, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), numbers(tree), numbers(other))


def loop(case, index=0):
    """Two compiled steps of one problem, one after another, no key used twice: every carry and every output."""
    with jax.debug_key_reuse(case.name not in MISREAD):
        key_begin, key_steps = begin_keys(index)
        carries, outputs = [case.begin(key_begin)], []
        for key in key_steps:
            carry, output = case.advance(key, carries[-1])
            carries.append(carry)
            outputs.append(output)
    return carries, outputs


def test_jit_changes_nothing(case):
    slow = ("system/", "model/rssm/", "model/mdn_rnn/", "model/latent_dynamics", "env/brax/", "env/pixels/brax")
    if case.name.startswith(slow):
        pytest.skip("up to a minute of small compilations, for what the rows or tests of its parts show")
    key_begin, key_steps = begin_keys()
    carries, outputs = loop(case)
    close(case.row.begin(key_begin), carries[0])
    close(case.row.advance(key_steps[0], carries[0]), (carries[1], outputs[0]))


def test_vmap_and_scan_are_loops(case):
    """Two problems under vmap, two steps under scan, against four steps one by one."""

    def run(seed):
        key_begin, key_steps = jax.random.split(jax.random.key(seed))
        return jax.lax.scan(
            lambda carry, key: case.row.advance(key, carry),
            case.row.begin(key_begin),
            jax.random.split(key_steps, STEPS),
        )

    many = jax.jit(jax.vmap(run))(SEEDS)
    for index in range(len(SEEDS)):
        carries, outputs = loop(case, index)
        close(
            jax.tree.map(lambda leaf, i=index: leaf[i], many),
            (carries[-1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)),
        )
    leaves = [leaf for leaf in jax.tree.leaves(numbers(many)) if leaf.dtype == bool or leaf.dtype.kind == "f"]
    assert any(np.any(leaf[0] != leaf[1]) for leaf in leaves), "two problems differ"


def test_carry_keeps_its_types_and_nothing_retraces(case):
    """Structure, shape and dtype, none of them weak; and what goes in is left as it was."""
    traced = len(case.traces)
    carries, _ = loop(case)
    before = numbers(carries)
    assert kinds(carries[1]) == kinds(carries[0])
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(jax.eval_shape(case.row.begin, begin_keys()[0])))
    loop(case, 1)
    with jax.debug_key_reuse(case.name not in MISREAD):
        case.advance(begin_keys()[1][0], carries[0])
    assert len(case.traces) <= traced + 1, "not at all if an earlier test has compiled it"
    jax.tree.map(np.testing.assert_array_equal, numbers(carries), before)


def test_a_checkpoint_gives_it_back(case, tmp_path):
    """What a compiled step left, bit for bit, keys and empty leaves included."""
    if not case.name.startswith(("system/", "env/")):
        pytest.skip("half a second of Orbax, for what the state of a system holds")
    carry = loop(case)[0][-1]
    with checkpoint.manager(tmp_path) as opened:
        checkpoint.save(opened, 1, {"carry": carry})
    found = checkpoint.restore(tmp_path, 1, jax.eval_shape(lambda: {"carry": carry}))
    assert kinds(found["carry"]) == kinds(carry)
    jax.tree.map(np.testing.assert_array_equal, numbers(found["carry"]), numbers(carry))


DIFFERENTIABLE = [name for name in ROWS if name.startswith("model/") or name.removeprefix("env/") in classic.NAMES]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in DIFFERENTIABLE])
def test_gradients_are_finite(name):
    """Of what a model imagines and scores, and of what a task's equations give, by every number in the carry."""
    case = compiled(name)
    leaves, structure = jax.tree.flatten(loop(case)[0][0])
    which = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def total(chosen):
        carry = list(leaves)
        for i, leaf in zip(which, chosen, strict=True):
            carry[i] = leaf
        results = jax.tree.leaves(case.row.advance(begin_keys()[1][0], jax.tree.unflatten(structure, carry)))
        return sum(jnp.sum(leaf) for leaf in results if jnp.issubdtype(leaf.dtype, jnp.floating))

    gradients = jax.jit(jax.grad(total))([leaves[i] for i in which])
    assert all(np.all(np.isfinite(leaf)) for leaf in gradients)
    assert any(np.any(leaf != 0) for leaf in gradients)
