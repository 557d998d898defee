"""Asking a run to stop: the first signal is kept for the end of an epoch."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from jaxmbrl.training.progress import say


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Yield a list that receives the first SIGINT or SIGTERM; a second one acts as usual.

    Only the main thread may handle signals; elsewhere the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])
        say(f"{signal.Signals(number).name}: saving after this epoch; once more to stop at once")

    try:
        for number in before:
            signal.signal(number, stop)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
