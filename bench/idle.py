"""What an idle server costs: resident memory, CPU over some seconds, and the time to its first answer."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOOR_MB = 110
SECONDS = 5.0
CONFIG = """\
version: 1
server: {listen: "127.0.0.1:%d"}
storage: %s
sources:
  web: {type: segment, write_keys: [wk]}
destinations:
  kustomer: {type: kustomer, api_key: key, base_url: "http://127.0.0.1:9"}
connections:
  - {from: web, to: [kustomer]}
"""


def resident_mb(pid: int) -> float:
    """Read VmRSS of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(port: int) -> bool:
    """Whether the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    """Start a server, wait, read, stop it."""
    with tempfile.TemporaryDirectory() as directory:
        file, port = Path(directory) / "towpath.yaml", 18473
        file.write_text(CONFIG % (port, Path(directory) / "data"))
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "towpath", "run", "--config", str(file)], stdout=subprocess.DEVNULL
        )
        try:
            while not answers(port):
                if process.poll() is not None or time.monotonic() - started > 30:
                    return 1
                time.sleep(0.01)
            ready_s, before = time.monotonic() - started, cpu_s(process.pid)
            time.sleep(SECONDS)
            used = (cpu_s(process.pid) - before) / SECONDS
            print(
                f"ready after {ready_s:.2f} s; idle: {resident_mb(process.pid):.0f} MB (floor {FLOOR_MB} MB)"
            )
            print(f"idle CPU {used * 100:.1f} % of one core")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)
    return 0


if __name__ == "__main__":
    sys.exit(main())
