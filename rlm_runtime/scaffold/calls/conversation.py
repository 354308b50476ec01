"""An agent's prompts, turn after turn: only ever appended to, until the window is full.

    [shared][role][names][task]  [answer][observation]  [answer][observation] ...

Each prompt begins with the ids of the one before and exactly what was generated behind it. Where
the next turn would not fit, the agent goes on in a new branch from the shared prefix: names, task,
what was done, and the last turn as it was. Nothing is lost: all that was said is stored by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_runtime.errors import PromptTooLong
from rlm_runtime.prompt import CONNECTIVE, Prompt
from rlm_runtime.scaffold.agent_context import AgentContext
from rlm_runtime.scaffold.calls.names_page import NamesPage, NamesPages
from rlm_runtime.scaffold.tree import Seat
from rlm_runtime.tracing import Compaction

ROLE = "You work by calls: you write one call on one line, and its result is the next message."
"""What all agents of this kind share: it says which kind of action is theirs."""

DONE_CALLS = 12
DONE_CHARACTERS = 80
"""Of what was done before a compaction, so many of the last calls are shown, each cut."""


@dataclass(frozen=True, slots=True)
class _Turn:
    call: str
    observation: str


@dataclass(slots=True)
class Conversation:
    """One agent's prompt as it grows.

    Attributes:
        seat: The agent's place.
        context: Its values.
        pages: Its names.
        task: What it is to do, in words.
        role: What its prompts say behind `ROLE`.
        answer_tokens: Room for what a turn generates.
        prompt: What is sent next.
        shown: The page of names at the beginning of the branch.
    """

    seat: Seat
    context: AgentContext
    pages: NamesPages
    task: str
    role: str
    answer_tokens: int
    prompt: Prompt = field(init=False)
    shown: NamesPage = field(init=False)
    _turns: list[_Turn] = field(default_factory=list)
    _is_branch: bool = False

    def __post_init__(self) -> None:
        page = self.shown = self.pages.page()
        forked = self.seat.forked
        if forked is None:
            self.prompt = self._opening(page)
        elif self._fits(forked):
            self.prompt = forked
        else:
            self.prompt = self._opening(page, done=True)
            self._keep(0, forked)
        if not self._fits(self.prompt):
            raise self._too_long(self.prompt, "Shorten the task, or show fewer names.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the branch begins with, and that of what was said before it."""
        before = (self.history_name,) if self._is_branch else ()
        return (*self.shown.names, *before)

    @property
    def history_name(self) -> str:
        """The name under which what was said before a compaction is stored."""
        return f"history_{self.seat.agent_id.replace('.', '_')}"

    def go_on(
        self, turn: int, call: str, generated_ids: tuple[int, ...], observation: str
    ) -> str | None:
        """Put a turn behind the prompt, or begin a new branch that ends with it.

        Args:
            turn: Its number.
            call: What was generated, as text.
            generated_ids: The same as ids.
            observation: What came of it.

        Returns:
            What is said instead of an observation that is too long for the window; `None` when
            it was not.

        Raises:
            PromptTooLong: Not even that fits: the window is too small for the task.
            QuotaExceeded: What was said can't be stored.
        """
        shown = observation
        if not self._append(turn, generated_ids, shown):
            shown = self._refusal(generated_ids, observation)
            if not self._append(turn, generated_ids, shown):
                prompt = self._next(self.prompt, generated_ids, shown)
                raise self._too_long(prompt, "Shorten the task, or use a larger window.")
        self._turns.append(_Turn(call, shown))
        return None if shown is observation else shown

    def _append(self, turn: int, generated_ids: tuple[int, ...], observation: str) -> bool:
        prompt = self._next(self.prompt, generated_ids, observation)
        if self._fits(prompt):
            self.prompt = prompt
            return True
        page = self.pages.page()
        branch = self._next(self._opening(page, done=True), generated_ids, observation)
        if not self._fits(branch):
            return False
        self.prompt, self.shown = branch, page
        self._keep(turn, prompt)
        return True

    def _keep(self, turn: int, before: Prompt) -> None:
        """Store what was said, and record the branch that begins with `self.prompt`."""
        self._is_branch = True
        kept = self.context.store(self.history_name, self._transcript())
        recorder = self.seat.tree.recorder
        recorder.emit(
            Compaction(
                at_s=recorder.now(),
                agent_id=self.seat.agent_id,
                turn=turn,
                prompt_tokens_before=len(before.ids),
                prompt_tokens_after=len(self.prompt.ids),
                kept_as=kept.name,
            )
        )

    def _next(self, prompt: Prompt, generated_ids: tuple[int, ...], observation: str) -> Prompt:
        return self.seat.tree.layout.append_turn(prompt, generated_ids, observation)

    def _opening(self, page: NamesPage, *, done: bool = False) -> Prompt:
        parts = [page.note, self.task, self._done() if done else ""]
        return self.seat.tree.layout.prompt(
            task=CONNECTIVE.join(filter(None, parts)),
            role=" ".join(filter(None, [ROLE, self.role])),
            names=page.lines,
        )

    def _done(self) -> str:
        done = f"You have begun. All that was said is in {self.history_name}."
        calls = [f"\n- {_cut(turn.call)}" for turn in self._turns[-DONE_CALLS:]]
        return done + "".join([" Done last:", *calls] if calls else [])

    def _transcript(self) -> str:
        said = [f"{turn.call}\n{turn.observation}" for turn in self._turns]
        layout, forked = self.seat.tree.layout, self.seat.forked
        if forked is not None:
            before = forked.ids[len(layout.shared_ids) :]
            said.insert(0, layout.tokenizer.decode(before, skip_special=True))
        return "\n\n".join(said)

    def _refusal(self, generated_ids: tuple[int, ...], observation: str) -> str:
        tree = self.seat.tree
        tokens = tree.layout.tokenizer.count(observation)
        branch = self._opening(self.pages.page(), done=bool(self._turns))
        empty = self._next(branch, generated_ids, "")
        room = max(0, tree.info.window - self.answer_tokens - len(empty.ids))
        return (
            f"error: what this gives has {tokens:,} tokens; the window has room for {room:,}. "
            "Ask for a smaller part."
        )

    def _fits(self, prompt: Prompt) -> bool:
        return len(prompt.ids) + self.answer_tokens <= self.seat.tree.info.window

    def _too_long(self, prompt: Prompt, remedy: str) -> PromptTooLong:
        limit = self.seat.tree.info.window - self.answer_tokens
        return PromptTooLong(len(prompt.ids), limit, remedy)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DONE_CHARACTERS else f"{line[: DONE_CHARACTERS - 3]}..."
