"""The words of a command line: dotted options apart from the others, and mistakes as one line."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from jaxmbrl.config import ConfigError, near

SECTIONS = ("agent", "env", "schedule")


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raise ``message``, and say where the fields of a configuration are set."""
        hint = "; fields are set as --agent.FIELD, --env.FIELD, --schedule.FIELD" if "unrecognized" in message else ""
        raise ConfigError(message + hint)


def exit_code(run: Callable[[list[str]], None]) -> int:
    """Run a script on the words of its command line.

    Args:
        run: of these words; raises ConfigError.

    Returns:
        0, or 2 for a mistake, which is one line on standard error.
    """
    try:
        run(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def split_dotted(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Take the dotted options out of a command line.

    Args:
        words: such as ``["pets", "--agent.horizon", "5", "--schedule.epochs=9"]``.

    Returns:
        The other words, and for each of `SECTIONS` a table from paths to texts.

    Raises:
        ConfigError: an option without a value, or of another section.
    """
    rest: list[str] = []
    dotted: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        option, equals, text = word.partition("=")
        section, dot, path = option.removeprefix("--").partition(".")
        if not (option.startswith("--") and dot):
            rest.append(word)
            continue
        if section not in SECTIONS or not path:
            needs = " or ".join(f"--{name}.FIELD" for name in SECTIONS)
            raise ConfigError(f"{option}: no such option{near(section, SECTIONS)}; needs {needs}")
        if not equals:
            if not queue or queue[0].startswith("--"):
                raise ConfigError(f"{option}: got no value, needs one")
            text = queue.pop(0)
        dotted[section][path.replace("-", "_")] = text
    return rest, dotted


def positive_number(text: str) -> float:
    """A type for argparse: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, needs a number above 0")
    return number


def whole_number(low: int) -> Callable[[str], int]:
    """A type for argparse: a whole number that is at least ``low``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"got {text!r}, needs a whole number, at least {low}")
        return number

    return read
