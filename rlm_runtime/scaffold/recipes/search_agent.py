"""`search` as an agent: the sentence that answers, its words that matter, and a place for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlm_runtime.errors import ConfigError, EngineDead, EngineError, InputError, PromptTooLong
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.corpus import Corpus
from rlm_runtime.scaffold.likelihood import TAIL
from rlm_runtime.scaffold.recipes.search import Search
from rlm_runtime.scaffold.recipes.search_result import Passage, SearchResult
from rlm_runtime.scaffold.short_form import ShortForm, short_form
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import Ref


@dataclass(frozen=True, slots=True)
class SearchFindings:
    """What a search says beside its answer.

    Attributes:
        result: What was found, and where.
        shorts: Of each of the result's answers, the words that the model takes for what was asked.
            `None` where `search.short_form` is off, the engine can't choose, there is nothing to
            choose from, or a limit came first.
    """

    result: SearchResult
    shorts: tuple[ShortForm | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAgent:
    """Quotes the sentence that answers a question, or says that none does.

    A child stores its answer, for its parent; a root's answer is what its caller gets.

    Attributes:
        texts: Where to look; empty: in all texts of the context, by name.
        exhaustive: Let the model rank every chunk, however long the texts are.
    """

    texts: tuple[Ref, ...] = ()
    exhaustive: bool = False

    @property
    def kind(self) -> Literal["search"]:
        """A recipe."""
        return "search"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Search for the answer to one question. A limit of the tree leaves a part of it undone.

        Raises:
            InputError: The question is empty, or the context has no text.
            PromptTooLong: The question does not fit the window beside a chunk.
            EngineError: The engine can't go on.
        """
        tree = seat.tree
        check_question(task, tree.corpus, tree.info.window)
        texts = self.texts or texts_of(context)
        kv_tokens = tree.info.kv_tokens
        search = Search(tree.corpus, tree.config.search, tree.recorder, kv_tokens, tree.memo)
        result = await search.run(seat.asker, texts, task, exhaustive=self.exhaustive)
        shorts = await _shorts(seat, task, result.answers)
        ref, answer = None, result.answer
        if answer is not None and seat.parent is not None:
            ref, answer = context.store(seat.result_name, answer), None
        return Outcome(
            stop_reason=result.stop_reason,
            result=ref,
            answer=answer,
            found=result.found,
            detail=SearchFindings(result, shorts),
        )


def texts_of(context: AgentContext) -> tuple[Ref, ...]:
    """The texts that a context shows, by name.

    Raises:
        InputError: There is none.
    """
    texts = tuple(ref for ref in context.list_available().values() if ref.kind == "str")
    if not texts:
        raise InputError("There is no text to search.", "Give one as `context`.")
    return texts


def check_question(question: str, corpus: Corpus, window: int | None) -> None:
    """See whether a question can be searched for, before anything is started.

    Raises:
        InputError: It is empty.
        PromptTooLong: It does not fit the window beside a chunk of text.
    """
    if not question.strip():
        raise InputError("The question is empty.", "Ask something.")
    need = _room(corpus, question)
    if window is not None and need > window:
        what = "The question, the shared prefix and one chunk must fit"
        raise PromptTooLong(need, window, f"{what}: shorten the question.")


def check_window(corpus: Corpus, window: int | None) -> None:
    """See whether any question can be searched for.

    Raises:
        ConfigError: The window has no room for one beside a chunk of text.
    """
    need = _room(corpus, "")
    if window is not None and need > window:
        raise ConfigError(
            f"The shared prefix and one chunk need {need:,} tokens, "
            f"engine.window_tokens is {window:,}.",
            "Use a larger window, or a smaller search.chunk_tokens.",
        )


def _room(corpus: Corpus, question: str) -> int:
    """Tokens of the longest prompt: `S`, a chunk, the tail, the question, and one generated."""
    layout = corpus.layout
    fixed = len(layout.shared_ids) + len(layout.tail(TAIL)) + 1
    chunk = corpus.max_piece_tokens + layout.block_size
    return fixed + chunk + layout.tokenizer.count(question)


async def _shorts(
    seat: Seat, task: str, answers: Sequence[Passage]
) -> tuple[ShortForm | None, ...]:
    """The words of each answer that matter, where the engine can choose among them."""
    tree = seat.tree
    if not (tree.config.search.short_form and tree.info.can_choose):
        return (None,) * len(answers)
    shorts: list[ShortForm | None] = []
    for answer in answers:
        question = answer.part or task
        try:
            short = await short_form(
                seat.asker, question, answer.text, answer.start_byte, tree.info.window
            )
        except EngineDead:
            raise
        except (EngineError, InputError):
            # A highlight is no reason to lose the answer; the call is in the log as failed.
            short = None
        shorts.append(short)
    return tuple(shorts)
