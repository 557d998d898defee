"""Keep what third-party libraries print while they load away from the user's terminal."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send whatever is printed inside the block nowhere: Python's, and C code's at the file descriptors.

    Brax and MJX report optional packages that are missing on standard output, and MuJoCo's C library writes to
    standard error. Errors are raised as ever. The descriptors belong to the whole process, so what other threads
    print meanwhile is lost too: keep the block short.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
    finally:
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
