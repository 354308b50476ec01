"""A run that kills itself: `python -m tests.unit.scheduler.killed_run DIRECTORY RESUMED KILL_AT`.

`RESUMED` is `-` for none, `KILL_AT` the request at which it dies, 0 for none. Prints what it told.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio

from rlm_runtime.engine.base import GenerateRequest
from tests.unit.conftest import FakeEngine
from tests.unit.scheduler.test_finished_calls import finish, set_up, start


def main(directory: Path, resumed: Path | None, kill_at: int) -> None:
    def on_request(_: GenerateRequest) -> None:
        if len(engine.seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = FakeEngine(on_request=on_request)
    set_up(engine)
    run = start(engine, directory, resumed)
    print(repr(anyio.run(finish, run)))  # this is a program
    run.recorder.close()


if __name__ == "__main__":
    _, written, earlier, number = sys.argv
    main(Path(written), None if earlier == "-" else Path(earlier), int(number))
