"""The command `reloader`, also as `python -m reloader`."""

import sys

from reloader import privacy


def main() -> int:
    """Run the command in a process that nobody else looks into."""
    privacy.keep_private()
    from reloader.cli import main as command  # noqa: PLC0415 - hundreds of milliseconds, in which all would be open

    return command()


if __name__ == "__main__":
    sys.exit(main())
