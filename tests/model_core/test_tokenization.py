"""Token ids against transformers and against oracles written here; streams against decoding."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from model_core.chat_template import MAX_CHARACTERS
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.tokenization import ChatTemplateError, TokenizationError, Tokenizer

TEXTS = (
    "",
    " ",
    "hello world",
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
    "zero\u200bwidth\u00a0no-break \ufeffbom \ufffd replacement",
    "x" * 300,
    "_" * 300,
    "\x00 nul and \x7f control",
)


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Tokenizer:
    return Tokenizer.from_gguf(read_gguf_metadata(smollm2_gguf))


@pytest.fixture(scope="module")
def minilm(minilm_files: Mapping[str, Path]) -> Tokenizer:
    return Tokenizer.from_files(minilm_files)


@pytest.fixture(scope="module")
def sentence_pieces() -> Tokenizer:
    return Tokenizer.from_gguf(sentence_piece_metadata())


@pytest.fixture(scope="module")
def minilm_reference(minilm_files: Mapping[str, Path]) -> Any:
    transformers = pytest.importorskip("transformers")
    folder = minilm_files["tokenizer.json"].parent
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def smollm2_reference(smollm2_gguf: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name
    )
    # transformers doesn't know the splitting called "smollm"; this is the one of the model's
    # published tokenizer.json.
    loaded.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return loaded


@pytest.fixture(scope="module")
def smollm2_backend(
    smollm2: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tokenizers.Tokenizer:
    folder = tmp_path_factory.mktemp("smollm2")
    smollm2.save(folder)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def byte_level_metadata(**changes: object) -> dict[str, object]:
    """A byte-level vocabulary of single bytes and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "Ġ Ġ"]
    tokens = [*alphabet, *(merge.replace(" ", "") for merge in merges), "<end>", "<turn>", "<tool>"]
    types = [1] * (len(tokens) - 3) + [3, 3, 4]
    keys: dict[str, object] = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": types,
        "merges": merges,
        "eos_token_id": len(tokens) - 3,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items() if value is not None}


def sentence_piece_metadata(**changes: object) -> dict[str, object]:
    """SentencePiece's layout: unk, bos, eos, 256 bytes, characters, and pieces with scores."""
    pieces = ["▁he", "ll", "llo", "▁hello", "▁w", "or", "ld", "orld", "▁world", "lo", "▁▁", "el"]
    letters = ["▁", *"helowrdab"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) + len(letters))]
    scores = [0.0] * len(tokens)
    scores += [-float(rank) for rank in range(len(pieces))] + [-100.0] * len(letters)
    keys: dict[str, object] = {
        "model": "llama",
        "tokens": [*tokens, *pieces, *letters],
        "token_type": types,
        "scores": scores,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items() if value is not None}


def some_text() -> st.SearchStrategy[str]:
    """Text without what SmolLM2's vocabulary lacks: control characters, and unassigned planes."""
    characters = st.characters(
        max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"], include_characters="\n\t"
    )
    return st.text(characters, max_size=50)


