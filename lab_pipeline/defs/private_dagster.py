"""Gather what is needed of Dagster's private modules, so that an update of Dagster breaks one module at most.

Checked with Dagster 1.13.27. Nothing else in the package imports `dagster._*`, as a test of the definitions sees to. Look here
first when Dagster moves, and take out what has become public.

- `RunLauncher` and what its methods take and return, `ConfigurableClass`, by which `dagster.yaml` names it, and
  `ExecuteRunArgs`, the command that executes a run: Dagster lets everyone write a launcher, but exports none of this.
- `BulkActionsFilter`, `BulkActionStatus`: `DagsterInstance.get_backfills` filters by nothing else, and there is no other list
  of backfills but GraphQL, which needs a web server.
- `InstigatorType`, `InstigatorStatus`: whether a person switched a sensor off is told by
  `DagsterInstance.all_instigator_state` alone.
- The tags of runs, which Dagster does not export. A range of partitions can be asked for by its two tags only, for
  `RunRequest` takes a single key.
"""

from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    MAX_RETRIES_TAG,
    RUN_KEY_TAG,
)
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "BACKFILL_ID_TAG",
    "MAX_RETRIES_TAG",
    "RUN_KEY_TAG",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "ExecuteRunArgs",
    "InstigatorStatus",
    "InstigatorType",
    "LaunchRunContext",
    "RunLauncher",
    "WorkerStatus",
]
