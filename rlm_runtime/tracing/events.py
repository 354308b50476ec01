"""The events of a run. Everything that is reported is computed from them alone.

Events hold facts: names, sizes, counts, times, digests, positions. They never hold contents;
prompts and values are blobs beside the log, named here by digest (`recorder.py`).

Times are seconds. `at_s` counts from the run's start on a monotonic clock of the writing process.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA_VERSION = 1
"""Raised when a reader of the old schema would misread a new log."""


class Event(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", forbid_unknown_fields=False
):
    """What every event has."""

    at_s: float


class RunStarted(Event, frozen=True, kw_only=True, tag="run_started"):
    """The first line of a log."""

    schema_version: int
    run_id: str
    started_at: str  # RFC 3339, UTC
    package_version: str
    python: str
    machine: str  # "AMD EPYC, 2 cores, 24 GiB, Linux 6.1"
    config_digest: str  # where blobs are kept, also the name of the configuration's
    resumes: str | None = None  # URI of the run directory whose finished calls this run takes


class EngineStarted(Event, frozen=True, kw_only=True, tag="engine_started"):
    """An engine serves the run from here on, with a cold prefix cache."""

    model: str
    backend: str
    window: int
    block_size: int
    kv_blocks: int
    max_running: int
    tokenizer_digest: str
    shared_prefix_digest: str
    shared_prefix_tokens: int
    boot_s: float
    model_digest: str | None = None  # of the model's files (`engine/model_identity.py`)


class CacheReset(Event, frozen=True, kw_only=True, tag="cache_reset"):
    """All cached blocks were forgotten on purpose."""


class ValueStored(Event, frozen=True, kw_only=True, tag="value_stored"):
    """A value got a name. `tokens` is exact, or estimated from a sample of the bytes."""

    name: str
    version: int
    kind: str
    size_bytes: int
    digest: str
    writer: str  # agent id, or "user"
    tokens: int
    is_estimated: bool


class AgentStarted(Event, frozen=True, kw_only=True, tag="agent_started"):
    """An agent (a question's root, or a child) begins."""

    agent_id: str
    parent_id: str | None
    depth: int
    kind: str  # `types.AgentKind`
    task_blob: str | None
    start: Literal["fresh", "fork"] = "fresh"  # fork: its prompt continues its parent's
    names: tuple[str, ...] | None = None  # the values it may read; null: all


class StateEntered(Event, frozen=True, kw_only=True, tag="state_entered"):
    """A workflow is in another state, or in the same one once more."""

    agent_id: str  # the workflow's
    state: str
    visit: int  # of this state, from 1
    previous: str | None  # null: it begins here


class ValueRead(Event, frozen=True, kw_only=True, tag="value_read"):
    """A part of a value entered a prompt (`tokens`) or was looked at in Python (0 tokens)."""

    reader: str
    name: str
    version: int
    start_byte: int
    end_byte: int
    tokens: int


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A part of a prompt: `start <= position < end`, of one kind.

    `digest` is of the segment's ids and names their blob: a prompt is the concatenation of its
    segments' blobs, so that what many prompts share is written once. Layouts leave it out; the
    scheduler fills it in when it records a call.
    """

    kind: str  # shared | document | role | names | task | answer | turn
    start: int
    end: int
    digest: str | None = None


class CallFinished(Event, frozen=True, kw_only=True, tag="call_finished"):
    """An engine request ended, in whatever way. Token counts are `null` when it has no facts.

    `blocks` are the digests (`blocks.py`, hex, joined without separator) of the whole blocks of
    prompt + generated ids but the last; the first `prompt_tokens // block_size` are the prompt's.
    A scored request that ran twice has `runs` = 2 and the sums of both.

    `identity` is a digest of the prompt's ids and of all that says what may come of them: calls
    with equal ones ask the same. `scores_blob` and `choice` are what came of a call beside ids.
    """

    request_id: str
    agent_id: str
    label: str  # what the call is for: "prefill chunk", "rank", ...
    depth: int
    group: str | None  # calls of one group share a document
    outcome: Literal["ok", "cancelled", "failed"]
    error_code: str | None
    submitted_at_s: float
    admitted_at_s: float | None  # null: ended while waiting
    segments: tuple[Segment, ...]
    blocks: str
    output_blob: str | None
    reads_cache: bool
    salt_digest: str | None
    max_tokens: int
    temperature: float
    shared_by: int  # identical calls that were answered by this one, itself included
    is_forced: bool = False  # the ids generated were given: a recorded script
    identity: str | None = None
    score: tuple[int, int] | None = None  # the prompt positions whose log-probabilities were asked
    scores_blob: str | None = None  # these, as doubles
    choice: int | None = None  # which of the call's choices was generated, by its place
    prompt_tokens: int | None
    cached_tokens: int | None
    computed_tokens: int | None
    generated_tokens: int | None
    runs: int | None
    ttft_s: float | None
    queue_s: float | None
    prefill_s: float | None
    decode_s: float | None
    preemptions: int | None
    scheduled_at_s: float | None  # engine clock
    finished_at_s: float | None  # engine clock
    finish_reason: str | None


class CallTaken(Event, frozen=True, kw_only=True, tag="call_taken"):
    """A call that was not sent: a run that this one resumes had finished it.

    `call` is its event in that run's log, with that run's names and times. Its blobs are kept here
    too. The tokens in it were computed there, not here: they count for the task's limits, and for
    no figure of this run.
    """

    request_id: str  # what this run calls it
    agent_id: str
    taken_from: str  # the id of the run that sent it
    call: CallFinished


class TurnFinished(Event, frozen=True, kw_only=True, tag="turn_finished"):
    """An agent did one thing that the model decided: a function call and what came of it."""

    agent_id: str
    turn: int  # from 1
    request_id: str
    function: str  # "READ", ...; empty: what was generated is no call
    outcome: Literal["ok", "error"]
    error_code: str | None
    observation_tokens: int


class Compaction(Event, frozen=True, kw_only=True, tag="compaction"):
    """An agent's window ran out: it goes on in a new branch from the shared prefix."""

    agent_id: str
    turn: int
    prompt_tokens_before: int
    prompt_tokens_after: int
    kept_as: str  # the value that holds what the branch before said


class AgentFinished(Event, frozen=True, kw_only=True, tag="agent_finished"):
    """An agent ended."""

    agent_id: str
    stop_reason: str
    found: bool | None
    result_blob: str | None
    wall_s: float
    result_name: str | None = None  # the stored value that is the result
    result_version: int | None = None


class RunFinished(Event, frozen=True, kw_only=True, tag="run_finished"):
    """The last line of a log that was closed in order, with the engine's own counters.

    The counters are sums over the run's engines; `null` when none was started.
    """

    outcome: Literal["ok", "failed", "cancelled"]
    error_code: str | None
    engine_prompt_tokens: int | None
    engine_cached_tokens: int | None
    engine_computed_tokens: int | None
    engine_generated_tokens: int | None
    engine_preemptions: int | None
    wall_s: float


AnyEvent = (
    RunStarted
    | EngineStarted
    | CacheReset
    | ValueStored
    | AgentStarted
    | StateEntered
    | ValueRead
    | CallFinished
    | CallTaken
    | TurnFinished
    | Compaction
    | AgentFinished
    | RunFinished
)
