"""`python -m vitmech_utils ...`, and `vitmech ...`: the command line."""

import sys


def main() -> int:
    """Run one command, in a fork of a process that has imported already where one serves; returns its exit status."""
    from vitmech_utils.pipeline import warm

    status = warm.hand_over(sys.argv[1:])
    if status is None:
        from vitmech_utils.cli import main as command_line

        status = command_line()
    return status


if __name__ == "__main__":
    sys.exit(main())
