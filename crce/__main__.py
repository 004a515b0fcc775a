"""python -m crce, and the command crce."""

from crce.cli.main import main

if __name__ == "__main__":
    main()
