"""python -m app, app.py, and the command crce-studio."""

import sys

from crce.environment import prepare
from crce.errors import CrceError
from crce.redact import guard_output


def main() -> None:
    guard_output()
    try:
        prepare()
        from app.main import main as run  # Gradio reads the proxies when it is imported

        run()
    except CrceError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
