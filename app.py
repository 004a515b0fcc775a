"""Starts CRCE Studio, here and on a Space: python app.py [--host 127.0.0.1] [--port 7860]."""

from app.__main__ import main

if __name__ == "__main__":
    main()