def stream_pieces(tokenizer: Tokenizer, ids: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    stream = tokenizer.stream(after=after)
    return [*(stream.push(token_id) for token_id in ids), stream.flush()]


class TestHuggingFaceLayout:
    @pytest.mark.parametrize("text", TEXTS)
    def test_token_ids_equal_those_of_transformers(
        self, minilm: Tokenizer, minilm_reference: Any, text: str
    ) -> None:
        assert minilm.encode(text) == minilm_reference(text)["input_ids"]
        bare = minilm_reference(text, add_special_tokens=False)["input_ids"]
        assert minilm.encode(text, special_tokens=False) == bare

    def test_pairs_equal_those_of_transformers(
        self, minilm: Tokenizer, minilm_reference: Any
    ) -> None:
        expected = minilm_reference("time flies", "like an arrow")
        pair = minilm.encode_pair("time flies", "like an arrow")
        assert pair.token_ids == expected["input_ids"]
        assert pair.token_types == expected["token_type_ids"]
        assert pair.dropped == 0

    @pytest.mark.parametrize("limit", [4, 5, 9, 12, 40])
    @pytest.mark.parametrize("texts", [("time flies", "like an arrow " * 9), ("one two " * 9, "x")])
    def test_pairs_are_cut_as_transformers_cuts_them(
        self, minilm: Tokenizer, minilm_reference: Any, texts: tuple[str, str], limit: int
    ) -> None:
        expected = minilm_reference(*texts, truncation="longest_first", max_length=limit)
        pair = minilm.encode_pair(*texts, max_tokens=limit)
        assert pair.token_ids == expected["input_ids"]
        assert pair.token_types == expected["token_type_ids"]
        assert pair.dropped == len(minilm.encode_pair(*texts).token_ids) - len(pair.token_ids)

    @pytest.mark.parametrize("limit", [2, 3, 6, 100])
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_texts_are_cut_as_transformers_cuts_them(
        self, minilm: Tokenizer, minilm_reference: Any, side: str, limit: int
    ) -> None:
        text = "time flies like an arrow; fruit flies like a banana"
        minilm_reference.truncation_side = side
        expected = minilm_reference(text, truncation=True, max_length=limit)["input_ids"]
        minilm_reference.truncation_side = "right"
        assert minilm.cut(minilm.encode(text), limit, left=side == "left") == expected

    def test_each_token_has_its_place_in_the_text(self, minilm: Tokenizer) -> None:
        text = "Überflüssig, naïve"
        spans = minilm.spans(text)
        assert [span.token_id for span in spans] == minilm.encode(text)
        assert [span.special for span in (spans[0], spans[-1])] == [True, True]
        assert spans[0].start is None
        words = [text[span.start : span.stop] for span in spans[1:-1]]
        assert "".join(words) == text.replace(" ", "")
        assert minilm.spans(text, special_tokens=False) == spans[1:-1]

    def test_each_token_of_a_pair_has_its_place_in_its_own_text(self, minilm: Tokenizer) -> None:
        first, second = "time flies", "like an arrow"
        pair, spans = minilm.encode_pair(first, second), minilm.pair_spans(first, second)
        assert [span.token_id for span in spans] == pair.token_ids
        assert [span.text for span in spans[: pair.second_at]] == [
            "[CLS]",
            "time",
            "flies",
            "[SEP]",
        ]
        behind = spans[pair.second_at : -1]
        assert [second[span.start : span.stop] for span in behind] == second.split()

    def test_a_long_text_is_neither_cut_nor_padded(self, minilm: Tokenizer) -> None:
        # This model's tokenizer.json pads and cuts everything to 128.
        assert len(minilm.encode("word " * 1000)) == 1002
        assert len(minilm.encode("word")) == 3

    @pytest.mark.parametrize("text", TEXTS)
    def test_vocab_txt_gives_the_same_tokens_as_tokenizer_json(
        self, minilm: Tokenizer, minilm_files: Mapping[str, Path], text: str
    ) -> None:
        files = {name: minilm_files[name] for name in ("vocab.txt", "tokenizer_config.json")}
        assert Tokenizer.from_files(files).encode(text) == minilm.encode(text)

    def test_case_is_kept_where_the_configuration_says_so(self, tmp_path: Path) -> None:
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Word", "word"]
        files = write(tmp_path, "vocab.txt", "\n".join(vocabulary) + "\n")
        files |= write(tmp_path, "tokenizer_config.json", json.dumps({"do_lower_case": False}))
        assert Tokenizer.from_files(files).encode("Word word") == [2, 5, 6, 3]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        assert Tokenizer.from_files(files).encode("Word word") == [2, 6, 6, 3]

    def test_every_end_token_of_generation_config_ends_a_generation(self, tmp_path: Path) -> None:
        backend = tokenizers.Tokenizer(models.BPE({"a": 0, "<s>": 1, "</s>": 2, "<eot>": 3}, []))
        files = write(tmp_path, "tokenizer.json", backend.to_str())
        config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "hi"}
        files |= write(tmp_path, "tokenizer_config.json", json.dumps(config))
        files |= write(tmp_path, "generation_config.json", json.dumps({"eos_token_id": [2, 3]}))
        tokenizer = Tokenizer.from_files(files)
        assert tokenizer.bos_id == 1
        assert tokenizer.eos_ids == {2, 3}
        assert tokenizer.pad_id is None
        assert tokenizer.chat_template == "hi"

    def test_a_template_file_goes_before_the_one_in_the_configuration(self, tmp_path: Path) -> None:
        files = write(tmp_path, "tokenizer.json", tokenizers.Tokenizer(models.BPE()).to_str())
        named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
        files |= write(tmp_path, "tokenizer_config.json", json.dumps({"chat_template": named}))
        assert Tokenizer.from_files(files).chat_template == "d"
        files |= write(tmp_path, "chat_template.jinja", "file")
        assert Tokenizer.from_files(files).chat_template == "file"

    def test_damaged_and_missing_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(TokenizationError, match=r"expected tokenizer\.json"):
            Tokenizer.from_files({})
        with pytest.raises(TokenizationError, match=r"tokenizer\.json is not a tokenizer"):
            Tokenizer.from_files(write(tmp_path, "tokenizer.json", "{"))
        with pytest.raises(TokenizationError, match=r"tokenizer_config\.json"):
            Tokenizer.from_files(write(tmp_path, "tokenizer_config.json", "[]"))
        with pytest.raises(TokenizationError, match=r"lacks \[UNK\], \[SEP\]"):
            Tokenizer.from_files(write(tmp_path, "vocab.txt", "a\n"))


