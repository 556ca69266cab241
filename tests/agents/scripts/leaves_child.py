"""Leaves a child behind that holds stdout open; says its pid."""

import subprocess
import sys

print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).pid)
