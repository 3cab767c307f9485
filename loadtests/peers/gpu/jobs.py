"""All comparisons on a device.

A BERT of base size and a Llama of about 1B parameters, both of random weights, and MiniLM from
strings on. The two ceilings, a large copy and large products of matrices, are measured in the same
run.
"""

from collections.abc import Iterator
from functools import partial

from loadtests.peers.comparison import Comparison
from loadtests.peers.gpu.decoder import decoders
from loadtests.peers.gpu.device import Device, ceilings
from loadtests.peers.gpu.encoder import encoders
from loadtests.peers.gpu.models import Sizes
from loadtests.peers.gpu.over_http import over_http
from loadtests.peers.gpu.sides import comparison
from loadtests.peers.stage import Run


def gpu(run: Run, device: Device, sizes: Sizes) -> Iterator[Comparison]:
    """All comparisons, one after another."""
    limits = ceilings(device, sizes.ceiling)
    show = partial(comparison, run, device, limits)
    yield from encoders(run, device, sizes, show)
    yield from decoders(run, device, sizes, show)
    yield from over_http(run, device, sizes, show)
