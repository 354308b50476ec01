"""One thing that a question asks, and what a search knows about it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_runtime.config import SearchConfig
from rlm_runtime.scaffold.corpus import Piece
from rlm_runtime.scaffold.lexical import terms
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
        echoes: The words of what was asked, as `words_of`: a sentence of just these makes the
            question as likely as nothing else, and answers nothing.
        lexical: The BM25 score of each chunk of the texts, once it is known.
        base: Its log-probability without a text, likewise.
        chunks: What was ranked for it.
        quoted: Those of which the sentences were scored.
    """

    name: str
    likelihood: QuestionLikelihood
    config: SearchConfig
    echoes: frozenset[tuple[str, ...]] = frozenset()
    lexical: list[float] = field(default_factory=list)
    base: float = 0.0
    chunks: dict[Piece, RankedChunk] = field(default_factory=dict)
    quoted: set[Piece] = field(default_factory=set)
    _found: list[Passage] = field(default_factory=list)
    _echo: Passage | None = None

    def keep(self, passage: Passage) -> None:
        """A sentence was scored.

        Texts repeat themselves, and a sentence at the border of two chunks is scored for both, of
        which one may not see its heading: what is repeated is shown once, and so is each place.
        The likelier one stays.
        """
        if words_of(passage.text) in self.echoes:
            if self._echo is None or passage.lift > self._echo.lift:
                self._echo = passage
            return
        rivals = [known for known in self._found if _are_one(known, passage)]
        if all(passage.lift > known.lift for known in rivals):
            self._found = [known for known in self._found if known not in rivals]
            self._found.append(passage)

    @property
    def passages(self) -> list[Passage]:
        """The sentences so far, likeliest first; the question itself only without another."""
        if not self._found and self._echo is not None:
            return [self._echo]
        return sorted(self._found, key=lambda passage: -passage.lift)

    @property
    def is_certain(self) -> bool:
        """Nothing better need be looked for."""
        lifts = (passage.lift for passage in self._found)
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


def words_of(text: str) -> tuple[str, ...]:
    """A text without case, marks and white space."""
    return tuple(terms(text))


def _are_one(one: Passage, other: Passage) -> bool:
    if (one.heading, one.text) == (other.heading, other.text):
        return True
    are_apart = one.end_byte <= other.start_byte or other.end_byte <= one.start_byte
    return one.variable == other.variable and not are_apart
