"""Entry point of `python -m crce` and of the command `crce`."""

import sys

from crce.environment import prepare
from crce.errors import CrceError
from crce.redact import guard_output


def main() -> None:
    guard_output()
    try:
        prepare()
    except CrceError as error:
        sys.exit(f"error: {error}")
    from crce.cli.main import main as run  # its libraries read the environment when they are imported

    run()


if __name__ == "__main__":
    main()
