"""Vocabularies from before tokenizer.json: ids against transformers and against SentencePiece.

transformers 5.23 reads most of these files by the rules that we do, and is the reference then. Of
some it drops a part when it has nothing but the SentencePiece model: the normalization (mBART,
DeBERTa, BigBird), byte fallback (mT5), languages (NLLB); it takes user-defined pieces for
beginnings of words (ALBERT). There SentencePiece itself is the reference, for pieces, and
transformers for what stands around them, on texts that need no normalization.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from model_core.languages import NLLB_CODES
from model_core.sentence_pieces import read_sentence_pieces
from model_core.tokenization import TokenizationError, Tokenizer
from tests.support.vocabularies import (
    BERT,
    FAIRSEQ,
    LINES,
    TARGET_LINES,
    Layout,
    byte_level,
    listed,
    listed_for_many,
    pieces,
    read_pieces,
    train_pieces,
    word_end_bpe,
    word_pieces,
)

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

T5_PIECES: Mapping[str, Any] = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
LLAMA_PIECES: Mapping[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "vocab_size": 600,
}
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>")
# Every id but those of these tokens comes from the vocabulary's own 400.
QWEN_ADDED = {
    str(400 + number): {"content": text, "special": number < 3}
    for number, text in enumerate(QWEN_TOKENS)
}
MASK_WITH_SPACE = {"__type": "AddedToken", "content": "<mask>", "lstrip": True}

WORD_LAYOUTS: Mapping[str, Layout] = {
    "bert": Layout("BertTokenizer", word_pieces(BERT)),
    "bert-cased": Layout("BertTokenizer", word_pieces(BERT), {"do_lower_case": False}),
    "distilbert": Layout("DistilBertTokenizer", word_pieces(BERT), model_type="distilbert"),
    "electra": Layout(
        "ElectraTokenizer", word_pieces(BERT), {"strip_accents": False}, model_type="electra"
    ),
    "mpnet": Layout(
        "MPNetTokenizer", word_pieces([*FAIRSEQ[:3], "[UNK]", "<mask>"]), model_type="mpnet"
    ),
    "gpt-1": Layout("OpenAIGPTTokenizer", word_end_bpe(["<unk>"]), model_type="openai-gpt"),
    "gpt-2": Layout("GPT2Tokenizer", byte_level(["<|endoftext|>"]), model_type="gpt2"),
    "gpt-2-framed": Layout(
        "GPT2Tokenizer",
        byte_level(["<|endoftext|>"]),
        {"add_bos_token": True, "add_prefix_space": True},
        model_type="gpt2",
    ),
    "neox": Layout(
        "GPTNeoXTokenizer", byte_level(["<|endoftext|>", "<|padding|>"]), model_type="gpt_neox"
    ),
    "roberta": Layout("RobertaTokenizer", byte_level(FAIRSEQ), model_type="roberta"),
    "roberta-mask": Layout(
        "RobertaTokenizer",
        byte_level(FAIRSEQ),
        {"mask_token": MASK_WITH_SPACE, "add_prefix_space": True},
        model_type="roberta",
    ),
    "bart": Layout("BartTokenizer", byte_level(FAIRSEQ), model_type="bart"),
    "qwen": Layout(
        "Qwen2Tokenizer",
        byte_level([]),
        {"added_tokens_decoder": QWEN_ADDED, "eos_token": "<|im_end|>"},
        model_type="qwen3",
    ),
}
# What transformers reads of SentencePiece models by the model's own rules.
PIECE_LAYOUTS: Mapping[str, Layout] = {
    "xlm-roberta": Layout(
        "XLMRobertaTokenizer", pieces("sentencepiece.bpe.model"), model_type="xlm-roberta"
    ),
    "t5": Layout("T5Tokenizer", pieces("spiece.model", **T5_PIECES), model_type="t5"),
    "marian": Layout("MarianTokenizer", listed(), model_type="marian"),
    "marian-many": Layout(
        "MarianTokenizer", listed(languages=[">>fra<<", ">>spa<<"]), model_type="marian"
    ),
    "m2m-100": Layout(
        "M2M100Tokenizer", listed_for_many(), {"src_lang": "de"}, model_type="m2m_100"
    ),
    "m2m-100-bpe": Layout(
        "M2M100Tokenizer", listed_for_many(model_type="bpe"), model_type="m2m_100"
    ),
}
# What it reads by rules of its own.
DEPARTING_LAYOUTS: Mapping[str, Layout] = {
    "albert": Layout(
        "AlbertTokenizer",
        pieces(
            "spiece.model",
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"],
        ),
        # So that SentencePiece, which knows nothing of these, sees the same text.
        {"do_lower_case": False, "keep_accents": True},
        model_type="albert",
    ),
    "deberta": Layout(
        "DebertaV2Tokenizer",
        pieces(
            "spm.model",
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece="[PAD]",
            bos_piece="[CLS]",
            eos_piece="[SEP]",
            unk_piece="[UNK]",
        ),
        model_type="deberta-v2",
    ),
    "big-bird": Layout(
        "BigBirdTokenizer",
        pieces(
            "spiece.model",
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        ),
        model_type="big_bird",
    ),
    "mt5": Layout(
        "T5Tokenizer",
        pieces("spiece.model", byte_fallback=True, **{**T5_PIECES, "vocab_size": 800}),
        {"extra_ids": 0},
        model_type="mt5",
    ),
    # Lines' ends and literal marks reach the model.
    "t5-identity": Layout(
        "T5Tokenizer",
        pieces("spiece.model", normalization_rule_name="identity", **T5_PIECES),
        model_type="t5",
    ),
    "llama": Layout(
        "LlamaTokenizer",
        pieces("tokenizer.model", **LLAMA_PIECES),
        {"add_bos_token": True},
        model_type="llama",
    ),
    "gemma": Layout(
        "GemmaTokenizer",
        pieces(
            "tokenizer.model",
            **LLAMA_PIECES,
            add_dummy_prefix=False,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            bos_piece="<bos>",
            eos_piece="<eos>",
            user_defined_symbols=["<start_of_turn>", "\n\n"],
        ),
        {"add_bos_token": True},
        model_type="gemma2",
    ),
    "mbart": Layout("MBartTokenizer", pieces("sentencepiece.bpe.model"), model_type="mbart"),
    "mbart-50": Layout(
        "MBart50Tokenizer",
        pieces("sentencepiece.bpe.model"),
        {"src_lang": "de_DE"},
        model_type="mbart",
    ),
    "nllb": Layout(
        "NllbTokenizer",
        pieces("sentencepiece.bpe.model", model_type="bpe"),
        model_type="m2m_100",
    ),
}
SEPARATE = Layout(
    "MarianTokenizer", listed(separate=True), {"separate_vocabs": True}, model_type="marian"
)
NOT_LEGACY = Layout(
    "LlamaTokenizer",
    pieces("tokenizer.model", **LLAMA_PIECES),
    {"legacy": False, "add_bos_token": True},
    model_type="llama",
)
LAYOUTS: Mapping[str, Layout] = {
    **WORD_LAYOUTS,
    **PIECE_LAYOUTS,
    **DEPARTING_LAYOUTS,
    "marian-separate": SEPARATE,
    "llama-not-legacy": NOT_LEGACY,
}
EQUAL = [*WORD_LAYOUTS, *PIECE_LAYOUTS, "llama-not-legacy"]
WITHOUT_NLLB = [*EQUAL, *(name for name in DEPARTING_LAYOUTS if name != "nllb")]

PLAIN_TEXTS = ("hello world", "time flies like an arrow", "a", "")
TEXTS = (
    *PLAIN_TEXTS,
    " ",
    "Hello, World! Don't you think it's 5 o'clock?",
    "  leading, trailing   and inner    spaces  ",
    "tabs\tand\nnew\r\nlines\n\n\n  indented",
    "def f(x):\n    return x ** 2  # squared\n\nclass A:\n\tpass\n",
    "naïve café, Ærøskøbing, straße, e\u0301 composed",
    "你好,世界。日本語のテキスト 한국어 텍스트",
    "مرحبا بالعالم שלום עולם",
    "emoji 🙂🙃👩‍👩‍👧‍👦🇩🇰 and ✨",
    "3.14159 1,000,000 2024-01-01 ⅷ ①②",
    "https://example.org/a?b=c&d=%20#e",
    "zero\u200bwidth\u00a0no-break \ufeffbom \ufffd replacement ﬁ \uff26\uff35 ㌔",
    "x" * 300,
    "_" * 300,
    "\x00 nul and \x7f control",
    '(parentheses) "quotes" - dash. £ €',
    "▁mark ▁▁ marks▁ ▁",
    *TARGET_LINES,
)
SPECIAL_TEXTS = (
    "hello <mask> world",
    "hello<mask>world [MASK] </s> x<pad> <unk> y<s>z",
    "[CLS] [SEP] a[UNK] [PAD]",
    "<|endoftext|> a <|im_start|>user\n <think> x<|im_end|>",
    "<extra_id_0> filled <extra_id_99>",
    ">>fra<< hello",
)


def some_text() -> st.SearchStrategy[str]:
    """Any text but what the library normalizes otherwise than SentencePiece does.

    SentencePiece replaces the longest match wherever it stands; the library looks at grapheme
    clusters, whole or else character by character, and loses combinations in between: Hangul
    letters to be composed, half-width kana with a voicing mark, several marks on one letter. And
    U+0085 is white space to transformers, but no space to SentencePiece.
    """
    characters = st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me"])
    composing = [*range(0x1100, 0x1200), *range(0xA960, 0xA980), *range(0xD7B0, 0xD800)]
    excluded = {*map(chr, composing), "\uff9e", "\uff9f", "\x85"}
    usual = st.sampled_from(" \n\t▁aeinorst.,-'\"é日本🙂")
    return st.text(st.one_of(usual, characters.filter(lambda c: c not in excluded)), max_size=40)


class Checkpoints:
    """The folders of all layouts, each made when it is asked for, and what is read of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, dict[str, Path]] = {}
        self.ours: dict[str, Tokenizer] = {}
        self.references: dict[str, Any] = {}

    def folder(self, name: str) -> dict[str, Path]:
        if name not in self.files:
            self.files[name] = LAYOUTS[name].write(self.root / name)
        return self.files[name]

    def tokenizer(self, name: str) -> Tokenizer:
        if name not in self.ours:
            self.ours[name] = Tokenizer.from_files(self.folder(name))
        return self.ours[name]

    def reference(self, name: str) -> Any:
        if name not in self.references:
            import transformers

            self.folder(name)
            load = transformers.AutoTokenizer.from_pretrained
            self.references[name] = load(self.root / name, local_files_only=True)
        return self.references[name]

    def model(self, name: str) -> sentencepiece.SentencePieceProcessor:
        files = self.folder(name)
        names = (name for name in files if name.endswith((".model", "source.spm")))
        return read_pieces(files[next(names)])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("vocabularies"))


