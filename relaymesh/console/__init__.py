"""The status console: `relaymesh status`, one screen, and `relaymesh top`, live. It holds no rules.

keys ──▶ keyboard (posix, windows) ──▶ ┐                                ┌──▶ screen.py    the terminal, and its restoring
size, signals ──────────────────────▶ run.py ──▶ core/console.py ──▶ ├──▶ draw.py      rich
answers ◀── asker.py (one thread, one client) ◀─────────────────────────┘
              └─ board.py    what was found, as rows that can be selected
"""
