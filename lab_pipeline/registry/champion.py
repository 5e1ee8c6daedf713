"""Promote models and roll them back. An alias names the champion, the model in use.

The alias moves if the gate's verdict allows it, or if a named person says so. A promoted model has its own folder,
`champions/ID`: the very files that were measured, and the files in `BESIDE`. The folder is complete before the alias names it,
and the alias moves before the move is added to the history file. If the process is killed in between, the file lacks that move:
`history` returns it all the same, and whatever next locks the alias adds it to the file.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

from filelock import FileLock

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.evaluation import Evaluation
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import (
    append_line,
    folder_digest,
    link_or_copy,
    read_json,
    read_lines,
    write_json,
    write_text,
    written_whole,
)
from lab_pipeline.registry.candidate import Candidate, load_candidate
from lab_pipeline.registry.card import model_card
from lab_pipeline.registry.lineage import Override, build_lineage
from lab_pipeline.taxonomy.withdrawals import withdrawals
from lab_pipeline.training.checkpoint import load_checkpoint

BESIDE = ("README.md", "lineage.json", "adapters")
"""Files and folders in a champion's folder that are not part of its hash. Card and lineage are written after the measurement
and may change (the card names withdrawn leaves), and the adapters were not measured."""


class PromotionRefused(LabError):
    """The candidate may not become champion; the message says why."""


@dataclass(frozen=True)
class Signed:
    """Name of the person who moves the alias by hand, and the reason; both are kept forever.

    Raises:
        LabError: one of them is blank.
    """

    author: str
    reason: str

    def __post_init__(self) -> None:
        if not (self.author.strip() and self.reason.strip()):
            raise LabError("author and reason: expected a name and a sentence, found an empty one; both are kept forever")


class Move(TypedDict):
    """One move or confirmation of the alias; `champion.json` stores the last one, and `history.jsonl` all of them."""

    event: Literal["promotion", "override", "rollback", "confirmation"]
    """*promotion* by the gate, *override* of the gate by a person, *rollback* by a person, or *confirmation*: a changed catalog
    gave the same model, so the champion stayed."""
    id: str
    model: NotRequired[str]
    """Folder of the model, relative to the home."""
    digest: str
    promoted_at: str
    catalog: dict[str, str]
    author: str | None
    """None if the gate moved the alias."""
    reason: str
    before: str | None
    """Id of the champion before the move."""


@dataclass(frozen=True)
class Champion:
    """The present or a past champion: a promoted model in the folder `model`, and the hash that its files had when measured."""

    id: str
    model: Path
    digest: str
    promoted_at: str
    """Time of the alias's move to this model or of its confirmation; ISO 8601, UTC."""
    catalog: dict[str, str]
    """Content hash of each leaf that the model was trained on."""

    @property
    def verified(self) -> bool:
        """True if the files in its folder are those that were measured."""
        return self.model.is_dir() and model_digest(self.model) == self.digest


def model_digest(folder: Path) -> str:
    """Hash a model folder's measured files: all but those in `BESIDE`."""
    return folder_digest(folder, BESIDE)


def current_champion(home: Home) -> Champion | None:
    """Return the champion, the model that the alias names; None before the first promotion."""
    return _champion(home, read_json(_alias(home))) if _alias(home).exists() else None


def find_champion(home: Home, name: str) -> Champion:
    """Return a champion by name: 'champion' for the present one, or the id of a present or past one.

    Raises:
        LabError: there is none of that name.
    """
    champion = current_champion(home)
    if champion is None:
        raise LabError("no champion yet: run `lab-pipeline retune` to make one")
    if name in ("champion", champion.id):
        return champion
    known = {move["id"]: move for move in history(home)}
    if name not in known:
        raise LabError(f"{name}: no champion; there are: {', '.join(known)}")
    return _champion(home, known[name])


def champion_folder(home: Home, name: str) -> Path:
    """Return the path of a present or past champion's folder, which cleaning up may have removed; `name` is the champion's id.

    This is `champions/ID`. If there is none, it is the candidate's folder, in which earlier releases left a promoted model.
    """
    folder = home.champions / name
    return folder if folder.is_dir() else home.root / "candidates" / name / "model"


def history(home: Home) -> list[Move]:
    """Return all moves of the alias, oldest first, with the last one even if a killed process left it out of the file."""
    stored = read_lines(_moves(home)) + ([read_json(_alias(home))] if _alias(home).exists() else [])
    moves = [cast(Move, {"event": "promotion", "author": None, **move}) for move in stored]  # earlier releases stored neither
    return moves[:-1] if moves[-2:-1] == moves[-1:] else moves


