"""The search recipe with the real model, engine and cache, and the ledger against the engine."""

from __future__ import annotations

from collections.abc import Callable
from pydoc_data.topics import topics

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.config import SearchConfig
from rlm_runtime.profiler import Ledger
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import Asker
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.recipes.search_result import SearchResult
from rlm_runtime.scheduler import Job
from rlm_runtime.tracing import AnyEvent, CallFinished
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

CHUNK_TOKENS = 300
FIRST = "Does the finally clause still run when the try suite executes a return statement?"
SECOND = "What happens to the saved exception if the finally clause executes a return statement?"


async def test_questions_are_answered_and_every_token_is_accounted_for(
    parts: Internals, scheduled: Callable[[], int]
) -> None:
    events: list[AnyEvent] = []
    parts.recorder.subscribe(events.append)
    ledger = Ledger()
    parts.recorder.subscribe(ledger.add)
    corpus = Corpus(parts.corpus.store, parts.layout, CHUNK_TOKENS)
    ref = corpus.store.put_text("manual", topics["try"])
    search = Search(
        corpus,
        SearchConfig(chunk_tokens=CHUNK_TOKENS, passages=1),
        parts.recorder,
        parts.engine.info.kv_tokens,
    )
    await parts.engine.reset_prefix_cache()
    before = parts.engine.stats()

    async def ask(question: str, name: str) -> SearchResult:
        asker = Asker(parts.scheduler, parts.layout, Job(), AgentId(name))
        return await search.run(asker, [ref], question)

    first, second = await ask(FIRST, "first"), await ask(SECOND, "second")

    best = first.passages[0]
    assert "finally" in best.text
    assert "on the way out" in " ".join(best.text.split())
    quoted = topics["try"].encode()[best.start_byte : best.end_byte]
    assert quoted.decode() == best.text
    assert "the saved exception is discarded" in " ".join(second.passages[0].text.split())
    assert first.ranked == first.pieces == second.ranked > 5

    # A second question about a chunk computes one token and itself.
    cost = len(parts.layout.tokenizer.encode(SECOND)) + 1
    calls = [e for e in events if isinstance(e, CallFinished) and e.agent_id == "second"]
    ranks = [e for e in calls if e.label == "rank chunk"]
    assert {e.computed_tokens for e in ranks} == {cost}
    assert {e.runs for e in ranks} == {1}
    assert not [e for e in calls if e.label == "read chunk"]

    # Three counts of one thing: the calls' facts, the engine's counter, what was scheduled. With
    # one generated token a call, nothing but prompt tokens is ever scheduled.
    figures = ledger.figures()
    after = parts.engine.stats()
    assert figures["computed_tokens"] == after.computed_tokens - before.computed_tokens
    assert figures["computed_tokens"] == scheduled()
    assert figures["prompt_tokens"] == after.prompt_tokens - before.prompt_tokens
