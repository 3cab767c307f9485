"""Ways of cutting text into subwords, as tokenizers of the library: WordPiece, BPE, Unigram.

What the tokens are and where they come from is the callers' business (`tokenizer_classes.py`,
`gguf_vocabularies.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from model_core.sentence_pieces import Algorithm, PieceKind, SentencePieces
from model_core.vocabularies import TokenizationError, add_tokens

SPACE_MARK: Final = "▁"

GPT2_SPLIT: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As Llama 3's, but for single digits.
QWEN2_SPLIT: Final = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is cut before byte-level BPE.

    `patterns` apply one after the other, each isolating its matches; without any, the library's
    own applies, which is GPT-2's. `whole_words`: a piece that is a token stays one, whatever the
    merges say. `composes`: characters are composed first (NFC).
    """

    patterns: tuple[str, ...] = ()
    whole_words: bool = False
    adds_bos: bool = False
    composes: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a text and around a pair of texts.

    Written as roles and texts in order, "cls $A sep"; after a colon the token type, 0 unless said.
    """

    single: str
    pair: str


NO_FRAME: Final = Frame("$A", "$A $B:1")
TYPED_PAIR: Final = Frame("cls $A sep", "cls $A sep $B:1 sep:1")


def bos_eos_frame(*, bos: bool, eos: bool) -> Frame:
    """bos before and eos after each text, of the two those that are wanted."""
    single = " ".join(["bos"] * bos + ["$A"] + ["eos"] * eos)
    second = " ".join(["bos:1"] * bos + ["$B:1"] + ["eos:1"] * eos)
    return Frame(single, f"{single} {second}")


def set_frame(backend: Backend, frame: Frame, texts: Mapping[str, str]) -> None:
    """Have `backend` frame what it encodes; `texts` are the tokens of the roles.

    Raises `TokenizationError` naming a role without a token, or a token without an id.
    """
    ids: dict[str, int] = {}

    def spell(word: str) -> str:
        role, _, token_type = word.partition(":")
        if role.startswith("$"):
            return word
        token = texts.get(role)
        token_id = None if token is None else backend.token_to_id(token)
        if token is None or token_id is None:
            raise TokenizationError(
                f"texts are framed by a {role} token, but the vocabulary lacks {token or 'one'}"
            )
        ids[token] = token_id
        return f"{token}:{token_type or 0}"

    backend.post_processor = processors.TemplateProcessing(
        single=[spell(word) for word in frame.single.split()],
        pair=[spell(word) for word in frame.pair.split()],
        special_tokens=list(ids.items()),
    )


def build_word_pieces(
    vocabulary: dict[str, int], unk: str, normalizer: normalizers.Normalizer
) -> Backend:
    """BERT's WordPiece (Wu et al. 2016)."""
    if unk not in vocabulary:
        raise TokenizationError(f"the vocabulary lacks {unk}")
    backend = Backend(models.WordPiece(vocabulary, unk_token=unk))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def build_byte_level(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    splitting: Splitting,
    *,
    source: str,
    adds_prefix: bool = False,
) -> Backend:
    """Byte-level BPE (Radford et al. 2019). `source` is what errors call the merges.

    `adds_prefix`: a text that doesn't begin with a space is given one.
    """
    backend = build_bpe(vocabulary, merges, source=source, ignore_merges=splitting.whole_words)
    if splitting.composes:
        backend.normalizer = normalizers.NFC()
    own = pre_tokenizers.ByteLevel(add_prefix_space=adds_prefix, use_regex=not splitting.patterns)
    patterns = [pre_tokenizers.Split(Regex(text), "isolated") for text in splitting.patterns]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*patterns, own]) if patterns else own
    backend.decoder = decoders.ByteLevel()
    return backend


def build_word_end_bpe(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], unk: str, *, source: str
) -> Backend:
    """BPE over lowercase words whose last piece bears the mark </w> (Sennrich et al. 2016)."""
    end = "</w>"
    backend = build_bpe(vocabulary, merges, source=source, unk_token=unk, end_of_word_suffix=end)
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix=end)
    return backend


def build_bpe(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], *, source: str, **options: Any
) -> Backend:
    """BPE alone, without any cutting beforehand. `source` is what errors call the merges."""
    try:
        return Backend(models.BPE(vocabulary, merges, **options))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizationError(f"{source} don't fit the tokens: {error}") from error