class TestGgufByteLevel:
    @pytest.mark.parametrize("text", TEXTS)
    def test_token_ids_equal_those_of_transformers(
        self, smollm2: Tokenizer, smollm2_reference: Any, text: str
    ) -> None:
        assert smollm2.encode(text) == smollm2_reference(text)["input_ids"]

    @given(text=some_text())
    @settings(max_examples=200, deadline=None)
    def test_any_text_survives_encoding_and_decoding(self, smollm2: Tokenizer, text: str) -> None:
        assert smollm2.decode(smollm2.encode(text)) == text

    def test_what_the_file_says_of_special_tokens_holds(self, smollm2: Tokenizer) -> None:
        assert smollm2.vocab_size == 49152
        assert (smollm2.bos_id, smollm2.eos_ids, smollm2.pad_id) == (1, {2}, 2)
        assert smollm2.is_special(2)
        assert not smollm2.is_special(1000)

    def test_written_out_special_tokens_count_unless_switched_off(self, smollm2: Tokenizer) -> None:
        text = "<|im_start|>user"
        assert smollm2.encode(text)[0] == 1
        literal = smollm2.encode(text, parse_special=False)
        assert not any(smollm2.is_special(token_id) for token_id in literal)
        assert smollm2.decode(literal) == text

    def test_the_chat_equals_that_of_transformers(
        self, smollm2: Tokenizer, smollm2_reference: Any
    ) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Was ist 2 + 2?\n\n"},
        ]
        for chat in (messages, messages[1:]):
            for prompt in (True, False):
                expected = smollm2_reference.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=prompt
                )
                assert smollm2.render_chat(chat, add_generation_prompt=prompt) == expected

    @pytest.mark.parametrize(
        ("pre", "pieces"),
        [
            ("gpt-2", ["hello", "Ġ", "Ġ", "12", "3"]),
            ("smollm", ["hello", "ĠĠ", "1", "2", "3"]),
            ("llama-bpe", ["hello", "Ġ", "Ġ", "12", "3"]),
            ("qwen2", ["hello", "Ġ", "Ġ", "1", "2", "3"]),
            ("default", ["hello", "Ġ", "Ġ", "12", "3"]),
        ],
    )
    def test_the_splitting_follows_its_name(self, pre: str, pieces: list[str]) -> None:
        metadata = byte_level_metadata(pre=pre, add_bos_token=False)
        tokens: Any = metadata["tokenizer.ggml.tokens"]
        ids = Tokenizer.from_gguf(metadata).encode("hello  123")
        assert [tokens[token_id] for token_id in ids] == pieces

    def test_the_frame_follows_the_file_and_its_defaults(self) -> None:
        end = byte_level_metadata()["tokenizer.ggml.eos_token_id"]
        bare = Tokenizer.from_gguf(byte_level_metadata()).encode("hello")
        framed = byte_level_metadata(add_bos_token=True, add_eos_token=True, bos_token_id=0)
        assert Tokenizer.from_gguf(framed).encode("hello") == [0, *bare, end]
        assert Tokenizer.from_gguf(framed).encode("hello", special_tokens=False) == bare
        llama3 = byte_level_metadata(pre="llama-bpe", bos_token_id=0)
        assert Tokenizer.from_gguf(llama3).encode("hello") == [0, *bare]

    def test_the_end_of_a_turn_ends_a_generation_too(self) -> None:
        end: Any = byte_level_metadata()["tokenizer.ggml.eos_token_id"]
        tokenizer = Tokenizer.from_gguf(byte_level_metadata(eot_token_id=end + 1))
        assert tokenizer.eos_ids == {end, end + 1}

    def test_user_defined_tokens_stay_whole_without_being_special(self) -> None:
        tokenizer = Tokenizer.from_gguf(byte_level_metadata())
        (token_id,) = tokenizer.encode("<tool>")
        assert not tokenizer.is_special(token_id)
        assert tokenizer.decode([token_id]) == "<tool>"

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"model": "rwkv"}, "tokenizer.ggml.model is 'rwkv'; accepted: gpt2, llama, bert"),
            ({"model": None}, "tokenizer.ggml.model is None"),
            ({"pre": "viking"}, "tokenizer.ggml.pre is 'viking'; accepted: default, gpt-2"),
            ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
            ({"merges": ["h e", "x"]}, r"merges\[1\] is not a pair"),
            ({"merges": ["q €"]}, "tokenizer.ggml.merges don't fit"),
            ({"token_type": [1]}, "token_type has 1 entries for"),
            ({"eos_token_id": 10**6}, "eos_token_id is 1000000, outside the"),
            ({"eos_token_id": "2"}, "eos_token_id is a str, expected int"),
            ({"add_bos_token": True}, "add_bos_token is true, but there is no"),
        ],
    )
    def test_what_is_wrong_with_the_metadata_is_named(
        self, changes: dict[str, object], complaint: str
    ) -> None:
        with pytest.raises(TokenizationError, match=complaint):
            Tokenizer.from_gguf(byte_level_metadata(**changes))


