"""Standard input, output and error of a process that was started without them."""

import os
import sys
from pathlib import Path

STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def occupy_standard_descriptors() -> None:
    """Open the null device for each that is closed.

    Else the next socket gets its number, and what a library writes to standard error (ONNX Runtime
    does, in C++) goes into the connection of a client. Python's own stream is None then, which
    uvicorn's log doesn't expect.
    """
    for descriptor, name, mode in STREAMS:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, and that is this one: those below are open.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end
