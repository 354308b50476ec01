"""Agents of a session from Python, on an engine that computes nothing: what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rlm_runtime import RLM, AsyncRLM, Config, Limits, Result, StopReason
from rlm_runtime.config.model import RunConfig, StoreConfig
from rlm_runtime.errors import ContextError, InputError
from rlm_runtime.prompt import Tokenizer
from rlm_runtime.scaffold.recipes.map_reduce import MapReduce
from rlm_runtime.tracing import AgentFinished, AgentStarted, read_events

if TYPE_CHECKING:
    from rlm_runtime.engine.base import GenerateRequest
    from tests.unit.cli.conftest import Boots


@pytest.fixture
def config(model_dir: Path, tmp_path: Path) -> Config:
    return Config(
        model=str(model_dir),
        run=RunConfig(directory=tmp_path / "run"),
        store=StoreConfig(spill_directory=tmp_path / "values"),
    )


@pytest.fixture
def prompts(boots: Boots, model_dir: Path) -> list[str]:
    """The prompts that engines get, as text."""
    tokenizer = Tokenizer.from_folder(model_dir)
    seen: list[str] = []

    def note(request: GenerateRequest) -> None:
        seen.append(tokenizer.decode(request.prompt_ids))

    boots.on_request = note
    return seen


@pytest.fixture
def rlm(config: Config, boots: Boots) -> RLM:
    return RLM(config)


@pytest.fixture(autouse=True)
def sessions_end(rlm: RLM) -> Any:
    yield
    rlm.close()


def test_texts_without_a_name_are_all_read(rlm: RLM, prompts: list[str]) -> None:
    rlm.run("Why?", ["The ALDER grows.", "The BIRCH grows."], agent="direct")
    (prompt,) = prompts
    assert "ALDER" in prompt
    assert "BIRCH" in prompt


def test_a_text_without_a_name_takes_that_of_no_file_beside_it(
    rlm: RLM, prompts: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("The ALDER grows.")
    rlm.store(file)
    rlm.run("Why?", ["The BIRCH grows.", file], agent="direct")
    (prompt,) = prompts
    assert "ALDER" in prompt
    assert "BIRCH" in prompt


def test_a_reference_is_that_very_version(rlm: RLM, prompts: list[str]) -> None:
    old = rlm.store("The ALDER grows.", "tree")
    rlm.store("The BIRCH grows.", "tree")
    rlm.run("Why?", old, agent="direct")
    (prompt,) = prompts
    assert "ALDER" in prompt
    assert "BIRCH" not in prompt


def test_two_versions_of_one_name_are_refused(rlm: RLM, boots: Boots) -> None:
    old = rlm.store("The ALDER grows.", "tree")
    new = rlm.store("The BIRCH grows.", "tree")
    with pytest.raises(InputError, match="Versions 1 and 2 of 'tree'"):
        rlm.run("Why?", [old, new])
    assert not boots.engines


def test_what_others_wrote_under_a_given_name_is_not_read(rlm: RLM, prompts: list[str]) -> None:
    rlm.store("The ALDER grows.", "tree")
    rlm.context().store("tree", "The BIRCH grows.")
    rlm.run("Why?", agent="direct")
    (prompt,) = prompts
    assert "ALDER" in prompt
    assert "BIRCH" not in prompt


def test_values_that_are_no_text_are_not_searched(rlm: RLM, boots: Boots) -> None:
    rows = rlm.context().store("rows", [1, 2])
    with pytest.raises(InputError, match="no text"):
        rlm.run("Why?", rows)
    assert not boots.engines
    assert rlm.run("Why?", [rows, rlm.store("It grows.")]).kind == "search"


@pytest.mark.parametrize("value", [{"rows": ["a", "b"]}, {"rows": 3}, [3], 3])
def test_a_value_that_is_no_text_is_refused_with_what_takes_it(rlm: RLM, value: Any) -> None:
    with pytest.raises(InputError, match=r"no text\. Store it in a context"):
        rlm.run("Which?", value, agent="direct")


def test_what_belongs_to_another_session_is_refused(rlm: RLM, config: Config, boots: Boots) -> None:
    with RLM(config.model_copy(update={"run": RunConfig(keep=False)})) as other:
        theirs = other.store("The ALDER grows.", "tree")
        rlm.store("The BIRCH grows.", "tree")
        with pytest.raises(ContextError, match="another store"):
            rlm.run("Why?", theirs, agent="direct")
        with pytest.raises(ContextError, match="another session"):
            rlm.run("Why?", other.context(), agent="direct")
    assert not boots.engines


def test_a_task_that_is_not_utf_8_starts_nothing(rlm: RLM, boots: Boots) -> None:
    with pytest.raises(InputError, match="character 3"):
        rlm.run("Why\ud800?", {}, agent="direct")
    assert not boots.engines


def test_a_closed_session_stores_and_runs_nothing(config: Config, rlm: RLM) -> None:
    rlm.close()
    with pytest.raises(InputError, match="closed"):
        rlm.store("It grows.")

    async def run_after_close() -> None:
        session = AsyncRLM(config.model_copy(update={"run": RunConfig(keep=False)}))
        await session.close()
        await session.run("Why?", "It grows.")

    with pytest.raises(InputError, match="closed"):
        asyncio.run(run_after_close())


def test_files_and_arrays_can_be_stored_in_a_context(rlm: RLM, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("It grows.")
    context = rlm.context()
    context.store("notes", file)
    context.store("counts", np.arange(3))
    assert context.read("notes[3:]") == "grows."
    assert context.read("counts[2]") == 2
    with pytest.raises(InputError, match="missing"):
        context.store("none", tmp_path / "missing")


@dataclass
class Report:
    author: str


def test_an_agent_has_an_answer_type_as_leaf_calls_have(rlm: RLM, boots: Boots) -> None:
    boots.says = (*rlm.call(_tokens('{"author":"Anna"}')), 2)
    result = rlm.agent("direct", answer_type=Report).run("Who?", "By Anna.")
    assert result.value() == {"author": "Anna"}


def test_labels_may_be_a_list(rlm: RLM, boots: Boots) -> None:
    counter = rlm.agent("classify_each", labels=["good", "bad"])
    assert counter.run("Which?", "One.\nTwo.\n").value()["counts"] == {"good": 2, "bad": 0}  # type: ignore[index] # a dict


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("classify_each", {"labels": "good, bad"}),
        ("classify_each", {"each": "word"}),
        ("classify_each", {"labels": ["good"]}),
        ("map_reduce", {"combine": "glue"}),
        ("map_reduce", {"over": "grow"}),
        ("direct", {"answer_type": "Report"}),
    ],
)
def test_an_option_that_cannot_be_that_is_refused(
    rlm: RLM, kind: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        rlm.agent(kind, **options)


def test_a_task_that_names_no_labels_starts_nothing(rlm: RLM, boots: Boots) -> None:
    with pytest.raises(InputError, match="labels"):
        rlm.run("Which?", "One.\nTwo.\n", agent="classify_each")
    assert not boots.engines


@pytest.mark.parametrize("agent", [3, MapReduce, ["direct"]])
def test_what_is_no_agent_is_refused(rlm: RLM, boots: Boots, agent: Any) -> None:
    with pytest.raises(InputError, match="is no agent"):
        rlm.run("Why?", "It grows.", agent=agent)
    assert not boots.engines


def test_only_a_search_is_exhaustive(rlm: RLM, boots: Boots) -> None:
    with pytest.raises(InputError, match="exhaustive"):
        rlm.run("Why?", "It grows.", agent=MapReduce(), exhaustive=True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rlm: rlm.llm_map("It grows.", ["Why?"]),
        lambda rlm: rlm.llm_map(["It grows."], "Why?"),
        lambda rlm: rlm.llm_map([Path("notes.md")], ["Why?"]),
        lambda rlm: rlm.llm_map(["It grows."], [3]),
        lambda rlm: rlm.llm_query("Why?", choices="ab"),
    ],
)
def test_leaf_calls_take_lists_of_texts(
    rlm: RLM, boots: Boots, ask: Callable[[RLM], object]
) -> None:
    with pytest.raises(InputError, match=r"list of texts|as strings"):
        ask(rlm)
    assert not boots.engines


def test_a_plan_over_the_limits_is_an_end(rlm: RLM, boots: Boots) -> None:
    rows = {"rows": "One.\nTwo.\n"}
    limits, plans = Limits(max_calls=1), list[object]()
    agent = rlm.agent("classify_each", labels=("good", "bad"))
    result = agent.run("Which?", rows, limits=limits, on_plan=plans.append)
    assert result.stop_reason is StopReason.BUDGET_CALLS
    assert "max_calls" in result.error
    assert len(plans) == 1
    assert boots.engines[0].requests == 0


def test_an_agent_that_can_make_no_plan_stands_in_the_log(rlm: RLM, boots: Boots) -> None:
    agent = rlm.agent("classify_each", labels=("good", "bad"))
    with pytest.raises(InputError, match="nothing to classify"):
        agent.run("Which?", {}, on_plan=lambda _: None)
    assert rlm.run_directory is not None
    events = read_events(rlm.run_directory)
    agents = [e for e in events if isinstance(e, AgentStarted | AgentFinished)]
    assert [event.agent_id for event in agents] == ["a1", "a1"]
    assert isinstance(agents[1], AgentFinished)
    assert agents[1].stop_reason == "failed"


def test_runs_at_once_have_names_and_figures_of_their_own(config: Config, boots: Boots) -> None:
    async def all_at_once() -> list[Result]:
        async with AsyncRLM(config.model_copy(update={"run": RunConfig(keep=False)})) as session:
            agent = session.agent("classify_each", labels=("good", "bad"))
            return await asyncio.gather(
                *(agent.run("Which?", {"rows": "One.\n" * n}) for n in (1, 2, 3, 4))
            )

    results = asyncio.run(all_at_once())
    assert len({result.agent_id for result in results}) == 4
    assert [result.ref and result.ref.name for result in results] == [
        f"answer_{result.agent_id}" for result in results
    ]
    assert [result.value()["counts"]["good"] for result in results] == [1, 2, 3, 4]  # type: ignore[index] # dicts


def _tokens(text: str) -> Callable[[AsyncRLM], Any]:
    async def encode(session: AsyncRLM) -> tuple[int, ...]:
        return session.layout.tokenizer.encode(text)

    return encode
