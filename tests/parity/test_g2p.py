"""g2p as it comes with the package: served, it pronounces words that it has not seen."""

from export.artifact import Artifact
from model_core.training.translation_metrics import error_rates
from service.app import create_app
from service.living import ModelGroup
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.service import client_of

HELD_OUT = {
    "abdallah": ["AE2 B D AE1 L AH0"],
    "andel": ["AE1 N D AH0 L"],
    "backfired": ["B AE1 K F AY2 ER0 D"],
    "berger": ["B ER1 G ER0"],
    "bordman": ["B AO1 R D M AH0 N"],
    "burpo": ["B UH1 R P OW0"],
    "ceremony": ["S EH1 R AH0 M OW2 N IY0"],
    "comtois": ["K AH0 M T W AA1"],
    "dager": ["D EY1 G ER0"],
    "diagrams": ["D AY1 AH0 G R AE2 M Z"],
    "ducey": ["D AH1 S IY0"],
    "entrench": ["EH0 N T R EH1 N CH"],
    "filmer": ["F IH1 L M ER0"],
    "furtick": ["F ER1 T IH0 K"],
    "glucoside": ["G L UW1 K AH0 S AY2 D"],
    "gutmann": ["G AH1 T M AH0 N"],
    "henken": ["HH EH1 NG K AH0 N"],
    "ignores": ["IH2 G N AO1 R Z"],
    "judson": ["JH AH1 D S AH0 N"],
    "knoxville": ["N AA1 K S V IH0 L"],
    "lawns": ["L AO1 N Z"],
    "lopid": ["L OW1 P IH0 D"],
    "marovich": ["M AA1 R AH0 V IH0 CH"],
    "meiss": ["M AY1 S"],
    "monforte": ["M OW0 N F AO1 R T IY0"],
    "nimrod": ["N IH1 M R AA0 D"],
    "ostrosky": ["AH0 S T R OW1 S K IY0"],
    "pergamon": ["P ER1 G AH0 M AH0 N"],
    "pothitos": ["P AH0 TH IY1 T OW0 S"],
    "raimond": ["R EY1 M AH0 N D"],
    "riflery": ["R AY1 F AH0 L R IY0"],
    "sandahl": ["S AE1 N D AA2 L"],
    "seduction": ["S IH0 D AH1 K SH AH0 N"],
    "silvestri": ["S IY0 L V EH1 S T R IY0"],
    "speedup": ["S P IY1 D AH2 P"],
    "stroma": ["S T R OW1 M AH0"],
    "tenaglia": ["T EH0 N AA1 G L IY0 AH0"],
    "trzcinski": ["T ER0 ZH IH1 N S K IY0"],
    "verdin": ["V ER1 D IH0 N"],
    "whipkey": ["W IH1 P K IY2", "HH W IH1 P K IY2"],
}
"""Words of the CMU Pronouncing Dictionary that took no part in training, and all that it says of
them (its licence: export/models/g2p/NOTICE)."""


async def pronounced(artifact: Artifact) -> list[str]:
    settings = ServiceSettings(models=(str(artifact.folder),), threads=1)
    group = ModelGroup(settings, Registry(), Metrics())
    group.load()
    try:
        async with client_of(create_app(group.registry, settings, group.metrics)) as client:
            body = {"model": "g2p", "prompt": list(HELD_OUT)}
            answer = (await client.post("/v1/completions", json=body)).json()
            return [choice["text"] for choice in answer["choices"]]
    finally:
        group.close()


async def test_words_that_it_has_not_seen_are_pronounced(
    g2p_artifact: Artifact, int8_g2p_artifact: Artifact
) -> None:
    found, of_int8 = await pronounced(g2p_artifact), await pronounced(int8_g2p_artifact)
    # A letter's commonest phoneme alone gets most of them wrong.
    assert error_rates(found, list(HELD_OUT.values()))["unit_error_rate"] < 0.2
    assert error_rates(of_int8, [[text] for text in found])["unit_error_rate"] < 0.05
