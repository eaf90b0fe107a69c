"""`python -m tests.flow.poisoned`: a worker with a bug in it, which some sessions meet.

Its judge breaks on the sessions whose ids are in the file that POISON names, a line each. All else
is the real worker.
"""

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from service.records import Verdict
from workers import decide
from workers.judge import Case, judge
from workers.run import main


def poisoned(case: Case, *args: Any, **kwargs: Any) -> Verdict:
    """The judge's verdict, but for the sessions in the file. Raises ZeroDivisionError for those."""
    if case.call.session_id in Path(os.environ["POISON"]).read_text().split():
        raise ZeroDivisionError(f"the call from +4915112345678 at {case.tree.total.normalize()}")
    return judge(case, *args, **kwargs)


if __name__ == "__main__":
    with patch.object(decide, "judge", poisoned):
        sys.exit(main())
