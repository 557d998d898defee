"""The command line: ``jaxmbrl list | train | sweep | resume | evaluate | report | export``.

This module imports neither JAX nor a simulator, so that help and mistakes are answered at once.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmbrl import __version__
from jaxmbrl.cli.words import Parser, positive_number, split_dotted, whole_number
from jaxmbrl.config import ConfigError

__all__ = ["main"]

USAGE_ERROR = 2
FAILURE = 1
DISK = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS)
LONGEST = 600  # Characters of a message; what lies in between is cut out.

EXAMPLES = """\
examples:
  jaxmbrl list
  jaxmbrl train pets cartpole_swingup --seed 0
  jaxmbrl train pets cartpole_swingup --help                  all fields, with their defaults
  jaxmbrl train pets pendulum --seeds 8 --agent.planner mppi --schedule.epochs 20
  jaxmbrl resume runs/RUN
  jaxmbrl evaluate runs/RUN --episodes 20
  jaxmbrl report runs/RUN runs/OTHER -o report.html
  jaxmbrl export runs/RUN -o act.jaxexport
"""

SWEEP = """\
fields:
  --vary agent.planner.alpha=0.1,0.3 --vary agent.horizon=15,25    the product of lists
  --vary agent.fit.learning_rate=log:1e-4..1e-2 --sample 20        draws from ranges, or from lists
  --agent.FIELD V, --env.FIELD V, --schedule.FIELD V               the same for all, as for train

Configurations that differ in numbers with a point are one program; all others are compiled by themselves.
"""

TRAIN = """\
Every field of the system, the schedule and the environment is an option of its own:

  --agent.FIELD VALUE     such as --agent.planner mppi, --agent.planner.population 200
  --schedule.FIELD VALUE  such as --schedule.epochs 20
  --env.FIELD VALUE       such as --env.episode_length 500

