"""`python -m workers`: one worker process. Exits 2, with every fault on a line, on bad settings."""

import sys

from workers.run import main

sys.exit(main())
