"""`python -m service`: the web process. Exits 2, with every fault on a line, on bad settings."""

import sys

from service.run import main

sys.exit(main())
