"""`rlm model`: the models that are here, and bringing others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import DONE, EXIT_CODES, Command, Document
from rlm_runtime.cli.options import CONTEXT, JsonOption, QuietOption

if TYPE_CHECKING:
    from rlm_runtime.cli.terminal import Terminal

DEFAULT = "smollm2-135m-instruct"
"""As `model_files.DEFAULT`, which is too much to import for help; a test compares them."""

_LIST_EPILOG = f"""\b
Example:
  rlm model list --json

{EXIT_CODES}"""
_ADD_EPILOG = f"""\b
Examples:
  rlm model add                          # the default model
  rlm model add ./my-model               # a folder, left where it is
  rlm model add Qwen/Qwen3-0.6B          # from the Hugging Face hub

{EXIT_CODES}"""
_PATH_EPILOG = f"""\b
Example:
  ls -l "$(rlm model path)"

{EXIT_CODES}"""

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="The default model's name, a folder, or an id (owner/name)."
    ),
]
Known = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="The default model's name, a folder, or a name that was added."
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Prepare the default model again, even if it looks whole; let a folder take over "
        "the name of another one.",
    ),
]


def app() -> typer.Typer:
    """The verbs of `rlm model`."""
    verbs = typer.Typer(
        help="List, add and find models.",
        epilog=EXIT_CODES,
        rich_markup_mode=None,
        context_settings=CONTEXT,
        no_args_is_help=False,
    )
    verbs.command("list", epilog=_LIST_EPILOG)(list_models)
    verbs.command("add", epilog=_ADD_EPILOG)(add)
    verbs.command("path", epilog=_PATH_EPILOG)(path)
    return verbs


def list_models(wants_json: JsonOption = False) -> Command:
    """List the models that were prepared or added, with size and folder."""

    def work(terminal: Terminal, document: Document) -> int:
        # Late: not needed to print help.
        from rlm_runtime.cli.terminal import shown_path, size
        from rlm_runtime.engine import model_files

        found = model_files.installed()
        document["models"] = [
            {
                "name": model.name,
                "path": shown_path(model.path),
                "size_bytes": model.size_bytes,
                "problem": None if model.problem is None else str(model.problem),
            }
            for model in found
        ]
        if not found:
            terminal.hint("No model is here yet. Prepare the default one: rlm model add")
        for model in found if not wants_json else ():
            terminal.put(f"{model.name}  {size(model.size_bytes)}  {shown_path(model.path)}")
            if model.problem is not None:
                terminal.put(f"    problem: {model.problem}")
        return DONE

    return Command(work, wants_json=wants_json)


def add(
    model: Model = DEFAULT,
    force: Force = False,
    wants_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Command:
    """Make a model ready: prepare the default one, register a folder, or download an id.

    What is downloaded, how much and where to is said first. An interrupt leaves nothing half done.
    Without a network, copy a prepared folder from another machine and add it.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: not needed to print help.
        from rlm_runtime.cli.first_use import bring
        from rlm_runtime.cli.terminal import shown_path

        folder = bring(model, terminal, force=force)
        document |= {"name": folder.name, "path": shown_path(folder.path)}
        terminal.hint(f"{folder.name} is ready:")
        if not wants_json:
            terminal.put(shown_path(folder.path))
        return DONE

    return Command(work, wants_json=wants_json, is_quiet=quiet)


def path(model: Known = DEFAULT, wants_json: JsonOption = False) -> Command:
    """Print the folder of a model that is here; exit code 3 when it is not, or not whole."""

    def work(terminal: Terminal, document: Document) -> int:
        # Late: not needed to print help.
        from rlm_runtime.cli.terminal import shown_path
        from rlm_runtime.engine import model_files

        folder = model_files.resolve(model)
        document |= {"name": folder.name, "path": shown_path(folder.path)}
        if not wants_json:
            terminal.put(shown_path(folder.path))
        return DONE

    return Command(work, wants_json=wants_json)
