"""The two programs: their verbs, their options before the verb, and reading the arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rlm_runtime.cli import (
    compare,
    config,
    doctor,
    explain,
    graph,
    model,
    replay,
    report,
    resume,
    run,
    ttft,
    workload,
)
from rlm_runtime.cli.command import EXIT_CODES, SCHEMA_VERSION, USAGE, Command
from rlm_runtime.cli.options import CONTEXT

VersionOption = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]


def rlm(arguments: Sequence[str] | None = None) -> int:
    """`rlm`: returns the exit code.

    Args:
        arguments: Without the program's name; `None` is the process's own.
    """
    return _run(_rlm_app(), "rlm", arguments)


def rlm_bench(arguments: Sequence[str] | None = None) -> int:
    """`rlm-bench`: returns the exit code.

    Args:
        arguments: Without the program's name; `None` is the process's own.
    """
    return _run(_bench_app(), "rlm-bench", arguments)


def _rlm_app() -> typer.Typer:
    app = _app("Ask questions about texts of any length. The model runs on this machine.")
    app.command("run", epilog=run.EPILOG)(run.run)
    app.command("resume", epilog=resume.EPILOG)(resume.resume)
    app.command("replay", epilog=replay.EPILOG)(replay.replay)
    app.command("graph", epilog=graph.EPILOG)(graph.graph)
    app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
    app.command("config", epilog=config.EPILOG)(config.config)
    app.add_typer(model.app(), name="model")
    return app


def _bench_app() -> typer.Typer:
    app = _app("Measure this machine's engine: what the shared prefix and batching save.")
    app.command("ttft", epilog=ttft.EPILOG)(ttft.ttft)
    app.add_typer(workload.app(), name="run")
    app.command("report", epilog=report.EPILOG)(report.report)
    app.command("explain", epilog=explain.EPILOG)(explain.explain)
    app.command("compare", epilog=compare.EPILOG)(compare.compare)
    return app


def _app(help_: str) -> typer.Typer:
    app = typer.Typer(
        help=help_,
        epilog=EXIT_CODES,
        # Plain help: it is read in pipes and logs too, and needs no rich.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings=CONTEXT,
    )

    @app.callback(invoke_without_command=True, epilog=EXIT_CODES)
    def before_verb(context: typer.Context, show_version: VersionOption = False) -> int | None:
        if show_version:
            # Late: it takes longer to import than all of the help.
            from importlib.metadata import version

            typer.echo(f"{context.info_name} {version('rlm-vllm')}")
            raise typer.Exit(0)
        if context.invoked_subcommand is None:
            typer.echo(context.get_help(), err=True)
            raise typer.Exit(USAGE)
        return None

    return app


def _run(app: typer.Typer, program: str, arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        outcome = app(given, prog_name=program, standalone_mode=False)
    except typer.TyperException as err:
        return _usage_error(err, program, wants_json="--json" in given)
    if isinstance(outcome, int):  # help or version was printed, or an interrupt came
        return outcome
    if not isinstance(outcome, Command):
        raise TypeError(f"a verb returned {outcome!r} instead of a command")
    # Late: it brings rich, which help can do without.
    from rlm_runtime.cli import guard

    return guard.run(outcome)


def _usage_error(err: typer.TyperException, program: str, *, wants_json: bool) -> int:
    from rlm_runtime.cli.terminal import Terminal

    # The verb's name is only known to the usage errors, a private class of typer.
    context = getattr(err, "ctx", None)
    verb = program if context is None else context.command_path
    what, remedy = err.format_message(), f"See: {verb} --help"
    terminal = Terminal(wants_json=wants_json)
    terminal.error(f"{what} {remedy}")
    if wants_json:
        facts = {"code": "usage", "message": f"{what} {remedy}", "what": what, "remedy": remedy}
        error = facts | {"exit_code": USAGE}
        terminal.put_document({"schema_version": SCHEMA_VERSION, "error": error})
    return USAGE
