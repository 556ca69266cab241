import sys

print("::relaymesh no-retry", file=sys.stderr)
sys.exit(1)
