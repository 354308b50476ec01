"""Layouts that are broken on purpose, computed by the real engine, are found by name and place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from rlm_runtime.config import Config, config_digest
from rlm_runtime.engine.vllm_engine import VLLMEngine
from rlm_runtime.profiler import Cause, RunLog
from rlm_runtime.profiler.divergence import Kind, Vocabulary
from rlm_runtime.profiler.explain import Explanation, explain
from rlm_runtime.prompt import CONNECTIVE, ChatTemplate, Layout, Prompt, Tokenizer
from rlm_runtime.scheduler import Call, Job, Scheduler
from rlm_runtime.tracing import EngineStarted, Recorder, Segment, run_started
from rlm_runtime.types import AgentId

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

SHARED = topics["assert"]
DATA = topics["pass"] + topics["del"]
ASKS = ("What does the statement do?", "Which names are unbound by it?", "When is it useful?")


@dataclass
class Run:
    """A recorded run on the engine that all tests share."""

    layout: Layout
    scheduler: Scheduler
    recorder: Recorder

    def prompt(self, *parts: tuple[str, str | tuple[int, ...]]) -> Prompt:
        """One whose parts stand in any order: nothing keeps it from being a bad one."""
        ids: tuple[int, ...] = ()
        segments = []
        for kind, part in parts:
            more = self.layout.tokenizer.encode(part) if isinstance(part, str) else part
            segments.append(Segment(kind, len(ids), len(ids) + len(more)))
            ids += more
        return Prompt(ids, tuple(segments))

    async def send(self, *prompts: Prompt) -> None:
        """One call after another."""
        job = Job()
        for prompt in prompts:
            await self.scheduler.run(job, Call(prompt=prompt, agent_id=AgentId("a"), label="bad"))

    def explain(self) -> Explanation:
        """What the log of the run tells, and that it is all."""
        directory = self.recorder.directory
        assert directory is not None
        tokenizer = self.layout.tokenizer
        log = RunLog.load(directory)
        found = explain(log, Vocabulary(tokenizer.decode, tokenizer.special_ids))
        lost = [share.tokens for share in found.causes if share.cause is Cause.LAYOUT]
        assert sum(share.tokens for share in found.causes) == log.figures()["computed_tokens"]
        assert sum(finding.tokens for finding in found.findings) == sum(lost)
        assert all(share.cause is not Cause.UNEXPLAINED for share in found.causes)
        return found


@pytest.fixture
async def run(engine: VLLMEngine, model_dir: Path, tmp_path: Path) -> AsyncIterator[Run]:
    info = engine.info
    tokenizer = Tokenizer.from_folder(model_dir)
    template = ChatTemplate.from_folder(model_dir, tokenizer)
    layout = Layout(tokenizer, template, info.block_size, SHARED)
    await engine.reset_prefix_cache()
    with Recorder(tmp_path / "run") as recorder:
        recorder.emit(run_started(recorder.run_id, config_digest(Config())))
        recorder.emit(
            EngineStarted(
                at_s=recorder.now(),
                model=info.model,
                backend=info.backend,
                window=info.window,
                block_size=info.block_size,
                kv_blocks=info.kv_blocks,
                max_running=info.max_running,
                tokenizer_digest=tokenizer.digest,
                shared_prefix_digest=layout.shared_digest,
                shared_prefix_tokens=len(layout.shared_ids),
                boot_s=0.0,
            )
        )
        shared = len(layout.shared_ids)
        scheduler = Scheduler(engine, recorder, shared_tokens=shared, max_queued_calls=100)
        yield Run(layout, scheduler, recorder)


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)


async def test_a_date_on_top_is_one_finding_for_all_calls_that_have_it(run: Run) -> None:
    template = run.layout.template
    prompts = [
        run.prompt(
            ("shared", template.system_open),
            ("shared", f"Today is 2026-11-0{day}.\n\n"),
            ("shared", SHARED),
            ("shared", template.system_to_user),
            ("task", run.layout.tail(ask)),
        )
        for day, ask in enumerate((ASKS[0], *ASKS), 1)
    ]
    await run.send(*prompts)

    (finding,) = run.explain().findings

    place = first_difference(prompts[0].ids, prompts[1].ids)
    example = finding.example
    assert finding.kind is Kind.VARYING_VALUE
    assert example.divergence.position == finding.first_position == finding.last_position == place
    assert (example.divergence.here.segment, example.divergence.here.end) == ("shared", place + 1)
    assert [call.request_id for call in finding.calls] == ["r2", "r3", "r4"]
    assert example.earlier_request_id == "r1"
    vocabulary = Vocabulary(run.layout.tokenizer.decode, run.layout.tokenizer.special_ids)
    before, own, after = example.here.texts(vocabulary)
    assert before.endswith("Today is 2026-11-0")
    assert (own, example.earlier.texts(vocabulary)[1]) == ("2", "1")
    assert after.startswith(".\n\n")
    # All of the shared text, three times, but for its ends, which fill no block.
    text = len(run.layout.tokenizer.encode(SHARED))
    assert 3 * (text - 64) < finding.tokens < 3 * (text + 64)


async def test_a_turn_joined_as_text_is_found_where_its_tokens_differ(run: Run) -> None:
    layout, tokenizer = run.layout, run.layout.tokenizer
    # What a model may generate: words in other tokens than a tokenizer makes of them.
    answer = tuple(id_ for letter in "It unbinds a name." for id_ in tokenizer.encode(letter))
    asked = layout.append_turn(layout.prompt(task=ASKS[0]), answer, DATA)
    joined = tokenizer.encode_template(tokenizer.decode(asked.ids))
    again = run.prompt(("turn", joined), ("task", layout.tail(ASKS[1])))
    kept = layout.append_turn(asked, answer, ASKS[1])
    await run.send(asked, again, kept)

    found = run.explain()

    (finding,) = found.findings
    place = first_difference(asked.ids, joined)
    divergence = finding.example.divergence
    assert finding.kind is Kind.REJOINED_TEXT
    assert divergence.position == place
    (turn,) = [s for s in asked.segments if s.kind == "answer"]
    assert turn.start <= place < divergence.earlier.end <= turn.end
    assert divergence.earlier.segment == "answer"
    assert [call.request_id for call in finding.calls] == ["r2"], "appended ids lose nothing"
    assert finding.tokens > len(tokenizer.encode(DATA)) - 64


async def test_a_task_in_front_of_its_data_is_found(run: Run) -> None:
    layout = run.layout
    prompts = [
        run.prompt(
            ("shared", layout.shared_ids),
            ("task", f"{ask}{CONNECTIVE}"),
            ("document", DATA),
            ("task", layout.template.user_to_assistant),
        )
        for ask in ASKS
    ]
    await run.send(*prompts)

    (finding,) = run.explain().findings

    divergence = finding.example.divergence
    assert finding.kind is Kind.DATA_AFTER_TASK
    assert divergence.position == len(layout.shared_ids)
    assert (divergence.here.segment, divergence.earlier.segment) == ("task", "task")
    assert {call.request_id for call in finding.calls} == {"r2", "r3"}
    assert finding.tokens > 2 * (len(layout.tokenizer.encode(DATA)) - 64)


async def test_data_first_and_turns_appended_break_nothing(run: Run) -> None:
    layout = run.layout
    document = layout.document(DATA)
    first = [layout.prompt(task=f"{CONNECTIVE}{ask}", document=document) for ask in ASKS]
    await run.send(*first, layout.append_turn(first[0], layout.tokenizer.encode("It."), ASKS[1]))

    assert run.explain().findings == ()
