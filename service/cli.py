"""`anatomy`: finds the floor that owns a command, and imports it only then.

So `anatomy serve` never loads torch, and `anatomy --help` loads nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives: the module whose `app` has it, among others or alone.

    A command of two words stands beside that of the first.
    """

    module: str
    help: str
    among_others: bool = True
    app: str = "app"


COMMANDS: Mapping[str, Command] = {
    "serve": Command("service.commands", "Serve models over HTTP, behind Ray Serve."),
    "embed": Command("service.offline_commands", "Texts to vectors, a line each."),
    "classify": Command("service.offline_commands", "Texts to labels, a line each."),
    "generate": Command("service.offline_commands", "Prompts to continuations, a line each."),
    "inspect": Command(
        "service.inspection.commands", "What goes on inside a model.", among_others=False
    ),
    "load": Command("service.admin_commands", "Serve one more model, in a running service."),
    "swap": Command("service.admin_commands", "Serve another model in the place of one."),
    "unload": Command("service.admin_commands", "Serve a model no more."),
    "key": Command("service.commands", "Make an API key."),
    "models": Command("service.commands", "The embedded models and what is cached."),
    "doctor": Command("service.commands", "What is wrong with this machine, and what to do."),
    "models families": Command(
        "model_core.commands",
        "The family tree: which checkpoints are read.",
        among_others=False,
        app="families_app",
    ),
    "export": Command("export.commands", "A checkpoint to an ONNX artifact.", among_others=False),
    "train": Command("model_core.commands", "Train a model or a head.", among_others=False),
    "corpus": Command(
        "model_core.training.corpora.commands",
        "Public data as files to train on.",
        among_others=False,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name; ends the process with its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print_help(Console())
        sys.exit(0)
    if given[0] == "--version":
        print(version("transformer-anatomy"))
        sys.exit(0)
    name = " ".join(given[:2])
    name = name if name in COMMANDS else given[0]
    if name not in COMMANDS:
        console = Console(stderr=True)
        console.print(f"[red]error:[/] no command {given[0]!r}", highlight=False)
        print_help(console)
        sys.exit(2)
    command = COMMANDS[name]
    try:
        app = getattr(import_module(command.module), command.app)
    except ModuleNotFoundError as error:
        extra = command.module.partition(".")[0]
        Console(stderr=True).print(
            f"[red]error:[/] {name} needs the package {error.name!r}; install the extra "
            f"that has it: pip install 'transformer-anatomy\\[export]' (for {extra})",
            highlight=False,
        )
        sys.exit(1)
    rest = given if command.among_others else given[len(name.split()) :]
    program = "anatomy" if command.among_others else f"anatomy {name}"
    app(rest, prog_name=program)


def print_help(console: Console) -> None:
    """What there is, a line a command."""
    console.print("[bold]anatomy[/] COMMAND …   a Transformer from scratch, exported and served\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(f"[cyan]{name}[/]", command.help)
    console.print(table)
    console.print(
        "\nExamples:\n  anatomy serve\n  anatomy embed minilm texts.txt > vectors.jsonl\n"
        "  echo 'a large wild cat' | anatomy classify supersense\n"
        "\nanatomy COMMAND --help has more, with examples.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
