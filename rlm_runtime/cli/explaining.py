"""What `rlm-bench explain` does: read a run, find the model's tokenizer, show what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlm_runtime.benchmark.results import Table
from rlm_runtime.cli import results, runs
from rlm_runtime.cli.command import DONE, Document
from rlm_runtime.cli.terminal import Terminal, clean, count, one_line, percent, shown_path
from rlm_runtime.engine import model_files
from rlm_runtime.errors import InputError, ModelError
from rlm_runtime.profiler.causes import Cause
from rlm_runtime.profiler.divergence import Excerpt, Vocabulary
from rlm_runtime.profiler.explain import (
    CAUSES,
    KINDS,
    CallShare,
    CauseShare,
    Explanation,
    Finding,
    explain,
)
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.tracing import EngineStarted

_DIGEST_CHARACTERS = 12
_LABEL_CHARACTERS = 40


def explain_run(
    run: str | None,
    terminal: Terminal,
    document: Document,
    *,
    top: int,
    shows_text: bool,
    model: str | None,
) -> int:
    """Explain a run; returns the exit code.

    Args:
        run: As typed.
        terminal: Gets the tables.
        document: Gets the same as facts.
        top: Calls shown for each cause and each break.
        shows_text: The surroundings of a break are shown.
        model: Whose tokenizer reads ids; `None` is the one that the log names.

    Raises:
        InputError: There is no such run, or the model is not the run's.
        ModelError: The model that was named can't be used.
        TraceError: The log can't be read.
    """
    log = RunLog.load(runs.find(run))
    vocabulary, note = _vocabulary(log, model)
    found = explain(log, vocabulary)
    notes = [*log.notes, *note]
    if not log.has_blobs and log.causes:
        notes.append("Without the ids of all prompts, breaks of the layout can't be looked for.")
    document |= {
        "run_directory": shown_path(log.directory),
        "figures": dict(log.figures()),
        "causes": [_cause_facts(share, top) for share in found.causes],
        "breaks": [_break_facts(one, top, shows_text, vocabulary) for one in found.findings]
        if log.has_blobs
        else None,
        "notes": notes,
    }
    if not terminal.wants_json:
        _show(log, found, terminal, top, shows_text, vocabulary)
        for line in notes:
            terminal.say(line)
    return DONE


def _vocabulary(log: RunLog, model: str | None) -> tuple[Vocabulary | None, list[str]]:
    """The run's tokenizer, and why it is not here."""
    engine = next((e for e in reversed(log.events) if isinstance(e, EngineStarted)), None)
    if engine is None or not any(one.layout for one in log.causes):
        return None, []  # there is nothing to read
    try:
        tokenizer = Tokenizer.from_folder(model_files.resolve(model or engine.model).path)
    except ModelError:
        if model is not None:
            raise
        why = f"The run's model, {one_line(engine.model, 80)}, is not on this machine"
    else:
        if tokenizer.digest == engine.tokenizer_digest:
            return Vocabulary(tokenizer.decode, tokenizer.special_ids), []
        if model is not None:
            raise InputError(
                f"The tokenizer of {model} is not the one that the run was made with.",
                "Name the run's model, or leave --model out.",
            )
        why = f"The model {one_line(engine.model, 80)} has another tokenizer than the run's"
    return None, [
        f"{why}: its prompts can't be read, so token ids are shown, and few kinds of breaks can be "
        "told. Name its folder with --model."
    ]


def _call_facts(calls: Sequence[CallShare], top: int) -> list[dict[str, object]]:
    return [
        {
            "request_id": call.request_id,
            "agent_id": call.agent_id,
            "label": call.label,
            "document": call.document,
            "tokens": call.tokens,
        }
        for call in calls[:top]
    ]


def _cause_facts(share: CauseShare, top: int) -> dict[str, object]:
    return {
        "cause": str(share.cause),
        "tokens": share.tokens,
        "share": share.share,
        "calls": len(share.calls),
        **CAUSES[share.cause]._asdict(),
        "biggest_calls": _call_facts(share.calls, top),
    }


def _break_facts(
    finding: Finding, top: int, shows_text: bool, vocabulary: Vocabulary | None
) -> dict[str, object]:
    example, divergence = finding.example, finding.example.divergence
    here, earlier = divergence.here, divergence.earlier
    facts: dict[str, object] = {
        "kind": str(finding.kind),
        "tokens": finding.tokens,
        "calls": len(finding.calls),
        **KINDS[finding.kind]._asdict(),
        "first_position": finding.first_position,
        "last_position": finding.last_position,
        "request_id": example.request_id,
        "earlier_request_id": example.earlier_request_id,
        "position": divergence.position,
        "segment": here.segment,
        "earlier_segment": earlier.segment,
        "differing_tokens": here.end - here.start,
        "earlier_differing_tokens": earlier.end - earlier.start,
        "equal_tokens": example.equal_tokens,
    }
    if shows_text:
        for name, part in (("", example.here), ("earlier_", example.earlier)):
            texts = (None, None, None) if vocabulary is None else part.texts(vocabulary)
            ids = (part.before, part.own, part.after)
            for place, text, some in zip(("before", "differing", "after"), texts, ids, strict=True):
                facts[f"{name}{place}_text"] = text
                facts[f"{name}{place}_ids"] = list(some)
    return facts | {"biggest_calls": _call_facts(finding.calls, top)}


