"""Tell what a refresh would take, before it is paid for: by a rehearsal, and by what earlier refreshes of the home took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EndpointTeacherSettings, TeacherSettings
from lab_pipeline.core.formats import duration
from lab_pipeline.core.home import Home
from lab_pipeline.core.storage import append_line, read_json, read_lines, read_rows
from lab_pipeline.instructions.judge_calibration import separation
from lab_pipeline.instructions.plan import LeafPlan, LeafState, is_whole, leaf_state, utc_now
from lab_pipeline.instructions.rehearsal import Rehearsed, Rehearser, rehearse, rehearse_known_rows
from lab_pipeline.taxonomy.documents.passages import estimated_tokens
from lab_pipeline.teacher.journal import read_journal
from lab_pipeline.teacher.spending import Spent, total

_MEASURED = 5
"""Number of the home's last refreshes by the same models that correct an estimate."""
_TOKENS = 0.9
"""`estimated_tokens` finds rather too many: in prompts of English leaves, 3 to 19 % more than SmolLM2's tokenizer."""
_CORRECTED = ("calls", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Cost:
    """What calls take, about. `money` is 0 where the settings state no prices; `recalled` are replies that the journal has."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0
    recalled: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.money + other.money,
            self.recalled + other.recalled,
        )


@dataclass(frozen=True)
class Bill:
    """What a refresh would take."""

    leaves: dict[str, Cost]
    """By leaf."""
    known_rows: Cost
    """Of calls by which judges show once that they separate known rows."""
    seconds: float | None
    """None if no refresh by these models was measured yet."""
    rehearsed: dict[str, Rehearsed]
    """What the rehearsal found, by leaf, before it was corrected."""

    @property
    def total(self) -> Cost:
        return sum(self.leaves.values(), self.known_rows)

    def __str__(self) -> str:
        whole = self.total
        tokens = f"{whole.prompt_tokens:,} prompt and {whole.completion_tokens:,} completion tokens"
        money = f"{whole.money:,.2f} by the prices in the settings, " if whole.money else ""
        time = "no time measured yet" if self.seconds is None else duration(self.seconds)
        return f"about {whole.calls:,} calls, {tokens}, {money}{time}"


def bill(home: Home, settings: Settings, plans: Sequence[LeafPlan], teacher: str, judge: str) -> Bill:
    """Return what a refresh by these plans would take beyond what the journals hold. No model is asked.

    The real stages are rehearsed on the leaves' own seeds. The result is corrected by what the last refreshes of leaves with
    the same flow and models took, in comparison with their own rehearsals.

    Args:
        teacher: identity of the teacher; likewise `judge`.
    """

    @lru_cache(10_000)  # most messages of a prompt are in many prompts
    def count(text: str) -> int:
        return round(_TOKENS * estimated_tokens(text))

    measured = _Measured.of(home, teacher, judge)
    kept = _kept_shares(home, plans)
    leaves: dict[str, Cost] = {}
    rehearsed: dict[str, Rehearsed] = {}
    for plan in plans:
        costs = Rehearsed(), Rehearsed()
        if not is_whole(plan.path(home, "judged")):
            generated = read_rows(plan.path(home, "generated")) if is_whole(plan.path(home, "generated")) else None
            models = Rehearser(teacher, judge, count, dict(read_journal(home.leaf(plan.leaf) / "journal")))
            candidates = (plan.rows_wanted or 0) / kept.get(plan.flow.name, 1.0)
            source = read_json(home.leaf_source(plan.source))
            costs = rehearse(source, plan.flow, settings.seed, models, generated, candidates, plan.rounds)
        rehearsed[plan.leaf] = costs[0] + costs[1]
        leaves[plan.leaf] = _priced(costs, settings, measured.ratios.get(plan.flow.name, {}))
    flows = {plan.flow.name: plan.flow for plan in plans}
    new = [
        (flow, each)
        for flow in flows.values()
        for each in flow.file.judges
        if each.gates and not separation(home, flow, each, judge)
    ]
    known = rehearse_known_rows(new, Rehearser(teacher, judge, count, dict(read_journal(home.judges / "journal"))))
    about_known_rows = _priced((Rehearsed(), known), settings, {})
    calls = sum((cost.calls for cost in leaves.values()), about_known_rows.calls)
    return Bill(leaves, about_known_rows, measured.seconds(calls), rehearsed)


def _priced(costs: tuple[Rehearsed, Rehearsed], settings: Settings, ratios: Mapping[str, float]) -> Cost:
    """Return the sum of what the teacher and the judge do, corrected, with its price."""
    whole = Cost()
    for cost, model in zip(costs, (settings.teacher, settings.judge or settings.teacher), strict=True):
        calls, prompt, completion = (round(getattr(cost, name) * ratios.get(name, 1.0)) for name in _CORRECTED)
        whole += Cost(calls, prompt, completion, _price(prompt, completion, model), cost.recalled)
    return whole


def _price(prompt: int, completion: int, model: TeacherSettings) -> float:
    if not isinstance(model, EndpointTeacherSettings):
        return 0.0
    return (prompt * model.prompt_price + completion * model.completion_price) / 1_000_000


def _kept_shares(home: Home, plans: Iterable[LeafPlan]) -> dict[str, float]:
    """Return, by flow, which share of the rows curation kept in the leaves' last refreshes."""
    kept, generated = Counter[str](), Counter[str]()
    for plan in plans:
        if state := leaf_state(home, plan.leaf):
            kept[plan.flow.name] += state.funnel["kept"]
            generated[plan.flow.name] += state.funnel["generated"]
    return {flow: kept[flow] / generated[flow] for flow in generated if kept[flow]}


@dataclass(frozen=True)
class _Measured:
    """What the last refreshes by the same models took."""

    ratios: dict[str, dict[str, float]]
    """By flow: how many times as many calls and tokens as rehearsed."""
    calls: int
    seconds_taken: float

    @classmethod
    def of(cls, home: Home, teacher: str, judge: str) -> _Measured:
        lines = [each for each in read_lines(home.spending) if each["models"] == [teacher, judge]][-_MEASURED:]
        rehearsed: dict[str, Counter[str]] = defaultdict(Counter)
        spent: dict[str, Counter[str]] = defaultdict(Counter)
        for line in lines:
            for flow, both in line["flows"].items():
                rehearsed[flow].update(both["rehearsed"])
                spent[flow].update(both["spent"])
        ratios = {
            flow: {name: spent[flow][name] / count for name, count in counts.items() if count}
            for flow, counts in rehearsed.items()
        }
        return cls(ratios, sum(each["calls"] for each in lines), sum(each["seconds"] for each in lines))

    def seconds(self, calls: int) -> float | None:
        return calls * self.seconds_taken / self.calls if self.calls else None


def record_spending(
    home: Home, models: tuple[str, str], expected: Bill, plans: Iterable[LeafPlan], states: Iterable[LeafState], run: Spent
) -> None:
    """Store what a refresh took, by which later estimates are corrected; nothing if it made no call.

    Args:
        models: identities of teacher and judge.
        states: of the leaves that were refreshed whole.
        run: what the whole refresh took.
    """
    if not run.calls:
        return
    flow_of = {plan.leaf: plan.flow.name for plan in plans}
    flows: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: {"rehearsed": Counter(), "spent": Counter()})
    for state in states:
        if state.rows_wanted:  # the number of its rounds would be taken for that of calls
            continue
        both, spent = flows[flow_of[state.leaf]], total(state.spent.values())
        for name in _CORRECTED:
            both["rehearsed"][name] += getattr(expected.rehearsed[state.leaf], name)
            both["spent"][name] += getattr(spent, name)
    append_line(home.spending, {"at": utc_now(), "models": models, **asdict(run), "flows": flows})
