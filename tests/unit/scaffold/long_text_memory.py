"""A question about a file of 100 MB, and the memory that the front end takes for it.

    python -m tests.unit.scaffold.long_text_memory FILE MODEL_FOLDER

The engine is a scripted one; all else is what a session does. Prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio

import rlm_runtime.api.session  # what a session imports weighs too
from rlm_runtime.config import SearchConfig
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import Asker, ScoreMemo
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.recipes.search_result import SearchResult
from rlm_runtime.scheduler import Job, Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import Recorder
from rlm_runtime.types import AgentId
from tests.unit.conftest import FakeEngine

QUESTION = "Who repaired the lighthouse clock at Farrow Point?"


def rss_anon_bytes() -> int:
    """Memory of this process that no file is behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell RssAnon")


def main(file: Path, model: Path) -> None:
    figures: dict[str, float] = {"rss_anon_bytes_before": rss_anon_bytes()}
    most = 0

    def look(_done: int = 0, _to_do: int = 0) -> None:
        nonlocal most
        most = max(most, rss_anon_bytes())

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        figures[f"{name}_s"] = time.perf_counter() - start
        look()
        figures[f"rss_anon_bytes_after_{name}"] = rss_anon_bytes()

    tokenizer = Tokenizer.from_folder(model)
    layout = Layout(tokenizer, ChatTemplate.from_folder(model, tokenizer), 32)
    store = ContextStore(tokenizer.count)
    timed("store", lambda: store.put_file("text", file))
    ref = store.get("text").ref
    corpus = Corpus(store, layout, SearchConfig().chunk_tokens)
    timed("cut", lambda: corpus.pieces([ref]))
    timed("index", lambda: corpus.bm25([ref], [QUESTION], look))
    timed("word_search", lambda: corpus.bm25([ref], [QUESTION]))
    results: list[SearchResult] = []
    timed("search", lambda: results.append(anyio.run(ask, corpus)))
    figures |= {
        "pieces": results[0].pieces,
        "ranked": results[0].ranked,
        "size_bytes": ref.size_bytes,
        "rss_anon_bytes_most": most,
    }
    print(json.dumps(figures | {"passages": [p.text for p in results[0].passages]}))


async def ask(corpus: Corpus) -> SearchResult:
    """The recipe, on an engine that finds every text equally likely."""
    engine, recorder = FakeEngine(kv_blocks=8_000), Recorder(None)
    shared_tokens = len(corpus.layout.shared_ids)
    scheduler = Scheduler(engine, recorder, shared_tokens=shared_tokens, max_queued_calls=10_000)
    search = Search(corpus, SearchConfig(), recorder, engine.info.kv_tokens, ScoreMemo())
    asker = Asker(scheduler, corpus.layout, Job(), AgentId("a1"))
    return await search.run(asker, [corpus.store.get("text").ref], QUESTION)


if __name__ == "__main__":
    assert rlm_runtime.api.session
    main(Path(sys.argv[1]), Path(sys.argv[2]))
