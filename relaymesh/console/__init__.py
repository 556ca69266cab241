"""The status console: `relaymesh status`, one screen, and `relaymesh top`, live. It holds no rules.

    keyboard.py   keys, by the module of the system ──▶ ┐
    asker.py      answers, from a thread of its own ──▶ run.py ──▶ core/console.py ──▶ queries, actions (asker.py)
                  size, signals, the time ────────────▶ ┘                       └────▶ draw.py, pane.py ──▶ screen.py

``checker.py``, a thread beside the asker's, looks at keys, folders and files, at a slower pace. ``board.py`` makes rows
of an answer, which can be selected, filtered and opened.
"""
