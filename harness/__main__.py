"""`python -m harness` is `vla-eval`."""

from harness.cli import main

if __name__ == "__main__":
    main()
