"""Read whether the pipeline runs on this machine or on Kubernetes."""

from __future__ import annotations

import os

from lab_pipeline.core.errors import LabError


def deployment() -> str:
    """Return `LAB_DEPLOYMENT`: 'local' (the default, everything on this machine) or 'k8s' (each step in a pod).

    Raises:
        LabError: The variable has another value.
    """
    found = os.environ.get("LAB_DEPLOYMENT") or "local"
    if found not in ("local", "k8s"):
        raise LabError(f"LAB_DEPLOYMENT: expected 'local' or 'k8s', found {found!r}; unset it to run on this machine")
    return found
