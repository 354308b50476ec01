"""`rlm doctor`: what would keep a question from being answered, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlm_runtime.cli.command import DONE, ENVIRONMENT, EXIT_CODES, Command, Document
from rlm_runtime.cli.options import ConfigOption, JsonOption, SetOption, load

if TYPE_CHECKING:
    from rlm_runtime.cli.findings import Finding
    from rlm_runtime.cli.terminal import Terminal

EPILOG = f"""\b
Examples:
  rlm doctor
  rlm doctor --fix
  rlm doctor --probe
  rlm doctor --config gpu-24gb --json

{EXIT_CODES}"""

FixOption = Annotated[
    bool,
    typer.Option(
        "--fix",
        help="Prepare the default model, and remove packages that break vLLM's CPU build; "
        "says what it does.",
    ),
]

ProbeOption = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Boot the engine too, and try whether it caches prompts with this model, and in "
        "which steps; half a minute on two CPU cores.",
    ),
]

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    fix: FixOption = False,
    probe: ProbeOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    wants_json: JsonOption = False,
) -> Command:
    """Look at everything a run needs: packages, model, memory, configuration, disk.

    Takes about a second and starts no engine, unless it is asked to. Exit code 3 when there is a
    problem; warnings are none.
    """

    def work(terminal: Terminal, document: Document) -> int:
        # Late: the model's tokenizer and all settings.
        from rlm_runtime.cli import findings

        found = findings.look(lambda: load(config, settings))
        if fix and any(finding.fix is not None for finding in found):
            # Late: only a fix needs it.
            from rlm_runtime.cli import fixes

            fixes.apply(found, terminal)
            found = findings.look(lambda: load(config, settings))
        if probe and all(finding.level != "problem" for finding in found):
            # Late: the session.
            from rlm_runtime.cli import findings_probe

            found += findings_probe.probe(load(config, settings).config, terminal)
        elif probe:
            terminal.hint("Not probed: the engine would not boot, or not work, as things are.")
        problems = sum(finding.level == "problem" for finding in found)
        document["findings"] = [_facts(finding) for finding in found]
        document["problems"] = problems
        document["warnings"] = sum(finding.level == "warning" for finding in found)
        if not wants_json:
            _show(found, terminal)
        return ENVIRONMENT if problems else DONE

    return Command(work, wants_json=wants_json)


def _facts(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.name,
        "level": finding.level,
        "what": finding.what,
        "remedy": finding.remedy,
        "can_fix": finding.fix is not None,
        "facts": dict(finding.facts),
    }


def _show(found: list[Finding], terminal: Terminal) -> None:
    # Late, as above.
    from rich.text import Text

    from rlm_runtime.cli.terminal import clean, count

    for finding in found:
        line = Text.assemble((f"{finding.level:8}", _STYLES[finding.level]), clean(finding.what))
        terminal.put_rich(line)
        if finding.remedy:
            terminal.put_rich(Text(f"{'':8}{clean(finding.remedy)}"))
    problems = [finding for finding in found if finding.level == "problem"]
    if problems:
        terminal.hint(f"{count(len(problems), 'problem')}: a run would fail.")
