import sys

print("::relaymesh snooze 2.5", file=sys.stderr)
