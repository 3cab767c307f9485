"""Where the service's log goes: standard error, under Ray Serve as under plain uvicorn."""

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def log_to_stderr() -> None:
    """Give the service's loggers a handler of their own; calling it again changes nothing.

    Ray Serve's replicas set up no handler for other loggers than Serve's, so that an unexpected
    error would leave no trace there.
    """
    logger = logging.getLogger("service")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
