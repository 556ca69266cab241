import sys

print("::relaymesh progress 40%", file=sys.stderr)
print("::relaymesh progress", file=sys.stderr)
print("::relaymesh dance", file=sys.stderr)
print("::relaymesh snooze soon", file=sys.stderr)
print("a line for the log", file=sys.stderr)
