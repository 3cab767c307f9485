"""A tiny model that knows no language, with a real vocabulary and a template that takes tools."""

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from model_core.tokenization import Tokenizer
from tests.support.vocabularies import LINES

HERMES_TEMPLATE = """\
{%- if tools %}<|system|>Functions:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
Call them like <tool_call>
{"name": …, "arguments": …}
</tool_call><|end|>{% endif %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}
</tool_call>{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

MISTRAL_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == "user" and loop.last and tools is not none %}[TOOLS]{{ tools | tojson }}
{%- endif %}
{%- if message.tool_calls %}{{ "[TOOL_CALLS] [" }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception("ids have nine characters") }}{% endif %}
{{- call.function | tojson }}{% endfor %}]<|end|>
{%- else %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

PLAIN_TEMPLATE = """\
{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

VOCAB_SIZE = 400
END = "<|end|>"
MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "[TOOL_CALLS]", "[TOOLS]")


def write_vocabulary(folder: Path, template: str) -> None:
    """Byte-level BPE of a few merges; what marks turns, and Mistral's calls, are special tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [*LINES, '{"name": "", "arguments": {"": ""}}'] * 2,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE - 1,
            special_tokens=[END, *MARKERS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # As Qwen has it: a token of its own, which is not a special one.
    backend.add_tokens([AddedToken("<tool_call>", special=False)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    (folder / "chat_template.jinja").write_text(template)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder."""
    return Tokenizer.from_files({path.name: path for path in folder.iterdir()})
