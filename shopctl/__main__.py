"""`python -m shopctl`, the same as the console script."""

from shopctl.main import main

main()
