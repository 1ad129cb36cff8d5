"""What runs in a process of its own: it may end that one, and has what every process has anew."""

import ctypes
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from hyvideo_rt.errors import EngineError, HyVideoError

Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1


def apart(run: Callable[..., Result], *arguments: object) -> Result:
    """What it returns or raises in a fresh process. Raises EngineError where that ends without a word."""
    context = multiprocessing.get_context("spawn")
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, run, arguments))
    process.start()
    sender.close()
    try:
        found: Result | Exception = answer.recv()
    except EOFError:
        process.join()
        raise EngineError(f"the process of {run.__name__} {_end(process.exitcode)}") from None
    process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send(sender: Connection, run: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """In the new process, which ends when the old one does, however that ends.

    A signal that ends it leaves the stacks of its threads in the standard error, C++ included.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch._C._set_print_stack_traces_on_fatal_signal(True)
    try:
        found: object = run(*arguments)
    except HyVideoError as error:
        found = error
    except Exception as error:  # of a library, whose class this process may not even have
        found = EngineError(f"{type(error).__name__}: {error}")
    sender.send(found)


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
