"""The champion: the promoted model. An alias names it, moved in one step by a verdict that allows it or by a named person.

A promoted model is a folder of its own, `champions/ID`: the very files that were measured, and beside them what
`BESIDE` names. It is complete before the alias names it, and the alias moves before the history is written: a process killed in
between leaves an alias that the history lacks, which readers add and the next move writes down.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, folder_digest, read_json, read_lines, write_json, write_text, written_whole
from lab_pipeline.registry.candidate import Candidate, load_candidate
from lab_pipeline.registry.card import model_card
from lab_pipeline.registry.lineage import build_lineage
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.training.checkpoint import load_checkpoint

BESIDE = ("README.md", "lineage.json", "adapters")
"""What lies beside a champion's measured files, and so is no part of their hash: card and lineage are written later and may
change (a withdrawn leaf is named on the card), the adapters are not what was measured."""


class PromotionRefused(LabError):
    """The candidate may not become champion; the message says why."""


@dataclass(frozen=True)
class Signed:
    """Who moves the alias by hand, and why; kept for ever."""

    author: str
    reason: str

    def __post_init__(self) -> None:
        if not (self.author.strip() and self.reason.strip()):
            raise LabError("author and reason: expected a name and a sentence, found an empty one; both are kept for ever")


@dataclass(frozen=True)
class Champion:
    id: str
    model: Path
    digest: str
    promoted_at: str
    """When the alias moved to it, or stayed on it for a new catalog; ISO 8601, UTC."""
    catalog: dict[str, str]
    """Content hash of each leaf that the model was trained on, by key."""

    @property
    def verified(self) -> bool:
        """Are its files the ones that were measured?"""
        return self.model.is_dir() and model_digest(self.model) == self.digest


def model_digest(folder: Path) -> str:
    """Hash of a model folder's measured files: all but those of `BESIDE`."""
    return folder_digest(folder, BESIDE)


def current_champion(home: Home) -> Champion | None:
    """The model that the alias names, None before the first promotion."""
    return _champion(home, read_json(_alias(home))) if _alias(home).exists() else None


def champion_folder(home: Home, name: str) -> Path:
    """Where the champion of that id lies, wherever the home was moved: `champions/ID`, or the candidate's own folder where an
    earlier release promoted it there."""
    folder = home.champions / name
    return folder if folder.is_dir() else home.root / "candidates" / name / "model"


def history(home: Home) -> list[dict[str, Any]]:
    """All moves of the alias, oldest first. `event`: *promotion* by the gate, *override* of it, *rollback*, or *confirmation*:
    the champion stayed, for of a changed catalog the same model was made."""
    moves = [{"event": "promotion", "author": None, **move} for move in read_lines(_moves(home))]
    named = {"event": "promotion", "author": None, **read_json(_alias(home))} if _alias(home).exists() else None
    return moves if named is None or moves[-1:] == [named] else [*moves, named]


def promote(home: Home, evaluation: dict[str, Any], override: Signed | None = None) -> Champion:
    """Make the evaluated candidate the champion, if its evaluation allows it or a person overrides the gate. Idempotent.

    An override stands above the verdict, what it was measured against, and an earlier rollback; never above the files' hash.
    The champion itself, made once more of a changed catalog, is recorded with that, so that no leaf counts as changed for ever.

    Raises:
        PromotionRefused: the verdict is against it, a person rolled it back, the champion moved since it was measured, its
            files are not the ones that were measured, or an override names the champion itself.
    """
    name = evaluation["candidate"]
    with _alias_lock(home):
        champion = current_champion(home)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if champion and champion.id == name:
            if override:
                raise PromotionRefused(f"{name}: is the champion already")
            if evaluation["verdict"]["outcome"] != "unchanged" or evaluation["catalog"] == champion.catalog:
                return champion
            move = {
                **history(home)[-1],
                "event": "confirmation",
                "promoted_at": now,
                "catalog": evaluation["catalog"],
                "author": None,
                "reason": evaluation["verdict"]["reason"],
                "before": name,
            }
            return _move_alias(home, move)
        if override is None:
            _may_be_promoted(home, evaluation, champion)
        candidate = load_candidate(home, name)
        found = model_digest(candidate.model)
        if found != evaluation["digest"]:
            raise PromotionRefused(f"{candidate.model}: files changed since they were measured ({found})")
        overrides = [
            {"author": move["author"], "reason": move["reason"], "at": move["promoted_at"]}
            for move in history(home)
            if move["id"] == name and move["event"] == "override"
        ]
        if override:
            overrides.append({**asdict(override), "at": now})
        folder = _assemble(home, candidate, evaluation["checkpoints"])
        write_json(folder / "lineage.json", build_lineage(home, evaluation, overrides))
        _write_card(home, folder)
        move = {
            "event": "override" if override else "promotion",
            "id": name,
            "model": str(folder.relative_to(home.root)),
            "digest": candidate.digest,
            "promoted_at": now,
            "catalog": evaluation["catalog"],
            "author": override.author if override else None,
            "reason": override.reason if override else evaluation["verdict"]["reason"],
            "before": champion.id if champion else None,
        }
        return _move_alias(home, move)


