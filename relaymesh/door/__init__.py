"""The rooms of a client: what can be asked of a root, what that promises and raises, and how the root is opened for it.

How it is done stands in other modules, loaded when they are first needed: every command of the CLI pays for what is
imported here.

    base.py      the root, opening it, who asks            (every room stands on it)
    submit.py    tasks, workflows, schedules               ──▶ submission.py handing.py scheduling.py
    look.py      rows, results, logs, waiting              ──▶ store/read.py watch.py result.py
    observe.py   explain, counts, metrics, alerts, health  ──▶ operation.py observation.py
    change.py    cancel, replay, discard, maintenance      ──▶ operation.py store/
    limit.py     limits, pauses, drained nodes             ──▶ limits.py
    setting.py   read and change settings                  ──▶ configure.py reload.py
    audit.py     tail, query, verify, export               ──▶ evidence.py
    keep.py      snapshots, purge, compact, schema         ──▶ disaster.py store/
"""
