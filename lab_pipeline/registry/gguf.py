"""Convert a model to GGUF by llama.cpp's own converter, which is taken from a llama.cpp folder or from a source archive.

The converter is no package of its own. The source archive of `llama-cpp-python` on PyPI holds a whole llama.cpp; unless the
user names another, the archive of the pinned version is downloaded by pip, once for each home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.processes import python_module
from lab_pipeline.core.storage import written_whole

PINNED = "llama-cpp-python==0.3.36"
_HASH = "sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_SCRIPT = "convert_hf_to_gguf.py"
_PARTS = (_SCRIPT, "conversion/", "gguf-py/", "LICENSE")
_MEND = f"name a llama.cpp folder or a source archive of {PINNED.partition('==')[0]} by --llama-cpp"


def converter(home: Home, llama_cpp: Path | None) -> Path:
    """Return the path of llama.cpp's `convert_hf_to_gguf.py`.

    Args:
        llama_cpp: a llama.cpp folder, or a source archive (.tar.gz) that holds one. None = the archive of `PINNED`, from which
            the converter is unpacked to the home; pip downloads it if the home has not got it yet.

    Raises:
        LabError: there is no converter in it, or the download failed.
    """
    if llama_cpp and llama_cpp.is_dir():
        folder = llama_cpp
    elif llama_cpp:
        folder = _unpacked(home, llama_cpp)
    else:
        folder = home.root / "llama.cpp" / PINNED
        if not folder.is_dir():
            with tempfile.TemporaryDirectory() as scratch:
                folder = _unpacked(home, _downloaded(Path(scratch)), PINNED)
    if not (folder / _SCRIPT).is_file():
        raise LabError(f"{folder}: no {_SCRIPT}; {_MEND}")
    return folder / _SCRIPT


def convert(script: Path, model: Path, target: Path) -> None:
    """Write the model in a folder to a GGUF file of its weights' own type, named as the file is.

    Raises:
        LabError: the converter refuses the model, as it does with an architecture or a tokenizer that it does not know.
    """
    environment = {**os.environ, "PYTHONPATH": str(script.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(script), str(model), "--outfile", str(target), "--model-name", target.stem]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode or not target.is_file():
        reason = (ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        raise LabError(
            f"llama.cpp's converter in {script.parent} refused {model.name}: {reason}; "
            "name a newer llama.cpp by --llama-cpp, or export with --format hf"
        )


def _downloaded(folder: Path) -> Path:
    """Have pip download the pinned source archive to a folder and check its hash; return its path."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PINNED} --hash={_HASH}\n", encoding="utf-8")
    name = PINNED.partition("==")[0]
    command = python_module("pip", "download", "--quiet", "--no-deps", "--no-binary", name)
    ended = subprocess.run([*command, "--requirement", str(wanted), "--dest", str(folder)], capture_output=True, text=True)
    archive = next(folder.glob("*.tar.gz"), None)
    if ended.returncode or archive is None:
        reason = next((line for line in reversed(ended.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise LabError(
            f"the source archive of {PINNED}, which holds llama.cpp's converter, could not be downloaded ({reason}); {_MEND}"
        )
    return archive


def _unpacked(home: Home, archive: Path, name: str = "") -> Path:
    """Unpack the converter's files from a source archive to the home, and return their folder."""
    folder = home.root / "llama.cpp" / (name or archive.name.removesuffix(".tar.gz"))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with written_whole(folder) as scratch, tarfile.open(archive) as packed:
            scratch.mkdir()
            script = next((each.name for each in packed if each.name.endswith(f"/{_SCRIPT}")), None)
            if script is None:
                raise LabError(f"{archive}: no {_SCRIPT} in it; {_MEND}")
            root = script.removesuffix(_SCRIPT)
            for member in packed.getmembers():
                member.name = member.name.removeprefix(root) if member.name.startswith(root) else ""
                if member.name.startswith(_PARTS):
                    packed.extract(member, scratch, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise LabError(f"{archive}: cannot be unpacked ({error}); {_MEND}") from None
    return folder
