import dagster as dg
from pydantic import Field

from lab_pipeline.defs.code_location import asset_key, named
from lab_pipeline.defs.resources import Lab, errors_as_failures
from lab_pipeline.pages.links import link
from lab_pipeline.registry import champion as registry
from lab_pipeline.registry.publish import publish
from lab_pipeline.reports.notifications import moved_by_hand, notify


class Rollback(dg.Config):
    """What a person fills in to launch the job `rollback`: author, reason, and the champion to go back to."""

    author: str = Field(description="Your name; the history keeps it for ever")
    reason: str = Field(description="Your reason; the history keeps it for ever")
    to: str | None = Field(None, description="Id of an earlier champion. Left out: the one before the current one")


@dg.op
def move_alias(context: dg.OpExecutionContext, config: Rollback, lab: Lab) -> None:
    """Make an earlier champion the champion again; fail if its files no longer have the hash with which they were evaluated."""
    with errors_as_failures():
        signed = registry.Signed(config.author, config.reason)
        champion = registry.rollback(lab.home, signed, config.to)
        publish(lab.settings, champion)
        notify(lab.settings, moved_by_hand(champion, signed), context.log.warning)
    context.log.info(f"the champion is {champion.id} again: {champion.model}")
    context.log_event(
        dg.AssetMaterialization(
            asset_key("champion_model"),
            description=f"rolled back by {config.author}: {config.reason}",
            metadata={
                "champion": champion.id,
                "digest": champion.digest,
                "path": dg.MetadataValue.path(champion.model),
                "page": dg.MetadataValue.url(link(lab.home, lab.settings, "card", id=champion.id)),
            },
            tags={"dagster/data_version": champion.digest},
        )
    )


# A rollback need not wait for a running retune: the retune compares with the old champion, so its promotion is refused.
@dg.job(
    name=named("rollback"),
    description="Make an earlier champion the champion again. The rolled-back one is not promoted again by itself.",
)
def rollback() -> None:
    move_alias()
