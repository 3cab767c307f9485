"""Texts to try models on: the standard library's own documentation."""

import argparse
import collections
import datetime
import decimal
import heapq
import inspect
import logging
import pathlib
import statistics
import string
import subprocess
import textwrap
import threading
from functools import cache

MODULES = (
    argparse, collections, datetime, decimal, heapq, inspect, logging, pathlib, statistics, string,
    subprocess, textwrap, threading,
)  # fmt: skip


@cache
def prose() -> tuple[str, ...]:
    """Docstrings of modules, classes and functions, in one fixed order."""
    found: list[str] = []
    for module in MODULES:
        members = [module, *(member for _, member in inspect.getmembers(module, callable))]
        found += [text for member in members if (text := inspect.getdoc(member))]
    return tuple(dict.fromkeys(found))
