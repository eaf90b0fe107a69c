"""Writes the README's settings table from the code: `make docs`; a test compares the two."""

from pathlib import Path
from typing import Final

from service.settings import variables

README: Final = Path(__file__).resolve().parents[1] / "README.md"
BEGIN: Final = "<!-- settings: made by `make docs` -->\n"
END: Final = "<!-- end of settings -->"


def table() -> str:
    """The table, as Markdown."""
    lines = ["| variable | web | worker | default | meaning |", "|---|---|---|---|---|"]
    for row in variables():
        web, worker = ("x" if used else "" for used in (row.web, row.worker))
        default = row.default if row.default in {"required", "none"} else f"`{row.default}`"
        lines.append(f"| `{row.name}` | {web} | {worker} | {default} | {row.description} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """`text` with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
