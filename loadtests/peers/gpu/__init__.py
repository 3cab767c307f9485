"""Ours and PyTorch on the same GPU, in turns, in one process: `python -m loadtests.peers gpu`."""
