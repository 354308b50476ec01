"""`rlm-bench run`: workloads with ground truth, one verb each."""

from __future__ import annotations

import typer

from rlm_runtime.cli import calls, many_questions, needle, qa, rows
from rlm_runtime.cli.command import EXIT_CODES
from rlm_runtime.cli.options import CONTEXT


def app() -> typer.Typer:
    """The verbs of `rlm-bench run`."""
    verbs = typer.Typer(
        help="Run a workload whose results are known, and count what comes out.",
        epilog=EXIT_CODES,
        rich_markup_mode=None,
        context_settings=CONTEXT,
        no_args_is_help=False,
    )
    verbs.command("qa", epilog=qa.EPILOG)(qa.qa)
    verbs.command("needle", epilog=needle.EPILOG)(needle.needle)
    verbs.command("many-questions", epilog=many_questions.EPILOG)(many_questions.many_questions)
    verbs.command("rows", epilog=rows.EPILOG)(rows.rows)
    verbs.command("calls", epilog=calls.EPILOG)(calls.calls)
    return verbs
