"""A recorded run, driven through the engine once more: the same prompts, the same generated ids.

What an engine takes from its cache depends on what came before and on what ran beside it. Here both
are as they were: a call starts when those have ended that had ended before it was admitted, from a
cache that is empty where the run's was. Ids are given, not chosen (`GenerateRequest.script`), so
all that can differ is what the engine did with them.

Calls that were cancelled or failed are left out: what they had computed is not known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import anyio

from rlm_runtime.api import Internals
from rlm_runtime.engine.base import RequestFacts, Span
from rlm_runtime.errors import EngineDead, InputError, RLMError
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler import Call, Job
from rlm_runtime.tracing import CacheReset, CallFinished, EngineStarted, Segment
from rlm_runtime.types import AgentId


@dataclass(frozen=True, slots=True)
class ReplayedCall:
    """One call, then and now.

    Attributes:
        recorded: Its event in the run's log.
        facts: What the engine measured now; `None`: it could not be made.
        error: Why; empty when it was.
        has_same_ids: The generated ids are the recorded ones. Only a scored call of several ids can
            have others: they can't be given to it.
    """

    recorded: CallFinished
    facts: RequestFacts | None
    error: str = ""
    has_same_ids: bool = True

    @property
    def computed_more(self) -> int:
        """Prompt tokens that the engine computed now and not then; negative for the reverse."""
        if self.facts is None:
            return 0
        return self.facts.computed_tokens - (self.recorded.computed_tokens or 0)

    @property
    def differs(self) -> bool:
        """Cached or computed tokens are not what they were."""
        facts, recorded = self.facts, self.recorded
        if facts is None:
            return False
        now = (facts.cached_tokens, facts.computed_tokens)
        return now != (recorded.cached_tokens, recorded.computed_tokens)


@dataclass(frozen=True, slots=True)
class Replay:
    """What is to be driven through an engine.

    Attributes:
        log: The run's; ids are read when they are needed.
        epochs: Calls between two moments at which the cache was emptied, by their ends.
        left_out: Calls that did not come to their end, or whose ids were not kept.
        notes: What may make a difference that is not the engine's.
    """

    log: RunLog
    epochs: tuple[tuple[CallFinished, ...], ...]
    left_out: int
    notes: tuple[str, ...]

    @property
    def calls(self) -> int:
        """How many will be made."""
        return sum(map(len, self.epochs))


def plan(log: RunLog) -> Replay:
    """Find the calls of a run that can be made once more.

    Raises:
        InputError: There is none.
    """
    epochs: list[list[CallFinished]] = [[]]
    left_out = unscored = 0
    for event in log.events:
        if isinstance(event, CacheReset | EngineStarted):
            epochs.append([])
        if not isinstance(event, CallFinished):
            continue
        if not _is_whole(log, event):
            left_out += 1
            continue
        epochs[-1].append(event)
        unscored += event.identity is None
    found = tuple(tuple(sorted(epoch, key=_ended)) for epoch in epochs if epoch)
    if not found:
        raise InputError(
            "The run has no call that can be replayed.",
            "It needs finished calls, and the ids of their prompts (blobs).",
        )
    notes = []
    if unscored:
        notes.append(
            f"{unscored:,} calls were written by a version that did not say what they scored: they "
            "are made without."
        )
    return Replay(log, found, left_out, tuple(notes))


async def replay(
    parts: Internals,
    planned: Replay,
    on_call: Callable[[ReplayedCall], None] | None = None,
) -> list[ReplayedCall]:
    """Make the calls of a run once more, each as it was; returns them in the order of their ends.

    Args:
        parts: A session's, with `engine.forced_decode`; nothing else may use its engine.
        planned: What is to be made.
        on_call: Called with each call that has ended.

    Raises:
        InputError: The engine can't force ids.
        EngineDead: The engine's process ended.
    """
    if not parts.engine.info.can_force:
        raise InputError("The engine can't be given ids.", "Set engine.forced_decode in a file.")
    done: list[ReplayedCall] = []

    def note(call: ReplayedCall) -> None:
        done.append(call)
        if on_call is not None:
            on_call(call)

    for epoch in planned.epochs:
        await parts.engine.reset_prefix_cache()
        await _Epoch(parts, planned.log, epoch, note).run()
    return done


class _Epoch:
    """Calls on one cache, started in their order and beside the same others."""

    def __init__(
        self,
        parts: Internals,
        log: RunLog,
        calls: Sequence[CallFinished],
        note: Callable[[ReplayedCall], None],
    ) -> None:
        self._parts = parts
        self._log = log
        self._calls = calls  # in the order in which they ended
        self._note = note
        self._job = Job()
        self._ended_at_s = [_ended(call) for call in calls]
        self._has_ended = [False] * len(calls)
        self._first_open = 0
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Make them all."""
        try:
            async with anyio.create_task_group() as group:
                for place in self._in_order():
                    await self._wait_for(self._calls[place])
                    group.start_soon(self._one, place)
        except* EngineDead as errors:
            raise EngineDead(_first(errors).cause) from errors

    def _in_order(self) -> Iterator[int]:
        """Places of the calls, in the order in which they were admitted."""
        yield from sorted(range(len(self._calls)), key=lambda i: _admitted(self._calls[i]))

    async def _wait_for(self, call: CallFinished) -> None:
        """Wait until all have ended that had ended when a call was admitted.

        They were admitted before it, so they are under way: it is never waited for nothing.
        """
        needed = bisect_right(self._ended_at_s, _admitted(call))
        while self._first_open < needed:
            await self._changed.wait()

    async def _one(self, place: int) -> None:
        event = self._calls[place]
        prompt, output = self._log.prompt_ids(event) or (), self._log.output_ids(event) or ()
        try:
            call = _call(event, prompt, output)
            result = await self._parts.scheduler.run(self._job, call)
        except EngineDead:
            raise
        except RLMError as err:
            self._note(ReplayedCall(event, None, str(err)))
        else:
            same = result.ids == output or len(output) == 1
            self._note(ReplayedCall(event, result.facts, "", same))
        self._has_ended[place] = True
        while self._first_open < len(self._calls) and self._has_ended[self._first_open]:
            self._first_open += 1
        self._changed.set()
        self._changed = anyio.Event()


def _is_whole(log: RunLog, event: CallFinished) -> bool:
    if event.outcome != "ok" or event.prompt_tokens is None:
        return False
    return bool(log.prompt_ids(event) and log.output_ids(event))


def _call(event: CallFinished, prompt: tuple[int, ...], output: tuple[int, ...]) -> Call:
    """The call as it was, with its ids given; the only one of a call of one id has no KV."""
    is_forced = len(output) > 1 and event.score is None
    segments = tuple(Segment(s.kind, s.start, s.end) for s in event.segments)
    return Call(
        prompt=Prompt(prompt, segments),
        agent_id=AgentId(event.agent_id),
        label=event.label,
        depth=event.depth,
        group=event.group,
        max_tokens=len(output),
        temperature=event.temperature,
        score=None if event.score is None else Span(*event.score),
        cache_salt=event.salt_digest,
        read_cache=event.reads_cache,
        ignore_eos=not is_forced,
        script=output if is_forced else (),
    )


def _ended(event: CallFinished) -> float:
    return event.at_s


def _admitted(event: CallFinished) -> float:
    return event.submitted_at_s if event.admitted_at_s is None else event.admitted_at_s


def _first(errors: BaseExceptionGroup[EngineDead]) -> EngineDead:
    first = errors.exceptions[0]
    return first if isinstance(first, EngineDead) else _first(first)
