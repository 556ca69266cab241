"""``python -m relaymesh``: the same as the command ``relaymesh``."""

from relaymesh.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
