"""From a served artifact to the models of it that can be looked into."""

from export.artifact import Artifact, Kind, ServedOutput
from export.session import Hardware
from model_core.tokenization import Tokenizer
from service.exporting import inspection_of
from service.inspection.graphs import InspectionGraphs
from service.inspection.model import InspectedModel
from service.messages import Task
from service.models import PROBABILITIES, card_of
from service.settings import ServiceSettings


def inspected_models(
    artifact: Artifact, settings: ServiceSettings, hardware: Hardware
) -> list[InspectedModel]:
    """Every model that the artifact serves, over one inspection graph, which is made where it
    isn't cached. Raises `ExportFailed`, `ArtifactError`."""
    graphs = InspectionGraphs(Artifact.open(inspection_of(artifact, settings)))
    tokenizer = Tokenizer.load(artifact.folder)
    return [
        InspectedModel(
            card_of(artifact, served, task_of(artifact, served), hardware),
            artifact.manifest,
            served,
            graphs,
            tokenizer,
            PROBABILITIES[served.scoring],
        )
        for served in artifact.manifest.served
    ]


def task_of(artifact: Artifact, served: ServedOutput) -> Task:
    """What a served output is for."""
    if artifact.manifest.kind is not Kind.ENCODER:
        return Task.GENERATE
    return Task.CLASSIFY if served.dim is None else Task.EMBED
