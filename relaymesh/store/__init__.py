"""SQLite behind one interface: ``Store``. Every transition is one guarded statement; an answer means it is on disk."""
