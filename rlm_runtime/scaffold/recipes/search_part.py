"""One thing that a question asks, and what a search knows about it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_runtime.config import SearchConfig
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.likelihood import QuestionLikelihood
from rlm_runtime.scaffold.recipes.search_result import Outcome, Passage, RankedChunk
from rlm_runtime.types import StopReason


@dataclass(slots=True)
class Part:
    """A question of its own, or all of one that asks a single thing.

    Attributes:
        name: Its words; empty for a whole question.
        likelihood: Scores texts for it.
        config: The recipe's.
        lexical: The BM25 score of each chunk of the texts, once it is known.
        base: Its log-probability without a text, likewise.
        chunks: What was ranked for it.
        quoted: Those of which the sentences were scored.
    """

    name: str
    likelihood: QuestionLikelihood
    config: SearchConfig
    lexical: list[float] = field(default_factory=list)
    base: float = 0.0
    chunks: dict[Piece, RankedChunk] = field(default_factory=dict)
    quoted: set[Piece] = field(default_factory=set)
    # Texts repeat themselves; a sentence is shown once.
    _found: dict[tuple[str, str], Passage] = field(default_factory=dict)

    def keep(self, passage: Passage) -> None:
        """A sentence was scored."""
        key = (passage.heading, passage.text)
        known = self._found.get(key)
        if known is None or passage.lift > known.lift:
            self._found[key] = passage

    @property
    def passages(self) -> list[Passage]:
        """The sentences so far, likeliest first."""
        return sorted(self._found.values(), key=lambda passage: -passage.lift)

    @property
    def is_certain(self) -> bool:
        """Nothing better need be looked for."""
        lifts = (passage.lift for passage in self._found.values())
        return max(lifts, default=float("-inf")) > self.config.certain_above_z

    def outcome(self, stop: StopReason | None) -> Outcome:
        """What it came to.

        Args:
            stop: The limit that ended the search early.
        """
        passages = self.passages
        if not passages:
            return Outcome.NOT_FOUND if stop is None else Outcome.LEFT_OUT
        if passages[0].lift <= self.config.not_found_below_z:
            return Outcome.NOT_FOUND
        return Outcome.ANSWERED if self.is_certain else Outcome.UNCERTAIN