def promote(home: Home, evaluation: Evaluation, override: Signed | None = None) -> Champion:
    """Make the evaluated candidate the champion if the gate allows it or a person overrides the gate; return the champion.

    An override also helps if the alias has moved since the evaluation, or if a person rolled the candidate back, but never if
    files changed. If the candidate is the champion already, nothing happens, with one exception: a changed catalog that gave
    the same model is recorded for the champion as a confirmation, so that its leaves no longer count as changed.

    Raises:
        PromotionRefused: the files are not those that were measured, or an override names the champion itself. Without an
            override also: the verdict is negative, a person rolled the candidate back, or the alias moved since.
        LabError: the candidate's merged weights are missing.
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
            confirmation: Move = {
                **history(home)[-1],
                "event": "confirmation",
                "promoted_at": now,
                "catalog": evaluation["catalog"],
                "author": None,
                "reason": evaluation["verdict"]["reason"],
                "before": name,
            }
            return _move_alias(home, confirmation)
        if override is None:
            _require_promotable(home, evaluation, champion)
        candidate = load_candidate(home, name)
        found = model_digest(candidate.model)
        if found != evaluation["digest"]:
            raise PromotionRefused(f"{candidate.model}: files changed since they were measured ({found})")
        overrides: list[Override] = [
            {"author": move["author"] or "", "reason": move["reason"], "at": move["promoted_at"]}
            for move in history(home)
            if move["id"] == name and move["event"] == "override"
        ]
        if override:
            overrides.append({"author": override.author, "reason": override.reason, "at": now})
        folder = _assemble(home, candidate, evaluation["checkpoints"])
        write_json(folder / "lineage.json", build_lineage(home, evaluation, overrides))
        _write_card(home, folder)
        promotion: Move = {
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
        return _move_alias(home, promotion)


def rollback(home: Home, signed: Signed, to: str | None = None) -> Champion:
    """Move the alias to a past champion whose files are still those that were measured, and return that champion.

    With `to`, it is the champion with this id; any champion in the history qualifies, except the present one. Otherwise it is
    the nearest in the chain of predecessors (`_before`) whose files are unchanged.

    Raises:
        LabError: there is no such champion, or the files of the one named `to` are not those that were measured.
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
            folders = [champion_folder(home, move["id"]).relative_to(home.root) for move in earlier]
            broken = "".join(f"; {folder}: its files are not those that were measured" for folder in folders)
            raise LabError(f"no earlier champion to go back to{broken}")
        move: Move = {
            **target,
            "author": signed.author,
            "reason": signed.reason,
            "event": "rollback",
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "before": champion.id,
        }
        return _move_alias(home, move)


def rewrite_cards(home: Home) -> None:
    """Write the cards of the present and all past champions again, so that each names the leaves that are withdrawn now."""
    with _alias_lock(home):
        for folder in sorted({champion_folder(home, move["id"]) for move in history(home)}):
            if (folder / "lineage.json").exists():  # else the folder was cleaned up, or an earlier release promoted it
                _write_card(home, folder)


def _require_promotable(home: Home, evaluation: Evaluation, champion: Champion | None) -> None:
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


def _before(home: Home, champion: Champion) -> list[Move]:
    """Return, for each predecessor of this champion, the last move of the alias to it; the nearest predecessor comes first.

    The chain of predecessors: the champion that this one replaced when it was last promoted, then the one which that champion
    had replaced, and so on. A champion that was rolled back before this one was promoted is not in the chain.
    """
    moves = history(home)
    over = {move["id"]: move["before"] for move in moves if move["event"] in ("promotion", "override")}
    names = [champion.id]
    while (before := over.get(names[-1])) and before in over and before not in names:
        names.append(before)
    last = {move["id"]: move for move in moves}
    return [last[name] for name in names[1:]]


def _assemble(home: Home, candidate: Candidate, checkpoints: dict[str, str]) -> Path:
    """Return the folder `champions/ID`, assembled from the candidate's files and the checkpoints' adapters (id by phase).

    A folder that is there already is used if its measured files are the candidate's; else it is deleted and assembled anew.

    Raises:
        PromotionRefused: the candidate's files changed while they were linked.
    """
    folder = home.champions / candidate.id
    if folder.exists() and model_digest(folder) != candidate.digest:
        shutil.rmtree(folder)
    if not folder.exists():
        with written_whole(folder) as scratch:
            shutil.copytree(candidate.model, scratch, copy_function=link_or_copy)
            for phase, name in checkpoints.items():
                checkpoint = load_checkpoint(home.checkpoints / name)
                if checkpoint and checkpoint.adapter:  # without the README that peft writes, an empty template
                    no_card = shutil.ignore_patterns("README.md")
                    shutil.copytree(checkpoint.adapter, scratch / "adapters" / phase, ignore=no_card)
            found = model_digest(scratch)
            if found != candidate.digest:
                raise PromotionRefused(f"{candidate.model}: files changed while they were promoted ({found})")
    return folder


def _write_card(home: Home, folder: Path) -> None:
    write_text(folder / "README.md", model_card(read_json(folder / "lineage.json"), withdrawals(home)))


def _move_alias(home: Home, move: Move) -> Champion:
    write_json(_alias(home), move)
    append_line(_moves(home), move)
    return _champion(home, move)


@contextmanager
def _alias_lock(home: Home) -> Iterator[None]:
    """Let one process at a time move the alias; first add a move that a killed process left out to the history file."""
    home.champions.mkdir(parents=True, exist_ok=True)
    with FileLock(home.champions / "lock"):
        if missing := history(home)[len(read_lines(_moves(home))) :]:
            append_line(_moves(home), missing[0])
        yield


def _champion(home: Home, move: Move) -> Champion:
    return Champion(move["id"], champion_folder(home, move["id"]), move["digest"], move["promoted_at"], move["catalog"])


def _alias(home: Home) -> Path:
    return home.champions / "champion.json"


def _moves(home: Home) -> Path:
    return home.champions / "history.jsonl"
