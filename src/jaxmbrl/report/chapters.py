"""What a page says of one run's findings: figures of its model, and tables of numbers."""

from collections.abc import Iterator

import numpy as np

from jaxmbrl.diagnostics import calibration, mismatch
from jaxmbrl.report import figures, story
from jaxmbrl.report.markup import UNKNOWN, figure, number
from jaxmbrl.report.probe import Findings, OneStep, OpenLoop
from jaxmbrl.report.story import Story
from jaxmbrl.training.progress import counted

MIDDLE = 5  # steps ahead, of a calibration curve between one step and all of them


def of_model(one: Story) -> Iterator[str]:
    """Figures of what the checkpoint's model predicts, each where it means something."""
    found = one.findings
    if found is None or found.open_loop is None:
        return
    drift = found.open_loop
    note = """Root mean square over fresh episodes, imagined under the actions that were taken. A model that knows what
    it does not know has the dashed line on the solid one."""
    yield figure("Model error by horizon", figures.model_error(drift), note)
    note = """How often central predictive intervals held what happened. Below the diagonal the model is too sure, above
    it not sure enough. The error is the mean distance from it."""
    yield figure("Calibration", figures.reliability(reliability_curves(found)), note)
    note = (
        f"""Stretches of {drift.square_error.shape[1]} steps: what the model imagines they return, and what they did."""
    )
    yield figure("Return predicted and obtained", figures.returns(drift), note)
    if found.regret is not None:
        note = """From the same states, with the same planner and random numbers: what plans on the learned model and on
        the simulator itself return in the simulator. The line between them is the regret."""
        yield figure("Planner regret", figures.regret(found.regret), note)
    if found.one_step is not None:
        note = """What an error of one step's typical size changes the imagined return by, to first order: median and
        quartiles over stretches. Early errors live on in all later steps."""
        yield figure("What an error costs", figures.stakes(found.one_step), note)


def reliability_curves(found: Findings) -> dict[str, np.ndarray]:
    """Coverage [L] of one step's density, and of particles after some steps."""
    curves = {}
    if found.one_step is not None:
        curves["one step, density"] = _coverage(found.one_step.below, found.one_step.running)
    drift = found.open_loop
    if drift is not None:
        last = drift.below.shape[1]
        ahead = [step for step in (1, MIDDLE) if step < last] if found.one_step is None else [min(MIDDLE, last)]
        for step in dict.fromkeys([*ahead, last]):
            name = f"{counted(step, 'step')} ahead"
            curves[name] = _coverage(drift.below[:, step - 1], drift.running[:, step - 1])
    return curves


def measures(one: Story) -> Iterator[tuple[str, str, str]]:
    """The findings as numbers: name, value, meaning."""
    found = one.findings
    if found is None:
        return
    shown = f"{number(found.returns.mean())} ± {number(found.returns.std())}"
    yield "return of fresh episodes", shown, f"mean and deviation of {len(found.returns)}, without exploration"
    if found.one_step is not None:
        yield from _of_steps(found.one_step, found.returns)
    if found.open_loop is not None:
        yield from _of_stretches(found.open_loop)
    if found.regret is not None:
        gap, room = found.regret.true - found.regret.learned, found.regret.true - found.regret.random
        yield (
            "planner regret",
            number(float(gap.mean())),
            "true return of plans on the simulator less that of plans on the model",
        )
        share = float(gap.mean() / room.mean()) if room.mean() > 0 else np.nan
        yield "share of what planning gains", f"{number(100 * share)}%", "regret over the gain on random actions"


def _of_steps(found: OneStep, returns: np.ndarray) -> Iterator[tuple[str, str, str]]:
    surprise = np.where(found.running, found.surprise, np.nan)
    if not np.isfinite(surprise).any():
        return
    yield (
        "one-step surprise",
        number(float(np.nanmean(surprise))),
        "negative log-likelihood of fresh steps, nats an entry",
    )
    yield "the same of replayed steps", number(found.replayed.mean()), "of the data that the model was fitted on"
    if len(returns) > 2:
        rank = mismatch.rank_correlation(-np.nanmean(surprise, axis=1), returns)
        yield "likelihood and return", number(float(rank)), "rank correlation over the fresh episodes"


