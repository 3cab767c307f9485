"""The graphs of an inspection artifact, ready to run: padded rows in, what is seen out."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.artifact import GRAPH, LENS_GRAPH, Artifact, ArtifactError, Inspection
from export.session import Provider, Session, reproduces_golden
from service.inspection.sequences import TokenRow
from service.messages import Floats

Array = NDArray[Any]

LENS_ROWS = 64
"""States that are read as logits at a time: a row is as wide as the vocabulary."""


class InspectionGraphs:
    """Sessions of one thread each on the CPU, opened when they are first needed.

    A model that nobody looks into takes no memory for it.
    """

    def __init__(self, artifact: Artifact) -> None:
        if artifact.manifest.inspection is None:
            raise ArtifactError(f"{artifact.folder} is no inspection graph")
        self.artifact = artifact
        self.inspection: Inspection = artifact.manifest.inspection
        self._sessions: dict[str, Session] = {}
        self._opening = Lock()

    def run(
        self, rows: Sequence[TokenRow], target: TokenRow | None, outputs: Sequence[str]
    ) -> dict[str, Array]:
        """The named outputs for rows that are padded to one length; `target` is the only one's."""
        found = self._session(GRAPH).run(self._feeds(rows, target), outputs)
        return dict(zip(outputs, found, strict=True))

    def likeliest(
        self, states: Floats, top: int, go_on: Callable[[], None]
    ) -> tuple[Array, Floats]:
        """Of states [N, E] read as if they were the last: the likeliest next tokens [N, top] and
        their probabilities. `go_on` is called between runs, and may raise."""
        session = self._session(LENS_GRAPH)
        ids: list[Array] = []
        probs: list[Floats] = []
        for start in range(0, len(states), LENS_ROWS):
            go_on()
            (logits,) = session.run({"states": states[start : start + LENS_ROWS]}, ["logits"])
            best, found = likeliest(logits.astype(np.float64), top)
            ids.append(best)
            probs.append(found)
        return np.concatenate(ids), np.concatenate(probs)

    def logits(self, state: Floats) -> Array:
        """What a state [E] says of every token [V], read as if it were the last, in float64."""
        (logits,) = self._session(LENS_GRAPH).run({"states": state[None]}, ["logits"])
        return logits[0].astype(np.float64)

    def _feeds(self, rows: Sequence[TokenRow], target: TokenRow | None) -> Mapping[str, Array]:
        lengths = np.array([len(row.spans) for row in rows])
        shape = (len(rows), int(lengths.max()))
        token_ids, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for place, row in enumerate(rows):
            token_ids[place, : lengths[place]] = row.token_ids
            types[place, : lengths[place]] = row.types
        feeds: dict[str, Array] = {"input_ids": token_ids, "lengths": lengths}
        if "token_type_ids" in self.artifact.manifest.inputs:
            feeds["token_type_ids"] = types
        if target is not None:
            feeds["target_ids"] = np.array([target.token_ids], np.int64)
        return feeds

    def _session(self, graph: str) -> Session:
        with self._opening:
            if graph not in self._sessions:
                session = Session(self.artifact.folder / graph, Provider.CPU, 1)
                reproduces_golden(self.artifact, session, graph)
                self._sessions[graph] = session
            return self._sessions[graph]


def likeliest(logits: NDArray[np.float64], top: int) -> tuple[Array, Floats]:
    """The largest of each row of `logits` [N, V], at most `top`, and their probabilities."""
    most = min(top, logits.shape[1])
    some = np.argpartition(-logits, most - 1, axis=1)[:, :most]
    values = np.take_along_axis(logits, some, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    highest = logits.max(axis=1, keepdims=True)
    total = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    probs = np.exp(np.take_along_axis(values, order, axis=1) - total)
    return np.take_along_axis(some, order, axis=1).astype(np.int32), probs.astype(np.float32)
