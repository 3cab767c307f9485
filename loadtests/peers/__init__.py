"""Ours and others on the same work, in turns, in one run: `python -m loadtests.peers --help`."""