def _show(
    log: RunLog,
    found: Explanation,
    terminal: Terminal,
    top: int,
    shows_text: bool,
    vocabulary: Vocabulary | None,
) -> None:
    if not log.causes:
        terminal.put("No call of this run was answered by the engine: nothing was computed.")
        return
    figures = log.figures()
    computed, prompt = (int(figures[f"{name}_tokens"] or 0) for name in ("computed", "prompt"))
    share = percent(computed / prompt) if prompt else "none"
    calls = count(len(log.causes), "call")
    terminal.put(f"{computed:,} of {prompt:,} prompt tokens were computed ({share}), in {calls}.")
    results.show_tables([_causes(found.causes)], (), terminal)
    if top:
        results.show_tables([_calls(found.causes, top)], (), terminal)
    for finding in found.findings:
        terminal.put("\n".join(["", *_lines(finding, top, shows_text, vocabulary)]))


def _causes(causes: Iterable[CauseShare]) -> Table:
    rows = tuple(
        (
            str(share.cause),
            f"{share.tokens:,}",
            percent(share.share),
            f"{len(share.calls):,}",
            f"{CAUSES[share.cause].meaning} {CAUSES[share.cause].remedy}",
        )
        for share in causes
    )
    header = ("cause", "tokens", "share", "calls", "what it means, what to do")
    return Table("Why tokens were computed", header, rows)


def _calls(causes: Iterable[CauseShare], top: int) -> Table:
    rows = tuple(
        (
            str(share.cause) if number == 0 else "",
            f"{call.tokens:,}",
            _id(call.request_id),
            _id(call.agent_id),
            one_line(call.label, _LABEL_CHARACTERS),
            _short(call.document),
        )
        for share in causes
        for number, call in enumerate(share.calls[:top])
    )
    header = ("cause", "tokens", "request", "agent", "label", "document")
    return Table("The calls behind it, biggest first", header, rows)


def _id(name: str) -> str:
    """As it stands in the log, which may be anybody's."""
    return one_line(name, _LABEL_CHARACTERS)


def _short(document: str | None) -> str:
    return "" if document is None else one_line(document, _DIGEST_CHARACTERS)


def _lines(
    finding: Finding, top: int, shows_text: bool, vocabulary: Vocabulary | None
) -> Iterable[str]:
    """A break for people."""
    example, divergence = finding.example, finding.example.divergence
    advice = KINDS[finding.kind]
    calls = count(len(finding.calls), "call")
    yield f"{Cause.LAYOUT}: {finding.kind}, {count(finding.tokens, 'token')} in {calls}"
    yield f"  {advice.meaning}"
    yield f"  {advice.remedy}"
    request, earlier_request = _id(example.request_id), _id(example.earlier_request_id)
    here, earlier = divergence.here, divergence.earlier
    where = _segment(here.segment)
    if earlier.segment != here.segment:
        where += f" (there {_segment(earlier.segment)})"
    follow = count(example.equal_tokens, "equal token")
    yield (
        f"  {request} differs from {earlier_request} from token "
        f"{divergence.position:,} on, {where}; {follow} behind it were computed again."
    )
    if finding.first_position != finding.last_position:
        span = f"{finding.first_position:,} to {finding.last_position:,}"
        yield f"  First differing tokens of all these calls: {span}."
    if shows_text:
        width = max(len(request), len(earlier_request))
        for name, part in ((request, example.here), (earlier_request, example.earlier)):
            yield f"    {name:<{width}}  {_surroundings(part, vocabulary)}"
    if top:
        named = ", ".join(
            f"{_id(call.request_id)} ({_id(call.agent_id)}, "
            f"{one_line(call.label, _LABEL_CHARACTERS)}) "
            f"{call.tokens:,}"
            for call in finding.calls[:top]
        )
        more = len(finding.calls) - top
        yield f"  Calls: {named}{f' and {more:,} more' if more > 0 else ''}"


def _segment(kind: str | None) -> str:
    return "behind its end" if kind is None else f"in `{one_line(kind, 20)}`"


def _surroundings(part: Excerpt, vocabulary: Vocabulary | None) -> str:
    """On one line, what differs in double brackets."""
    if vocabulary is None:
        before, own, after = (
            " ".join(map(str, ids)) for ids in (part.before, part.own, part.after)
        )
    else:
        before, own, after = map(_visible, part.texts(vocabulary))
    return f"...{before}[[{own}{'...' if part.is_cut else ''}]]{after}..."


def _visible(text: str) -> str:
    return clean(text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t"))
