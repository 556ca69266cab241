"""Work that programs hand in as files: taken in, answered, recorded. The way of a file is drawn in core/inbox.py."""
