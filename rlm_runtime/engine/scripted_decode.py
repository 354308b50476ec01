"""The logits processor behind forced decode. Only vLLM imports it, where it samples.

vLLM gives each request a row of the batch and moves rows around; the processor follows them.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from rlm_runtime.engine.forced_decode import SCRIPT

_Row = tuple[list[int], list[int]]  # the ids to generate, and those generated: vLLM's own list


class ScriptedDecode(LogitsProcessor):  # type: ignore[misc] # vLLM is no dependency of the check
    """Leaves each row that has a script one possible token. O(vocabulary) for such a row a step."""

    def __init__(self, _vllm_config: Any, _device: Any, _is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """False: else vLLM leaves it out where it decodes greedily."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests to their rows: removed, then added, then moved, as vLLM demands."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _prompt_ids, generated in batch_update.added:
            script = (params.extra_args or {}).get(SCRIPT)
            if script is None:
                self._rows.pop(row, None)
            else:
                self._rows[row] = (script, generated)
        for source, target, direction in batch_update.moved:
            moving, moved_over = self._rows.pop(source, None), self._rows.pop(target, None)
            if moving is not None:
                self._rows[target] = moving
            if moved_over is not None and direction == MoveDirectionality.SWAP:
                self._rows[source] = moved_over

    def apply(self, logits: Any) -> Any:
        """Mask `logits`, `(num_rows, vocab_size)`, in place."""
        for row, (script, generated) in self._rows.items():
            # A chunk of a prompt that isn't its last one samples too; vLLM throws that id away.
            token_id = script[min(len(generated), len(script) - 1)]
            logits[row].fill_(float("-inf"))
            logits[row, token_id] = 0.0
        return logits
