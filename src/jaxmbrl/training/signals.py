"""Asking a run to stop: the first signal is kept for the end of an epoch, and SIGTERM does not wait for long."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxmbrl.training.progress import say

GRACE = 8.0  # Seconds from SIGTERM to the end; those who send it often kill after ten.


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Yield a list that receives the first SIGINT or SIGTERM; a second one acts as usual.

    `GRACE` seconds after a SIGTERM the process ends with code 0, even in the middle of an epoch or a compilation: its
    last checkpoint stands. Only the main thread may handle signals; elsewhere the list stays empty.
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
        with _deadline():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """End the process `GRACE` seconds after a SIGTERM, unless the block is left before.

    A handler runs only between two steps of Python, and an epoch is one step that may take minutes. So a thread listens
    to what the interpreter writes as soon as a signal arrives.
    """
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ear,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        mouth.close()


def _watch(ear: socket.socket) -> None:
    end = None
    with ear:
        while select.select([ear], [], [], None if end is None else max(end - time.monotonic(), 0.0))[0]:
            heard = ear.recv(1)
            if not heard:  # The block was left.
                return
            if heard[0] == signal.SIGTERM and end is None:
                end = time.monotonic() + GRACE
    say("SIGTERM: stopped in the middle of an epoch; the last checkpoint stands")
    os._exit(0)
