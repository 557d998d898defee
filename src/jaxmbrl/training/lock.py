"""A run or a process's share of a sweep is computed by one process at a time: two would write the same files."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from jaxmbrl.config import ConfigError


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold ``path``, which is made if need be and stays behind; a process that ends lets go of it, however it ends.

    A file system that knows no locks is taken at its user's word.

    Raises:
        ConfigError: another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"run_dir: got {path.parent}, which another process is at, needs its end first") from None
        except OSError:
            pass
        yield
