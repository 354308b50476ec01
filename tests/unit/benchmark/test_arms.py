"""Arms on an engine that finds a question likely when the prompt has its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.arms import Arm, ArmAnswer, Arms, parse_arms, rotated
from rlm_runtime.benchmark.arms_bm25 import best_sentences
from rlm_runtime.benchmark.arms_calls import ArmCalls
from rlm_runtime.benchmark.arms_direct import ANSWER_TOKENS, Direct
from rlm_runtime.config import SearchConfig
from rlm_runtime.engine.base import GenerateRequest, Span
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import ChatTemplate, Layout, Tokenizer
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scheduler import Call, Job, Scheduler
from rlm_runtime.store import ContextStore
from rlm_runtime.tracing import AgentFinished, AgentStarted, AnyEvent, CallFinished, Recorder
from rlm_runtime.types import AgentId, Ref

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEngine

pytestmark = pytest.mark.anyio

CHUNK_TOKENS = 100
read_once = cache(Tokenizer.from_folder)
FILLER = "The weather was mild and the days went by as they always do in such a place."
FACT = "Edith Märlow repaired the lighthouse clock at Farrow Point."
OTHER = "Tobias Renn sold the harbour bell to a circus."
QUESTION = "Who repaired the lighthouse clock?"
TWO = "Who repaired the lighthouse clock, and who sold the harbour bell?"


def text(*planted: str, paragraphs: int = 60) -> str:
    """Filler paragraphs with sentences far apart."""
    found = [f"{FILLER} It was day {n}." for n in range(paragraphs)]
    for number, sentence in enumerate(planted, start=1):
        found[len(found) * number // (len(planted) + 1)] = sentence
    return "\n\n".join(found)


@dataclass
class Rig:
    """A text with all arms over it, and what they wrote."""

    engine: FakeEngine
    model_dir: Path
    content: str
    exhaustive: bool = True
    config: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tokenizer = read_once(self.model_dir)
        layout = Layout(tokenizer, ChatTemplate.from_folder(self.model_dir, tokenizer), 32)
        self.shared = len(layout.shared_ids)
        self.engine.score = self.score
        self.recorder = Recorder(None)
        self.events: list[AnyEvent] = []
        self.recorder.subscribe(self.events.append)
        store = ContextStore(tokenizer.count)
        scheduler = Scheduler(
            self.engine, self.recorder, shared_tokens=self.shared, max_queued_calls=1000
        )
        corpus = Corpus(store, layout, CHUNK_TOKENS)
        self.parts = Internals(self.engine, scheduler, layout, corpus, self.recorder)
        self.calls = ArmCalls(self.parts, 1000)
        self.ref: Ref = store.put_text("text", self.content)
        search = SearchConfig(chunk_tokens=CHUNK_TOKENS, **self.config)
        self.arms = Arms(self.parts, search, self.calls, self.ref, exhaustive=self.exhaustive)

    def score(self, request: GenerateRequest) -> float:
        """Each question token costs 5 nats, less for each that the text in front of it has."""
        assert request.score is not None
        start, end = request.score.start, request.score.end
        seen, question = set(request.prompt_ids[self.shared : start]), request.prompt_ids[start:end]
        return -5.0 * sum(i not in seen for i in question) / len(question)

    def quoted(self, answer: ArmAnswer) -> list[str]:
        data = self.content.encode()
        return [data[span.start : span.end].decode() for part in answer.quoted for span in part[:1]]

    def finished(self) -> list[CallFinished]:
        return [event for event in self.events if isinstance(event, CallFinished)]


@pytest.mark.parametrize("arm", [Arm.BOTH, Arm.RANKING, Arm.BM25])
async def test_an_arm_quotes_the_fact_with_its_place(
    arm: Arm, fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    answer = await rig.arms.ask(arm, QUESTION)
    assert answer.found
    assert rig.quoted(answer) == [FACT] == [answer.answer]


@pytest.mark.parametrize("arm", [Arm.BOTH, Arm.RANKING, Arm.BM25])
async def test_a_question_for_two_facts_is_answered_with_two(
    arm: Arm, fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT, OTHER))
    answer = await rig.arms.ask(arm, TWO)
    assert rig.quoted(answer) == [FACT, OTHER]
    assert answer.answer == f"{FACT}\n{OTHER}"


async def test_ranking_ignores_bm25_and_both_does_not(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    for arm, differs in ((Arm.RANKING, False), (Arm.BOTH, True)):
        chunks = (await rig.arms.ask(arm, QUESTION)).chunks
        assert any(chunk.bm25 for chunk in chunks)
        assert any(chunk.score != chunk.lift for chunk in chunks) is differs


async def test_only_ranking_reads_every_chunk_of_a_long_text(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    config = {"max_ranked_tokens": 3 * CHUNK_TOKENS}
    rig = Rig(fake_engine, model_dir, text(FACT), exhaustive=False, config=config)
    both, ranking = [await rig.arms.ask(arm, QUESTION) for arm in (Arm.BOTH, Arm.RANKING)]
    assert len(both.chunks) == 3
    assert len(ranking.chunks) >= both.pieces > 10


async def test_the_arm_without_a_model_asks_none(fake_engine: FakeEngine, model_dir: Path) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    answer = await rig.arms.ask(Arm.BM25, QUESTION)
    assert fake_engine.seen == []
    assert answer.usage.prompt_tokens == 0
    assert not (await rig.arms.ask(Arm.BM25, "Xyzzy?")).found


async def test_each_answer_is_an_agent_of_the_log(fake_engine: FakeEngine, model_dir: Path) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    for arm in Arm:
        await rig.arms.ask(arm, QUESTION)
    started = [event for event in rig.events if isinstance(event, AgentStarted)]
    finished = [event for event in rig.events if isinstance(event, AgentFinished)]
    assert [event.kind for event in started] == [f"quality-{arm}" for arm in Arm]
    assert [e.agent_id for e in finished] == [e.agent_id for e in started]
    assert {event.agent_id for event in rig.finished()} <= {event.agent_id for event in started}


async def test_what_an_arm_costs_does_not_depend_on_which_came_first(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    costs = []
    for order in (list(Arm), list(reversed(Arm))):
        rig = Rig(fake_engine, model_dir, text(FACT))
        costs.append({arm: (await rig.arms.ask(arm, QUESTION)).usage for arm in order})
    assert costs[0] == costs[1]
    assert costs[0][Arm.RANKING].computed_tokens > 0


async def test_no_prompt_is_sent_twice(fake_engine: FakeEngine, model_dir: Path) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    both = await rig.arms.ask(Arm.BOTH, QUESTION)
    ranking = await rig.arms.ask(Arm.RANKING, QUESTION)
    sent = [(request.prompt_ids, request.score) for request in fake_engine.seen]
    assert len(set(sent)) == len(sent) == len(rig.finished())
    # A time that another arm saved is not an arm's own.
    assert both.wall_s is not None
    assert ranking.wall_s is None


async def test_a_further_question_reads_again_and_scores_nothing_twice(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    """What was read for an earlier question may be evicted: that can't be played back."""
    rig = Rig(fake_engine, model_dir, text(FACT))
    first = await rig.arms.ask(Arm.RANKING, QUESTION)
    read = {request.prompt_ids for request in fake_engine.seen if request.score is None}
    rig.calls.begin_question()
    fake_engine.seen.clear()
    again = await rig.arms.ask(Arm.BOTH, QUESTION)
    assert {request.prompt_ids for request in fake_engine.seen if request.score is None} == read
    assert [request for request in fake_engine.seen if request.score is not None] == []
    assert again.answer == first.answer