class TestAgainstTransformers:
    @pytest.mark.parametrize("name", EQUAL)
    def test_token_ids_are_equal(self, checkpoints: Checkpoints, name: str) -> None:
        ours, reference = checkpoints.tokenizer(name), checkpoints.reference(name)
        for text in (*TEXTS, *SPECIAL_TEXTS):
            # Marian's own reading makes an unknown token of a language that isn't there.
            if name == "marian" and text.startswith(">>"):
                continue
            assert ours.encode(text) == reference(text)["input_ids"], text
            bare = reference(text, add_special_tokens=False)["input_ids"]
            assert ours.encode(text, special_tokens=False) == bare, text

    @pytest.mark.parametrize("name", EQUAL)
    @given(text=some_text())
    @settings(max_examples=50, deadline=None)
    def test_token_ids_of_any_text_are_equal(
        self, checkpoints: Checkpoints, name: str, text: str
    ) -> None:
        expected = checkpoints.reference(name)(text)["input_ids"]
        assert checkpoints.tokenizer(name).encode(text) == expected

    @pytest.mark.parametrize("name", WITHOUT_NLLB)
    def test_frames_and_pairs_are_equal(self, checkpoints: Checkpoints, name: str) -> None:
        ours, reference = checkpoints.tokenizer(name), checkpoints.reference(name)
        for text in PLAIN_TEXTS:
            assert ours.encode(text) == reference(text)["input_ids"]
            expected = reference(text, "a banana", return_token_type_ids=True)
            pair = ours.encode_pair(text, "a banana")
            assert pair.token_ids == expected["input_ids"]
            # The slow tokenizers' types are nobody's: these models have none.
            if reference.is_fast:
                assert pair.token_types == expected["token_type_ids"]

    @pytest.mark.parametrize("name", WITHOUT_NLLB)
    def test_tokens_with_a_role_are_equal(self, checkpoints: Checkpoints, name: str) -> None:
        ours, reference = checkpoints.tokenizer(name), checkpoints.reference(name)
        assert ours.pad_id == reference.pad_token_id
        if reference.eos_token_id is not None:
            assert ours.eos_ids == {reference.eos_token_id}
        if reference.bos_token_id is not None:
            assert ours.bos_id == reference.bos_token_id

    @pytest.mark.parametrize("name", [*WORD_LAYOUTS, "xlm-roberta", "t5", "llama-not-legacy"])
    def test_texts_decode_equally(self, checkpoints: Checkpoints, name: str) -> None:
        ours, reference = checkpoints.tokenizer(name), checkpoints.reference(name)
        for text in TEXTS:
            ids = ours.encode(text)
            expected = reference.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            assert ours.decode(ids) == expected, text

    def test_a_lowercasing_model_sees_no_case_and_no_accents(self, tmp_path: Path) -> None:
        layout = DEPARTING_LAYOUTS["albert"]
        files = Layout(layout.tokenizer_class, layout.make).write(tmp_path / "albert")
        tokenizer = Tokenizer.from_files(files)
        assert tokenizer.encode("Naïve ``Café''") == tokenizer.encode('naive "cafe"')


