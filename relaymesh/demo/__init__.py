"""The demo: a workflow over the texts of a folder, run by a real node.

    source.py   which files, and what may be wrong with them
    tool.py     which language besides Python is there for the script agents
    flow.py     the workflow: one step per file, then chart and report
    agents.py   the Python agents (``--agents relaymesh.demo.agents``); words.py, chart.py and page.py do their work
    texts/      the files that are used when none are named
    scripts/    the same statistics in other languages

``relaymesh/cli/demo.py`` runs it and shows how it goes.
"""
