"""Prompts for measurements: exact lengths, different texts, and what of each must be cached.

A prompt of a measurement is made of the shared prefix `S` and `own_tokens` tokens of its own, the
template's tokens that let the model begin among them. The own text is a *preamble* (an agent's
name and results that were there before it) and a *task*. Two ways to lay them out, with the same
tokens and the same number of them:

    constant   S  preamble  task                        what this runtime does
    variable   system opening  preamble  rest of S  task    name and results on top

The maker keeps the blocks that an unbounded cache would hold since it was last emptied, so it can
say how many tokens of the next prompt must come from the cache, and never makes a prompt that
would find more there than the part it shares on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlm_runtime.blocks import block_chain
from rlm_runtime.errors import InputError
from rlm_runtime.prompt import Layout, Prompt
from rlm_runtime.tracing import Segment

_TRIES = 200
_SYLLABLES = [c + v for c in ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
              for v in "aeiou"]  # fmt: skip
_ROLES = ("analyzer", "summarizer", "validator", "planner", "reader", "editor", "auditor")
_THINGS = (
    "invoices", "letters", "contracts", "orders", "reports", "readings", "tickets", "claims",
    "recipes", "maps", "ledgers", "permits", "surveys", "minutes", "drafts", "samples",
)  # fmt: skip
_VERBS = ("lists", "compares", "dates", "checks", "counts", "names", "sorts", "explains")


@dataclass(frozen=True, slots=True)
class MeasuredPrompt:
    """A prompt whose cache hit is known beforehand.

    Attributes:
        prompt: Ids and segments.
        expected_cached_tokens: Tokens that a cache without evictions holds of it, when the prompts
            made before it were sent before it.
    """

    prompt: Prompt
    expected_cached_tokens: int


class PromptMaker:
    """Makes prompts in the order in which they will be sent.

    Args:
        layout: The model's.
        block_size: Tokens of one prefix-cache block of the engine.
        seed: The same seed and calls give the same prompts.
    """

    def __init__(self, layout: Layout, block_size: int, seed: int) -> None:
        self._layout = layout
        self._block_size = block_size
        self._rng = np.random.default_rng(seed)
        self._resident: set[bytes] = set()
        self._texts: set[tuple[int, ...]] = set()

    def forget(self) -> None:
        """The engine's cache was emptied."""
        self._resident.clear()

    def make(self, own_tokens: int, *, is_variable: bool = False) -> MeasuredPrompt:
        """A prompt of `len(S) + own_tokens` tokens that was never made before.

        Args:
            own_tokens: Tokens besides the shared prefix.
            is_variable: The preamble stands on top.

        Raises:
            InputError: `own_tokens` leave no room for a text, or no new text was found for them.
        """
        layout = self._layout
        text_tokens = own_tokens - len(layout.template.user_to_assistant)
        if text_tokens < 2:
            raise InputError(
                f"{own_tokens} own tokens leave no room for a text: the model's chat template "
                f"needs {len(layout.template.user_to_assistant)} of them.",
                "Use more own tokens.",
            )
        for _ in range(_TRIES):
            preamble = self._encode(self._preamble(text_tokens), text_tokens // 2)
            task = self._encode(self._task(text_tokens), text_tokens - len(preamble))
            if len(preamble) + len(task) != text_tokens or preamble + task in self._texts:
                continue
            common, prompt = self._lay_out(preamble, task, is_variable=is_variable)
            chain = block_chain(prompt.ids, self._block_size)
            border = common // self._block_size
            if chain[border : border + 1] and chain[border] in self._resident:
                continue  # it would hit by accident
            self._texts.add(preamble + task)
            expected = self._resident_tokens(chain)
            self._resident.update(chain)
            return MeasuredPrompt(prompt, expected)
        raise InputError(
            f"No further text of {text_tokens} tokens was found that differs from all before it "
            "in its first cache block.",
            "Measure fewer samples, or use more own tokens.",
        )

    def _lay_out(
        self, preamble: tuple[int, ...], task: tuple[int, ...], *, is_variable: bool
    ) -> tuple[int, Prompt]:
        """How many tokens the prompt shares with others laid out like it, and the prompt."""
        layout = self._layout
        shared, opening = layout.shared_ids, layout.template.system_open
        tail = task + layout.template.user_to_assistant
        if not is_variable:
            return len(shared), _prompt(("shared", shared), ("task", preamble + tail))
        rest = shared[len(opening) :]
        prompt = _prompt(("role", opening + preamble), ("shared", rest), ("task", tail))
        return len(opening), prompt

    def _resident_tokens(self, chain: tuple[bytes, ...]) -> int:
        blocks = 0
        while blocks < len(chain) and chain[blocks] in self._resident:
            blocks += 1
        return blocks * self._block_size

    def _encode(self, text: str, tokens: int) -> tuple[int, ...]:
        return self._layout.tokenizer.encode(text)[:tokens]

    def _preamble(self, least_words: int) -> str:
        # The name comes first: where the shared prefix nearly fills its last block, the first token
        # alone has to tell prompts apart.
        name = self._name().capitalize()
        parts = [f"{name} is the {self._pick(_ROLES)} here. Earlier results:"]
        parts += [self._fact() for _ in range(least_words // 4 + 1)]
        return " ".join(parts)

    def _task(self, least_words: int) -> str:
        parts = [f"\n\nSay in one word what {self._name()} {self._pick(_VERBS)} next."]
        parts += [
            f"Then say which {self._pick(_THINGS)} {self._name()} {self._pick(_VERBS)}."
            for _ in range(least_words // 4)
        ]
        return " ".join(parts)

    def _fact(self) -> str:
        number = int(self._rng.integers(2, 1_000))
        return f"{self._name()} {self._pick(_VERBS)} {number} {self._pick(_THINGS)}."

    def _name(self) -> str:
        return "".join(self._pick(_SYLLABLES) for _ in range(3))

    def _pick(self, words: list[str] | tuple[str, ...]) -> str:
        return words[int(self._rng.integers(len(words)))]


def _prompt(*parts: tuple[str, tuple[int, ...]]) -> Prompt:
    ids: tuple[int, ...] = ()
    segments = []
    for kind, part in parts:
        segments.append(Segment(kind, len(ids), len(ids) + len(part)))
        ids += part
    return Prompt(ids, tuple(segments))
