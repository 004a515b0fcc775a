"""Entry point of `python -m crce` and of the command `crce`."""

from crce.cli.main import main

if __name__ == "__main__":
    main()