def _of_stretches(found: OpenLoop) -> Iterator[tuple[str, str, str]]:
    steps = found.square_error.shape[1]
    error, expected = (np.sqrt(_mean(x[:, -1], found.running[:, -1])) for x in (found.square_error, found.var))
    yield f"error {steps} steps ahead", number(error), "standard deviations of the observation"
    yield "as the model expects it", number(expected), "spread of its particles"
    difference = found.predicted - found.obtained
    scale = found.obtained.std()
    share = f"{number(100 * np.abs(difference).mean() / scale)}%" if scale > 0 else UNKNOWN
    yield (
        "error of predicted returns",
        number(np.abs(difference).mean()),
        f"mean of absolute values, {share} of their spread",
    )
    yield "bias of predicted returns", number(difference.mean()), "above 0 where the model promises too much"


def machine(one: Story) -> Iterator[tuple[str, str]]:
    """Compile times and memory of every process that ran it, and its pace."""
    for place, session in enumerate(one.sessions, 1):
        name = f"process {place}, from epoch {session.get('from_epoch', 0)}"
        ready = session.get("compile_seconds", {})
        yield f"{name}: compiled", ", ".join(f"{part} after {seconds:.1f} s" for part, seconds in ready.items())
        yield f"{name}: state", f"{session.get('state_bytes', 0) / 2**20:,.1f} MiB"
        yield f"{name}: on", f"{session.get('device', '')}, {session.get('devices', 1)} in use"
    for name, cost in one.sessions[-1].get("profile", {}).items() if one.sessions else ():
        mark = "at least " if cost["at_least"] else ""
        spent = f"{1e3 * cost['seconds']:.3g} ms, {mark}{cost['flops'] / 1e9:.3g} GFLOP"
        yield f"{name}, a call of {cost['calls']} an epoch", f"{spent}, {cost['peak_bytes'] / 2**20:,.1f} MiB"
    yield "environment steps a second", f"{pace(one)}, of all seeds together, learning included"


def pace(one: Story) -> str:
    """Environment steps a second of all seeds, from the first epoch's end to the last one's."""
    total = story.curve(one.rows, "env_steps")
    clock = story.curve(one.rows, "wall_seconds")
    if total is None or clock is None or total.values.shape[1] < 2:
        return UNKNOWN
    made = np.nansum(total.values[:, -1] - total.values[:, 0])
    passed = np.nanmax(clock.values[:, -1]) - np.nanmax(clock.values[:, 0])
    return f"{made / passed:,.0f}" if passed > 0 else UNKNOWN


def compile_seconds(one: Story) -> str:
    """Of the first process, until all programs were ready."""
    times = one.sessions[0].get("compile_seconds", {}) if one.sessions else {}
    return f"{max(times.values()):.1f}" if times else UNKNOWN


def last_return(one: Story) -> str:
    """Mean over seeds, and their deviation, at the last epoch that measured one."""
    curve = story.learning(one)
    if curve is None:
        return UNKNOWN
    known = curve.values[:, np.isfinite(curve.values).any(axis=0)][:, -1]
    known = known[np.isfinite(known)]
    spread = f" ± {number(known.std())}" if len(known) > 1 else ""
    return f"{number(known.mean())}{spread}"


def _coverage(below: np.ndarray, running: np.ndarray) -> np.ndarray:
    return np.asarray(calibration.coverage(below, np.asarray(calibration.NOMINAL), running[..., None]))


def _mean(values: np.ndarray, running: np.ndarray) -> float:
    return float(np.sum(values * running) / max(running.sum(), 1))
