"""One step's agent: given its values as the step says, held to the clock, its result named.

Whatever kind of agent it is, it does not know that it works for a workflow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import anyio
import anyio.to_thread

from rlm_runtime.errors import ContextBudgetExceeded, PromptTooLong, RLMError
from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.agent import Agent, Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.types import AgentKind, StopReason
from rlm_runtime.workflow.definition import Step
from rlm_runtime.workflow.function_agent import broken

GRACE_S = 5.0
"""An agent ends by itself when the tree's `max_seconds` are over, and returns what it has by then.
One that has not after this many seconds more is cancelled."""


@dataclass(frozen=True, slots=True)
class StepAgent:
    """An agent at work on a step.

    Attributes:
        step: What it does.
        agent: Who does it.
    """

    step: Step
    agent: Agent

    @property
    def kind(self) -> AgentKind:
        """The agent's own."""
        return self.agent.kind

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Run the agent.

        Raises:
            PromptTooLong: The values do not fit its prompt; it did not begin.
            LimitExceeded: A limit of the tree.
            WorkflowError: It raised an error that is none of this package.
            RLMError: It can't go on.
        """
        step, job = self.step, seat.tree.job
        inner = context
        if step.passing == "value":
            task = await anyio.to_thread.run_sync(_with_values, step, seat, task, context)
            inner = context.child(seat.agent_id, (), context.budget)
        seat = replace(seat, named=step.writes)
        with anyio.CancelScope(deadline=job.deadline + GRACE_S) as scope:
            try:
                outcome = await self.agent.run(seat, task, inner)
            except RLMError:
                raise
            except Exception as err:
                raise broken(self.agent, err) from err
        if scope.cancelled_caught:
            raise job.time_is_up()
        return await anyio.to_thread.run_sync(_named, step, outcome, seat, context)


def _with_values(step: Step, seat: Seat, task: str, context: AgentContext) -> str:
    """The task with the values in front of it; for a thread."""
    layout, config = seat.tree.layout, seat.tree.config
    limit = seat.tree.info.window - config.agents.answer_tokens
    fixed = len(layout.shared_ids) + len(layout.tail(task))
    remedy = (
        'Pass it by reference (passing="reference"), only a part of it '
        "(reads=[\"analysis['summary']\"]), or use a larger engine.window_tokens."
    )
    texts: list[str] = []
    used = fixed
    for path in step.reads:
        try:
            shown = context.data(path, max(0, limit - used))
        except ContextBudgetExceeded as err:
            tokens = used + err.size_tokens
            raise PromptTooLong(tokens, limit, f"{path!r} does not fit. {remedy}") from err
        texts.append(f"{path}:\n{shown.text}")
        used += shown.tokens
    text = CONNECTIVE.join([*texts, task])
    tokens = len(layout.shared_ids) + len(layout.tail(text))
    if tokens > limit:
        raise PromptTooLong(tokens, limit, f"{step.reads[-1]!r} does not fit. {remedy}")
    return text


def _named(step: Step, outcome: Outcome, seat: Seat, context: AgentContext) -> Outcome:
    """The outcome with its result under the step's name; for a thread: it may be large."""
    ref = outcome.result
    if not step.writes or (ref is not None and ref.name == step.writes):
        return outcome
    value: object = ref  # one more name for it, without a copy
    if ref is None and outcome.answer is not None:
        value = outcome.answer
    elif ref is None and outcome.found is not False:
        if outcome.stop_reason is not StopReason.FINAL:
            return outcome
        error = f"it made nothing for {step.writes!r}"
        return replace(outcome, stop_reason=StopReason.NO_FINAL, error=error)
    # What is not found is stored as None: an answer, that guards and later steps can see.
    return replace(outcome, result=context.store(step.writes, value), answer=None)
