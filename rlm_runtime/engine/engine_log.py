"""The engine's log: where vLLM's processes write, and why the engine died or did not start.

vLLM reports the cause of a failure only in the log of the process that failed; its front end says
"see above". Here the last real error is read out of that log.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from pathlib import Path

from rlm_runtime.engine.child_guard import LOG_FORMAT
from rlm_runtime.errors import EngineError

TAIL_BYTES = 256 * 1024
"""How far back an error is looked for."""

CAUSE_CHARS = 400
"""A cause longer than this is cut: it goes into one sentence."""

_RECORD = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) \S+ [\w.]+: (?P<message>.*)$"
)
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b(?:: .*)?$")
_FATAL = re.compile(r"^Fatal Python error: .*$|^terminate called .*$")
_PARAGRAPH_ENDS = re.compile(
    r"^$|^Traceback |^Process |^During handling |^The above |^\S*Thread |^\[rank|^/"
)
_SAYS_NOTHING = re.compile(
    r"^SystemExit|^KeyboardInterrupt|EngineDeadError|^RuntimeError: cancelled"
    r"|Engine core initialization failed|WorkerProc initialization failed|[Ss]ee stack trace"
    r"|EngineCore failed to start|EngineCore encountered a fatal error|output_handler failed"
    r"|^Dumping |^BrokenPipeError|^EOFError$"
)


def last_error(text: str) -> str | None:
    """The last line of a log that tells why a process failed, with the lines that belong to it.

    The last line of a traceback counts, an ERROR record, and what a crash in native code leaves;
    errors that only point to another error do not.

    Args:
        text: The log, or its end.

    Returns:
        One line of at most `CAUSE_CHARS` characters; `None` when nothing tells.
    """
    lines = text.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].rstrip()
        record = _RECORD.match(line)
        if record is not None:
            if record["level"] not in {"ERROR", "CRITICAL"}:
                continue
            line = record["message"]
        elif not (_EXCEPTION.match(line) or _FATAL.match(line)):
            continue
        if line and not _SAYS_NOTHING.search(line):
            return _one_line([line, *_rest_of_paragraph(lines[index + 1 :])])
    return None


class EngineLog:
    """One file that the front end's vLLM logger and all of vLLM's processes write to.

    Args:
        path: Where; made with mode 0600 if it is new, appended to if it is not. `None` is a
            temporary file, removed by `close`.

    Raises:
        EngineError: The file can't be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._is_temporary = path is None
        try:
            if path is None:
                descriptor, name = tempfile.mkstemp(prefix="rlm-engine-", suffix=".log")
                self.path = Path(name)
            else:
                # The engine's processes may have another working directory one day.
                self.path = path.absolute()
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                descriptor = os.open(self.path, flags, 0o600)
            os.close(descriptor)
        except OSError as err:
            raise EngineError(
                f"The engine's log can't be written: {err.strerror}.",
                "Choose a directory that can be written to.",
            ) from err
        self._from_bytes = self.path.stat().st_size
        self._handler = logging.FileHandler(self.path)
        self._handler.setFormatter(logging.Formatter(LOG_FORMAT))
        self._logger = logging.getLogger("vllm")
        self._before = (self._logger.handlers[:], self._logger.propagate, self._logger.level)
        self._logger.handlers[:] = [self._handler]
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)

    def mark(self) -> None:
        """What was written so far is no cause of what happens from here on."""
        self._from_bytes = self.path.stat().st_size

    def cause(self) -> str | None:
        """The last error since the last `mark`, see `last_error`."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._from_bytes, size - TAIL_BYTES))
                return last_error(file.read().decode(errors="replace"))
        except OSError:  # somebody removed the file: then nothing tells
            return None

    def close(self, *, keep: bool) -> None:
        """Give the front end's vLLM logger back; remove a temporary file unless `keep`.

        An empty one helps nobody and is removed too.
        """
        if self._handler in self._logger.handlers:
            self._logger.handlers[:], self._logger.propagate, level = self._before
            self._logger.setLevel(level)
        self._handler.close()
        if self._is_temporary and not (keep and self._has_lines()):
            self.path.unlink(missing_ok=True)

    def _has_lines(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0


def _rest_of_paragraph(lines: list[str]) -> list[str]:
    rest: list[str] = []
    for line in lines:
        if _RECORD.match(line) or _PARAGRAPH_ENDS.match(line) or _EXCEPTION.match(line):
            break
        rest.append(line)
    return rest


def _one_line(lines: list[str]) -> str:
    text = " ".join(" ".join(lines).split())
    return text if len(text) <= CAUSE_CHARS else text[: CAUSE_CHARS - 1] + "…"
