"""python -m crce"""

from crce.cli import main

main()
