"""Calls go to the engine: as batches, in the order that keeps the cache warm, within the limits.

A call runs in the task of its caller, so cancelling an agent cancels its waiting and running calls
and nothing is orphaned. Every call that reached the queue is recorded as one `CallFinished` event,
whatever its end; one that a resumed run had finished is taken from there (`finished_calls.py`), and
recorded as `CallTaken`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import Any, Literal

import anyio
import anyio.lowlevel
from msgspec import structs

from rlm_runtime.blocks import block_chain
from rlm_runtime.engine.base import (
    Engine,
    Finished,
    GenerateRequest,
    RequestFacts,
    TokenDelta,
)
from rlm_runtime.errors import EngineError, LimitExceeded, RLMError
from rlm_runtime.prompt import Prompt
from rlm_runtime.scheduler.admission import Admission, Ticket
from rlm_runtime.scheduler.call import Call, CallResult
from rlm_runtime.scheduler.finished_calls import FinishedCall, FinishedCalls
from rlm_runtime.scheduler.job import Job
from rlm_runtime.tracing import (
    CallFinished,
    CallTaken,
    Recorder,
    Segment,
    ids_to_blob,
    scores_to_blob,
)
from rlm_runtime.types import RequestId

FEED_AT_ONCE = 512
"""Calls of one batch that wait in the queue together; the rest of the batch waits outside it."""


@dataclass(slots=True)
class _Flight:
    """A request that identical calls wait for."""

    identity: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    result: CallResult | None = None
    shared_by: int = 1


@dataclass(slots=True)
class _Record:
    """What is known of a call while it lives."""

    request_id: RequestId
    submitted_at_s: float
    admitted_at_s: float | None = None
    ids: list[int] = field(default_factory=list)
    logprobs: tuple[float, ...] | None = None
    choice: str | None = None
    facts: RequestFacts | None = None
    taken: FinishedCall | None = None
    outcome: Literal["ok", "cancelled", "failed"] = "cancelled"
    error_code: str | None = None


class Scheduler:
    """Sends the calls of all trees to one engine.

    Args:
        engine: Where they go.
        recorder: Where their events go.
        shared_tokens: Length of the prefix that all prompts share: it is in the KV cache once.
        max_queued_calls: Calls that may wait at once.
        finished: What the run that is resumed had finished.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        *,
        shared_tokens: int,
        max_queued_calls: int,
        finished: FinishedCalls | None = None,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._shared_tokens = shared_tokens
        self._admission = Admission(
            max_running=engine.info.max_running,
            kv_tokens=engine.info.kv_tokens - shared_tokens,
            max_waiting=max_queued_calls,
        )
        self._feed = min(FEED_AT_ONCE, max_queued_calls)
        self._finished = finished
        self._flights: dict[str, _Flight] = {}
        self._next_request = 0

    async def run(self, job: Job, call: Call) -> CallResult:
        """Run one call of a tree and wait for its end.

        At temperature 0, a call that equals one in flight waits for that one's result instead.

        Raises:
            LimitExceeded: A limit of the tree; `max_seconds` also ends a call under way.
            QueueFull: Too many calls are waiting.
            InputError: The engine can't make sense of it.
            PromptTooLong: It does not fit the window.
            EngineDead: The engine's process ended.
        """
        key = call.identity()
        if not call.can_be_shared:
            return await self._run_alone(job, call, _Flight(key))
        if self._finished is not None and (shared := self._finished.share(key)) is not None:
            await anyio.lowlevel.checkpoint()
            return shared
        while (flight := self._flights.get(key)) is not None:
            flight.shared_by += 1
            with _deadline(job):
                await flight.ended.wait()
            if flight.result is not None:
                return replace(flight.result, was_shared=True)
        flight = self._flights[key] = _Flight(key)
        try:
            flight.result = await self._run_alone(job, call, flight)
            return flight.result
        finally:
            # Who waits takes the result or, when this call ended without one, tries itself.
            del self._flights[key]
            flight.ended.set()

    async def run_all(self, job: Job, calls: Sequence[Call]) -> list[CallResult | LimitExceeded]:
        """Run calls as one batch, those of a group next to each other.

        A limit that refuses a call is that call's outcome and leaves the others alone.

        Returns:
            Outcomes in the order of `calls`.

        Raises:
            RLMError: The first other error; the rest of the batch is cancelled.
        """
        outcomes: dict[int, CallResult | LimitExceeded] = {}
        # Fast: the batch starts in one turn of the loop, so that the engine sees it as one and
        # makes no step for its first call alone.
        room = anyio.Semaphore(self._feed, fast_acquire=True)

        async def one(position: int, call: Call) -> None:
            try:
                outcomes[position] = await self.run(job, call)
            except LimitExceeded as err:
                outcomes[position] = err
            finally:
                room.release()

        try:
            async with anyio.create_task_group() as group:
                for position, call in _grouped(calls):
                    await room.acquire()
                    group.start_soon(one, position, call)
        except* RLMError as errors:
            raise _first(errors) from errors
        return [outcomes[position] for position in range(len(calls))]

    async def _run_alone(self, job: Job, call: Call, flight: _Flight) -> CallResult:
        # A scored prompt may have to be computed once more without the cache (`GenerateRequest`).
        runs = 1 if call.score is None else 2
        bound = runs * (len(call.prompt.ids) + call.max_tokens)
        with _deadline(job):
            await job.reserve(bound)
        self._next_request += 1
        record = _Record(RequestId(f"r{self._next_request}"), self._recorder.now())
        ticket = self._ticket(call)
        job.note_queued(call.depth)
        try:
            self._admission.enter(ticket)
            try:
                with _deadline(job):
                    await ticket.admitted.wait()
                    # A cancelled tree's running calls leave first and make room for waiting ones.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    record.admitted_at_s = self._recorder.now()
                    job.note_started()
                    result = await self._answer(call, record, flight.identity)
                record.outcome = "ok"
                return result
            finally:
                self._admission.leave(ticket)
        except RLMError as err:
            is_late = isinstance(err, LimitExceeded)
            record.outcome = "cancelled" if is_late else "failed"
            record.error_code = err.code
            raise
        finally:
            was_started = record.admitted_at_s is not None
            job.settle(bound, record.facts, was_started=was_started)
            job.note_ended(was_started=was_started)
            self._note(call, record, flight)

    async def _answer(self, call: Call, record: _Record, identity: str) -> CallResult:
        """Take the result of a call that a resumed run had finished, or have the engine make it."""
        if self._finished is not None:
            await anyio.lowlevel.checkpoint()  # a tree that is cancelled takes nothing more
            taken = self._finished.take(identity, call.agent_id)
            if taken is not None:
                record.taken, record.facts = taken, taken.facts
                return taken.result(call, record.request_id)
        return await self._generate(call, record)

    async def _generate(self, call: Call, record: _Record) -> CallResult:
        request = GenerateRequest(
            request_id=record.request_id,
            prompt_ids=call.prompt.ids,
            max_tokens=call.max_tokens,
            temperature=call.temperature,
            seed=call.seed,
            stop_token_ids=call.stop_token_ids,
            ignore_eos=call.ignore_eos,
            score=call.score,
            priority=call.priority,
            cache_salt=call.cache_salt,
            read_cache=call.read_cache,
            stop_repetition=call.stop_repetition,
            choices=call.choices,
            script=call.script,
            grammar=call.grammar,
            json_schema=call.json_schema,
        )
        async with aclosing(self._engine.generate(request)) as stream:
            async for item in stream:
                if isinstance(item, TokenDelta):
                    record.ids.extend(item.ids)
                else:
                    return _finish(item, record)
        raise EngineError(f"Request {record.request_id} ended without facts.", "Report this.")

    def _ticket(self, call: Call) -> Ticket:
        segments = call.prompt.segments
        document = sum(s.end - s.start for s in segments if s.kind == "document")
        shared = segments[0].end if segments and segments[0].kind == "shared" else 0
        own = len(call.prompt.ids) - shared - document + call.max_tokens
        return Ticket(
            group=None if call.group is None else (call.group, call.cache_salt),
            document_tokens=document,
            own_tokens=own,
            priority=call.priority,
        )

    def _note(self, call: Call, record: _Record, flight: _Flight) -> None:
        """Record a call that ended."""
        taken = record.taken
        if taken is None or self._finished is None:
            self._recorder.emit(self._event(call, record, flight))
            return
        self._recorder.emit(self._taken_event(call, record, taken))
        result = taken.result(call, record.request_id)
        self._finished.left_over(flight.identity, taken, result, flight.shared_by)

    def _taken_event(self, call: Call, record: _Record, taken: FinishedCall) -> CallTaken:
        """The event of a call that was taken, and its contents: this run can be resumed, too."""
        segments = tuple(self._with_blob(call.prompt, s) for s in call.prompt.segments)
        self._recorder.blob(ids_to_blob(taken.ids))
        if taken.logprobs is not None:
            self._recorder.blob(scores_to_blob(taken.logprobs))
        return CallTaken(
            at_s=self._recorder.now(),
            request_id=record.request_id,
            agent_id=call.agent_id,
            taken_from=taken.run_id,
            call=structs.replace(taken.event, segments=segments),
        )

    def _event(self, call: Call, record: _Record, flight: _Flight) -> CallFinished:
        # The last generated id was sampled but never went through the model: it has no KV.
        cacheable = (*call.prompt.ids, *record.ids[:-1])
        chain = block_chain(cacheable, self._engine.info.block_size, call.cache_salt)
        salt, span, logprobs = call.cache_salt, call.score, record.logprobs
        return CallFinished(
            at_s=self._recorder.now(),
            request_id=record.request_id,
            agent_id=call.agent_id,
            label=call.label,
            depth=call.depth,
            group=call.group,
            outcome=record.outcome,
            error_code=record.error_code,
            submitted_at_s=record.submitted_at_s,
            admitted_at_s=record.admitted_at_s,
            segments=tuple(self._with_blob(call.prompt, s) for s in call.prompt.segments),
            blocks=b"".join(chain).hex(),
            output_blob=self._recorder.blob(ids_to_blob(record.ids)) if record.ids else None,
            reads_cache=call.read_cache,
            salt_digest=None if salt is None else blake2b(salt.encode(), digest_size=8).hexdigest(),
            max_tokens=call.max_tokens,
            temperature=call.temperature,
            shared_by=flight.shared_by,
            is_forced=bool(call.script),
            identity=flight.identity,
            score=None if span is None else (span.start, span.end),
            scores_blob=None if logprobs is None else self._recorder.blob(scores_to_blob(logprobs)),
            choice=None if record.choice is None else call.choices.index(record.choice),
            **_fact_fields(record.facts),
        )

    def _with_blob(self, prompt: Prompt, segment: Segment) -> Segment:
        digest = self._recorder.blob(ids_to_blob(prompt.ids[segment.start : segment.end]))
        return Segment(segment.kind, segment.start, segment.end, digest)


