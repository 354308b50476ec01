"""What happened: event types, the recorder that writes them, the reader that reads them back."""

from rlm_runtime.tracing.blobs import (
    Blobs,
    blob_digest,
    ids_from_blob,
    ids_to_blob,
    scores_from_blob,
    scores_to_blob,
)
from rlm_runtime.tracing.events import (
    SCHEMA_VERSION,
    AgentFinished,
    AgentStarted,
    AnyEvent,
    CacheReset,
    CallFinished,
    CallTaken,
    Compaction,
    EngineStarted,
    Event,
    RunFinished,
    RunStarted,
    Segment,
    TurnFinished,
    ValueRead,
    ValueStored,
)
from rlm_runtime.tracing.machine import machine, run_started
from rlm_runtime.tracing.reader import EventReader, read_events
from rlm_runtime.tracing.recorder import Recorder, is_open, new_run_directory, new_run_id

__all__ = [
    "SCHEMA_VERSION",
    "AgentFinished",
    "AgentStarted",
    "AnyEvent",
    "Blobs",
    "CacheReset",
    "CallFinished",
    "CallTaken",
    "Compaction",
    "EngineStarted",
    "Event",
    "EventReader",
    "Recorder",
    "RunFinished",
    "RunStarted",
    "Segment",
    "TurnFinished",
    "ValueRead",
    "ValueStored",
    "blob_digest",
    "ids_from_blob",
    "ids_to_blob",
    "is_open",
    "machine",
    "new_run_directory",
    "new_run_id",
    "read_events",
    "run_started",
    "scores_from_blob",
    "scores_to_blob",
]
