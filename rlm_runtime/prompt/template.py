"""The constant pieces of a model's chat template, as token ids, learnt once by rendering it.

Prompts are then built from ids; the template is never rendered again. A turn is

    system_open  SYSTEM  system_to_user  USER  user_to_assistant  ANSWER

and a further one puts `turn_end_ids` (which the model mostly generates itself),
`assistant_to_user`, the next user text and `user_to_assistant` behind it. A template in which the
system text can't stand unchanged in front, with the same ids before it today and tomorrow, is
refused: nothing could be shared.

The library `renderers` knows the turns of some twenty families by hand, and picks one by the
model's exact name. It isn't used: an unknown name gets no second turn from it, and all that is
needed here, one-turn prompts and turns appended to generated ids, can be learnt from any template.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rlm_runtime.errors import ModelError
from rlm_runtime.prompt.rendering import REMEDY, Renderer
from rlm_runtime.prompt.tokenizer import Tokenizer

_ONE_TURN = ("system", "user")
_SECOND_TURN = ("system", "user", "assistant", "user")


class _Chat(NamedTuple):
    """The texts of a chat that is rendered to find out what stands between them."""

    system: str
    user: str
    answer: str
    observation: str


# Two sets, of different lengths and lines, with what a template might escape, fold or trim.
_CHATS = (
    _Chat(
        'Qsys reads "texts" & <b>.\n\n## Next: {x}\n- `one`  two\n\tQsys ends.',
        "Quser asks <a> & 'b'.\n\n\nIs it {{ so }}? Quser ends.",
        "Qanswer is\n\n- yes & <no>. Qanswer ends.",
        "Qobserved 1 <2>\n\nand more. Qobserved ends.",
    ),
    _Chat("Bsys text.", "Buser\nquestion?", "Banswer!", "Bobserved."),
)
# Any part of a date or a time differs between them, its length too.
_CLOCKS = (
    datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime(2019, 10, 27, 18, 39, 41, tzinfo=UTC),
)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What a chat template puts around texts, as token ids.

    Attributes:
        system_open: Up to the system text; a beginning-of-sequence token included.
        system_to_user: Between the system text and the first user text.
        user_to_assistant: Between a user text and what the model generates.
        turn_end_ids: What ends a generated answer; its last id is the model's end-of-turn token.
            Empty when the template has none.
        assistant_to_user: From there to the next user text.
        is_prefix_stable: Whether the template's own rendering of a longer chat begins with the
            prompt and the answer before. Prompts built here are stable either way.
        instability: Why not, in words; empty when stable.
        inexact: Where these pieces and the texts, encoded apart, are other tokens than the
            template's own rendering (of equal text), in words; empty when they are the same.
    """

    system_open: tuple[int, ...]
    system_to_user: tuple[int, ...]
    user_to_assistant: tuple[int, ...]
    turn_end_ids: tuple[int, ...]
    assistant_to_user: tuple[int, ...]
    is_prefix_stable: bool
    instability: str
    inexact: str

    @classmethod
    def from_folder(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
        """Learn the pieces of a model's template: about ten renderings, milliseconds.

        Args:
            folder: The model's folder. `chat_template.jinja` goes before `tokenizer_config.json`.
            tokenizer: The same model's.

        Raises:
            ModelError: There is no template, or no shared prefix can stand in it; says why.
        """
        render = Renderer(folder)
        chat = _CHATS[0]
        opening, to_user, to_assistant = _one_turn(render)
        first = f"{opening}{chat.system}{to_user}{chat.user}{to_assistant}"
        between = _second_turn(render)
        ids = tokenizer.encode_template(between)
        marks = [i for i, id_ in enumerate(ids) if id_ in tokenizer.special_ids]
        end = marks[0] + 1 if marks else 0
        instability = _instability(render, first, between, to_assistant)
        pieces = [tokenizer.encode_template(piece) for piece in (opening, to_user, to_assistant)]
        return cls(
            system_open=pieces[0],
            system_to_user=pieces[1],
            user_to_assistant=pieces[2],
            turn_end_ids=ids[:end],
            assistant_to_user=ids[end:],
            is_prefix_stable=not instability,
            instability=instability,
            inexact=_inexact(tokenizer, first, pieces),
        )


def _render(
    render: Renderer, chat: _Chat, roles: tuple[str, ...], clock: datetime = _CLOCKS[0]
) -> str:
    users = iter((chat.user, chat.observation))
    texts = {"system": chat.system, "assistant": chat.answer}
    return render([(r, next(users) if r == "user" else texts[r]) for r in roles], clock)


def _one_turn(render: Renderer) -> tuple[str, str, str]:
    """What stands before the system text, between it and the user text, and after that."""
    if _render(render, _CHATS[0], _ONE_TURN) != _render(render, _CHATS[0], _ONE_TURN, _CLOCKS[1]):
        raise _refused("it writes the date or time into every prompt, so no prompt of tomorrow")
    found = [_cut(_render(render, chat, _ONE_TURN), chat) for chat in _CHATS]
    if found[0] != found[1]:
        raise _refused("what it writes around the texts depends on them, so no two prompts")
    return found[0]


def _cut(rendered: str, chat: _Chat) -> tuple[str, str, str]:
    times = rendered.count(chat.system)
    if times == 0:
        done = "changes" if chat.system.split()[0] in rendered else "leaves out"
        raise _refused(f"it {done} the system text, so no prompts")
    opening, _, rest = rendered.partition(chat.system)
    to_user, user, to_assistant = rest.partition(chat.user)
    if times > 1 or not user:
        what = "repeats the system text" if times > 1 else "does not write the user text after it"
        raise _refused(f"it {what}, so no prompts")
    return opening, to_user, to_assistant


def _second_turn(render: Renderer) -> str:
    """What stands between an answer and the next user text."""
    found = []
    for chat in _CHATS:
        # A template that moves the system text to the last turn shows the piece without one.
        for roles in (_SECOND_TURN, _SECOND_TURN[1:]):
            rest = _render(render, chat, roles).partition(chat.answer)[2]
            between, observation, _ = rest.partition(chat.observation)
            if observation and chat.system not in between:
                found.append(between)
                break
    if len(found) != len(_CHATS) or found[0] != found[1]:
        raise ModelError(
            "The chat template does not show how a turn follows an answer: the text between "
            "them is not constant.",
            REMEDY,
        )
    return found[0]


def _instability(render: Renderer, first: str, between: str, to_assistant: str) -> str:
    """Why a longer chat's rendering does not begin with the shorter one's; empty when it does."""
    chat = _CHATS[0]
    rendered = _render(render, chat, _SECOND_TURN)
    asked = first.removesuffix(to_assistant)
    if not rendered.startswith(asked):
        return "a second turn changes what stands before the first answer"
    if not rendered.startswith(first + chat.answer + between):
        return "an earlier answer does not begin where the model was asked to begin it"
    if not rendered.endswith(chat.observation + to_assistant):
        return "a later answer is opened otherwise than the first"
    thinking = chat._replace(answer=f"<think>\nQthought.\n</think>\n\n{chat.answer}")
    if not _render(render, thinking, _SECOND_TURN).startswith(first + thinking.answer):
        return "the reasoning in earlier answers is dropped"
    return ""


def _inexact(tokenizer: Tokenizer, first: str, pieces: list[tuple[int, ...]]) -> str:
    chat = _CHATS[0]
    system, user = tokenizer.encode(chat.system), tokenizer.encode(chat.user)
    whole = tokenizer.encode_template(first)
    if pieces[0] + system + pieces[1] + user + pieces[2] == whole:
        return ""
    return "the tokens where a text meets the template differ from the template's own rendering"


def _refused(why: str) -> ModelError:
    return ModelError(
        f"No shared prefix can stand in this model's chat template: {why} would share a cached "
        "token.",
        REMEDY,
    )
