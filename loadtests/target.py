"""Which services a load test may be pointed at: this machine's, unless somebody says otherwise."""

import ipaddress
import os
from urllib.parse import urlsplit

ANYWHERE_VARIABLE = "LOADTESTS_ANYWHERE"
OWN_VARIABLES = (ANYWHERE_VARIABLE, "LOADTESTS_CORPUS", "LOADTESTS_API_KEY")


class TargetRefused(Exception):
    """A load test was pointed at another machine without being told that this is meant."""


def check_target(url: str) -> str:
    """`url`, if it is on loopback or `LOADTESTS_ANYWHERE=1` is set; raises `TargetRefused`."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or os.environ.get(ANYWHERE_VARIABLE) == "1":
        return url
    raise TargetRefused(
        f"{url!r} is not on this machine; a load test of somebody's service is their decision: "
        f"set {ANYWHERE_VARIABLE}=1 if it is yours"
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
