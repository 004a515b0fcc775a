"""Entry point of `python -m crce`."""

from crce.cli.main import main

main()
