"""Why a run's tokens were computed: causes with the calls behind them, and breaks of the layout.

A break is one call against one earlier call that holds the same tokens behind another prefix.
Breaks of one kind at one place are one finding, however many calls it hit, with the tokens that it
cost them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlm_runtime.profiler.causes import CallCauses, Cause, EarlierCopy
from rlm_runtime.profiler.divergence import (
    VALUE_TOKENS,
    Divergence,
    Excerpt,
    Kind,
    Vocabulary,
    diverge,
    excerpt,
)
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import Prompt
from rlm_runtime.tracing import CallFinished, Segment


class Advice(NamedTuple):
    """What a cause or a kind of break means, and what to do about it; sentences."""

    meaning: str
    remedy: str


CAUSES: Mapping[Cause, Advice] = {
    Cause.FIRST_USE: Advice(
        "No call had computed these tokens before, with this engine and since its cache was last "
        "emptied: the work that the task needs.",
        "Send fewer tokens: pick texts before the model reads them.",
    ),
    Cause.BLOCK_ROUNDING: Advice(
        "The end of a prompt that fills no whole cache block, or its last token, which is always "
        "computed.",
        "Where many short prompts share a text, fill that text to a block border, or make blocks "
        "smaller (engine.block_size).",
    ),
    Cause.EVICTED: Advice(
        "The engine had these tokens and threw them away, for its cache was full.",
        "Ask all there is to ask about a text before the next one, or give the cache more memory "
        "(engine.kv_cache_gib).",
    ),
    Cause.LAYOUT: Advice(
        "The same tokens were computed before, behind another prefix.",
        "Put what prompts share first and what varies last; the breaks are listed below.",
    ),
    Cause.SKIPPED: Advice(
        "The request did not read the cache: it was told not to, or its scored tokens were cached "
        "and it was computed once more for their log-probabilities.",
        "Let calls read the cache, and end what stands in front of scored tokens at a block "
        "border.",
    ),
    Cause.SALT: Advice(
        "The same tokens were computed before, in another namespace of the cache.",
        "Give calls that may share one salt, or none.",
    ),
    Cause.UNEXPLAINED: Advice(
        "No cause fits: calls are missing in the log, or something else used the engine.",
        "Report it where the log is whole and the engine served this run alone.",
    ),
}

KINDS: Mapping[Kind, Advice] = {
    Kind.TEMPLATE: Advice(
        "Control tokens, or what a chat template writes around them, differ.",
        "Use one template with the same options for all prompts, and append turns: never render "
        "the turns before anew.",
    ),
    Kind.REJOINED_TEXT: Advice(
        "The same text stands there as other tokens: it was joined as text and tokenised again.",
        "Append the generated ids as they came, and encode only what is new.",
    ),
    Kind.DATA_AFTER_TASK: Advice(
        "The same data stand behind differing instructions.",
        "Put the data first, and what is said about them last.",
    ),
    Kind.VARYING_VALUE: Advice(
        "A small value that varies (a date, counter, name or path) stands in front of text that "
        "stays the same.",
        "Move the value behind what prompts share, or leave it out.",
    ),
    Kind.OTHER: Advice(
        "Other text stands in front of the same text.",
        "Where it has to stand there (one question behind many documents, a sentence without its "
        "page), nothing can be saved; else put what is the same first.",
    ),
}


@dataclass(frozen=True, slots=True)
class CallShare:
    """What one call adds to a sum.

    Attributes:
        request_id: The call's.
        agent_id: Who asked.
        label: What for.
        document: Digest of the document in its prompt, or the name of its group; `None` without.
        tokens: Computed tokens.
    """

    request_id: str
    agent_id: str
    label: str
    document: str | None
    tokens: int


@dataclass(frozen=True, slots=True)
class CauseShare:
    """One cause of computed tokens.

    Attributes:
        cause: Which.
        tokens: Sum over the run.
        share: Of all computed tokens, 0..1.
        calls: Those with such tokens, biggest first.
    """

    cause: Cause
    tokens: int
    share: float
    calls: tuple[CallShare, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One call against the earlier call that holds the same tokens.

    Attributes:
        request_id: The call's.
        earlier_request_id: The earlier one's.
        divergence: Where they part.
        equal_tokens: What they share behind it: computed again.
        here: Around the difference, in the call's prompt.
        earlier: Likewise, in the earlier one.
    """

    request_id: str
    earlier_request_id: str
    divergence: Divergence
    equal_tokens: int
    here: Excerpt
    earlier: Excerpt


