"""`calls` agents: the model decides the steps, one function call a turn.

A turn is one engine call and what comes of it. Where the engine has grammars, it can only generate
a call of what exists at that moment; where it has none, or where a value is not as the call takes
it, the agent reads what is wrong and goes on. Only what the model generated is ever taken for a
call: whatever a text looks like, it stands in observations.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Literal

from rlm_runtime.errors import (
    BadCall,
    ContextError,
    InputError,
    LimitExceeded,
    PromptTooLong,
    RLMError,
    SchemaMismatch,
)
from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.agent import Outcome
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls.actions import Action, Final, Path, function_name
from rlm_runtime.scaffold.calls.conversation import Conversation
from rlm_runtime.scaffold.calls.functions import Functions, Observation
from rlm_runtime.scaffold.calls.grammar import GRAMMAR_FUNCTIONS, call_grammar
from rlm_runtime.scaffold.calls.names_page import NamesPages
from rlm_runtime.scaffold.calls.parser import parse_call
from rlm_runtime.scaffold.subagents import Children
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.scaffold.typed_answer import AnswerType
from rlm_runtime.scheduler import Call, CallResult
from rlm_runtime.store.paths import parse_path
from rlm_runtime.tracing import TurnFinished
from rlm_runtime.types import Ref, StopReason

MAX_GRAMMAR_NAMES = 1_000
"""Names a turn can call, of those that were shown: 1,000 cost a grammar 0.1 s."""

NAMES_SHARE = 4
"""A page of names has at most this part of what the shared prefix leaves of the window."""

CALL_TOKENS = 56
"""Of a call beside its texts: the function, a path, names."""

LABEL = "turn"

TYPED = "What FINAL is given must be one JSON value of this schema:"

_WORD = re.compile(r"[^\W\d]\w*")
_LAST_TURNS = 2
# What an agent can act on. Other errors are not about what it wrote.
_ACTIONABLE = (BadCall, ContextError, InputError, PromptTooLong)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsAgent:
    """An agent whose steps the model decides. Immutable: one can run many times.

    Attributes:
        role: What its prompts say of it, in front of names and task.
        answer_type: What its result must be; `None` is anything.
        max_turns: Most turns; `None` is `limits.max_turns`.
    """

    role: str = ""
    answer_type: AnswerType | None = None
    max_turns: int | None = None

    @property
    def kind(self) -> Literal["calls"]:
        """The model decides."""
        return "calls"

    async def run(self, seat: Seat, task: str, context: AgentContext) -> Outcome:
        """Work on a task until FINAL, or until a limit: what it stored stays.

        The outcome's `detail` is the typed result, where there is an answer type.

        Raises:
            InputError: The task is empty.
            PromptTooLong: Task and names do not fit the window.
            SchemaMismatch: No attempt at the result was of its type.
            EngineError: The engine refused a turn, or died.
        """
        if not task.strip():
            raise InputError("The task is empty.", "Say what is to be done.")
        async with Children(seat, context) as children:
            return await _Run(self, seat, task, context, children).run()


@dataclass(frozen=True, slots=True)
class _Step:
    """What a turn came to.

    Attributes:
        observation: What the agent is told.
        outcome: Its end, if this was it.
    """

    observation: Observation
    outcome: Outcome | None = None


class _Run:
    """One run of an agent: its conversation, and what it has done so far."""

    def __init__(
        self, agent: CallsAgent, seat: Seat, task: str, context: AgentContext, children: Children
    ) -> None:
        tree = seat.tree
        settings = tree.config.agents
        self._agent = agent
        self._seat = seat
        self._context = context
        self._answer_tokens = max(
            settings.max_string_characters + CALL_TOKENS, settings.answer_tokens
        )
        room = tree.info.window - len(tree.layout.shared_ids) - self._answer_tokens
        pages = NamesPages(context, tree.layout, settings.max_names_shown, room // NAMES_SHARE)
        self._page_size = pages.size
        if agent.answer_type is not None:
            task = f"{task}{CONNECTIVE}{TYPED}\n{agent.answer_type.schema}"
        self._talk = Conversation(seat, context, pages, task, agent.role, self._answer_tokens)
        self._functions = Functions(
            seat, context, pages, children, replace(agent, role="", answer_type=None)
        )
        self._max_turns = agent.max_turns or tree.job.limits.max_turns
        self._turn = 0
        self._mismatches = 0
        # In the order in which they were last shown; a dict for its order.
        self._seen: dict[str, None] = {}
        self._see(self._talk.names)
        self._see(_WORD.findall(task))
        if seat.forked is not None:
            own = seat.forked.ids[len(tree.layout.shared_ids) :]
            self._see(_WORD.findall(tree.layout.tokenizer.decode(own)))

    async def run(self) -> Outcome:
        """Turn after turn, to the end."""
        errors_in_a_row = 0
        most = self._seat.tree.config.agents.max_errors_in_a_row
        while self._turn < self._max_turns:
            self._turn += 1
            try:
                result = await self._generate()
                step = await self._act(result)
            except LimitExceeded as err:
                return self._ended(err.stop_reason, str(err))
            if step.outcome is not None:
                return step.outcome
            code = step.observation.error_code
            errors_in_a_row = 0 if code is None else errors_in_a_row + 1
            if errors_in_a_row >= most:
                return self._ended(StopReason.ERRORS_IN_A_ROW, step.observation.text)
        return self._ended(StopReason.MAX_TURNS)

    async def _generate(self) -> CallResult:
        """One turn of the model: given, held to a grammar or a schema, or free."""
        tree, seat = self._seat.tree, self._seat
        call = Call(
            prompt=self._talk.prompt,
            agent_id=seat.agent_id,
            depth=seat.depth,
            label=LABEL,
            max_tokens=self._answer_tokens,
            temperature=tree.config.temperature,
            seed=tree.config.seed,
        )
        script = None if tree.script is None else tree.script(seat.agent_id, self._turn)
        answer_type = self._agent.answer_type
        if script is not None:
            call = replace(call, script=script, max_tokens=len(script) + 1)
        elif not tree.info.can_choose:
            end = tree.layout.template.turn_end_ids[-1:]
            call = replace(call, stop_token_ids=end, stop_repetition=True)
        elif self._mismatches and answer_type is not None:
            call = replace(call, json_schema=answer_type.schema)
        else:
            call = replace(call, grammar=self._grammar())
        return await tree.scheduler.run(tree.job, call)

    def _grammar(self) -> str:
        """What can be called now. A name can be once it was shown, or while one page holds all."""
        available = self._context.list_available()
        known = [name for name in self._seen if name in available][-MAX_GRAMMAR_NAMES:]
        names = list(available) if len(available) <= self._page_size else known
        limits = self._seat.tree.job.limits
        missing = set()
        if len(known) == len(available):
            missing.add("LIST_CONTEXT")  # it would show nothing new
        if self._seat.depth >= limits.max_depth:
            missing.add("agent")
        if not limits.has_budget:
            missing.add("BUDGET")
        return call_grammar(
            GRAMMAR_FUNCTIONS - missing,
            {name: available[name].kind for name in names},
            pages=-(-len(available) // self._page_size),
            max_string_characters=self._seat.tree.config.agents.max_string_characters,
        )

    async def _act(self, result: CallResult) -> _Step:
        """Do what was generated, tell the agent, and record the turn."""
        text = self._seat.tree.layout.tokenizer.decode(result.ids, skip_special=True).strip()
        function = ""
        try:
            if self._mismatches and not text.startswith("FINAL("):
                function = "FINAL"
                step = self._typed(text, result)
            else:
                action = self._parsed(text, result)
                function = function_name(action)
                step = await self._done(action, result)
        except RLMError as err:
            is_depth = isinstance(err, LimitExceeded) and err.stop_reason is StopReason.MAX_DEPTH
            if not isinstance(err, _ACTIONABLE) and not is_depth:
                self._note(result, function, err.code, 0)
                raise
            step = _Step(Observation(f"error: {err}", error_code=err.code))
        if step.outcome is not None:
            self._note(result, function, None, 0)
            return step
        told = step.observation
        self._see(told.names)
        self._see(_WORD.findall(told.text))
        if self._turn < self._max_turns:
            told = self._told(text, result, told)
        tokens = self._seat.tree.layout.tokenizer.count(told.text)
        self._note(result, function, told.error_code, tokens)
        return _Step(told)

    def _told(self, text: str, result: CallResult, told: Observation) -> Observation:
        """Put the turn behind the prompt, and what the agent should know of its end."""
        left = self._max_turns - self._turn
        shown = told.text
        if left <= _LAST_TURNS:
            shown += f"\n({left} turn{'s' if left > 1 else ''} left; end with FINAL)"
        instead = self._talk.go_on(self._turn, text, result.ids, shown)
        self._see(self._talk.names)
        if instead is None:
            return replace(told, text=shown)
        return Observation(instead, told.names, ContextError.code)

    def _parsed(self, text: str, result: CallResult) -> Action:
        """The action; what the model did not end itself is none.

        Raises:
            BadCall: It is none.
        """
        special = self._seat.tree.layout.tokenizer.special_ids
        if result.facts.finish_reason != "stop":
            raise BadCall(
                f"The call was cut after {len(result.ids):,} tokens.",
                "Write a shorter one; pass names, not contents.",
            )
        if not special.isdisjoint(result.ids[:-1]):
            raise BadCall("The call holds a control token.", "Write one call on one line.")
        return parse_call(text)

    async def _done(self, action: Action, result: CallResult) -> _Step:
        if isinstance(action, Final):
            return await self._final(action)
        observation = await self._functions.do(
            action, self._talk.prompt, result.ids, self._max_turns - self._turn
        )
        return _Step(observation)

    async def _final(self, action: Final) -> _Step:
        """The end, if the result is one; nothing of a stored value is generated or copied."""
        result = action.result
        if isinstance(result, str) and result in self._context.list_available():
            result = Path(result)
        ref = None
        if isinstance(result, Path):
            path = parse_path(result.text)
            if not path.steps:
                ref = self._functions.ref(path.name)
        if self._agent.answer_type is None and ref is not None:
            return self._finished(ref)
        value = await self._functions.look_at(result) if isinstance(result, Path) else result
        if self._agent.answer_type is None:
            return self._finished(self._stored(value))
        try:
            typed = _of_type(self._agent.answer_type, value)
        except SchemaMismatch as err:
            return self._mismatch(value if isinstance(value, str) else "", err)
        plain = self._agent.answer_type.plain(typed)
        return self._finished(ref if ref and plain == value else self._stored(plain), typed)

    def _typed(self, text: str, result: CallResult) -> _Step:
        """One more attempt at the result: JSON alone, without a call around it."""
        answer_type = self._agent.answer_type
        assert answer_type is not None  # noqa: S101 # for the type check: there was a mismatch
        try:
            if result.facts.finish_reason != "stop":
                raise SchemaMismatch(text, 1, f"it was cut after {len(result.ids):,} tokens")
            typed = answer_type.parse(text)
        except SchemaMismatch as err:
            return self._mismatch(text, err)
        return self._finished(self._stored(answer_type.plain(typed)), typed)

    def _mismatch(self, text: str, err: SchemaMismatch) -> _Step:
        """Say what is wrong with the result, as often as is allowed.

        Raises:
            SchemaMismatch: It was the last attempt.
        """
        answer_type = self._agent.answer_type
        assert answer_type is not None  # noqa: S101 # as above
        self._mismatches += 1
        if self._mismatches > self._seat.tree.config.agents.schema_retries:
            raise SchemaMismatch(text, self._mismatches, err.why) from err
        told = f"error: the result is not of the type asked for: {err.why}. "
        return _Step(Observation(told + answer_type.instruction, error_code=err.code))

    def _finished(self, ref: Ref, typed: object = None) -> _Step:
        outcome = Outcome(stop_reason=StopReason.FINAL, result=ref, turns=self._turn, detail=typed)
        return _Step(Observation(""), outcome)

    def _stored(self, value: object) -> Ref:
        return self._context.store(self._seat.result_name, value)

    def _ended(self, reason: StopReason, error: str = "") -> Outcome:
        return Outcome(stop_reason=reason, turns=self._turn, error=error)

    def _see(self, names: tuple[str, ...] | list[str]) -> None:
        for name in names:
            self._seen.pop(name, None)
            self._seen[name] = None

    def _note(self, result: CallResult, function: str, error_code: str | None, tokens: int) -> None:
        recorder = self._seat.tree.recorder
        recorder.emit(
            TurnFinished(
                at_s=recorder.now(),
                agent_id=self._seat.agent_id,
                turn=self._turn,
                request_id=result.request_id,
                function=function,
                outcome="ok" if error_code is None else "error",
                error_code=error_code,
                observation_tokens=tokens,
            )
        )


def _of_type(answer_type: AnswerType, value: object) -> object:
    """A value as one of a type: as it is, or, a text, as the JSON in it.

    Raises:
        SchemaMismatch: It is neither.
    """
    try:
        as_json = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise SchemaMismatch("", 1, f"it can't be JSON ({err})") from err
    try:
        return answer_type.parse(as_json)
    except SchemaMismatch:
        if not isinstance(value, str):
            raise
        return answer_type.parse(value)