def _finish(item: Finished, record: _Record) -> CallResult:
    record.facts, record.logprobs, record.choice = item.facts, item.logprobs, item.choice
    ids, request_id = tuple(record.ids), record.request_id
    return CallResult(ids, item.logprobs, item.facts, request_id, item.choice)


def _fact_fields(facts: RequestFacts | None) -> dict[str, Any]:  # Any: fields of several types
    """The engine's facts as fields of `CallFinished`, which has them under the same names."""
    names = [f.name for f in fields(RequestFacts)]
    return {name: None if facts is None else getattr(facts, name) for name in names}


def _grouped(calls: Sequence[Call]) -> Iterator[tuple[int, Call]]:
    """Calls with their positions, those of a group behind its first one."""
    groups: dict[object, list[tuple[int, Call]]] = {}
    for position, call in enumerate(calls):
        key = (position,) if call.group is None else call.group
        groups.setdefault(key, []).append((position, call))
    for members in groups.values():
        yield from members


@contextmanager
def _deadline(job: Job) -> Iterator[None]:
    """Cancel the body at the tree's deadline and raise its limit then."""
    with anyio.CancelScope(deadline=job.deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise job.time_is_up()


def _first(errors: BaseExceptionGroup[RLMError]) -> RLMError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, RLMError):
        raise TypeError(f"not an error of this package: {error!r}")
    return error
