"""The words of a sentence, chosen by the real model behind examples that are computed once."""

from __future__ import annotations

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scaffold.short_form import EXAMPLES, short_form, spans
from rlm_runtime.scheduler import Job
from rlm_runtime.tracing import AnyEvent, CallFinished
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

QUESTION = "Who planted the oldest oak in Brennick Park?"
SENTENCE = "The oldest oak in Brennick Park\nwas planted by the gardener Tobias Wren."


async def test_a_span_is_chosen_and_the_examples_come_from_the_cache(parts: Internals) -> None:
    calls: list[CallFinished] = []

    def hear(event: AnyEvent) -> None:
        if isinstance(event, CallFinished):
            calls.append(event)

    parts.recorder.subscribe(hear)
    asker = Asker(parts.scheduler, parts.layout, Job(), AgentId("short"))
    window = parts.engine.info.window
    await parts.engine.reset_prefix_cache()
    short = await short_form(asker, QUESTION, SENTENCE, 100, window)
    assert short is not None
    assert "Tobias Wren" in short.text
    start, end = short.start_byte - 100, short.end_byte - 100
    assert (start, end) in set(spans(SENTENCE))
    assert SENTENCE[start:end] == short.text

    await short_form(asker, "Who watched the fair?", "Anna watched the fair.", 0, window)
    cold, warm = calls
    tokenizer, block = parts.layout.tokenizer, parts.engine.info.block_size
    constant = len(parts.layout.shared_ids) + sum(
        len(tokenizer.encode(part)) for example in EXAMPLES for part in example
    )
    assert cold.cached_tokens == 0
    assert warm.cached_tokens is not None
    assert warm.cached_tokens % block == 0
    assert warm.cached_tokens > constant - block
