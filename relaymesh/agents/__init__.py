"""Running agent code: what an agent is, where agents come from, and the processes and threads that run them.

``spec`` and ``decorate`` say what an agent is, ``registry`` finds agents, ``execute`` runs one attempt, ``host`` is the
worker process and ``process`` its parent's end of it. Nothing here decides when or how often a step runs.
"""