class TestAgainstSentencePiece:
    @pytest.mark.parametrize("name", [*PIECE_LAYOUTS, *DEPARTING_LAYOUTS])
    def test_pieces_are_equal(self, checkpoints: Checkpoints, name: str) -> None:
        for text in TEXTS:
            assert our_pieces(checkpoints, name, text) == its_pieces(checkpoints, name, text), text

    @pytest.mark.parametrize("name", [*PIECE_LAYOUTS, *DEPARTING_LAYOUTS])
    @given(text=some_text())
    @settings(max_examples=50, deadline=None)
    def test_pieces_of_any_text_are_equal(
        self, checkpoints: Checkpoints, name: str, text: str
    ) -> None:
        assert our_pieces(checkpoints, name, text) == its_pieces(checkpoints, name, text)

    @pytest.mark.parametrize("name", ["t5", "xlm-roberta", "m2m-100", "llama"])
    def test_special_tokens_are_text_where_they_are_switched_off(
        self, checkpoints: Checkpoints, name: str
    ) -> None:
        # SentencePiece never takes control symbols from a text.
        for text in SPECIAL_TEXTS:
            expected = its_pieces(checkpoints, name, text)
            assert our_pieces(checkpoints, name, text, parse_special=False) == expected, text

    def test_the_reader_reads_what_the_format_says(self, checkpoints: Checkpoints) -> None:
        for name in ("gemma", "albert"):
            files = checkpoints.folder(name)
            path = next(path for path in files.values() if path.suffix == ".model")
            expected: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
            expected.ParseFromString(path.read_bytes())
            found = read_sentence_pieces(path)
            assert [(p.text, p.score, int(p.kind)) for p in found.pieces] == [
                (p.piece, p.score, p.type) for p in expected.pieces
            ]
            assert found.charsmap == expected.normalizer_spec.precompiled_charsmap
            assert found.adds_prefix == expected.normalizer_spec.add_dummy_prefix
            assert found.squeezes == expected.normalizer_spec.remove_extra_whitespaces
            assert found.byte_fallback == expected.trainer_spec.byte_fallback
            assert int(found.algorithm) == expected.trainer_spec.model_type