def best_pieces(text: str, metadata: Mapping[str, Any]) -> list[int]:
    """SentencePiece's BPE by its definition: join the best-scored neighbours, leftmost first."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {token: number for number, token in enumerate(tokens)}
    scores = metadata["tokenizer.ggml.scores"]
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        joined = [left + right for left, right in pairwise(symbols)]
        known = [(-scores[ids[piece]], at) for at, piece in enumerate(joined) if piece in ids]
        if not known:
            break
        at = min(known)[1]
        symbols[at : at + 2] = [joined[at]]
    found: list[int] = []
    for symbol in symbols:
        as_bytes = [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        found += [ids[symbol]] if symbol in ids else as_bytes
    return found


class TestGgufSentencePieces:
    @given(text=st.text(alphabet="helowrdab é€🙂", max_size=30))
    @settings(max_examples=300, deadline=None)
    def test_token_ids_equal_the_definition(self, sentence_pieces: Tokenizer, text: str) -> None:
        expected = best_pieces(text, sentence_piece_metadata())
        assert sentence_pieces.encode(text, special_tokens=False) == expected
        assert sentence_pieces.encode(text) == [1, *expected]

    @given(text=st.text(max_size=30))
    @settings(max_examples=200, deadline=None)
    def test_any_text_survives(self, sentence_pieces: Tokenizer, text: str) -> None:
        # The mark itself is read as a space: that is the format's own loss. Special tokens that are
        # written out would count as such.
        ids = sentence_pieces.encode(text, parse_special=False)
        assert sentence_pieces.decode(ids) == text.replace("▁", " ")

    def test_an_answer_keeps_its_first_space_where_something_precedes_it(
        self, sentence_pieces: Tokenizer
    ) -> None:
        prompt = sentence_pieces.encode("hello")
        answer = sentence_pieces.encode("world", special_tokens=False)
        assert "".join(stream_pieces(sentence_pieces, answer)) == "world"
        assert "".join(stream_pieces(sentence_pieces, answer, after=prompt)) == " world"
        assert "".join(stream_pieces(sentence_pieces, answer, after=[1])) == "world"

    def test_bytes_are_exact(self, sentence_pieces: Tokenizer) -> None:
        ids = sentence_pieces.encode("€", special_tokens=False)[1:]
        assert b"".join(map(sentence_pieces.token_bytes, ids)) == "€".encode()
        assert sentence_pieces.token_text(ids[0]) == "\ufffd"

    def test_scores_are_required(self) -> None:
        with pytest.raises(TokenizationError, match="scores has 0 entries for"):
            Tokenizer.from_gguf(sentence_piece_metadata(scores=None))


class TestGgufWordPieces:
    @pytest.mark.parametrize("text", TEXTS)
    def test_token_ids_equal_those_of_the_original_layout(
        self, minilm: Tokenizer, minilm_files: Mapping[str, Path], text: str
    ) -> None:
        words = minilm_files["vocab.txt"].read_text(encoding="utf-8").splitlines()
        keys: dict[str, object] = {
            "model": "bert",
            "tokens": [gguf_spelling(word) for word in words],
            "cls_token_id": 101,
            "seperator_token_id": 102,
            "unknown_token_id": 100,
            "padding_token_id": 0,
            "mask_token_id": 103,
        }
        metadata = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
        tokenizer = Tokenizer.from_gguf(metadata)
        assert tokenizer.encode(text) == minilm.encode(text)
        assert tokenizer.pad_id == 0


def gguf_spelling(word: str) -> str:
    if word.startswith("[") and word.endswith("]"):
        return word
    return word.removeprefix("##") if word.startswith("##") else f"▁{word}"


def some_ids(size: int = 49152) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size - 1), max_size=40)


class TestDecoding:
    @given(ids=some_ids())
    @settings(max_examples=300, deadline=None)
    def test_a_byte_level_stream_equals_decoding(self, smollm2: Tokenizer, ids: list[int]) -> None:
        assert "".join(stream_pieces(smollm2, ids)) == smollm2.decode(ids)

    @given(ids=some_ids(281))
    @settings(max_examples=300, deadline=None)
    def test_a_byte_fallback_stream_equals_decoding(
        self, sentence_pieces: Tokenizer, ids: list[int]
    ) -> None:
        assert "".join(stream_pieces(sentence_pieces, ids)) == sentence_pieces.decode(ids)

    @given(ids=some_ids(30522))
    @settings(max_examples=300, deadline=None)
    def test_a_word_piece_stream_equals_decoding(self, minilm: Tokenizer, ids: list[int]) -> None:
        assert "".join(stream_pieces(minilm, ids)) == minilm.decode(ids)

    @given(words=st.lists(st.sampled_from(["▁he", "llo", "▁", "▁w", "<x>", "<y>"]), max_size=12))
    @settings(max_examples=200, deadline=None)
    def test_a_unigram_stream_equals_decoding(self, words: list[str]) -> None:
        tokens = ["<unk>", "▁he", "llo", "▁", "▁w", "<x>", "<y>"]
        backend = tokenizers.Tokenizer(models.Unigram([(token, -1.0) for token in tokens], 0))
        backend.decoder = decoders.Metaspace()
        backend.add_special_tokens([AddedToken("<x>")])
        backend.add_tokens([AddedToken("<y>")])
        tokenizer = from_backend(backend)
        ids = [tokens.index(word) for word in words]
        assert "".join(stream_pieces(tokenizer, ids)) == tokenizer.decode(ids)

    @given(ids=some_ids())
    @settings(max_examples=300, deadline=None)
    def test_decoding_equals_the_librarys(
        self, smollm2: Tokenizer, smollm2_backend: tokenizers.Tokenizer, ids: list[int]
    ) -> None:
        for skip in (True, False):
            expected = smollm2_backend.decode(ids, skip_special_tokens=skip)
            assert smollm2.decode(ids, skip_special_tokens=skip) == expected

    def test_a_stream_holds_back_nothing_but_an_incomplete_character(
        self, smollm2: Tokenizer
    ) -> None:
        ids = [token_id for text in "a€b" for token_id in smollm2.encode(text)]
        pieces = stream_pieces(smollm2, ids)
        assert pieces[0] == "a"
        assert pieces[-2:] == ["b", ""]
        assert "".join(pieces) == "a€b"
        cut = stream_pieces(smollm2, smollm2.encode("🙂")[:-1])
        assert cut[:-1] == [""] * (len(cut) - 1)
        assert cut[-1] == "\ufffd"

    @given(text=some_text())
    @settings(max_examples=200, deadline=None)
    def test_token_bytes_add_up_to_the_text(self, smollm2: Tokenizer, text: str) -> None:
        ids = smollm2.encode(text, parse_special=False)
        assert b"".join(map(smollm2.token_bytes, ids)) == text.encode()

    @pytest.mark.parametrize("token_id", [-1, 10**6])
    def test_ids_without_a_token_have_no_text(
        self, smollm2: Tokenizer, minilm: Tokenizer, token_id: int
    ) -> None:
        for tokenizer in (smollm2, minilm):
            known = tokenizer.encode("hi", special_tokens=False)
            assert tokenizer.decode([*known, token_id]) == "hi"
            assert tokenizer.token_text(token_id) == ""
            assert tokenizer.token_bytes(token_id) == b""
            assert stream_pieces(tokenizer, [*known, token_id])[-2:] == ["", ""]


class TestEncoding:
    def test_a_lone_surrogate_is_refused_with_its_position(self, smollm2: Tokenizer) -> None:
        for encode in (
            smollm2.encode,
            lambda text: smollm2.encode_batch(["fine", text]),
            lambda text: smollm2.encode_pair("fine", text),
        ):
            with pytest.raises(TokenizationError, match=r"surrogate \(U\+D83D\) at position 3"):
                encode("ab \ud83d cd")

    def test_a_batch_equals_its_texts_one_by_one(
        self, smollm2: Tokenizer, minilm: Tokenizer
    ) -> None:
        for tokenizer in (smollm2, minilm):
            assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
        assert minilm.encode_batch(["a"], special_tokens=False) == [[1037]]
        assert minilm.encode_batch([]) == []

    def test_a_lowercased_one_sees_no_case(self, smollm2: Tokenizer, minilm: Tokenizer) -> None:
        # The one without a normalizer of its own, the other with one.
        for tokenizer in (smollm2, minilm):
            lowercased = tokenizer.lowercased()
            for text in TEXTS:
                assert lowercased.encode(text) == tokenizer.encode(text.lower())
        assert smollm2.encode("Hello") != smollm2.lowercased().encode("Hello")

    def test_threads_share_one_tokenizer(self, smollm2: Tokenizer) -> None:
        texts = [f"<|im_start|> {number} {text}" for number in range(20) for text in TEXTS]
        parsed = [smollm2.encode(text) for text in texts]
        literal = [smollm2.encode(text, parse_special=False) for text in texts]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(smollm2.encode, texts)) == parsed
            both = pool.map(
                lambda number: smollm2.encode(texts[number // 2], parse_special=number % 2 == 0),
                range(2 * len(texts)),
            )
            expected = [ids for pair in zip(parsed, literal, strict=True) for ids in pair]
            assert list(both) == expected


class TestSaving:
    def test_saved_equals_loaded(
        self,
        smollm2: Tokenizer,
        minilm: Tokenizer,
        sentence_pieces: Tokenizer,
        tmp_path: Path,
    ) -> None:
        messages = [{"role": "user", "content": "hi"}]
        for number, tokenizer in enumerate((smollm2, minilm, sentence_pieces)):
            folder = tmp_path / str(number)
            folder.mkdir()
            assert sorted(tokenizer.save(folder)) == sorted(path.name for path in folder.iterdir())
            loaded = Tokenizer.load(folder)
            for text in TEXTS:
                ids = tokenizer.encode(text)
                assert loaded.encode(text) == ids
                assert loaded.decode(ids) == tokenizer.decode(ids)
            for name in ("vocab_size", "bos_id", "eos_ids", "pad_id", "chat_template"):
                assert getattr(loaded, name) == getattr(tokenizer, name)
            if tokenizer.chat_template:
                assert loaded.render_chat(messages) == tokenizer.render_chat(messages)

    def test_line_ends_of_a_template_survive(self, tmp_path: Path) -> None:
        template = "a\r\nb\n\r\n"
        metadata = {**byte_level_metadata(), "tokenizer.chat_template": template}
        Tokenizer.from_gguf(metadata).save(tmp_path)
        assert (tmp_path / "chat_template.jinja").read_bytes() == template.encode()
        assert Tokenizer.load(tmp_path).chat_template == template

    def test_damaged_files_are_named(self, smollm2: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(TokenizationError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)
        smollm2.save(tmp_path)
        (tmp_path / "tokenizer_options.json").write_text("{}")
        with pytest.raises(TokenizationError, match=r"tokenizer_options\.json"):
            Tokenizer.load(tmp_path)


def with_template(template: str) -> Tokenizer:
    return Tokenizer.from_gguf({**byte_level_metadata(), "tokenizer.chat_template": template})


class TestChatTemplates:
    def test_templates_have_the_functions_they_are_written_for(self) -> None:
        tokenizer = with_template(
            "{{ eos_token }}{{ strftime_now('%Y-%m-%d') }}{{ tools | tojson }}"
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}"
            "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        )
        text = tokenizer.render_chat(
            [{"role": "user", "content": "<é>"}, {"role": "user", "content": "no"}],
            tools=[{"name": "f"}],
            now=lambda: datetime(2024, 2, 29, tzinfo=UTC),
        )
        assert text == '<end>2024-02-29[{"name": "f"}]user<é>'

    def test_blocks_leave_no_lines_behind(self) -> None:
        template = (
            "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n"
            "{% endfor %}\n"
        )
        assert with_template(template).render_chat([{"content": "a"}]) == "a\n"

    @pytest.mark.parametrize(
        ("template", "complaint"),
        [
            ("{% if %}", "not valid, line 1"),
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{{ messages[0].content.nothing.more }}", "no attribute 'nothing'"),
            ("{{ 'a' + messages[0].number }}", "can't render this"),
            ("{{ ''.__class__.__mro__ }}", "unsafe"),
            ("{{ messages.append(1) }}", "unsafe"),
            ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", f"{MAX_CHARACTERS}"),
        ],
    )
    def test_a_template_that_fails_says_why(self, template: str, complaint: str) -> None:
        with pytest.raises(ChatTemplateError, match=complaint):
            with_template(template).render_chat([{"content": "a", "number": 1}])

    def test_a_model_without_a_template_says_so(self, minilm: Tokenizer) -> None:
        with pytest.raises(ChatTemplateError, match="no chat template"):
            minilm.render_chat([{"role": "user", "content": "hi"}])


def test_tokenization_runs_without_torch_and_numpy() -> None:
    script = (
        "import sys, model_core.tokenization, model_core.checkpoints.gguf_metadata\n"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'gguf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def write(folder: Path, name: str, text: str) -> dict[str, Path]:
    (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name}


def from_backend(backend: tokenizers.Tokenizer) -> Tokenizer:
    from model_core.vocabularies import SpecialTokens, Vocabulary

    return Tokenizer(Vocabulary(backend, SpecialTokens(None, frozenset(), None, {}), None))
