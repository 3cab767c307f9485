"""Who takes part in which job: environments, and the contenders that run in them.

A contender is a process that speaks the protocol of `workers/line_loop.py`. All answer `prepare`,
which sweeps the contender's own settings and says what won: {"name", "versions", "settings"}.
Then, each giving {"seconds"}:

- encoders: `embed(texts)`, from strings on; `queue(texts)`, the same with a request for each text
  where there are requests; and `vectors(texts)`, to see that all do the same work;
- decoders: `prefill(prompts)`, until each prompt of token ids has its next token, and
  `decode(prompts, steps)`, `steps` more greedy tokens in every row, the prompts' run not counted;
- translators: `translate(sources, steps)`, `steps` greedy tokens for every source of token ids.

Decoders and translators also answer `tokens(prompts or sources, steps)` with {"tokens"}, a list a
row, and `prepare` is given prompts or sources. Servers take no part in the protocol:
`http_peers.measure(contender, run, texts, connections)` starts one, warms it up, measures it and
stops it; it gives what `prepare` says, and figures by the units "requests/s", "p50 ms", "p99 ms".
It raises `WorkerFailed` when a server doesn't start or answers with an error.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment: what pip installs into it, torch as well unless it isn't needed."""

    name: str
    requirements: tuple[str, ...]
    torch: bool = True


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a job.

    Runs `workers/<script>` in its environment, or the module `loadtests.peers.<script>` here where
    there is none: those are ours. In `arguments`, `{minilm}` is a folder with the checkpoint,
    `{gguf}` SmolLM2's file, `{builds}` a folder where conversions are kept from run to run,
    `{threads}` the cores of the machine. `precision` names the limit that the speed is held
    against: fp32, bf16, int8 or int4.
    """

    name: str
    environment: Environment | None
    script: str
    arguments: tuple[str, ...]
    precision: str

    @property
    def is_ours(self) -> bool:
        return self.environment is None


SENTENCE_TRANSFORMERS = Environment("sentence-transformers", ("sentence-transformers",))
SENTENCE_TRANSFORMERS_ONNX = Environment(
    "sentence-transformers-onnx", ("sentence-transformers[onnx]",)
)
CTRANSLATE2 = Environment("ctranslate2", ("ctranslate2", "transformers", "gguf", "accelerate"))
OPENVINO = Environment("openvino", ("openvino", "transformers"))
ONNXRUNTIME_GENAI = Environment(
    # All but the first are for its model builder, and for turning GGUF into what that reads.
    "onnxruntime-genai",
    ("onnxruntime-genai", "onnx", "onnx-ir", "transformers", "gguf", "accelerate"),
)
OPENVINO_GENAI = Environment(
    "openvino-genai",
    (
        "openvino",
        "openvino-genai",
        "openvino-tokenizers",
        "optimum-intel",
        "transformers",
        "gguf",
        "accelerate",
        "nncf",
    ),
)
# Built on the machine, for its own instructions: a compiler and cmake are needed.
LLAMA = Environment("llama-cpp-python", ("llama-cpp-python",))
INFINITY = Environment("infinity-emb", ("infinity-emb[server,torch,optimum]", "ctranslate2"))

ENCODERS = (
    Contender("ours-fp32", None, "ours_encoder", ("fp32", "{threads}"), "fp32"),
    Contender("ours-int8", None, "ours_encoder", ("int8", "{threads}"), "int8"),
    Contender(
        "sentence-transformers-fp32",
        SENTENCE_TRANSFORMERS,
        "encoder_torch.py",
        ("{minilm}", "torch", "fp32"),
        "fp32",
    ),
    Contender(
        "sentence-transformers-bf16",
        SENTENCE_TRANSFORMERS,
        "encoder_torch.py",
        ("{minilm}", "torch", "bf16"),
        "bf16",
    ),
    Contender(
        "sentence-transformers-onnx-fp32",
        SENTENCE_TRANSFORMERS_ONNX,
        "encoder_torch.py",
        ("{minilm}", "onnx", "fp32"),
        "fp32",
    ),
    Contender(
        "ctranslate2-fp32",
        CTRANSLATE2,
        "encoder_ctranslate2.py",
        ("{minilm}", "{builds}", "fp32"),
        "fp32",
    ),
    Contender(
        "ctranslate2-int8",
        CTRANSLATE2,
        "encoder_ctranslate2.py",
        ("{minilm}", "{builds}", "int8"),
        "int8",
    ),
    Contender(
        "openvino-fp32", OPENVINO, "encoder_openvino.py", ("{minilm}", "{builds}", "fp32"), "fp32"
    ),
    Contender(
        "openvino-bf16", OPENVINO, "encoder_openvino.py", ("{minilm}", "{builds}", "bf16"), "bf16"
    ),
)

DECODERS = (
    Contender("ours-fp32", None, "ours_decoder", ("fp32", "{threads}"), "fp32"),
    Contender("ours-int8", None, "ours_decoder", ("int8", "{threads}"), "int8"),
    *(
        Contender(
            f"onnxruntime-genai-{precision}",
            ONNXRUNTIME_GENAI,
            "decoder_genai.py",
            ("{gguf}", "{builds}", precision),
            precision,
        )
        for precision in ("fp32", "int4")
    ),
    Contender(
        "ctranslate2-fp32",
        CTRANSLATE2,
        "decoder_ctranslate2.py",
        ("{gguf}", "{builds}", "float32"),
        "fp32",
    ),
    Contender(
        "ctranslate2-int8",
        CTRANSLATE2,
        "decoder_ctranslate2.py",
        ("{gguf}", "{builds}", "int8"),
        "int8",
    ),
    Contender(
        "openvino-genai-bf16",
        OPENVINO_GENAI,
        "decoder_openvino.py",
        ("{gguf}", "{builds}", "fp32", "bf16"),
        "bf16",
    ),
    Contender(
        "openvino-genai-int8",
        OPENVINO_GENAI,
        "decoder_openvino.py",
        ("{gguf}", "{builds}", "int8", "bf16"),
        "int8",
    ),
    Contender("llama.cpp-q4_1", LLAMA, "decoder_llama.py", ("{gguf}", "{builds}", "file"), "int4"),
    Contender("llama.cpp-q4_0", LLAMA, "decoder_llama.py", ("{gguf}", "{builds}", "q4_0"), "int4"),
    Contender("llama.cpp-q8_0", LLAMA, "decoder_llama.py", ("{gguf}", "{builds}", "q8_0"), "int8"),
)

TRANSLATORS = (
    Contender("ours-fp32", None, "ours_translation", ("{builds}", "fp32", "{threads}"), "fp32"),
    Contender("ours-int8", None, "ours_translation", ("{builds}", "int8", "{threads}"), "int8"),
    Contender(
        "ctranslate2-fp32",
        CTRANSLATE2,
        "translation_ctranslate2.py",
        ("{builds}", "float32"),
        "fp32",
    ),
    Contender(
        "ctranslate2-int8",
        CTRANSLATE2,
        "translation_ctranslate2.py",
        ("{builds}", "int8"),
        "int8",
    ),
)

SERVERS = (
    *(
        Contender(
            f"ours-{precision}-{front}",
            None,
            "serve",
            arguments,
            precision,
        )
        for front, arguments in (("plain", ("--plain",)), ("ray", ()))
        for precision in ("fp32", "int8")
    ),
    *(
        Contender(
            f"infinity-{engine}-{precision}",
            INFINITY,
            "server_infinity.py",
            ("{minilm}", "{builds}", engine, dtype),
            precision,
        )
        for engine, dtype, precision in (
            ("torch", "float32", "fp32"),
            ("torch", "bfloat16", "bf16"),
            ("optimum", "float32", "fp32"),
            ("optimum", "int8", "int8"),
            ("ctranslate2", "float32", "fp32"),
        )
    ),
)
