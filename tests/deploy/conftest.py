"""Without kustomize the manifests cannot be rendered, nor the rules tested without promtool."""

import sys

from tests.deploy.tools import program

_NEEDS = {"kustomize": "test_manifests.py", "promtool": "test_promtool.py"}

collect_ignore = [name for needed, name in _NEEDS.items() if program(needed) is None]
for _name in collect_ignore:
    sys.stderr.write(f"SKIPPED: tests/deploy/{_name}: `make deploy-test` brings what it needs.\n")
