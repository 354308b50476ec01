"""What `many-questions` measured: its passes, and their figures out of the run's log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.run_tables import maybe_percent
from rlm_runtime.benchmark.statistics import Estimate, ratio_of_medians
from rlm_runtime.profiler import Cause, Figures, Ledger
from rlm_runtime.profiler.run_log import RunLog
from rlm_runtime.tracing import CallFinished, EngineStarted

WORKLOAD = "many-questions-v1"

ENOUGH_OF_CEILING = 0.98
"""Share of the ceiling below which, with room for everything, something is wrong."""

_OF_AN_ORDER = (
    "prompt_tokens",
    "cached_tokens",
    "computed_tokens",
    "hit_rate",
    "hit_rate_ceiling",
    "hit_rate_of_ceiling",
    "prefill_redundancy",
    *(f"miss_{cause}_tokens" for cause in Cause),
    "calls",
    "running_mean",
    "wall_s",
    "engine_busy_s",
    "overhead_share",
)
"""Figures that each order has when both were measured."""


class Order(StrEnum):
    """In which order the calls are made."""

    DOCUMENT = "document"
    QUESTION = "question"


class Pass(NamedTuple):
    """All calls in one order, once.

    Attributes:
        order: Theirs.
        repeat: Passes of one repeat stand next to each other; counts from 0.
        agent_id: Whose calls they are in the log.
    """

    order: Order
    repeat: int
    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyQuestionsResult:
    """Passes in the order in which they were made, finished or partial.

    Attributes:
        seed: Of the document and the questions.
        text_digest: Of the document, whose text differs between Python versions.
        text_tokens: Its length.
        document_tokens: The same with what fills chunks to whole cache blocks.
        shared_prefix_tokens: In front of each chunk.
        kv_tokens: What the KV cache holds.
        chunks: The document's.
        questions: Asked about each chunk.
        planned_passes: Of the whole measurement.
        passes: Those that came to their end.
        log: Of the run, once its session is closed; without it nothing is known of the passes.
    """

    seed: int
    text_digest: str
    text_tokens: int
    document_tokens: int
    shared_prefix_tokens: int
    kv_tokens: int
    chunks: int
    questions: tuple[str, ...]
    planned_passes: int
    passes: tuple[Pass, ...]
    log: RunLog | None = None

    @property
    def name(self) -> str:
        """`many-questions`."""
        return "many-questions"

    @property
    def has_room(self) -> bool:
        """The KV cache holds the shared prefix and all chunks, and so both orders cost the same."""
        return self.shared_prefix_tokens + self.document_tokens <= self.kv_tokens

    def orders(self) -> dict[Order, Figures]:
        """Figures of each order: those of its pass of median time, so that their sums hold."""
        found = {}
        for order in Order:
            figures = sorted(self._passes(order), key=lambda one: one["wall_s"] or 0.0)
            if figures:
                found[order] = figures[(len(figures) - 1) // 2]
        return found

    def wall(self) -> Estimate | None:
        """Time in question order over that in document order; `None` without both."""
        question, document = (
            [one["wall_s"] or 0.0 for one in self._passes(order)]
            for order in (Order.QUESTION, Order.DOCUMENT)
        )
        return ratio_of_medians(question, document, seed=self.seed)

    def figures(self) -> Figures:
        """With both orders, those of each, by its name, and question order over document order.

        Figures without an order's name are the whole run's (`run_report.run_measurement`).
        """
        orders = self.orders()
        if len(orders) < len(Order):
            return {}
        figures: dict[str, float | int | None] = {
            f"{name}_{order}": known[name]
            for name in _OF_AN_ORDER
            for order, known in orders.items()
        }
        computed = [orders[o]["computed_tokens"] for o in (Order.QUESTION, Order.DOCUMENT)]
        value, low, high = self.wall() or (None, None, None)
        return figures | {
            "computed_tokens_question_over_document": _ratio(*computed),
            "wall_s_question_over_document": value,
            "wall_s_question_over_document_low": low,
            "wall_s_question_over_document_high": high,
        }

    def detail(self) -> dict[str, object]:
        """The setting, the questions, and the figures of every pass."""
        return {
            "workload": WORKLOAD,
            "seed": self.seed,
            "text_digest": self.text_digest,
            "text_tokens": self.text_tokens,
            "document_tokens": self.document_tokens,
            "shared_prefix_tokens": self.shared_prefix_tokens,
            "kv_tokens": self.kv_tokens,
            "has_room": self.has_room,
            "chunks": self.chunks,
            "asked": len(self.questions),
            "planned_passes": self.planned_passes,
            "is_complete": len(self.passes) == self.planned_passes,
            "questions": list(self.questions),
            "passes": [
                one._asdict() | {"figures": None if self.log is None else self._of(self.log, one)}
                for one in self.passes
            ],
        }

    def tables(self) -> tuple[Table, ...]:
        """The orders side by side."""
        orders = self.orders()
        if not orders:
            return ()
        shown = orders.values()
        rows = [
            ("computed tokens", *(_count(f["computed_tokens"]) for f in shown)),
            ("of these evicted before", *(_count(f["miss_evicted_tokens"]) for f in shown)),
            ("of these unexplained", *(_count(f["miss_unexplained_tokens"]) for f in shown)),
            ("hit rate / ceiling", *(_decimal(f["hit_rate_of_ceiling"]) for f in shown)),
            ("hit rate", *(maybe_percent(f["hit_rate"]) for f in shown)),
            ("computed / distinct tokens", *(_decimal(f["prefill_redundancy"]) for f in shown)),
            ("calls", *(_count(f["calls"]) for f in shown)),
            ("seconds", *(f"{f['wall_s'] or 0:,.1f}" for f in shown)),
            ("overhead share", *(maybe_percent(f["overhead_share"]) for f in shown)),
        ]
        title = (
            f"{len(self.questions):,} questions over {self.text_tokens:,} tokens in "
            f"{self.chunks:,} chunks, a KV cache of {self.kv_tokens:,}"
        )
        tables = [Table(title, ("", *(f"{order} order" for order in orders)), tuple(rows))]
        if (wall := self.wall()) is not None:
            computed = self.figures()["computed_tokens_question_over_document"]
            ratios = (
                ("computed tokens", _decimal(computed), "-"),
                ("time", f"{wall.value:.3f}", wall.interval),
            )
            tables.append(
                Table("Question order / document order", ("", "", "95 % interval"), ratios)
            )
        return tuple(tables)

    def notes(self) -> tuple[str, ...]:
        """The text, whether there was room for it, and what is not as it should be."""
        need = self.shared_prefix_tokens + self.document_tokens
        room = "holds" if self.has_room else "does not hold"
        notes = [
            f"Text: Python's language reference, seed {self.seed}, {self.text_tokens:,} tokens, "
            f"digest {self.text_digest[:12]}.",
            f"The KV cache {room} the shared prefix and all chunks ({need:,} tokens).",
        ]
        for order, figures in self.orders().items():
            share = figures["hit_rate_of_ceiling"]
            if self.has_room and share is not None and share < ENOUGH_OF_CEILING:
                notes.append(
                    f"In {order} order the cache served only {share:.4f} of what it could have."
                )
        if len(self.passes) < self.planned_passes:
            notes.append(
                f"Ended early: {len(self.passes)} of {self.planned_passes} passes were made."
            )
        return tuple(notes)

    def _passes(self, order: Order) -> list[Figures]:
        if self.log is None:
            return []
        return [self._of(self.log, one) for one in self.passes if one.order is order]

    @staticmethod
    def _of(log: RunLog, one: Pass) -> Figures:
        # A pass begins with an empty cache and has to compute all that it needs, whatever the
        # passes before it computed: what is distinct counts within the pass.
        own = Ledger(
            event
            for event in log.events
            if isinstance(event, EngineStarted)
            or (isinstance(event, CallFinished) and event.agent_id == one.agent_id)
        )
        redundancy = own.agent_figures(one.agent_id)["prefill_redundancy"]
        return {**log.agent_figures(one.agent_id), "prefill_redundancy": redundancy}


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
