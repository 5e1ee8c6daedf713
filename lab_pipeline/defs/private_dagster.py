"""Import all that the package needs from Dagster's private modules, so that an update of Dagster breaks one module at most.

Checked with Dagster 1.13.27. Nothing else in the package imports `dagster._*`; a test of the definitions checks this. Look here
first when Dagster moves, and use what has become public instead.

- `RunLauncher`, the types of its methods, `ConfigurableClass`, by which `dagster.yaml` can name it, and `ExecuteRunArgs`, the
  command that executes a run: Dagster documents custom launchers, but exports none of this.
- `BulkActionsFilter`, `BulkActionStatus`: the only filter of `DagsterInstance.get_backfills`. The other list of backfills is
  GraphQL, which needs a web server.
- `InstigatorType`, `InstigatorStatus`: for `DagsterInstance.all_instigator_state`, which tells if a sensor is switched off.
- `execute_run` and the origins of a job: the public `execute_job` makes runs that belong to no code location, which the UI's
  pages on jobs, overview and timeline leave out.
- `DagsterPipesExecutionError`: a process that ended with an error, such as the trainer.
- What `StepDelegatingExecutor` is made of, and `execute_plan_iterator`, by which a step runs in this process: dagster-k8s's
  executor is public, but cannot be told to keep small steps in the run's pod.
- `raise_execution_interrupts`: so that a run which waits for a lock can be cancelled.
- `DagsterExecutionInterruptedError`: how Dagster's handler of signals ends a step.
- The tags of runs. A range of partitions can be requested by its two tags only, because `RunRequest` takes a single key.
"""
# ruff: noqa: F401

# Load all of SQLAlchemy before any run starts. Great Expectations imports sqlalchemy.orm in the middle of a step; Dagster's
# event thread, which queries at that moment, would find it half loaded and fail the run with an AttributeError. Everything
# that executes steps imports this module first: run workers, the daemon's runs, the UI and the steps' pods.
import sqlalchemy.orm
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError, raise_execution_interrupts
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator, execute_run
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandlerContext
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    MAX_RETRIES_TAG,
    RETRY_ON_ASSET_OR_OP_FAILURE_TAG,
    RUN_KEY_TAG,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData
