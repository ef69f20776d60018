"""What is published."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """The generation that readers see."""

    number: int
    fingerprint: str
    """Empty where it is not known any more; it then equals no content."""
    at: float
    """When it was published, in seconds of the boot clock, read after the rename; a process that started later has read it."""
    wall: float
    """The same for people, in seconds since the epoch."""
