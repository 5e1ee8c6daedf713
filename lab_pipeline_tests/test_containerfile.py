"""Every instruction of the Containerfile in a clean Debian root, up to the command that the image runs.

The root, made by `debootstrap`, stands in for the base image: Debian's own Python in place of the image's. Of this machine it
sees the network only: name servers, certificates, and where pip looks for packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab_pipeline.core.home import PROJECT
from lab_pipeline_tests.builders import write_taxonomy

PACKAGES = "ca-certificates,python3,python3-venv"
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
MOUNT = """
root=$1; shift
for place in /dev "$@"; do
    if test -d "$place"; then mkdir -p "$root$place"; else mkdir -p "$root${place%/*}"; touch "$root$place"; fi
    mount --rbind "$place" "$root$place"
done
mount -t proc proc "$root/proc"
"""
AS_A_POD = """
mount --rbind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$VOLUME" "$root/mnt"
"""
CHROOT = """
exec chroot --userspec "$AS_USER" "$root" /bin/sh -c 'cd "$IN_FOLDER" && exec /bin/sh -c "$COMMAND"'
"""


@dataclass
class Image:
    """A root file system, and how commands run in it."""

    root: Path
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Where a path of the image, relative to its working directory, lies on this machine."""
        return self.root / str(Path(self.folder, path)).lstrip("/")

    def run(self, command: str, volume: Path | None = None) -> str:
        """Run a command as RUN does or, with a volume (at /mnt), as a pod does: on a read-only root. Return what it printed."""
        settings = {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.lower().endswith("_proxy")
        }
        places = [place for place in (*NETWORK, *local_indexes()) if Path(place).exists()]
        own = {"AS_USER": self.user, "IN_FOLDER": self.folder, "COMMAND": command, "VOLUME": str(volume)}
        script = MOUNT + (AS_A_POD if volume else "") + CHROOT
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "bash", "-euc", script, "bash", str(self.root), *places],
            env={**settings, **self.variables, **own},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def local_indexes() -> list[str]:
    """The folders of packages that pip knows on this machine, if any."""
    known = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    return sorted({found.rstrip("/") for found in re.findall(r"(?<=['\s/])/\w[^'\s]*", known) if Path(found).is_dir()})


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction with what stands after it; comments are left out, continued lines are joined."""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def copy(context: Path, sources: list[str], target: Path) -> None:
    """Copy files and what folders hold into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for source in (context / each.lstrip("/") for each in sources):
        subprocess.run(["cp", "-a", f"{source}/." if source.is_dir() else source, target], check=True)


def build(containerfile: Path, context: Path, base: Path, folder: Path) -> Image:
    """Make the last image of a Containerfile, each FROM of a copy of `base`."""
    images: dict[str, Image] = {}
    for name, rest in instructions(containerfile.read_text()):
        if name == "FROM":
            _, _, alias = rest.partition(" AS ")
            image = images[alias or "last"] = Image(folder / (alias or "last"))
            subprocess.run(["cp", "-a", base, image.root], check=True)
        elif name == "RUN":
            image.run(rest)
        elif name in ("ENV", "ARG"):
            for variable, value in re.findall(r"(\w+)=(\S+)", rest):
                image.variables[variable] = value.replace("$PATH", image.variables["PATH"])
        elif name == "WORKDIR":
            image.folder = rest
            image.inside(".").mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            stage = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else None
            copy(images[stage].root if stage else context, sources, image.inside(target))
        elif name == "USER":
            image.user = rest
        else:
            assert name == "CMD", f"this test does not know {name}"
            image.command = json.loads(rest)
    return image


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_of_the_containerfile_runs_in_a_clean_debian(tmp_path):
    if os.geteuid() or not all(map(shutil.which, ("debootstrap", "unshare"))):
        pytest.skip("needs root, debootstrap and unshare: apt-get install debootstrap util-linux")
    containerfile = PROJECT / "deploy" / "Containerfile"
    (suite,) = set(re.findall(r"^FROM \S+-slim-(\w+)", containerfile.read_text(), re.MULTILINE))
    base = tmp_path / "base"
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, base], check=True, capture_output=True)
    (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    context = tmp_path / "context"
    tracked = subprocess.run(["git", "-C", PROJECT, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, context / name)

    image = build(containerfile, context, base, tmp_path)
    home = tmp_path / "volume" / "home"
    home.mkdir(parents=True)
    write_taxonomy(home.parent / "taxonomy")
    (home / "settings.yaml").write_text("taxonomy: {path: /mnt/taxonomy}\n")
    subprocess.run(["chown", "-R", image.user, home.parent], check=True)
    image.variables["LAB_HOME"] = "/mnt/home"
    said = image.run(" ".join(image.command), home.parent)
    print(said)
    assert "base model: " in said and all(line.startswith("ok ") for line in said.splitlines())
