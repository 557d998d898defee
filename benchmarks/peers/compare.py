"""jaxmbrl beside mbrl-lib in one run, alternating (install it first: benchmarks/peers/install.sh).

    python -m benchmarks.peers.compare plan  [--at small paper_cartpole paper_halfcheetah] [--repeats 5] [--threads N]
    python -m benchmarks.peers.compare sac   [--repeats 5] [--threads N]
    python -m benchmarks.peers.compare solve [--system pets] [--seeds 1] [--limit 900] [--threads N]

``plan`` times one CEM planning call at equal sizes, ``sac`` one gradient step of SAC at half-cheetah's. ``solve``
times each one's PETS or MBPO on the continuous cart-pole until the pole stands for a whole episode of 200 steps, of
training or, for MBPO, of an evaluation after every 200 steps: ours with its `small` preset, compilation included;
theirs with its stock settings (MBPO's 5,000 first steps of an untrained policy cut to 200 random ones, as ours), or
until ``--limit`` seconds have passed, and then the ratio is a lower bound.

One difference remains at equal sizes: our candidates share the noise of their particles (common random numbers),
mbrl-lib draws noise for each.
"""

import argparse
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from benchmarks import planning, timing, updates
from benchmarks.sizes import NAMES, Sizes, named
from benchmarks.timing import Timing

PYTHON = timing.ROOT / ".venv-mbrl" / "bin" / "python"
WORKER = timing.ROOT / "benchmarks" / "peers" / "mbrl_worker.py"
PROPAGATION = {"ts1": "random_model", "tsinf": "fixed_model"}  # mbrl-lib's names
EVALUATED = {"pets": 0, "mbpo": 1}  # episodes that each system is evaluated for after an epoch, as the peer does
SHORT = 0.2  # seconds; shorter planning calls are timed several at a time


