"""`direct`: one call with the whole context in front of the task, where it fits the window.

The least that can be done, and the best where it can be done: the model sees everything at once. A
context that does not fit is refused before anything is computed; nothing of it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import anyio.to_thread

from rlm_runtime.errors import ContextBudgetExceeded, InputError, PromptTooLong
from rlm_runtime.prompt import CONNECTIVE, Document
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.leaf_calls import Leaf, LeafCalls
from rlm_runtime.scaffold.leaf_prompts import LeafPrompts
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.types import Ref, StopReason

_REMEDY = (
    "Let an agent that reads in parts do it (search, map_reduce, classify_each), give less context,"
    " or use a larger engine.window_tokens."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """Answers from the whole context at once.

    A child stores its answer, for its parent, and so does who answers with a value of a type. The
    words of a root are what its caller gets. `Outcome.detail` is the `LeafAnswer`.

    Attributes:
        values: What to answer from; empty: all values of the context, by name.
        answer_type: What the answer must be; `None` is text.
    """

    values: tuple[Ref, ...] = ()
    answer_type: AnswerType | None = None

    @property
    def kind(self) -> Literal["direct"]:
        """One call, decided in Python."""
        return "direct"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Do a task in one call, or a few where the answer has a type (`LeafCalls.batch`).

        Raises:
            InputError: The task is empty.
            PromptTooLong: Context and task do not fit the window; nothing was computed.
            LimitExceeded: A limit of the tree refuses the call.
            SchemaMismatch: No attempt gave an answer of the type.
            EngineError: The engine can't go on.
        """
        if not task.strip():
            raise InputError("The task is empty.", "Ask something.")
        calls = LeafCalls(seat)
        refs = self.values or tuple(context.list_available().values())
        document = None
        if refs:
            leaf = Leaf(question=task, answer=self.answer_type)
            document = await anyio.to_thread.run_sync(
                _document, seat, context, calls.prompts, refs, calls.prompts.room(leaf)
            )
        seat.tree.job.begin_stage("answering", 1)
        answer = await calls.query(task, document, answer=self.answer_type)
        ref, words = None, answer.text
        if self.answer_type is not None:
            ref = context.store(seat.result_name, self.answer_type.plain(answer.value))
        elif seat.parent is not None:
            ref = context.store(seat.result_name, answer.text)
        return Outcome(
            stop_reason=StopReason.FINAL,
            result=ref,
            answer=words if ref is None else None,
            found=not answer.says_nothing if refs and self.answer_type is None else None,
            detail=answer,
        )


def _document(
    seat: Seat, context: AgentContext, prompts: LeafPrompts, refs: Sequence[Ref], room: int
) -> Document:
    """All values, one behind the other; for a thread."""
    layout = seat.tree.layout
    between = layout.tokenizer.count(CONNECTIVE)
    texts = []
    left = room
    for ref in refs:
        try:
            # A value that is far too large is refused unread.
            shown = context.data(ref, max(0, left))
        except ContextBudgetExceeded as err:
            limit = seat.tree.info.window - seat.tree.config.agents.answer_tokens
            tokens = limit - left + err.size_tokens
            raise PromptTooLong(tokens, limit, f"{ref.name!r} does not fit. {_REMEDY}") from err
        texts.append(shown.text)
        left -= shown.tokens + between
    text = CONNECTIVE.join(texts)
    document = prompts.document(text)
    # Filled, it may be longer than there is room: that only helps further questions.
    return document if len(document.ids) <= room else layout.document(text, fill=False)
