"""One engine for all tests that need one, on one event loop: a boot costs 20 seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import Any, NamedTuple, Protocol

import pytest
from tokenizers import Tokenizer as RawTokenizer

from rlm_runtime.api import Internals
from rlm_runtime.config.model import EngineConfig
from rlm_runtime.engine.base import Finished, GenerateRequest, RequestFacts
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import Recorder
from rlm_runtime.types import RequestId

MAX_RUNNING = 8


class Answer(NamedTuple):
    """What a request gave."""

    ids: tuple[int, ...]
    facts: RequestFacts
    logprobs: tuple[float, ...] | None
    choice: str | None


class Ask(Protocol):
    """Send one request and wait for its end."""

    def __call__(self, prompt_ids: tuple[int, ...], **fields: Any) -> Awaitable[Answer]: ...


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def scheduled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gets the number of tokens of each engine step, one a line."""
    return tmp_path_factory.mktemp("scheduler") / "scheduled"


@pytest.fixture(scope="session")
def engine_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "engine.log"


@pytest.fixture(scope="session")
async def engine(
    anyio_backend: str, model_dir: Path, scheduled_file: Path, engine_log: Path
) -> AsyncIterator[VLLMEngine]:
    config = EngineConfig(
        kv_cache_gib=1,
        window_tokens=2048,
        max_running=MAX_RUNNING,
        forced_decode=True,
        vllm_args={"scheduler_cls": "counting_scheduler.CountingScheduler"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        patch.setenv("RLM_TEST_SCHEDULED_TOKENS", str(scheduled_file))
        engine = await VLLMEngine.start(
            config,
            model_dir,
            model_name="smol",
            tokenizer_digest="digest",
            encode=Tokenizer.from_folder(model_dir).encode,
            log_path=engine_log,
        )
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def ask(engine: VLLMEngine) -> Ask:
    numbers = count()

    async def send(prompt_ids: tuple[int, ...], **fields: Any) -> Answer:
        request = GenerateRequest(RequestId(f"test-{next(numbers)}"), prompt_ids, **fields)
        ids: list[int] = []
        async with aclosing(engine.generate(request)) as items:
            async for item in items:
                if isinstance(item, Finished):
                    return Answer(tuple(ids), item.facts, item.logprobs, item.choice)
                ids += item.ids
        raise AssertionError("the stream ended without its facts")

    return send


@pytest.fixture(scope="session")
def fresh(engine: VLLMEngine) -> Callable[[int], tuple[int, ...]]:
    """Token ids that no other call got, so that nothing of them is cached."""
    random = Random(0)  # noqa: S311 # a test repeats itself

    def make(length: int) -> tuple[int, ...]:
        return tuple(random.randrange(100, engine.info.vocab_size) for _ in range(length))

    return make


@pytest.fixture(scope="session")
def prose(model_dir: Path) -> Callable[[int], tuple[int, ...]]:
    """The same for English: log-probabilities of noise mean little."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    ids = iter(RawTokenizer.from_file(str(model_dir / "tokenizer.json")).encode(text[:200_000]).ids)

    def make(length: int) -> tuple[int, ...]:
        return tuple(next(ids) for _ in range(length))

    return make


@pytest.fixture
def scheduled(engine: VLLMEngine, scheduled_file: Path) -> Callable[[], int]:
    """Tokens that the engine core scheduled since the test began."""

    def total() -> int:
        return sum(int(line) for line in scheduled_file.read_text().split())

    before = total()
    return lambda: total() - before


@pytest.fixture
def parts(engine: VLLMEngine, model_dir: Path) -> Internals:
    """A session's parts around the engine that all tests share."""
    tokenizer = Tokenizer.from_folder(model_dir)
    template = ChatTemplate.from_folder(model_dir, tokenizer)
    layout = Layout(tokenizer, template, engine.info.block_size)
    recorder = Recorder(None)
    scheduler = Scheduler(
        engine, recorder, shared_tokens=len(layout.shared_ids), max_queued_calls=100
    )
    corpus = Corpus(ContextStore(tokenizer.count), layout, 700)
    return Internals(engine, scheduler, layout, corpus, recorder)