def our_pieces(
    checkpoints: Checkpoints, name: str, text: str, *, parse_special: bool = True
) -> list[int]:
    tokenizer = checkpoints.tokenizer(name)
    return tokenizer.encode(text, special_tokens=False, parse_special=parse_special)


def its_pieces(checkpoints: Checkpoints, name: str, text: str) -> list[int]:
    """SentencePiece's pieces of `text` as the family numbers them."""
    model = checkpoints.model(name)
    number = NUMBERINGS.get(name, partial(own_number, model))
    files = checkpoints.folder(name)
    if name == "albert":
        text = text.replace("``", '"').replace("''", '"')
    if "vocab.json" in files:
        # As text: what the model doesn't know may have an id.
        ids = json.loads(files["vocab.json"].read_text())
        return [ids.get(piece, ids["<unk>"]) for piece in model.encode(text, out_type=str)]
    return [number(piece_id) for piece_id in model.encode(text)]


def own_number(model: sentencepiece.SentencePieceProcessor, piece_id: int) -> int:
    return piece_id


def fairseq_number(piece_id: int) -> int:
    """fairseq's pad comes before the pieces, and its unk after bos, pad and eos."""
    return 3 if piece_id == 0 else piece_id + 1


NUMBERINGS: Mapping[str, Callable[[int], int]] = dict.fromkeys(
    ("xlm-roberta", "mbart", "mbart-50", "nllb"), fairseq_number
)


