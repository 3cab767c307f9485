"""Bodies of text-embeddings-inference's requests, as its clients send them: fields and ranges."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from service.api.bodies import RequestBody
from service.api.openai_types import STOP_AT_FIRST, TextOrTexts, Texts
from service.messages import Truncation

Direction = Literal["Left", "Right", "left", "right"]
DIRECTIONS = {"left": Truncation.LEFT, "right": Truncation.RIGHT}

Ids = Annotated[list[int], STOP_AT_FIRST]
TextOrPair = Annotated[list[str], STOP_AT_FIRST, Field(min_length=1, max_length=2)]


def _predict_kind(value: object) -> str | None:
    first = value[0] if isinstance(value, list) and value else None  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str):
        return "<text>"
    if isinstance(first, str):
        return "<pair>"
    return "<items>" if isinstance(first, list) else None


def _ids_kind(value: object) -> str | None:
    first = value[0] if isinstance(value, list) and value else None  # pyright: ignore[reportUnknownVariableType]
    if isinstance(first, list):
        return "<lists>"
    return "<ids>" if isinstance(value, list) else None


class Truncating(RequestBody):
    """What becomes of texts that are too long."""

    truncate: bool | None = Field(None, description="Cut texts that are too long.")
    truncation_direction: Direction = Field("Right", description="Which end is dropped.")

    @property
    def truncation(self) -> Truncation:
        """The same as one value."""
        return DIRECTIONS[self.truncation_direction.lower()] if self.truncate else Truncation.ERROR


class EmbedBody(Truncating):
    """`POST /embed`."""

    inputs: Texts
    normalize: bool = Field(True, description="Divide each vector by its length.")
    prompt_name: str | None = Field(None, description="Which of the model's prompts goes first.")
    dimensions: int | None = Field(None, ge=1, le=65536, description="Keep this many numbers.")


class EmbedAllBody(Truncating):
    """`POST /embed_all`."""

    inputs: Texts
    prompt_name: str | None = Field(None, description="Which of the model's prompts goes first.")


class PredictParameters(RequestBody):
    """What Hugging Face's InferenceClient sends beside a text to classify.

    It sends them always, empty ones too, and reads a list for each text, of one text as well.
    """

    top_k: int | None = Field(None, ge=1, description="List this many of the likeliest.")
    function_to_apply: Literal["none"] | None = Field(
        None, description="none is for the head's own scores, as `raw_scores` is."
    )


class PredictBody(Truncating):
    """`POST /predict`: a text, a pair of texts, or a list of lists of one or two."""

    inputs: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[TextOrPair, Tag("<pair>")]
        | Annotated[list[TextOrPair], STOP_AT_FIRST, Tag("<items>")],
        Discriminator(
            _predict_kind,
            custom_error_type="input_kind",
            custom_error_message="accepted are a text, a list of one or two texts, or a list of "
            "such lists",
        ),
    ]
    raw_scores: bool = Field(False, description="The head's own scores, not probabilities.")
    parameters: PredictParameters | None = None

    @property
    def wants_lists(self) -> bool:
        """Whether the answer to one text is a list of lists too."""
        return self.parameters is not None

    @property
    def wants_raw(self) -> bool:
        """Whether scores are asked for, by either name."""
        more = self.parameters
        return self.raw_scores or (more is not None and more.function_to_apply == "none")

    @property
    def most(self) -> int | None:
        """How many labels are listed; None is all."""
        return None if self.parameters is None else self.parameters.top_k


class TeiRerankBody(Truncating):
    """`POST /rerank`."""

    query: str = Field(min_length=1)
    texts: Annotated[list[str], STOP_AT_FIRST, Field(min_length=1)]
    raw_scores: bool = Field(False, description="The head's own scores, not probabilities.")
    return_text: bool = Field(False, description="Repeat the texts in the results.")


class Sentences(RequestBody):
    """A sentence, and those that it is compared with."""

    source_sentence: str = Field(min_length=1)
    sentences: Annotated[list[str], STOP_AT_FIRST, Field(min_length=1)]


class SimilarityParameters(Truncating):
    """How the sentences of `/similarity` are read."""

    prompt_name: str | None = None


class SimilarityBody(RequestBody):
    """`POST /similarity`."""

    inputs: Sentences
    parameters: SimilarityParameters | None = None


class TokenizeBody(RequestBody):
    """`POST /tokenize`."""

    inputs: TextOrTexts
    add_special_tokens: bool = Field(True, description="With those that frame a text.")
    prompt_name: str | None = None


class DecodeBody(RequestBody):
    """`POST /decode`."""

    ids: Annotated[
        Annotated[Ids, Tag("<ids>")] | Annotated[list[Ids], STOP_AT_FIRST, Tag("<lists>")],
        Discriminator(
            _ids_kind,
            custom_error_type="input_kind",
            custom_error_message="accepted are a list of token ids, or a list of such lists",
        ),
    ]
    skip_special_tokens: bool = True
