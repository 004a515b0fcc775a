"""python -m app, and the command crce-studio."""

from app.main import main

if __name__ == "__main__":
    main()
