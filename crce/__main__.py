"""python -m crce, and the command crce."""

from crce.cli import main

if __name__ == "__main__":
    main()
