"""Texts to try models on: the standard library's own documentation, and old books and speeches."""

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
from pathlib import Path

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


@cache
def passages() -> tuple[str, ...]:
    """How some books and speeches of 1776 to 1865 begin, which are in the public domain."""
    whole = Path(__file__).with_name("passages.txt").read_text(encoding="utf-8")
    return tuple(passage.strip() for passage in whole.split("\n%%\n"))