def rollback(home: Home, signed: Signed, to: str | None = None) -> Champion:
    """Move the alias to the champion that the current one was promoted over, or to an earlier one by its id.

    Without `to`, champions whose files are gone or changed are passed over, for the ones that they were promoted over.

    Raises:
        LabError: there is none to go back to, or the files of the one asked for are not those that were measured.
    """
    with _alias_lock(home):
        champion = current_champion(home)
        earlier = _before(home, champion) if champion else []
        if to:
            known = {move["id"]: move for move in history(home) if champion and move["id"] != champion.id}
            if to not in known:
                raise LabError(f"{to}: no earlier champion; there are: {', '.join(known) or 'none'}")
            earlier = [known[to]]
        target = next((move for move in earlier if _champion(home, move).verified), None)
        if champion is None or target is None:
            broken = "".join(f"; {move['model']}: its files are not those that were measured" for move in earlier)
            raise LabError(f"no earlier champion to go back to{broken}")
        move = {
            **target,
            **asdict(signed),
            "event": "rollback",
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "before": champion.id,
        }
        return _move_alias(home, move)


def name_withdrawals(home: Home) -> None:
    """Write the cards of all champions once more, with what is withdrawn now."""
    with _alias_lock(home):
        for folder in sorted({champion_folder(home, move["id"]) for move in history(home)}):
            if (folder / "lineage.json").exists():  # gone if cleaned up, elsewhere if an earlier release promoted it
                _write_card(home, folder)


def _may_be_promoted(home: Home, evaluation: dict[str, Any], champion: Champion | None) -> None:
    verdict, name = evaluation["verdict"], evaluation["candidate"]
    if not verdict["promoted"]:
        raise PromotionRefused(f"{verdict['outcome']}: {verdict['reason']}")
    if champion and champion.id != evaluation["reference"]:
        raise PromotionRefused(
            f"the candidate was measured against {evaluation['reference']}, but the champion is {champion.id} by now; "
            "materialize evaluation_report again"
        )
    last = next((move for move in reversed(history(home)) if name in (move["id"], move["before"])), None)
    if last and last["event"] == "rollback" and last["before"] == name:
        raise PromotionRefused(
            f"{last['author']} rolled it back ({last['reason']}); "
            f"to promote it all the same: lab-pipeline promote {name} --author NAME --reason TEXT"
        )


def _before(home: Home, champion: Champion) -> list[dict[str, Any]]:
    """The champions before this one, newest first: the one it was last promoted over, the one that was promoted over, and so
    on. A champion that a person rolled back before this one came is thus none of them."""
    moves = history(home)
    over = {move["id"]: move["before"] for move in moves if move["event"] in ("promotion", "override")}
    names = [champion.id]
    while (before := over.get(names[-1])) and before in over and before not in names:
        names.append(before)
    last = {move["id"]: move for move in moves}
    return [last[name] for name in names[1:]]


def _assemble(home: Home, candidate: Candidate, checkpoints: dict[str, str]) -> Path:
    """The model's folder for good: the measured files and the adapters."""
    folder = home.champions / candidate.id
    if folder.exists() and model_digest(folder) != candidate.digest:
        shutil.rmtree(folder)
    if not folder.exists():
        with written_whole(folder) as scratch:
            shutil.copytree(candidate.model, scratch, copy_function=_link)
            for phase, name in checkpoints.items():
                checkpoint = load_checkpoint(home.checkpoints / name)
                if checkpoint and checkpoint.adapter:  # peft's own README is an empty form
                    no_card = shutil.ignore_patterns("README.md")
                    shutil.copytree(checkpoint.adapter, scratch / "adapters" / phase, ignore=no_card)
            found = model_digest(scratch)
            if found != candidate.digest:
                raise PromotionRefused(f"{candidate.model}: files changed while they were promoted ({found})")
    return folder


def _link(source: str, target: str) -> None:
    """A second name for the same bytes, which costs no space; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_card(home: Home, folder: Path) -> None:
    write_text(folder / "README.md", model_card(read_json(folder / "lineage.json"), withdrawals(home)))


def _move_alias(home: Home, move: dict[str, Any]) -> Champion:
    write_json(_alias(home), move)
    append_line(_moves(home), move)
    return _champion(home, move)


@contextmanager
def _alias_lock(home: Home) -> Iterator[None]:
    """One process at a time; whoever enters first writes down the move that a killed one left out of the history."""
    home.champions.mkdir(parents=True, exist_ok=True)
    with FileLock(home.champions / "lock"):
        if missing := history(home)[len(read_lines(_moves(home))) :]:
            append_line(_moves(home), missing[0])
        yield


def _champion(home: Home, move: dict[str, Any]) -> Champion:
    return Champion(move["id"], champion_folder(home, move["id"]), move["digest"], move["promoted_at"], move["catalog"])


def _alias(home: Home) -> Path:
    return home.champions / "champion.json"


def _moves(home: Home) -> Path:
    return home.champions / "history.jsonl"
