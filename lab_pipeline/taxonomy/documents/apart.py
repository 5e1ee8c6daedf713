"""Read a file in a process of its own, with limits: for formats in which a few bytes can cost gigabytes or minutes.

Neither the size of a PDF nor that of its streams shows what its drawings unfold to. The process sends back JSON, so
that a reader that a file took over cannot send code.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module

from lab_pipeline.core.processes import die_with_parent, python_module
from lab_pipeline.taxonomy.documents.blocks import Block, DocumentError, LeftOut, Reading


def read_apart(reader: str, raw: bytes, megabytes: int = 500, seconds: int = 600) -> Reading:
    """Read a file with a module of this package, such as 'pdf', in a process that may use so much memory and processor time.

    Raises:
        DocumentError: The reader raises it, or the file is beyond the limits.
    """
    done = subprocess.run(python_module(__name__, reader, str(megabytes), str(seconds)), input=raw, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if done.returncode == -signal.SIGXCPU:
            said = f"it takes more than {seconds} s; print it to a new file, or split it"
        elif done.returncode < 0 or "MemoryError" in said:
            said = f"it takes more than {megabytes} MB; print it to a new file, or split it"
        raise DocumentError(f"cannot be read: {said}")
    found = json.loads(done.stdout)
    if "message" in found:
        raise DocumentError(found["message"], found["line"])
    blocks = [Block(**each) for each in found["blocks"]]
    return Reading(found["reader"], blocks, [LeftOut(**each) for each in found["left_out"]])


def main(reader: str, megabytes: int, seconds: int) -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    try:
        reading = import_module(f"{__package__}.{reader}").read(sys.stdin.buffer.read())
        found = {
            "reader": reading.reader,
            "blocks": [asdict(block) for block in reading.blocks],
            "left_out": [asdict(each) for each in reading.left_out],
        }
    except DocumentError as error:
        found = {"message": error.message, "line": error.line}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
