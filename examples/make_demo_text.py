"""A long text that every Python brings along: its own language reference.

    python examples/make_demo_text.py FILE

It is what `help("topics")` shows, all topics one after the other: 113,000 tokens of the default
model in Python 3.11, a little more in later versions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics


def demo_text() -> str:
    """All topics in the order of their names, an empty line between them."""
    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def main() -> int:
    """Write the text to the file named on the command line."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python examples/make_demo_text.py FILE\n")
        return 2
    Path(sys.argv[1]).write_text(demo_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
