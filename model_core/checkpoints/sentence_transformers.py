"""What sentence-transformers wrote in a checkpoint: the modules after the Transformer.

Of an embedding model `modules.json` and the modules' own configurations and weights; of a
cross-encoder the activation of its scores. Anything that isn't supported is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final, cast

from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.fields import Fields
from model_core.checkpoints.load import read_json
from model_core.checkpoints.readers import SafetensorsReader
from model_core.checkpoints.sources import Located
from model_core.config import PoolingMode
from model_core.pooling import SentenceEmbedder
from model_core.sentence_config import (
    DenseStep,
    NormStep,
    Pooling,
    SentenceConfig,
    Similarity,
    Step,
    UnitStep,
    VectorActivation,
    WeightedMean,
)

OWN_CLASSES: Final = "sentence_transformers."
EMBEDS: Final = "SentenceTransformer"
SCORES: Final = "CrossEncoder"
# The order in which several older switches stand one after the other.
SWITCHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
    }
)
MODES: Final[Mapping[str, Pooling]] = MappingProxyType(
    {
        "cls": PoolingMode.CLS,
        "max": PoolingMode.MAX,
        "mean": PoolingMode.MEAN,
        "mean_sqrt_len_tokens": WeightedMean.SQRT_LENGTH,
        "weightedmean": WeightedMean.POSITION,
        "lasttoken": PoolingMode.LAST,
    }
)
# By the last part of a dotted name: torch has these classes in two places each.
ACTIVATIONS: Final[Mapping[str, VectorActivation]] = MappingProxyType(
    {
        "Identity": VectorActivation.IDENTITY,
        "Tanh": VectorActivation.TANH,
        "ReLU": VectorActivation.RELU,
        "GELU": VectorActivation.GELU,
        "SiLU": VectorActivation.SILU,
        "Sigmoid": VectorActivation.SIGMOID,
    }
)


def read_sentence_config(located: Located) -> SentenceConfig | None:
    """How the checkpoint makes vectors; None where it has no `modules.json` or scores pairs.

    Raises `CheckpointError` for kinds of models, modules, pooling modes and options that are not
    supported, by name.
    """
    options = _read_config(located, "", "config_sentence_transformers.json", required=False)
    kind = options.get("model_type", EMBEDS)
    if kind not in (EMBEDS, SCORES):
        raise CheckpointError(
            f"config_sentence_transformers.json: model_type is {kind!r}; accepted: {EMBEDS}, "
            f"{SCORES}"
        )
    if "modules.json" not in located.files or kind == SCORES:
        return None
    modules = _read_modules(located)
    kinds = [_kind(module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise CheckpointError(
            f"modules.json: the modules are {', '.join(kinds) or 'none'}; expected a Transformer, "
            "then Pooling"
        )
    transformer, pooling = (_folder(module) for module in modules[:2])
    limits = _read_config(located, transformer, "sentence_bert_config.json", required=False)
    prompts = _read_prompts(options.get("prompts") or {})
    default_prompt = options.get("default_prompt_name")
    if default_prompt is not None and default_prompt not in prompts:
        raise CheckpointError(
            f"config_sentence_transformers.json: default_prompt_name is {default_prompt!r}, the "
            f"prompts are {', '.join(prompts) or 'none'}"
        )
    return SentenceConfig(
        pooling=_read_pooling_modes(located, pooling),
        steps=tuple(
            step
            for module, kind in zip(modules[2:], kinds[2:], strict=True)
            if (step := _read_step(located, kind, _folder(module))) is not None
        ),
        max_tokens=Fields(limits, "sentence_bert_config.json").optional("max_seq_length", int),
        lowercase=bool(limits.get("do_lower_case", False)),
        prompts=MappingProxyType(dict(prompts)),
        default_prompt=default_prompt,
        similarity=_read_similarity(options),
    )


def load_sentence_embedder(located: Located, config: SentenceConfig, dim: int) -> SentenceEmbedder:
    """The layers after a Transformer of `dim`, with the checkpoint's weights.

    Raises `CheckpointError` where widths don't follow from one another, and naming every tensor
    that is missing, unexpected or of another shape.
    """
    width = dim * len(config.pooling)
    for step in config.steps:
        if isinstance(step, UnitStep):
            continue
        takes, gives = (
            (step.in_dim, step.out_dim) if isinstance(step, DenseStep) else (step.dim, step.dim)
        )
        if takes != width:
            raise CheckpointError(
                f"{step.folder}/config.json: the layer takes vectors of {takes}, but is given "
                f"{width}"
            )
        width = gives
    embedder = SentenceEmbedder(config)
    for step, module in zip(config.steps, embedder.steps, strict=True):
        if not isinstance(step, UnitStep):
            _load_weights(located, step.folder, module)
    return embedder.eval()


def read_score_activation(located: Located) -> VectorActivation | None:
    """What a cross-encoder puts on its scores; None where the checkpoint doesn't say.

    Raises `CheckpointError` naming an activation that isn't known.
    """
    model = _read_config(located, "", "config.json", required=False)
    own: object = model.get("sentence_transformers")
    own = cast("Mapping[str, object]", own) if isinstance(own, Mapping) else {}
    options = _read_config(located, "", "config_sentence_transformers.json", required=False)
    stated = (
        ("config.json, sentence_transformers.activation_fn", own.get("activation_fn")),
        (
            "config.json, sbert_ce_default_activation_function",
            model.get("sbert_ce_default_activation_function"),
        ),
        ("config_sentence_transformers.json, activation_fn", options.get("activation_fn")),
    )
    for where, name in stated:
        if name is not None:
            return _activation(where, name)
    return None


# --- modules --------------------------------------------------------------------------------------


def _read_modules(located: Located) -> list[Mapping[str, str]]:
    try:
        modules: object = json.loads(located.files["modules.json"].read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"modules.json is not valid JSON: {error}") from error
    entries = cast("list[object]", modules) if isinstance(modules, list) else [modules]
    if not all(is_module(entry) for entry in entries):
        raise CheckpointError("modules.json has to list modules, each with a 'type' and a 'path'")
    return cast("list[Mapping[str, str]]", entries)


def _read_prompts(stated: object) -> Mapping[str, str]:
    prompts = cast("Mapping[str, object]", stated) if isinstance(stated, Mapping) else None
    if prompts is None or not all(isinstance(text, str) for text in prompts.values()):
        raise CheckpointError(
            f"config_sentence_transformers.json: prompts is {stated!r}, expected names to texts"
        )
    return cast("Mapping[str, str]", prompts)


def is_module(entry: object) -> bool:
    """Whether an entry of `modules.json` names a type and a folder."""
    if not isinstance(entry, dict):
        return False
    named = cast("Mapping[str, object]", entry)
    return isinstance(named.get("type"), str) and isinstance(named.get("path", ""), str)


def _kind(module: Mapping[str, str]) -> str:
    name = module["type"]
    if not name.startswith(OWN_CLASSES):
        raise CheckpointError(f"modules.json: {name} is code of the checkpoint, which is never run")
    return name.rpartition(".")[2]


def _folder(module: Mapping[str, str]) -> str:
    return module.get("path", "")


def _read_step(located: Located, kind: str, folder: str) -> Step | None:
    if kind == "Dropout":  # which does nothing once a model is trained
        return None
    if kind not in ("Dense", "LayerNorm", "Normalize"):
        raise CheckpointError(f"modules.json: a module {kind} is not supported")
    config = _read_config(located, folder, "config.json", required=kind != "Normalize")
    where = f"{folder}/config.json"
    for option, usual in (
        ("module_input_name", "sentence_embedding"),
        ("module_output_name", "sentence_embedding"),
        ("use_residual", False),
    ):
        if config.get(option) not in (None, usual):
            raise CheckpointError(f"{where}: {option} is {config[option]!r}; accepted: {usual!r}")
    if kind == "Normalize":
        return UnitStep()
    if kind == "LayerNorm":
        return NormStep(folder, _number(where, config, "dimension"))
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    return DenseStep(
        folder,
        _number(where, config, "in_features"),
        _number(where, config, "out_features"),
        bias=bool(config.get("bias", True)),
        activation=_activation(f"{where}, activation_function", name),
    )


def _read_pooling_modes(located: Located, folder: str) -> tuple[Pooling, ...]:
    config = _read_config(located, folder, "config.json", required=True)
    where = f"{folder}/config.json"
    if not config.get("include_prompt", True):
        raise CheckpointError(f"{where}: include_prompt is false, which is not supported")
    stated: object = config.get("pooling_mode")
    switched = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if unknown := sorted(set(switched) - set(SWITCHES)):
        raise CheckpointError(f"{where}: {', '.join(unknown)} is not supported")
    if stated is None:
        # Without any, the mean is sentence-transformers' own default.
        stated = [mode for key, mode in SWITCHES.items() if key in switched] or ["mean"]
    names = cast("list[object]", stated) if isinstance(stated, list) else [stated]
    if unknown := [name for name in names if not isinstance(name, str) or name not in MODES] or (
        [] if names else ["none"]
    ):
        raise CheckpointError(
            f"{where}: pooling_mode {unknown[0]!r} is not supported; accepted: {', '.join(MODES)}"
        )
    return tuple(MODES[cast("str", name)] for name in names)


def _read_similarity(options: Mapping[str, Any]) -> Similarity:
    name: object = options.get("similarity_fn_name") or Similarity.COSINE
    try:
        return Similarity(cast("str", name))
    except ValueError as error:
        raise CheckpointError(
            f"config_sentence_transformers.json: similarity_fn_name is {name!r}; accepted: "
            f"{', '.join(Similarity)}"
        ) from error


def _activation(where: str, name: object) -> VectorActivation:
    last = str(name).rpartition(".")[2]
    if not str(name).startswith("torch.nn.") or last not in ACTIVATIONS:
        accepted = ", ".join(f"torch.nn.{known}" for known in ACTIVATIONS)
        raise CheckpointError(f"{where} is {name!r}; accepted: {accepted}")
    return ACTIVATIONS[last]


def _number(where: str, config: Mapping[str, Any], key: str) -> int:
    value: object = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{where}: {key} is {value!r}, expected a width")
    return value


def _read_config(located: Located, folder: str, name: str, *, required: bool) -> Mapping[str, Any]:
    path = str(PurePosixPath(folder, name))
    if path in located.files:
        return read_json(located.files[path])
    if required:
        raise CheckpointError(f"modules.json names {path}, which is missing")
    return {}


def _load_weights(located: Located, folder: str, module: Any) -> None:
    path = str(PurePosixPath(folder, "model.safetensors"))
    if path not in located.files:
        raise CheckpointError(
            f"modules.json names {path}, which is missing; a pytorch_model.bin beside it is a "
            "pickle, which is never read"
        )
    reader = SafetensorsReader({"model.safetensors": located.files[path]})
    found = {name: reader.shape(name) for name in reader.names()}
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = [
        *(f"lacks {name}" for name in expected if name not in found),
        *(f"has {name}, which isn't expected" for name in found if name not in expected),
        *(
            f"has {name} of shape {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ),
    ]
    if wrong:
        raise CheckpointError(f"{path} {'; '.join(wrong)}")
    module.load_state_dict({name: reader.read(name) for name in found})
