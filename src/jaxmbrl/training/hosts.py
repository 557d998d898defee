"""One program's processes on several hosts, or on the accelerators of one, joined by `jax.distributed`."""

import os
from typing import NamedTuple

import jax

from jaxmbrl.config import ConfigError

STEP_TASKS = "SLURM_STEP_NUM_TASKS"  # Set by srun, not in a batch script that starts a single process.


class Host(NamedTuple):
    """Which of ``processes`` this one is."""

    process: int
    processes: int


ALONE = Host(0, 1)


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Host:
    """Meet the other processes, and be given a share of the devices; `ALONE` where there is no sign of others.

    Call it before anything touches an array.

    Args:
        coordinator: ``HOST:PORT`` of process 0; under SLURM (several tasks started by ``srun``) nothing need be said.
        processes: how many there are.
        process: which this one is, from 0 on.

    Raises:
        ConfigError: something is missing or out of range, or the others did not come.
    """
    if coordinator is None:
        for name, value in (("processes", processes), ("process", process)):
            if value is not None:
                raise ConfigError(f"{name}: got {value}, needs --coordinator HOST:PORT beside it")
        tasks = os.environ.get(STEP_TASKS, "1")
        if not tasks.isdecimal():
            raise ConfigError(f"{STEP_TASKS}: got {tasks!r}, needs a number, as srun sets it")
        if int(tasks) <= 1:
            return ALONE
    else:
        _check(coordinator, processes, process)
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"coordinator: got {coordinator or 'SLURM'}, which could not be joined ({reason})") from error
    return Host(jax.process_index(), jax.process_count())


def _check(coordinator: str, processes: int | None, process: int | None) -> None:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ConfigError(f"coordinator: got {coordinator!r}, needs HOST:PORT")
    for name, value in (("processes", processes), ("process", process)):
        if value is None:
            raise ConfigError(f"{name}: got none, needs a number beside --coordinator")
    assert processes is not None
    assert process is not None
    if not 0 <= process < processes:
        raise ConfigError(f"process: got {process}, needs 0 to {processes - 1}, below --processes")