class Peer:
    """mbrl-lib in a process of its own: one request, one answer."""

    def __init__(self) -> None:
        if not PYTHON.exists():
            raise SystemExit(f"{PYTHON.parent.parent.name} is missing: run benchmarks/peers/install.sh")
        self._process = subprocess.Popen([PYTHON, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peer's process ended with code {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare_plan(peer: Peer, sizes: Sizes, repeats: int) -> dict[str, Any]:
    """Planning calls of either in turn, at equal sizes."""
    request = {**dataclasses.asdict(sizes), "propagation": PROPAGATION[sizes.propagation]}
    del request["in_turn"]  # how we lay the members out is no matter of the peer's
    call = planning.make_call(sizes)
    timing.measure(call)  # compiles
    calls = max(1, round(SHORT / timing.measure(call).wall))

    def theirs() -> Timing:
        return Timing(**peer.ask(do="plan", calls=calls, **request))

    timings = timing.alternate({"ours": lambda: timing.measure(call, calls), "theirs": theirs}, repeats)
    flop = planning.flops(sizes)
    timing.note(f"{sizes}: {timings}")
    return {
        "sizes": dataclasses.asdict(sizes),
        "repeats": repeats,
        **{f"{name}_seconds": timing.median(timings[name]).wall for name in timings},
        **{f"{name}_cpu_seconds": timing.median(timings[name]).cpu for name in timings},
        **{f"{name}_gflops": flop / timing.median(timings[name]).wall / 1e9 for name in timings},
        "times_faster": timing.ratio(timings["theirs"], timings["ours"]).wall,
        "times_faster_cpu": timing.ratio(timings["theirs"], timings["ours"]).cpu,
    }


def compare_sac(peer: Peer, repeats: int, width: int = 256, batch: int = 256, steps: int = 50) -> dict[str, Any]:
    """Gradient steps of either in turn: one seed, and two of ours as one program against two of theirs in a row."""
    request = {"obs": updates.OBS, "action": updates.ACTION, "width": width, "batch": batch, "steps": steps}
    one, two = (updates.make_steps(width, batch, steps, seeds) for seeds in (1, 2))

    def ours(run: Callable[[], Any], seeds: int) -> Timing:
        seconds = timing.measure(run)
        return Timing(seconds.wall / (steps * seeds), seconds.cpu / (steps * seeds))

    timings = timing.alternate(
        {
            "ours": lambda: ours(one, 1),
            "two_of_ours": lambda: ours(two, 2),
            "theirs": lambda: Timing(**peer.ask(do="sac", **request)),
        },
        repeats,
    )
    return {
        **request,
        "repeats": repeats,
        **{f"{name}_milliseconds": timing.median(timings[name]).wall * 1e3 for name in timings},
        **{f"{name}_cpu_milliseconds": timing.median(timings[name]).cpu * 1e3 for name in timings},
        "times_faster": timing.ratio(timings["theirs"], timings["ours"])._asdict(),
        "times_the_updates_of_two_seeds": timing.ratio(timings["theirs"], timings["two_of_ours"])._asdict(),
    }


def solve_ours(system: str, seed: int) -> dict[str, Any]:
    """A system's `small` preset on cart-pole, an epoch at a time, until an episode reaches its time limit."""
    import jax
    import jax.numpy as jnp

    from jaxmbrl import agents, envs, replay, training
    from jaxmbrl.training import compiling, devices

    wall, cpu = time.perf_counter(), time.process_time()
    env = envs.make("cartpole")
    module = agents.load(system)
    config, schedule = module.preset("small", env.spec)
    schedule = dataclasses.replace(schedule, eval_episodes=EVALUATED[system])
    loop = training.make_loop(env, module.make(env.spec, config, env=env), schedule)
    key = jax.random.key(seed)
    template = devices.placed(jax.eval_shape(loop.init, key), 1)
    state, epoch, _ = compiling.start(loop, env.spec, key, template, None)
    compiled = time.perf_counter()

    def whole(state: Any) -> Any:  # of each step taken so far: whether it completed an episode
        data = replay.transitions(state.replay)
        return (data.truncated & ~data.terminated)[:, 0]

    trained = evaluated = False
    for _ in range(schedule.epochs):
        state, metrics = epoch(state)
        trained = bool(jnp.any(whole(state)))
        evaluated = float(metrics.get("eval_return", 0.0)) >= env.spec.episode_length  # a reward of 1 a step
        if trained or evaluated:
            break
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "compile_seconds": compiled - wall,
        "solved": trained or evaluated,
        "env_steps": int(jnp.argmax(whole(state))) + 1 if trained else int(state.env_steps),
    }


def compare_solve(peer: Peer, system: str, seeds: int, limit: float) -> dict[str, Any]:
    """Runs of either in turn, a seed at a time."""
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        ours = solve_ours(system, seed)
        timing.note(f"seed {seed}, ours: {ours}")
        theirs = peer.ask(do=system, seed=seed, limit=limit)
        timing.note(f"seed {seed}, theirs: {theirs}")
        ratio = theirs["wall"] / ours["wall"] if ours["solved"] else None
        runs.append({"seed": seed, "ours": ours, "theirs": theirs, "times_faster": ratio})
    return {"system": system, "limit": limit, "runs": runs}


def main() -> None:
    """Run the chosen comparison and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "sac", "solve"))
    parser.add_argument("--at", nargs="+", choices=NAMES, default=NAMES, help="plan: sizes")
    parser.add_argument("--repeats", type=int, default=5, help="plan, sac: of each, alternating")
    parser.add_argument("--system", choices=tuple(EVALUATED), default="pets", help="solve: what learns")
    parser.add_argument("--seeds", type=int, default=1, help="solve: runs of each")
    parser.add_argument("--limit", type=float, default=900.0, help="solve: seconds that the peer gets for a run")
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    peer = Peer()
    run: Callable[[], dict[str, Any]]
    if arguments.what == "plan":
        run = lambda: {name: compare_plan(peer, named(name), arguments.repeats) for name in arguments.at}  # noqa: E731
    elif arguments.what == "sac":
        run = lambda: compare_sac(peer, arguments.repeats)  # noqa: E731
    else:
        run = lambda: compare_solve(peer, arguments.system, arguments.seeds, arguments.limit)  # noqa: E731
    try:
        timing.report(f"peers.{arguments.what}", run())
    finally:
        peer.close()


if __name__ == "__main__":
    main()
