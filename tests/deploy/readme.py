"""deploy/README.md, read for its tests and for the pods that are started by it."""

import re
from typing import Final

from tests.deploy.render import DEPLOY

TEXT: Final = (DEPLOY / "README.md").read_text()


def users(password: str) -> str:
    """The file of Redis' users that it proposes; `>PASSWORD` is replaced by what is given."""
    found = re.search(r"^```\n(user default .*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].replace(">PASSWORD", password)
