"""What the measuring scripts have in common when they start a program."""

import json
import subprocess


def call(*command):
    """The JSON that a program prints. Ends the script with what the program said where it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)
