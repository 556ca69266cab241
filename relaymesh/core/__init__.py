"""The rules: sans-IO state machines and pure functions. ``(now, event) -> effects``; no clock, no socket, no SQL."""
