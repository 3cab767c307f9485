"""What sentence-transformers writes is read, and what can't be done here is refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.sentence_transformers import (
    load_sentence_embedder,
    read_score_activation,
    read_sentence_config,
)
from model_core.checkpoints.sources import Located
from model_core.config import PoolingMode
from model_core.pooling import pool
from model_core.sentence_config import (
    DenseStep,
    NormStep,
    Pooling,
    SentenceConfig,
    Similarity,
    UnitStep,
    VectorActivation,
    WeightedMean,
)

DIM = 8
TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
NORM = {"type": "sentence_transformers.models.LayerNorm", "path": "2_LayerNorm"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"}
# Where the classes are since version 6.
NEWER = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"


def checkpoint(folder: Path, files: Mapping[str, Any]) -> Located:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith(".safetensors"):
            save_file(content, path)
        else:
            path.write_text(json.dumps(content))
    return Located("a folder", {name: folder / name for name in files}, "unknown")


def embedding_model(
    folder: Path, *modules: dict[str, str], pooling: Mapping[str, Any] | None = None, **files: Any
) -> Located:
    """A checkpoint with a Transformer, Pooling by `pooling`, and then `modules`."""
    config = {"word_embedding_dimension": DIM, **(pooling or {})}
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return checkpoint(
        folder,
        {
            "modules.json": [TRANSFORMER, POOLING, *modules],
            "1_Pooling/config.json": config,
            **{f"{name}.json": content for name, content in named.items()},
        },
    )


def dense(**changes: Any) -> dict[str, Any]:
    config = {
        "in_features": DIM,
        "out_features": 3,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    return {**config, **changes}


def read(located: Located) -> SentenceConfig:
    config = read_sentence_config(located)
    assert config is not None
    return config


class TestPooling:
    @pytest.mark.parametrize(
        ("switch", "name", "mode"),
        [
            ("pooling_mode_mean_tokens", "mean", PoolingMode.MEAN),
            ("pooling_mode_cls_token", "cls", PoolingMode.CLS),
            ("pooling_mode_max_tokens", "max", PoolingMode.MAX),
            (
                "pooling_mode_mean_sqrt_len_tokens",
                "mean_sqrt_len_tokens",
                WeightedMean.SQRT_LENGTH,
            ),
            ("pooling_mode_weightedmean_tokens", "weightedmean", WeightedMean.POSITION),
            ("pooling_mode_lasttoken", "lasttoken", PoolingMode.LAST),
        ],
    )
    def test_both_ways_of_writing_a_mode_are_read(
        self, tmp_path: Path, switch: str, name: str, mode: Pooling
    ) -> None:
        older = {switch: True, "pooling_mode_other": False, "include_prompt": True}
        assert read(embedding_model(tmp_path, pooling=older)).pooling == (mode,)
        newer = {"pooling_mode": name, "include_prompt": True}
        assert read(embedding_model(tmp_path, pooling=newer)).pooling == (mode,)

    def test_several_switches_stand_in_the_order_of_sentence_transformers(
        self, tmp_path: Path
    ) -> None:
        switches = {
            "pooling_mode_lasttoken": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": True,
        }
        config = read(embedding_model(tmp_path, pooling=switches))
        assert config.pooling == (PoolingMode.CLS, PoolingMode.MEAN, PoolingMode.LAST)
        assert config.vector_dim(DIM) == 3 * DIM

    def test_several_names_stand_in_their_own_order(self, tmp_path: Path) -> None:
        located = embedding_model(tmp_path, pooling={"pooling_mode": ["mean", "cls"]})
        assert read(located).pooling == (PoolingMode.MEAN, PoolingMode.CLS)

    def test_without_any_mode_it_is_the_mean(self, tmp_path: Path) -> None:
        located = embedding_model(tmp_path, pooling={"pooling_mode_cls_token": False})
        assert read(located).pooling == (PoolingMode.MEAN,)

    @pytest.mark.parametrize(
        ("pooling", "complaint"),
        [
            ({"include_prompt": False}, "include_prompt is false"),
            ({"pooling_mode": "attention"}, "pooling_mode 'attention' is not supported"),
            ({"pooling_mode": []}, "pooling_mode 'none'"),
            ({"pooling_mode_attention": True}, "pooling_mode_attention is not supported"),
        ],
    )
    def test_other_pooling_is_refused(
        self, tmp_path: Path, pooling: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            read_sentence_config(embedding_model(tmp_path, pooling=pooling))


class TestModules:
    def test_steps_are_in_the_order_of_the_modules(self, tmp_path: Path) -> None:
        located = embedding_model(
            tmp_path,
            DENSE,
            NORM,
            NORMALIZE,
            **{"2_Dense__config": dense(), "2_LayerNorm__config": {"dimension": 3}},
        )
        assert read(located).steps == (
            DenseStep("2_Dense", DIM, 3, bias=True, activation=VectorActivation.TANH),
            NormStep("2_LayerNorm", 3),
            UnitStep(),
        )

    @pytest.mark.parametrize(
        ("name", "activation"),
        [
            ("torch.nn.modules.linear.Identity", VectorActivation.IDENTITY),
            ("torch.nn.modules.activation.Tanh", VectorActivation.TANH),
            ("torch.nn.ReLU", VectorActivation.RELU),
            ("torch.nn.modules.activation.GELU", VectorActivation.GELU),
            ("torch.nn.modules.activation.SiLU", VectorActivation.SILU),
            ("torch.nn.modules.activation.Sigmoid", VectorActivation.SIGMOID),
        ],
    )
    def test_activations_go_by_torchs_names(
        self, tmp_path: Path, name: str, activation: VectorActivation
    ) -> None:
        config = dense(activation_function=name, bias=False)
        located = embedding_model(tmp_path, DENSE, **{"2_Dense__config": config})
        assert read(located).steps == (DenseStep("2_Dense", DIM, 3, False, activation),)

    def test_a_checkpoint_without_modules_says_nothing(self) -> None:
        assert read_sentence_config(Located("a folder", {}, "unknown")) is None

    def test_a_cross_encoder_makes_no_vectors(self, tmp_path: Path) -> None:
        options = {"model_type": "CrossEncoder"}
        files = {"modules.json": [TRANSFORMER], "config_sentence_transformers.json": options}
        assert read_sentence_config(checkpoint(tmp_path, files)) is None

    def test_without_a_normalize_module_nothing_is_normalised(self, tmp_path: Path) -> None:
        assert read(embedding_model(tmp_path)).steps == ()

    def test_the_newer_names_of_the_classes_are_known(self, tmp_path: Path) -> None:
        transformer = "sentence_transformers.base.modules.transformer.Transformer"
        modules = [
            {"type": transformer, "path": ""},
            {"type": NEWER, "path": "1_Pooling"},
            {"type": "sentence_transformers.sentence_transformer.modules.dropout.Dropout"},
        ]
        files = {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode": "cls"}}
        config = read(checkpoint(tmp_path, files))
        assert (config.pooling, config.steps) == ((PoolingMode.CLS,), ())

    @pytest.mark.parametrize(
        ("modules", "complaint"),
        [
            ([TRANSFORMER, POOLING, {**DENSE, "type": "mine.Dense"}], "mine.Dense is code of"),
            ([TRANSFORMER, POOLING, {**DENSE, "type": "sentence_transformers.models.CNN"}], "CNN"),
            ([POOLING, TRANSFORMER], "the modules are Pooling, Transformer; expected"),
            ([], "the modules are none"),
            ({}, "has to list modules"),
            ([TRANSFORMER, POOLING, DENSE], "names 2_Dense/config.json, which is missing"),
        ],
    )
    def test_other_modules_are_refused(self, tmp_path: Path, modules: Any, complaint: str) -> None:
        files = {"modules.json": modules, "1_Pooling/config.json": {}}
        with pytest.raises(CheckpointError, match=complaint):
            read_sentence_config(checkpoint(tmp_path, files))

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"activation_function": "mine.Swish"}, "'mine.Swish'; accepted: torch.nn.Identity"),
            ({"activation_function": "torch.nn.Mish"}, "'torch.nn.Mish'; accepted"),
            ({"in_features": "8"}, "in_features is '8', expected a width"),
            ({"use_residual": True}, "use_residual is True; accepted: False"),
            ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ],
    )
    def test_other_dense_layers_are_refused(
        self, tmp_path: Path, changes: dict[str, Any], complaint: str
    ) -> None:
        located = embedding_model(tmp_path, DENSE, **{"2_Dense__config": dense(**changes)})
        with pytest.raises(CheckpointError, match=complaint):
            read_sentence_config(located)


class TestOptions:
    def test_limits_and_prompts_are_read(self, tmp_path: Path) -> None:
        prompts = {"query": "query: ", "document": "passage: "}
        config = read(
            embedding_model(
                tmp_path,
                sentence_bert_config={"max_seq_length": 77, "do_lower_case": True},
                config_sentence_transformers={
                    "prompts": prompts,
                    "default_prompt_name": "query",
                    "similarity_fn_name": "dot",
                },
            )
        )
        assert (config.max_tokens, config.lowercase) == (77, True)
        assert (config.prompts, config.default_prompt) == (prompts, "query")
        assert config.similarity is Similarity.DOT

    def test_without_options_there_are_defaults(self, tmp_path: Path) -> None:
        config = read(embedding_model(tmp_path, config_sentence_transformers={"prompts": None}))
        assert config == SentenceConfig(steps=())

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"similarity_fn_name": "maxsim"}, "similarity_fn_name is 'maxsim'; accepted: cosine"),
            ({"default_prompt_name": "query"}, "default_prompt_name is 'query', the prompts are"),
            ({"model_type": "SparseEncoder"}, "model_type is 'SparseEncoder'; accepted"),
        ],
    )
    def test_other_options_are_refused(
        self, tmp_path: Path, options: dict[str, Any], complaint: str
    ) -> None:
        located = embedding_model(tmp_path, config_sentence_transformers=options)
        with pytest.raises(CheckpointError, match=complaint):
            read_sentence_config(located)


class TestWeights:
    def located(self, folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Located:
        located = embedding_model(folder, DENSE, NORMALIZE, **{"2_Dense__config": dense(**config)})
        save_file(dict(tensors), folder / "2_Dense" / "model.safetensors")
        path = {"2_Dense/model.safetensors": folder / "2_Dense" / "model.safetensors"}
        return Located(located.source, {**located.files, **path}, located.licence)

    def test_they_are_those_of_the_checkpoint(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        tensors = {"linear.weight": torch.randn(3, DIM), "linear.bias": torch.randn(3)}
        located = self.located(tmp_path, tensors)
        embedder = load_sentence_embedder(located, read(located), DIM)
        hidden, lengths = torch.randn(2, 4, DIM), torch.tensor([4, 2])
        mean = pool(hidden, lengths, PoolingMode.MEAN)
        expected = torch.tanh(mean @ tensors["linear.weight"].T + tensors["linear.bias"])
        expected = expected / expected.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(embedder(hidden, lengths), expected)
        assert not embedder.training

    def test_every_tensor_is_accounted_for(self, tmp_path: Path) -> None:
        located = self.located(
            tmp_path, {"linear.weight": torch.zeros(2, DIM), "residual.weight": torch.zeros(1)}
        )
        with pytest.raises(CheckpointError) as caught:
            load_sentence_embedder(located, read(located), DIM)
        assert "2_Dense/model.safetensors lacks linear.bias" in str(caught.value)
        assert "has residual.weight, which isn't expected" in str(caught.value)
        assert "has linear.weight of shape (2, 8), expected (3, 8)" in str(caught.value)

    def test_widths_have_to_follow_from_one_another(self, tmp_path: Path) -> None:
        located = self.located(tmp_path, {}, in_features=9)
        with pytest.raises(CheckpointError, match="takes vectors of 9, but is given 8"):
            load_sentence_embedder(located, read(located), DIM)

    def test_a_pickle_is_no_weights(self, tmp_path: Path) -> None:
        located = embedding_model(tmp_path, DENSE, **{"2_Dense__config": dense()})
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin beside it is a pickle"):
            load_sentence_embedder(located, read(located), DIM)


class TestCrossEncoders:
    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("config.json", {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}),
            ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Identity"}),
            ("config_sentence_transformers.json", {"activation_fn": "torch.nn.Identity"}),
        ],
    )
    def test_the_activation_of_scores_is_read_wherever_it_is(
        self, tmp_path: Path, file: str, content: dict[str, Any]
    ) -> None:
        located = checkpoint(tmp_path, {file: content})
        assert read_score_activation(located) is VectorActivation.IDENTITY

    def test_a_checkpoint_may_say_nothing_of_it(self, tmp_path: Path) -> None:
        located = checkpoint(tmp_path, {"config.json": {"sentence_transformers": {}}})
        assert read_score_activation(located) is None

    def test_an_unknown_activation_is_refused(self, tmp_path: Path) -> None:
        options = {"sentence_transformers": {"activation_fn": "mine.Swish"}}
        located = checkpoint(tmp_path, {"config.json": options})
        with pytest.raises(CheckpointError, match=r"activation_fn is 'mine\.Swish'"):
            read_score_activation(located)