'jaxmbrl train SYSTEM ENV --help' lists them with their defaults; 'jaxmbrl list' lists SYSTEM and ENV.
"""


_STYLE: dict[str, Any] = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the words after ``jaxmbrl``; those of the process by default.

    Returns:
        The exit code: 0, also for a run that SIGTERM asked to stop; 2 for a mistake in the command line, 1 for a run
        that failed, 130 for Ctrl-C. A mistake or failure is one line on standard error.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        return _fail(error, USAGE_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # The reader has enough, as in 'jaxmbrl list | head -1'.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RuntimeError, MemoryError, OSError) as error:
        if not _is_expected(error):
            raise
        return _fail(error, FAILURE)


def parsers() -> tuple[Parser, Parser]:
    """The skeleton of the command line, and its ``train``; dotted options are taken out before they see a line."""
    root = Parser(prog="jaxmbrl", description="Model-based reinforcement learning in JAX.", epilog=EXAMPLES, **_STYLE)
    root.add_argument("--version", action="version", version=f"jaxmbrl {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    commands.add_parser("list", help="list systems, environments, planners and models", **_STYLE)

    train = commands.add_parser("train", help="start a run", epilog=TRAIN, add_help=False, **_STYLE)
    train.add_argument("system", nargs="?", metavar="SYSTEM", help="such as pets")
    train.add_argument("env", nargs="?", metavar="ENV", help="such as cartpole_swingup or brax/hopper")
    train.add_argument("--preset", default="small", help="sizes to start from: small or paper (default: small)")
    train.add_argument("--seed", type=whole_number(0), default=0, help="the first seed (default: 0)")
    train.add_argument("--seeds", type=whole_number(1), default=1, help="how many, as one program (default: 1)")
    one = "spread a single seed's run over all devices: environments, candidates, imagined batches, ensemble members"
    train.add_argument("--shard", action="store_true", help=one)
    train.add_argument("--run-dir", type=Path, metavar="DIR", help="a new directory (default: runs/SYSTEM-ENV-TIME)")
    every = "between checkpoints; the last epoch always has one (default: 1)"
    train.add_argument("--checkpoint-every", type=whole_number(1), default=1, metavar="EPOCHS", help=every)
    also = "also log to tensorboard, wandb or wandb_offline; several with commas between"
    train.add_argument("--sink", default="", metavar="NAMES", help=also)
    cost = "measure and trace each phase of an epoch first: time, memory, FLOPs"
    train.add_argument("--profile", action="store_true", help=cost)
    train.add_argument("-h", "--help", action="store_true", help="this text; with SYSTEM and ENV, all fields")

    sweep = commands.add_parser("sweep", help="many configurations and seeds, as few programs", epilog=SWEEP, **_STYLE)
    sweep.add_argument("system", metavar="SYSTEM", help="such as pets")
    sweep.add_argument("env", metavar="ENV", help="such as cartpole_swingup or brax/hopper")
    sweep.add_argument("--vary", action="append", default=[], metavar="FIELD=V1,V2", help="what varies; several times")
    sweep.add_argument("--sample", type=whole_number(0), default=0, metavar="N", help="draw N configurations")
    sweep.add_argument("--preset", default="small", help="sizes to start from: small or paper (default: small)")
    sweep.add_argument("--seed", type=whole_number(0), default=0, help="the first seed (default: 0)")
    sweep.add_argument("--seeds", type=whole_number(1), default=4, help="of each configuration (default: 4)")
    sweep.add_argument("--memory", type=positive_number, metavar="GIB", help="for the states of a wave of runs")
    place = "a new directory, or that of the same sweep, to finish it (default: runs/sweep-SYSTEM-ENV-TIME)"
    sweep.add_argument("--run-dir", type=Path, metavar="DIR", help=place)
    often = "between the checkpoints of a wave of runs (default: 60)"
    sweep.add_argument("--checkpoint-seconds", type=positive_number, default=60.0, metavar="S", help=often)
    hosts = sweep.add_argument_group("several processes", "on one host or many; nothing need be said under srun")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    hosts.add_argument("--processes", type=whole_number(1), metavar="N", help="how many there are")
    hosts.add_argument("--process", type=whole_number(0), metavar="I", help="which this one is, from 0 on")
    sweep.set_defaults(checkpoint_every=1, sink="")

    resume = commands.add_parser("resume", help="continue a run, bit for bit", **_STYLE)
    resume.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    resume.add_argument("--epochs", type=whole_number(1), help="a new total, to extend the run")
    resume.add_argument("--shard", action="store_true", help=f"{one}; whether or not it was before")

    evaluate = commands.add_parser("evaluate", help="run episodes without exploration, and record one", **_STYLE)
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    evaluate.add_argument("--episodes", type=whole_number(1), default=20, help="for each seed (default: 20)")
    evaluate.add_argument("--seed", type=whole_number(0), default=0, help="of the evaluation (default: 0)")

    report = commands.add_parser(
        "report", help="write a page on runs and sweeps, and on what models are worth", **_STYLE
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of runs and sweeps")
    page = "the page (default: report.html)"
    report.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help=page)
    fresh = "fresh ones for each examined seed; 0 to show what was logged only (default: 5)"
    report.add_argument("--episodes", type=whole_number(0), default=5, help=fresh)
    report.add_argument("--seeds", type=whole_number(1), default=2, help="of each run to examine (default: 2)")
    report.add_argument("--seed", type=whole_number(0), default=0, help="of the fresh episodes (default: 0)")

    export = commands.add_parser("export", help="write how a run acts, as a file that JAX alone can load", **_STYLE)
    export.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: RUN/act.jaxexport)")
    export.add_argument("--seed", type=whole_number(0), help="of the run's seeds (default: its first)")
    return root, train


def _run(argv: Sequence[str]) -> int:
    words, dotted = split_dotted(argv)
    root, train = parsers()
    if not words:
        root.print_help()
        return 0
    arguments = root.parse_args(words)
    if arguments.command == "train" and arguments.help:
        train.print_help()
        if not (arguments.system and arguments.env):
            return 0
    if arguments.command not in ("train", "sweep"):
        _refuse(dotted, arguments.command)
    from jaxmbrl.cli import commands

    match arguments.command:
        case "sweep":
            return commands.sweep(arguments, dotted)
        case "list":
            return commands.show_list()
        case "resume":
            return commands.resume(arguments)
        case "evaluate":
            return commands.evaluate(arguments)
        case "report":
            return commands.report(arguments)
        case "export":
            return commands.export(arguments)
    return (commands.show_fields if arguments.help else commands.train)(arguments, dotted)


def _refuse(dotted: dict[str, dict[str, str]], command: str) -> None:
    for section, words in dotted.items():
        for path in words:
            raise ConfigError(f"--{section}.{path}: got it for '{command}', needs 'train': a run keeps its fields")


def _is_expected(error: Exception) -> bool:
    """Whether one line says all: a value that is not finite, too little memory, or a disk that takes no more."""
    if isinstance(error, OSError):
        return error.errno in DISK
    names = {kind.__name__ for kind in type(error).__mro__}  # Not the classes themselves, which live beside JAX.
    return bool(names & {"NonFiniteError", "StorageError", "MemoryError"}) or "RESOURCE_EXHAUSTED" in str(error)


def _fail(error: object, code: int) -> int:
    line = " ".join(str(error).split())
    line = line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print(f"jaxmbrl: error: {line}", file=sys.stderr, flush=True)  # noqa: T201
    return code
