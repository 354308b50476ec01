"""Answers for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rlm_runtime.api import Result
from rlm_runtime.benchmark.ttft_result import RATIOS, Series, TtftResult
from rlm_runtime.cli.inputs import Text
from rlm_runtime.cli.terminal import clean, count, one_line, percent, seconds
from rlm_runtime.scaffold.recipes.search_result import Outcome, Passage
from rlm_runtime.scaffold.short_form import ShortForm
from rlm_runtime.types import StopReason

Texts = Mapping[str, Text]
"""The session's texts, by the name of their variable."""

_SHOWN = 3
"""Passages for people, the answer among them."""

_LISTED = 10
"""Passages in a document."""

_MORE_WIDTH = 160
"""Further passages are cut to so many characters: they are a look around, the places are exact."""

_LIMITS = {
    StopReason.BUDGET_TOKENS: "max_tokens",
    StopReason.BUDGET_CALLS: "max_calls",
    StopReason.BUDGET_SECONDS: "max_seconds",
}


def limit_that_ended(result: Result) -> str | None:
    """The name of the limit that ended a search early; `None` when it came to its end."""
    return _LIMITS.get(result.stop_reason)


def block(result: Result, texts: Texts, strong: Callable[[str], str]) -> str:
    """The answer as a few lines: quotation, place, up to two more passages.

    Of a question of several parts each has its own, below its words, or what became of it.

    Args:
        result: What was found.
        texts: The session's texts.
        strong: Makes the words stand out that the short form has chosen.
    """
    # A sentence may have been scored for several parts; it is shown once.
    distinct: dict[tuple[str, int], Passage] = {}
    for passage in (*result.answers, *result.passages):
        distinct.setdefault((passage.variable, passage.start_byte), passage)
    others = [passage for passage in distinct.values() if passage not in result.answers]
    limit = limit_that_ended(result)
    nothing = "Not found" if limit is None else f"Nothing found before {limit} was reached"
    if not result.found:
        return "\n".join([nothing, *_more("nearest", others[:_SHOWN], texts)])
    quotations = {
        passage.part: (_quotation(passage, short, strong), _place_line(passage, texts))
        for passage, short in zip(result.answers, result.shorts, strict=True)
    }
    lines = []
    for asked in result.parts:
        if asked.part:
            lines.append(one_line(asked.part))
        if asked.outcome is Outcome.NOT_FOUND:
            lines.append(nothing)
        elif asked.outcome is Outcome.LEFT_OUT:
            lines.append(f"Left out: {limit} was reached")
        else:
            quotation, place = quotations[asked.part]
            mark = "uncertain: " if asked.outcome is Outcome.UNCERTAIN else ""
            lines += [f"{mark}{quotation}", place]
    return "\n".join([*lines, *_more("also", others[: _SHOWN - 1], texts)])


def cost(result: Result) -> str:
    """What the question took, in one line."""
    usage = result.usage
    share = "" if usage.hit_rate is None else f" ({percent(usage.hit_rate)})"
    wall_s = result.figures.get("wall_s")
    parts = [
        f"{count(usage.computed_tokens, 'token')} computed, {usage.cached_tokens:,} from "
        f"cache{share}",
        count(usage.calls, "call"),
        *([] if wall_s is None else [seconds(wall_s)]),
    ]
    return ", ".join(parts)


def caveat(result: Result) -> str:
    """What was not looked at, and what that may mean; empty when all was."""
    ranked = f"{result.ranked:,} of {count(result.pieces, 'chunk')} were ranked by the model"
    limit = limit_that_ended(result)
    if limit is not None:
        return f"{ranked}, then {limit} was reached: the answer is partial."
    if result.ranked >= result.pieces:
        return ""
    return (
        f"{ranked}, picked by their words: a passage that says it in other words may be missed. "
        "--exhaustive ranks all."
    )


def facts(question: str, result: Result, texts: Texts) -> dict[str, object]:
    """A question with all that came of it, for the document."""
    return {
        "question": question,
        "answer": result.answer,
        "answers": [
            _passage(passage, texts)
            | {"part": passage.part, "short": _short(passage, short, texts)}
            for passage, short in zip(result.answers, result.shorts, strict=True)
        ],
        "parts": [{"part": asked.part, "outcome": str(asked.outcome)} for asked in result.parts],
        "found": result.found,
        "is_uncertain": result.is_uncertain,
        "stop_reason": str(result.stop_reason),
        "passages": [_passage(passage, texts) for passage in result.passages[:_LISTED]],
        "chunks": result.pieces,
        "chunks_ranked": result.ranked,
        "agent_id": result.agent_id,
        "figures": dict(result.figures),
    }


def _quotation(passage: Passage, short: ShortForm | None, strong: Callable[[str], str]) -> str:
    if short is None:
        return clean(passage.text).strip()
    data = passage.text.encode()
    start, end = short.start_byte - passage.start_byte, short.end_byte - passage.start_byte
    before, behind = data[:start].decode(), data[end:].decode()
    return f"{clean(before).lstrip()}{strong(clean(short.text))}{clean(behind).rstrip()}"


def _short(passage: Passage, short: ShortForm | None, texts: Texts) -> dict[str, object] | None:
    if short is None:
        return None
    skipped = texts[passage.variable].source.skipped_bytes
    return {
        "text": short.text,
        "start_byte": short.start_byte + skipped,
        "end_byte": short.end_byte + skipped,
    }


def _passage(passage: Passage, texts: Texts) -> dict[str, object]:
    text = texts[passage.variable]
    skipped = text.source.skipped_bytes
    return {
        "variable": passage.variable,
        "file": text.source.shown,
        "start_byte": passage.start_byte + skipped,
        "end_byte": passage.end_byte + skipped,
        "text": passage.text,
        "heading": passage.heading,
        "lift": passage.lift,
        "part": passage.part,
    }


def _place(passage: Passage, texts: Texts) -> str:
    return texts[passage.variable].place(passage.start_byte, passage.end_byte)


def _place_line(passage: Passage, texts: Texts) -> str:
    heading = f"  ({one_line(passage.heading, 80)})" if passage.heading else ""
    return f"    {_place(passage, texts)}{heading}"


def _more(label: str, passages: Sequence[Passage], texts: Texts) -> list[str]:
    return [f"    {label} {_place(p, texts)}: {one_line(p.text, _MORE_WIDTH)}" for p in passages]


def pairs(result: TtftResult) -> str:
    """Cold and warm requests at the end of a run, the ratio first."""
    cold, warm = result.ttft_ms(Series.COLD), result.ttft_ms(Series.WARM)
    ratio, saved_ms = result.ratio(RATIOS[0]), result.saved_ms
    if ratio is None or saved_ms is None:
        return "Time to first token: no pair came to its end."
    interval = "" if ratio.low is None else f" (95 %: {ratio.interval})"
    return (
        f"Time to first token, {count(min(len(cold), len(warm)), 'pair')} run alone: warm / cold "
        f"{ratio.value:.3f}{interval}; {median(warm):,.0f} ms instead of {median(cold):,.0f} ms, "
        f"{saved_ms:,.0f} ms saved a request."
    )