def merges_from_scores(
    vocabulary: Mapping[str, int], scores: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Every way to make a scored token of two others, the best-scored token first."""
    merges = [
        (-score, vocabulary[token[:cut]], vocabulary[token[cut:]])
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    texts = {number: token for token, number in vocabulary.items()}
    return [(texts[left], texts[right]) for _, left, right in sorted(merges)]


class Prefix(StrEnum):
    """Where a space mark is put before a text that doesn't begin with one."""

    MODEL = "model"
    """Before each stretch between special tokens, if the model says so: SentencePiece's way."""
    START = "start"
    """Before the text alone, and not where a space is already there."""
    NONE = "none"


def build_sentence_pieces(
    model: SentencePieces,
    tokens: Sequence[str],
    *,
    unk: str,
    special: Collection[str],
    before: Sequence[normalizers.Normalizer] = (),
    prefix: Prefix = Prefix.MODEL,
) -> Backend:
    """SentencePiece (Kudo & Richardson 2018): Unigram or BPE, with the model's own normalization.

    `tokens` are the vocabulary in the order of its ids, which often isn't the model's; those that
    text is never cut into, because they are neither pieces of the model nor `special`, keep their
    ids all the same, behind a space. Pieces that are not among them have ids beyond them. `before`
    is applied ahead of the model's normalization.

    Raises `TokenizationError` naming what the model needs and the library lacks.
    """
    _refuse_unsupported(model)
    if unk not in tokens:
        raise TokenizationError(f"the vocabulary lacks {unk}")
    scores = _piece_scores(model)
    known = set(tokens)
    surplus = [text for text in scores if text not in known]
    reachable = {unk, *special, *_of_kind(model, PieceKind.CONTROL), *scores}
    # Spaces are marks by the time that text is cut, so that what begins with one can't be found.
    entries = [text if text in reachable else f" {text}" for text in tokens] + surplus
    vocabulary = {text: number for number, text in reversed(list(enumerate(entries)))}
    if model.algorithm is Algorithm.UNIGRAM:
        weights = [(text, scores.get(text, 0.0)) for text in entries]
        backend = Backend(models.Unigram(weights, vocabulary[unk], model.byte_fallback))
    else:
        merged = {text: scores[text] for text in _of_kind(model, PieceKind.NORMAL)}
        backend = build_bpe(
            vocabulary,
            merges_from_scores(vocabulary, merged),
            source="the pieces",
            unk_token=unk,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    prefixes = prefix is Prefix.START or (prefix is Prefix.MODEL and model.adds_prefix)
    _add_normalization(backend, model, before, prefix)
    if prefix is not Prefix.START and not any(SPACE_MARK in text[1:] for text in scores):
        # No piece reaches over a space: words apart give the same pieces, and faster.
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE_MARK, "never", split=True)
    backend.decoder = _piece_decoder(
        byte_fallback=model.byte_fallback, strips=prefixes, reveals=not reachable.issuperset(tokens)
    )
    _add_symbols(backend, model)
    return backend


def _refuse_unsupported(model: SentencePieces) -> None:
    reasons = {
        f"the algorithm {model.algorithm.name.lower()}": model.algorithm
        not in (Algorithm.UNIGRAM, Algorithm.BPE),
        "space marks at the ends of words (treat_whitespace_as_suffix)": model.suffixes,
        "spaces that aren't marked (escape_whitespaces: false)": not model.marks_spaces,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise TokenizationError(f"this SentencePiece model has {found[0]}, which isn't supported")


def _piece_scores(model: SentencePieces) -> dict[str, float]:
    """The scores of all pieces that text is cut into, as SentencePiece reckons with them."""
    normal = [piece.score for piece in model.pieces if piece.kind is PieceKind.NORMAL]
    best = max(normal, default=0.0)
    return {
        piece.text: (
            # So that a user-defined symbol wins over any way to cut it (unigram_model.cc).
            len(piece.text) * best - 0.1 if piece.kind is PieceKind.USER_DEFINED else piece.score
        )
        for piece in model.pieces
        if piece.kind in (PieceKind.NORMAL, PieceKind.USER_DEFINED, PieceKind.BYTE)
    }


def _add_normalization(
    backend: Backend,
    model: SentencePieces,
    before: Sequence[normalizers.Normalizer],
    prefix: Prefix,
) -> None:
    steps: list[normalizers.Normalizer] = [*before]
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.squeezes:
        # SentencePiece takes marks at the end for spaces, too.
        ends = normalizers.Replace(Regex(rf"\A +|[ {SPACE_MARK}]+\z"), "")
        steps += [ends, normalizers.Replace(Regex(" {2,}"), " ")]
    if prefix is Prefix.START:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE_MARK, "first", split=False)
    else:
        if prefix is Prefix.MODEL and model.adds_prefix:
            steps.append(normalizers.Prepend(SPACE_MARK))
        steps.append(normalizers.Replace(" ", SPACE_MARK))
    if steps:
        backend.normalizer = normalizers.Sequence(steps)


def _piece_decoder(*, byte_fallback: bool, strips: bool, reveals: bool) -> decoders.Decoder:
    if byte_fallback:
        return byte_fallback_decoder(strips=strips)
    spaces = decoders.Metaspace(SPACE_MARK, "always" if strips else "never")
    return decoders.Sequence([decoders.Replace(" ", ""), spaces]) if reveals else spaces


def byte_fallback_decoder(*, strips: bool) -> decoders.Decoder:
    """Pieces to text where some stand for bytes; `strips`: the first space is the tokenizer's."""
    return decoders.Sequence(
        [
            decoders.Replace(SPACE_MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if strips else []),
        ]
    )


def _add_symbols(backend: Backend, model: SentencePieces) -> None:
    """Keep the model's control symbols whole, and what users defined where merges wouldn't."""
    control = _of_kind(model, PieceKind.CONTROL)
    present = [text for text in control if backend.token_to_id(text) is not None]
    add_tokens(backend, present, special=True)
    if model.algorithm is Algorithm.BPE:
        add_tokens(backend, _of_kind(model, PieceKind.USER_DEFINED), special=False)


def _of_kind(model: SentencePieces, kind: PieceKind) -> list[str]:
    return [piece.text for piece in model.pieces if piece.kind is kind]
