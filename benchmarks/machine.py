"""What a run was made on: figures mean nothing without it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine, and the file system that the measured directories are on."""

    cores: int
    """How many this process may use."""
    processor: str
    memory_mib: int
    kernel: str
    python: str
    directory: str
    file_system: str
    target: str
    """What the signalled program is written in."""

    @classmethod
    def look(cls, directory: Path, target: str) -> "Machine":
        """Return what this is."""
        return cls(
            cores=len(os.sched_getaffinity(0)),
            processor=_processor(),
            memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            kernel=platform.release(),
            python=platform.python_version(),
            directory=str(directory),
            file_system=_file_system(directory),
            target=target,
        )


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.machine())


def _file_system(directory: Path) -> str:
    """Return the type of the file system on this device, as the kernel's mount table has it."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == wanted:
            return kind.split()[0]
    return "unknown"
