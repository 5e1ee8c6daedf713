"""Post messages for people to a Slack-compatible webhook, if the settings name an environment variable with its URL.

The URL is a secret, because whoever has it can post. So it comes from the environment, and no message or log shows it.
"""

import html
import json
import logging
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from lab_pipeline.config.settings import Settings, SettingsError
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.progress import Say
from lab_pipeline.core.verdict import Told
from lab_pipeline.instructions.plan import LeafFailure
from lab_pipeline.registry.champion import Champion, Signed
from lab_pipeline.taxonomy.snapshot import Snapshot

_TIMEOUT_SECONDS = 5.0
_TRIES = 2
_LISTED = 10


def webhook_url(settings: Settings) -> str | None:
    """Return the webhook's URL, None if notifications are off.

    Raises:
        SettingsError: the named environment variable is not set, or holds no http(s) URL.
    """
    name = settings.notifications.webhook_env
    if name is None:
        return None
    url = os.environ.get(name)
    if not url:
        raise SettingsError(f"notifications.webhook_env: the environment variable {name} is not set")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"notifications.webhook_env: the environment variable {name} holds no http(s) URL")
    return url


def notify(settings: Settings, text: str, say: Say) -> None:
    """Post `text` to the webhook; do nothing if notifications are off.

    A failure is passed to `say` and never raised, because a notification must not make a run fail.
    """
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs every URL
    try:
        url = webhook_url(settings)
    except SettingsError as error:
        say(f"notification not sent: {error}")
        return
    if url is None:
        return
    # Escaped as Slack requires, so that a contributor's `<!channel>` alerts nobody.
    body = json.dumps({"text": html.escape(text, quote=False)})
    failure = ""
    for _ in range(_TRIES):
        try:
            response = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=_TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = type(error).__name__  # its text may hold the URL
        else:
            if response.is_success:
                return
            failure = f"HTTP {response.status_code}"
    webhook = f"the webhook in {settings.notifications.webhook_env}"
    say(f"notification not sent: {webhook} could not be reached ({failure}, {_TRIES} tries)")


def newly_quarantined(before: Snapshot | None, now: Snapshot) -> str | None:
    """Return a message on the leaves quarantined `now` but not `before`, each with its first error; None if there are none."""
    known = {row["leaf"] for row in before.rows if not row["usable"]} if before else set()
    lines = []
    for row in now.rows:
        if row["usable"] or row["leaf"] in known:
            continue
        first, *others = [problem for problem in row["problems"] if problem["severity"] == "error"]
        more = f" (and {len(others)} more)" if others else ""
        lines.append(f"{row['leaf']}, {first['file']}:{first['line']}: {first['message']}{more}")
    return _listed("Quarantined, not used until fixed", lines) if lines else None


def needs_attention(failures: Sequence[LeafFailure], attempts: int) -> str | None:
    """Return a message on the leaves whose `attempts`-th attempt failed, the last that a sensor starts; None without any."""
    lines = [f"{failure.leaf}: {failure.error}" for failure in failures if failure.attempts == attempts]
    return _listed(f"Failed {attempts} times and needs attention", lines) if lines else None


def rejected(evaluation: Evaluation) -> str:
    """Return a message that says which candidate the gate rejected, why, what to do, and where its report is."""
    told = Told(evaluation)
    return f"Candidate {evaluation['candidate']}: {told.sentence} {told.next}\nReport: {evaluation['report']}"


def moved_by_hand(champion: Champion, signed: Signed) -> str:
    """Return a message that says who made which model the champion by overriding the gate or rolling back, and why."""
    return f"{signed.author} made {champion.id} the champion: {signed.reason}"


def _listed(title: str, lines: list[str]) -> str:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join([f"{title}:", *(f"- {line}" for line in lines[:_LISTED]), *more])
