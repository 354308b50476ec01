"""The one tree of errors.

    RLMError
    ├── InputError            bad arguments, files or text; raised before any work
    │   └── RunChanged        a run to be resumed was asked with something else than there is now
    ├── ConfigError           an unknown key, a value out of range, an unreadable file
    ├── ModelError            model files missing, incomplete, corrupt, or unusable
    ├── EngineError
    │   ├── EngineDead        the engine's process ended; carries the cause from its log
    │   ├── PromptTooLong     a prompt that does not fit the window
    │   └── QueueFull         too many calls are waiting
    ├── ContextError
    │   ├── UnknownName       no value of that name; the nearest ones are offered
    │   ├── BadPath           a path that can't be read, or leads to nothing in its value
    │   ├── ContextBudgetExceeded  a read over its limit; nothing was loaded
    │   └── QuotaExceeded     the store is full, or the disk it spills to
    ├── BadCall               what a model wrote is no call of a function
    ├── WorkflowError         a workflow that can't be defined, or a step of one that broke
    │   └── InvalidTransition a state that can't be entered from the one the workflow is in
    ├── SchemaMismatch        an answer that is not of the type asked for, after all attempts
    ├── LimitExceeded         a tree's limit; raised only before work starts
    ├── TraceError            a run directory that can't be written or read
    └── Cancelled             ended by the caller

Each error has a stable `code`, the facts as attributes, and a message of three parts: what
happened, which limit or rule, what to do. `exit_code` is the command line's (see `rlm --help`).
A new error is added here when its first raiser is.
"""

from __future__ import annotations

from typing import ClassVar

from rlm_runtime.types import StopReason


class RLMError(Exception):
    """Any error this package raises on purpose.

    Args:
        what: What happened, naming the thing.
        remedy: What to do about it; empty when there is nothing to do.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy


class InputError(RLMError):
    """The caller's arguments, files or text can't be used."""

    code = "bad_input"
    exit_code = 2


class RunChanged(InputError):
    """A run can't go on as it was: what it was asked with has changed.

    Attributes:
        changes: Each in a few words.
    """

    code = "run_changed"

    def __init__(self, changes: tuple[str, ...]) -> None:
        super().__init__(
            f"The run was asked with something else: {'; '.join(changes)}.",
            "Bring it back, or take what still fits: --anyway (in a program, anyway=True).",
        )
        self.changes = changes


class ConfigError(RLMError):
    """The configuration can't be used."""

    code = "bad_config"
    exit_code = 2


class ModelError(RLMError):
    """Model files are missing, incomplete, corrupt, or can't serve this runtime."""

    code = "model"
    exit_code = 3


class EngineError(RLMError):
    """The engine could not start or could not answer."""

    code = "engine"
    exit_code = 3


class EngineDead(EngineError):
    """The engine's process has ended; a new engine has to be started.

    Args:
        cause: The last error in the engine's own log, or a sentence saying there is none.
        remedy: What to do.
    """

    code = "engine_dead"
    exit_code = 1

    def __init__(self, cause: str, remedy: str = "Start a new run.") -> None:
        super().__init__(f"The engine died: {cause}", remedy)
        self.cause = cause


class PromptTooLong(EngineError):
    """A prompt does not fit the model's window."""

    code = "prompt_too_long"
    exit_code = 2

    def __init__(self, prompt_tokens: int, limit: int, remedy: str) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens:,} tokens, the window allows {limit:,}.", remedy
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class QueueFull(EngineError):
    """More calls are waiting than the queue may hold."""

    code = "queue_full"
    exit_code = 1

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit:,} calls are waiting already (scheduler.max_queued_calls).",
            "Send fewer at once, or raise the limit.",
        )
        self.limit = limit


class ContextError(RLMError):
    """A stored value can't be had as asked."""

    code = "context"
    exit_code = 2


class UnknownName(ContextError):
    """No value is stored under this name."""

    code = "unknown_name"

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        hint = f"Nearest: {', '.join(nearest)}." if nearest else "Nothing is stored yet."
        super().__init__(f"No value named {name!r}.", hint)
        self.name = name
        self.nearest = nearest