class TestLanguages:
    @pytest.mark.parametrize(
        ("name", "default", "other"),
        [("mbart", "en_XX", "fr_XX"), ("mbart-50", "de_DE", "sl_SI"), ("m2m-100", "de", "zu")],
    )
    def test_a_text_is_marked_with_its_language(
        self, checkpoints: Checkpoints, name: str, default: str, other: str
    ) -> None:
        ours, reference = checkpoints.tokenizer(name), checkpoints.reference(name)
        assert ours.source_language == default
        assert ours.begins_with_language
        try:
            for language in (other, default):
                reference.src_lang = language
                expected = reference("hello world")["input_ids"]
                assert ours.encode("hello world", language=language) == expected
                assert ours.encode_batch(["hello world"], language=language) == [expected]
                assert ours.language_ids[language] in expected
        finally:
            reference.src_lang = default
        assert ours.encode("hello world") == expected

    def test_languages_stand_where_the_family_puts_them(self, checkpoints: Checkpoints) -> None:
        # fairseq's layout: a piece more than SentencePiece has, the languages, the mask.
        tokenizer = checkpoints.tokenizer("nllb")
        first = len(checkpoints.model("nllb")) + 1
        ids = {code: first + number for number, code in enumerate(NLLB_CODES)}
        assert tokenizer.language_ids == ids
        assert tokenizer.vocab_size == first + len(NLLB_CODES) + 1
        hello = tokenizer.encode("hello", special_tokens=False)
        assert tokenizer.encode("hello") == [ids["eng_Latn"], *hello, 2]
        assert tokenizer.encode("hello", language="fra_Latn") == [ids["fra_Latn"], *hello, 2]

    def test_the_older_frame_of_nllb_ends_with_the_language(self, tmp_path: Path) -> None:
        layout = DEPARTING_LAYOUTS["nllb"]
        config = {"legacy_behaviour": True, "src_lang": "fra_Latn"}
        files = Layout(layout.tokenizer_class, layout.make, config).write(tmp_path / "nllb")
        tokenizer = Tokenizer.from_files(files)
        hello = tokenizer.encode("hello", special_tokens=False)
        assert tokenizer.encode("hello") == [*hello, 2, tokenizer.language_ids["fra_Latn"]]

    def test_a_language_that_is_wanted_is_named_at_the_beginning(
        self, checkpoints: Checkpoints
    ) -> None:
        tokenizer = checkpoints.tokenizer("marian-many")
        assert set(tokenizer.language_ids) == {"fra", "spa"}
        assert tokenizer.source_language is None
        assert not tokenizer.begins_with_language
        written = tokenizer.encode(">>fra<< hello world")
        assert tokenizer.encode("hello world", language="fra") == written
        assert written[0] == tokenizer.language_ids["fra"]

    def test_languages_of_a_tokenizer_json_are_known_too(
        self, checkpoints: Checkpoints, tmp_path: Path
    ) -> None:
        checkpoints.tokenizer("mbart").save(tmp_path)
        config = {"tokenizer_class": "MBartTokenizer", "src_lang": "fr_XX"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = Tokenizer.from_files({path.name: path for path in tmp_path.iterdir()})
        expected = checkpoints.tokenizer("mbart").encode("hello", language="fr_XX")
        assert tokenizer.encode("hello") == expected
        assert tokenizer.source_language == "fr_XX"

    def test_an_unknown_language_is_refused(self, checkpoints: Checkpoints) -> None:
        with pytest.raises(TokenizationError, match=r"language is .xx.; accepted: .*fr_XX"):
            checkpoints.tokenizer("mbart").encode("hello", language="xx")
        with pytest.raises(TokenizationError, match="the model has no languages"):
            checkpoints.tokenizer("t5").encode("hello", language="en")


class TestTwoVocabularies:
    def test_answers_are_read_by_the_target_vocabulary(self, checkpoints: Checkpoints) -> None:
        tokenizer = checkpoints.tokenizer("marian-separate")
        reference = checkpoints.reference("marian-separate")
        for text in (*LINES, *TARGET_LINES):
            assert tokenizer.encode(text) == reference(text)["input_ids"]
            target = reference(text_target=text)["input_ids"]
            expected = reference.decode(target, skip_special_tokens=True)
            # The reference strips what it has read, and so can't be read piece by piece.
            assert tokenizer.decode(target).strip() == expected
            spans = tokenizer.target_spans(text)
            known = zip((span.token_id for span in spans), target[:-1], strict=True)
            assert all(ours == theirs for ours, theirs in known if theirs != reference.unk_token_id)
            assert all(span.text == text[span.start : span.stop] for span in spans)

    def test_answers_may_use_pieces_that_questions_never_have(
        self, checkpoints: Checkpoints
    ) -> None:
        # Marian's ids are of both sides; a text is cut by the source's model alone.
        tokenizer = checkpoints.tokenizer("marian")
        reference = checkpoints.reference("marian")
        for text in TARGET_LINES:
            target = reference(text_target=text)["input_ids"]
            expected = reference.decode(target, skip_special_tokens=True)
            assert tokenizer.decode(target).strip() == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_saved_equals_loaded(checkpoints: Checkpoints, name: str, tmp_path: Path) -> None:
    tokenizer = checkpoints.tokenizer(name)
    assert set(tokenizer.save(tmp_path)) == {path.name for path in tmp_path.iterdir()}
    loaded = Tokenizer.load(tmp_path)
    for text in (*TEXTS, *SPECIAL_TEXTS):
        ids = tokenizer.encode(text)
        assert max(ids, default=0) < tokenizer.vocab_size
        assert loaded.encode(text) == ids
        assert loaded.decode(ids) == tokenizer.decode(ids)
        assert loaded.encode_pair(text, "a") == tokenizer.encode_pair(text, "a")
    for language in [*tokenizer.language_ids][:2]:
        expected = tokenizer.encode("a", language=language)
        assert loaded.encode("a", language=language) == expected
    for attribute in ("vocab_size", "bos_id", "eos_ids", "pad_id", "language_ids"):
        assert getattr(loaded, attribute) == getattr(tokenizer, attribute)
    assert loaded.source_language == tokenizer.source_language
    assert loaded.begins_with_language == tokenizer.begins_with_language


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_stream_equals_decoding(checkpoints: Checkpoints, name: str) -> None:
    tokenizer = checkpoints.tokenizer(name)
    for text in LINES:
        ids = tokenizer.encode(text)
        stream = tokenizer.stream()
        read = "".join([*(stream.push(token_id) for token_id in ids), stream.flush()])
        assert read == tokenizer.decode(ids)


class TestRefusals:
    def written(self, folder: Path, name: str = "t5", **config: object) -> dict[str, Path]:
        layout = LAYOUTS[name]
        changed = Layout(
            layout.tokenizer_class, layout.make, {**layout.config, **config}, layout.model_type
        )
        return changed.write(folder / name)

    @pytest.mark.parametrize(
        ("name", "config", "complaint"),
        [
            ("t5", {"tokenizer_class": "RagTokenizer"}, "tokenizer_class RagTokenizer is not"),
            ("t5", {"extra_ids": "many"}, "extra_ids is 'many'"),
            ("deberta", {"split_by_punct": True}, "split_by_punct is true"),
            ("deberta", {"mask_token": None}, "needs a mask_token, which is null"),
            ("bert", {"sep_token": None}, "needs a sep_token, which is null"),
            ("mbart", {"src_lang": "xx"}, "framed by a language token, but the vocabulary lacks"),
            ("m2m-100", {"language_codes": "all"}, "language_codes is 'all'; accepted: m2m100"),
            ("qwen", {"added_tokens_decoder": {"7": {"content": "<x>"}}}, "to have the id 7"),
            ("qwen", {"added_tokens_decoder": {"x": {"content": "<x>"}}}, "'x' is no token id"),
            ("qwen", {"additional_special_tokens": [3]}, "3 is no token"),
        ],
    )
    def test_what_is_wrong_with_the_configuration_is_named(
        self, tmp_path: Path, name: str, config: dict[str, object], complaint: str
    ) -> None:
        with pytest.raises(TokenizationError, match=complaint):
            Tokenizer.from_files(self.written(tmp_path, name, **config))

    @pytest.mark.parametrize(
        ("name", "file", "content", "complaint"),
        [
            ("gpt-2", "merges.txt", "#version: 0.2\na\n", "merges.txt, line 2: 'a' is not a pair"),
            ("gpt-2", "merges.txt", "€ q\n", "the merges of .* don't fit"),
            ("gpt-2", "vocab.json", "[]", "vocab.json has to hold an id"),
            ("gpt-2", "vocab.json", '{"a": -1}', "the id of 'a' is -1"),
            ("bert", "vocab.txt", "a\n", r"lacks \[UNK\], \[SEP\]"),
            ("gpt-1", "vocab.json", "{}", "the vocabulary lacks <unk>"),
            ("m2m-100", "vocab.json", "{}", "the vocabulary lacks <unk>"),
            ("t5", "spiece.model", "text", "is not a SentencePiece model"),
            ("t5", "spiece.model", "", "it has no pieces"),
        ],
    )
    def test_damaged_files_are_named(
        self, tmp_path: Path, name: str, file: str, content: str, complaint: str
    ) -> None:
        files = self.written(tmp_path, name)
        files[file].write_text(content)
        with pytest.raises(TokenizationError, match=complaint):
            Tokenizer.from_files(files)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"model_type": "char"}, "has the algorithm char"),
            ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
        ],
    )
    def test_models_that_the_library_cant_follow_are_refused(
        self, tmp_path: Path, options: dict[str, object], complaint: str
    ) -> None:
        files = self.written(tmp_path)
        train_pieces(files["spiece.model"], LINES, **T5_PIECES, **options)
        with pytest.raises(TokenizationError, match=complaint):
            Tokenizer.from_files(files)

    def test_files_that_are_missing_are_named(self, tmp_path: Path) -> None:
        files = self.written(tmp_path)
        without = {name: path for name, path in files.items() if name != "spiece.model"}
        with pytest.raises(TokenizationError, match=r"lacks spiece\.model or sentencepiece"):
            Tokenizer.from_files(without)

    def test_a_class_is_found_by_the_model_type(self, tmp_path: Path) -> None:
        files = self.written(tmp_path)
        files["tokenizer_config.json"].unlink()
        del files["tokenizer_config.json"]
        assert Tokenizer.from_files(files).encode("a")[-1] == 1
        del files["config.json"]
        with pytest.raises(TokenizationError, match="and a tokenizer_class in"):
            Tokenizer.from_files(files)

    @given(data=st.data())
    @settings(max_examples=100, deadline=None)
    def test_a_damaged_model_is_refused_or_read(
        self, checkpoints: Checkpoints, data: st.DataObject
    ) -> None:
        whole = checkpoints.folder("t5")["spiece.model"].read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 2 :]
        path = checkpoints.root / "damaged.model"
        path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
        # Nothing else is raised, whatever the damage.
        with contextlib.suppress(TokenizationError):
            read_sentence_pieces(path)
