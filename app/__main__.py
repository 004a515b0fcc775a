"""python -m app, and the command crce-studio."""

import sys


def main() -> None:
    """Opens the app, or says how to install what it needs."""
    try:
        from app.main import main as studio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        sys.exit("error: The app needs Gradio. Install it: pip install 'crce-studio[app]'")
    studio()


if __name__ == "__main__":
    main()