class BadPath(ContextError):
    """A path can't be read, or its value has no such part.

    Args:
        path: As it was written; shown cut.
        why: What is wrong with it.
        remedy: What to write instead.
    """

    code = "bad_path"

    def __init__(self, path: str, why: str, remedy: str) -> None:
        shown = path if len(path) <= 80 else f"{path[:77]}..."
        super().__init__(f"{shown!r}: {why}", remedy)
        self.path = shown


class ContextBudgetExceeded(ContextError):
    """A read is larger than a budget allows; nothing was loaded.

    Attributes:
        name: The path that was read.
        size_tokens: What it has; a lower bound where `is_estimated`.
        is_estimated: A value that is far too large is not counted exactly.
        limit_name: Which limit: `max_tokens_per_read`, `max_tokens`, or `tree max_tokens`.
        limit: Its bound, tokens.
        left: Tokens that may still be read under it.
        smaller: A path that fits what is left of all limits; empty when there is none.
    """

    code = "context_budget"

    def __init__(
        self,
        name: str,
        size_tokens: int,
        limit_name: str,
        limit: int,
        left: int,
        *,
        is_estimated: bool = False,
        smaller: str = "",
    ) -> None:
        about = "about " if is_estimated else ""
        rest = "" if left == limit else f", {left:,} left"
        part = f"Read a part, as {smaller}, or ask" if smaller else "No part of it fits: ask"
        super().__init__(
            f"Reading {name!r} needs {about}{size_tokens:,} tokens; "
            f"{limit_name} is {limit:,}{rest}.",
            f"{part} a question about it with QUERY.",
        )
        self.name = name
        self.size_tokens = size_tokens
        self.is_estimated = is_estimated
        self.limit_name = limit_name
        self.limit = limit
        self.left = left
        self.smaller = smaller


class QuotaExceeded(ContextError):
    """A value can't be stored: the store, or the disk behind it, is full. What was stored stays."""

    code = "quota"
    exit_code = 1


class BadCall(RLMError):
    """What a model wrote is no call of one of its functions; it is told what to write."""

    code = "bad_call"


class WorkflowError(RLMError):
    """A workflow can't be defined or begun as it is, or a function of one raised an error."""

    code = "workflow"
    exit_code = 2


class InvalidTransition(WorkflowError):
    """A workflow can't go from the state it is in to the one asked for; it stays where it is.

    Attributes:
        state: Where it is.
        target: Where it was to go; `None`: on, wherever the table leads.
        allowed: Where it can go now.
    """

    code = "invalid_transition"
    exit_code = 1

    def __init__(self, state: str, target: str | None, allowed: tuple[str, ...], why: str) -> None:
        where = "on" if target is None else f"to {target}"
        super().__init__(
            f"Cannot go from {state} {where}: {why}.",
            f"Allowed now: {', '.join(allowed) or 'nothing'}.",
        )
        self.state = state
        self.target = target
        self.allowed = allowed


class SchemaMismatch(RLMError):
    """No attempt gave an answer of the type that was asked for.

    Attributes:
        text: The last attempt.
        attempts: How many were made.
        why: What is wrong with the last one.
    """

    code = "schema_mismatch"
    exit_code = 1

    def __init__(self, text: str, attempts: int, why: str) -> None:
        super().__init__(
            f"After {attempts} attempt{'s' * (attempts > 1)} the answer is not of the type asked "
            f"for: {why}.",
            "Allow more tokens or retries, simplify the type, or use a larger model.",
        )
        self.text = text
        self.attempts = attempts
        self.why = why


class LimitExceeded(RLMError):
    """A limit of the tree does not allow the next call.

    Attributes:
        stop_reason: The typed end this limit leads to.
        limit: The bound.
        value: What the next call, or all that was planned, would have brought the count to.
    """

    code = "limit_exceeded"
    exit_code = 4

    def __init__(
        self,
        stop_reason: StopReason,
        name: str,
        limit: float,
        value: float,
        subject: str = "the next call",
    ) -> None:
        super().__init__(
            f"The limit {name}={limit:,} does not allow {subject} (it needs {value:,}).",
            f"Raise {name}, or ask for less.",
        )
        self.stop_reason = stop_reason
        self.limit = limit
        self.value = value


class TraceError(RLMError):
    """A run directory can't be written or read."""

    code = "trace"
    exit_code = 1


class Cancelled(RLMError):
    """The caller ended the work."""

    code = "cancelled"
    exit_code = 130
