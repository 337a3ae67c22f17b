"""A bounded share of what benchmarks/fuzz.py does for longer (make fuzz)."""

import json
import subprocess
import sys

from serving.settings import ROOT


def test_hostile_requests_pictures_and_files_are_answered_or_refused():
    command = [sys.executable, str(ROOT / "benchmarks/fuzz.py"), "--cases", "200", "--seed", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["other"] == 0, ended.stderr
    assert told["cases"] == told["accepted"] + told["refused"] == 200
    assert min(part["accepted"] for part in told["parts"].values()) > 3
