"""The command `reloader`, also as `python -m reloader`."""

import sys

from reloader import privacy


def main() -> int:
    """Run the command in a process that nobody else looks into."""
    privacy.keep_private()
    from reloader import allocator, cli, uncaught  # noqa: PLC0415 - hundreds of milliseconds, in which all would be open

    allocator.give_back()
    uncaught.tell_without_values()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
