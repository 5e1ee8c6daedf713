#!/usr/bin/env bash
# An error that a signal's handler raises, as orchestrators' handlers do to stop a step, ends asyncio's event loop while it waits, but
# not uvloop's: the error is printed, and the work goes on. In a callback, asyncio drops it as well. Ctrl-C's KeyboardInterrupt ends all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvloop==0.23.0
cd "$folder"
cat > stop.py <<'PYTHON'
import asyncio
import os
import signal
import sys
import threading
import time

import uvloop


class Stop(BaseException):
    pass


def stop(number, frame):
    raise Stop


async def waiting():
    await asyncio.sleep(2)


async def in_callbacks():
    loop = asyncio.get_running_loop()

    def again():
        time.sleep(0.01)
        loop.call_soon(again)

    again()
    await asyncio.sleep(2)


signal.signal(signal.SIGTERM, stop)
run = {"asyncio": asyncio.run, "uvloop": uvloop.run}[sys.argv[1]]
work = {"waiting": waiting, "callbacks": in_callbacks}[sys.argv[2]]
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
try:
    run(work())
    print("went on")
except Stop:
    print("ended")
PYTHON
"$folder/venv/bin/python" -c 'import sys; from importlib.metadata import version; print("Python", sys.version.split()[0], "uvloop", version("uvloop"))'
seen=""
for loop in asyncio uvloop; do
  for work in waiting callbacks; do
    outcome=$("$folder/venv/bin/python" stop.py "$loop" "$work" 2>/dev/null)
    echo "$loop, $work: $outcome"
    seen="$seen$loop $work $outcome; "
  done
done
expected="asyncio waiting ended; asyncio callbacks went on; uvloop waiting went on; uvloop callbacks went on; "
[ "$seen" = "$expected" ] || { echo "behaviour changed"; exit 1; }
