"""Configurations that must be refused. Each begins with what must be found: `# expect: LINE:COLUMN: KEY: PART OF THE MESSAGE`.

An expectation without a line is about the file as a whole. Where a file holds a secret, the secret is `CANARY`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent
CANARY = "CANARY-c0ffee"


@dataclass(frozen=True)
class BadConfig:
    """A file, and the beginning of every line that must be said about it."""

    path: Path
    expected: tuple[str, ...]

    def unexpected(self, said: list[str]) -> tuple[list[str], list[str]]:
        """Return the expectations that no line meets, and the lines that no expectation is met by."""
        missing = [part for part in self.expected if not any(line.startswith(part) for line in said)]
        others = [line for line in said if not any(line.startswith(part) for part in self.expected)]
        return missing, others


def bad_configs() -> list[BadConfig]:
    """Return all of them."""
    return [BadConfig(path, _expected(path)) for path in sorted(DIRECTORY.glob("*.yaml"))]


def _expected(path: Path) -> tuple[str, ...]:
    said = re.findall(r"^# expect: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(f"{path}:{part}" if part[0].isdigit() else f"{path}: {part}" for part in said)