async def test_equal_calls_count_once_for_each_agent(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    prompt = rig.parts.layout.prompt(task="What?")
    one, other = (Call(prompt=prompt, agent_id=AgentId(name), label="ask") for name in "ab")
    await rig.calls.run_all(Job(), [one] * 3)
    await rig.calls.run(Job(), one)
    await rig.calls.run(Job(), other)
    spent = [rig.calls.spent[AgentId(name)] for name in "ab"]
    assert [(each.usage.calls, each.replayed) for each in spent] == [(1, 0), (1, 1)]
    assert spent[0].usage == spent[1].usage
    assert len(fake_engine.seen) == 1


async def test_calls_that_differ_in_what_is_scored_are_not_confused(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    prompt = rig.parts.layout.prompt(task="What?")
    for max_tokens in (1, 2):
        call = Call(prompt=prompt, agent_id=AgentId("a"), label="ask", max_tokens=max_tokens)
        assert len((await rig.calls.run(Job(), call)).ids) == max_tokens
    for span in (Span(1, 3), Span(1, 4)):
        call = Call(prompt=prompt, agent_id=AgentId("a"), label="score", score=span)
        assert len((await rig.calls.run(Job(), call)).logprobs or ()) == span.end - span.start


async def test_direct_reads_as_much_as_fits_and_the_question_last(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    content = text(FACT, paragraphs=2_000)
    rig = Rig(fake_engine, model_dir, content)
    answer = await rig.arms.ask(Arm.DIRECT, QUESTION)
    (request,) = fake_engine.seen
    shown = rig.parts.layout.tokenizer.decode(request.prompt_ids)
    assert 0.9 * 8192 < len(request.prompt_ids) + ANSWER_TOKENS <= 8192
    assert content[: rig.arms.shown_bytes] in shown
    assert QUESTION in shown[-200:]
    assert rig.parts.layout.tokenizer.decode(rig.parts.layout.shared_ids) not in shown
    assert (request.max_tokens, request.temperature) == (ANSWER_TOKENS, 0)
    assert answer.quoted == ()
    assert answer.usage.generated_tokens == ANSWER_TOKENS


async def test_direct_reads_a_short_text_whole(fake_engine: FakeEngine, model_dir: Path) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    await rig.arms.ask(Arm.DIRECT, QUESTION)
    assert rig.arms.shown_bytes == len(rig.content.encode())
    with pytest.raises(InputError, match="no room"):
        await rig.arms.ask(Arm.DIRECT, "What " * 8_000)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Edith Märlow.", True),
        ("Not found.", False),
        ("The text does not mention it.", False),
        ("It isn't stated.", False),
        ("", False),
        ("It was not a storm that broke the clock.", True),
    ],
)
async def test_direct_says_in_words_that_it_found_nothing(
    said: str, found: bool, fake_engine: FakeEngine, model_dir: Path
) -> None:
    rig = Rig(fake_engine, model_dir, text(FACT))
    direct = Direct(rig.parts, rig.ref)
    answer = direct.answer(rig.parts.layout.tokenizer.encode(said))
    assert (answer.text, answer.found) == (said, found)


async def test_bm25_gives_bytes_behind_letters_of_several(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    content = text(FACT).replace("mild", "müde")
    rig = Rig(fake_engine, model_dir, content)
    best = best_sentences(rig.parts.corpus, rig.ref, QUESTION)[0]
    assert content.encode()[slice(*best.place)].decode() == best.text == FACT


async def test_bm25_quotes_a_sentence_whole_that_a_border_cuts_and_once(
    fake_engine: FakeEngine, model_dir: Path
) -> None:
    """Of sentences so long that each border of chunks cuts one."""
    sentences = [f"In the year {1800 + n} {'the town and ' * 45}the mayor slept." for n in range(9)]
    rig = Rig(fake_engine, model_dir, " ".join(sentences))
    borders = [piece.end_byte for piece in rig.parts.corpus.pieces([rig.ref])]
    best = best_sentences(rig.parts.corpus, rig.ref, "What about the year 1804?")
    assert best[0].text == sentences[4]
    assert any(best[0].place.start < border < best[0].place.end for border in borders)
    assert {sentence.text for sentence in best} <= set(sentences)
    assert len({sentence.place for sentence in best}) == len(best)


def test_arms_are_named_in_any_order_and_kept_in_one() -> None:
    assert parse_arms(" Direct, both,both") == (Arm.BOTH, Arm.DIRECT)


@pytest.mark.parametrize("wrong", ["", ",", "both,best"])
def test_an_unknown_arm_is_an_error(wrong: str) -> None:
    with pytest.raises(InputError, match="bm25"):
        parse_arms(wrong)


def test_every_arm_is_first_in_turn() -> None:
    orders = [rotated(tuple(Arm), turn) for turn in range(8)]
    assert [order[0] for order in orders] == [*Arm, *Arm]
    assert {frozenset(order) for order in orders} == {frozenset(Arm)}
