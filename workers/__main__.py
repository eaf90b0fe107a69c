"""`python -m workers`: one worker process. Exits 2, with every fault on a line, on bad settings."""

import signal
import sys

# As process 1 of a container it would not hear of its end before a handler is there, and importing
# the rest takes a moment.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

from workers.run import main  # noqa: E402

sys.exit(main())