@dataclass(frozen=True, slots=True)
class Finding:
    """Breaks of one kind at one place.

    Attributes:
        kind: Of all of them.
        tokens: Computed again because of it, sum over the calls.
        calls: Biggest first.
        first_position: Least position of a first token that differs.
        last_position: Greatest.
        example: The two calls that share the most.
    """

    kind: Kind
    tokens: int
    calls: tuple[CallShare, ...]
    first_position: int
    last_position: int
    example: Example


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the tokens of a run were computed.

    Attributes:
        causes: Those with tokens, biggest first; they add up to all computed tokens.
        findings: Breaks of the layout, costliest first; they add up to the tokens of that cause.
    """

    causes: tuple[CauseShare, ...]
    findings: tuple[Finding, ...]


def explain(log: RunLog, vocabulary: Vocabulary | None = None) -> Explanation:
    """Say why a run's tokens were computed.

    Costs what `RunLog.causes` costs, and about a millisecond for each call with a broken layout.

    Args:
        log: The run.
        vocabulary: Of the run's tokenizer; without it few kinds of breaks can be told.
    """
    calls = log.causes
    computed = sum(sum(one.tokens.values()) for one in calls)
    causes = [_cause_share(cause, calls, computed) for cause in Cause]
    found = [share for share in causes if share.tokens]
    findings = [_finding(log, breaks) for breaks in _places(_breaks(log, vocabulary))]
    return Explanation(
        tuple(sorted(found, key=lambda share: -share.tokens)),
        tuple(sorted(findings, key=lambda finding: -finding.tokens)),
    )


class _Break(NamedTuple):
    call: CallFinished
    earlier: CallFinished
    tokens: int
    divergence: Divergence


def _cause_share(cause: Cause, calls: Iterable[CallCauses], computed: int) -> CauseShare:
    shares = [_share(one.call, one.tokens[cause]) for one in calls if one.tokens[cause]]
    tokens = sum(share.tokens for share in shares)
    return CauseShare(cause, tokens, tokens / computed if computed else 0.0, _biggest(shares))


def _share(call: CallFinished, tokens: int) -> CallShare:
    document = next((s.digest for s in call.segments if s.kind == "document"), None)
    return CallShare(call.request_id, call.agent_id, call.label, document or call.group, tokens)


def _biggest(shares: Iterable[CallShare]) -> tuple[CallShare, ...]:
    return tuple(sorted(shares, key=lambda share: -share.tokens))


def _breaks(log: RunLog, vocabulary: Vocabulary | None) -> list[_Break]:
    breaks = []
    # Ids of requests repeat when a new engine takes over; a copy is always of the same engine's.
    requests: dict[str, CallFinished] = {}
    for one in log.causes:
        copies: defaultdict[str, list[EarlierCopy]] = defaultdict(list)
        for copy in one.layout:
            copies[copy.request_id].append(copy)
        for request_id, shared in copies.items():
            prompt, earlier = _computed(log, one.call), _computed(log, requests[request_id])
            longest = max(shared, key=lambda copy: copy.end - copy.start)
            divergence = diverge(
                prompt,
                earlier,
                start=longest.start,
                earlier_start=longest.earlier_start,
                length=longest.end - longest.start,
                vocabulary=vocabulary,
            )
            tokens = sum(copy.end - copy.start for copy in shared)
            breaks.append(_Break(one.call, requests[request_id], tokens, divergence))
        requests[one.call.request_id] = one.call
    return breaks


def _computed(log: RunLog, call: CallFinished) -> Prompt:
    """All ids of a call: its prompt, and what it generated behind it."""
    ids, generated = log.prompt_ids(call) or (), log.output_ids(call) or ()
    end = len(ids) + len(generated)
    answer = (Segment("answer", len(ids), end),) if generated else ()
    return Prompt(ids + generated, call.segments + answer)


def _places(breaks: Iterable[_Break]) -> list[list[_Break]]:
    """Breaks that one change mends: of one kind, in one kind of segment.

    Values may stand at several places of a segment: there, those that are near each other.
    """
    kinds: defaultdict[tuple[Kind, str | None], list[_Break]] = defaultdict(list)
    for one in breaks:
        kinds[one.divergence.kind, one.divergence.here.segment].append(one)
    places: list[list[_Break]] = []
    for (kind, _), members in kinds.items():
        reached: int | None = None
        for one in sorted(members, key=lambda member: member.divergence.position):
            position = one.divergence.position
            is_far = reached is not None and position - reached > VALUE_TOKENS
            if reached is None or (kind is Kind.VARYING_VALUE and is_far):
                places.append([])
            places[-1].append(one)
            reached = position
    return places


def _finding(log: RunLog, breaks: Sequence[_Break]) -> Finding:
    tokens: defaultdict[tuple[str, float], int] = defaultdict(int)
    calls: dict[tuple[str, float], CallFinished] = {}
    for one in breaks:
        key = (one.call.request_id, one.call.at_s)
        tokens[key] += one.tokens
        calls[key] = one.call
    positions = [one.divergence.position for one in breaks]
    best = max(breaks, key=lambda one: one.tokens)
    divergence = best.divergence
    return Finding(
        kind=divergence.kind,
        tokens=sum(tokens.values()),
        calls=_biggest(_share(calls[key], count) for key, count in tokens.items()),
        first_position=min(positions),
        last_position=max(positions),
        example=Example(
            request_id=best.call.request_id,
            earlier_request_id=best.earlier.request_id,
            divergence=divergence,
            equal_tokens=best.tokens,
            here=excerpt(_computed(log, best.call), divergence.here),
            earlier=excerpt(_computed(log, best.earlier), divergence.earlier),
        ),
    )
