"""`python -m rlm_runtime` is `rlm`."""

import sys

from rlm_runtime.cli import main

sys.exit(main())
