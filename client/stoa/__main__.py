"""``python -m stoa`` is the ``stoa`` command."""

from stoa.cli import main

if __name__ == "__main__":
    main()
