"""Engine ``deployment``: submits the run to a SuperLink, follows it, and brings the result back.

The rounds are run by ``server_app`` at the SuperLink, training by ``node_app`` at the nodes. This
process and the SuperLink share a machine: the job and the result travel through a folder.
"""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from phoenix_pipeline.errors import CheckpointError, FederationError
from phoenix_pipeline.federated.engines.exchange import (
    JOB_FILE,
    JOB_FOLDER,
    LOG,
    ProgressFile,
    has_ended,
    read_failure,
    read_result,
    write_job,
)
from phoenix_pipeline.federated.engines.superlink import SuperLink
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.personal_layers import samples_are_personal
from phoenix_pipeline.federated.program import Watch
from phoenix_pipeline.json_files import read_json, write_json

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_ASK_S = 30.0
_ATTEMPTS = 3
_RUN = "run.json"


@dataclass(frozen=True)
class Lost:
    """A run that ended without a result or a failure; ``had_replies``: some clients were heard."""

    reason: str
    had_replies: bool


def train(job: FederatedJob, folder: Path, watch: Watch) -> FederatedResult:
    """Train over the nodes of a SuperLink; follow a run that still goes, submit a lost one again.

    Raises FederationError: the SuperLink cannot be reached, or the run failed; says why.
    Raises SettingsError: the connection is not allowed, or there is no app folder.
    """
    folder = folder.resolve()
    link = SuperLink(job.config.deployment, folder / "flwr")
    run_id = _running(link, folder, job)
    in_vain = 0
    while True:
        run_id = run_id or _submit(link, folder, job)
        try:
            lost = _follow(link, run_id, folder, watch, job.config.deployment.wait_for_nodes_s)
        except KeyboardInterrupt:
            link.stop(run_id)
            raise
        if not lost:
            break
        in_vain = 0 if lost.had_replies else in_vain + 1
        if in_vain == _ATTEMPTS:
            raise FederationError(f"{lost.reason}, {in_vain} times in a row; see its log")
        logger.warning("%s: it is submitted again, to go on at its last checkpoint", lost.reason)
        run_id = None
    if reason := read_failure(folder):
        raise FederationError(reason)
    return read_result(
        folder, samples_are_personal(job.settings.personal_layers, job.settings.model)
    )


def _submit(link: SuperLink, folder: Path, job: FederatedJob) -> int:
    write_job(folder, job)
    run_id = link.submit({JOB_FOLDER: str(folder)})
    write_json(folder / _RUN, {"run_id": run_id, "job": _fingerprint(folder)})
    logger.info("run %s submitted to %s", run_id, job.config.deployment.address)
    return run_id


def _running(link: SuperLink, folder: Path, job: FederatedJob) -> int | None:
    """Return the id of this job's run if it is still going; one of another job is stopped."""
    try:
        known = read_json(folder / _RUN)
        status = link.status(int(known["run_id"]))[0]
    except (CheckpointError, FederationError, KeyError):
        return None
    if status.startswith("finished"):
        return None
    before = _fingerprint(folder)
    write_job(folder / "asked", job)
    if before == known["job"] == _fingerprint(folder / "asked"):
        logger.info("run %s is still going: it is followed", known["run_id"])
        return int(known["run_id"])
    link.stop(int(known["run_id"]))
    return None


def _fingerprint(folder: Path) -> str:
    return hashlib.sha256((folder / JOB_FILE).read_bytes()).hexdigest()


def _follow(
    link: SuperLink, run_id: int, folder: Path, watch: Watch, patience_s: float
) -> Lost | None:
    """Pass on what happens until the end; raises FederationError if it is lost or stopped."""
    progress, asked, answered = ProgressFile(folder), time.monotonic(), time.monotonic()
    had_replies = False
    while True:
        ended = has_ended(folder)
        for kind, number, values in progress.news():
            had_replies |= kind == "reply"
            if kind == LOG:
                logging.getLogger(values["logger"]).log(number, "%s", values["text"])
            elif kind == "round" and watch.on_round:
                watch.on_round(number, values)
            elif kind == "reply" and watch.on_reply:
                watch.on_reply()
        if ended:
            return None
        if time.monotonic() - asked > _ASK_S:
            try:
                status, details = link.status(run_id)
            except FederationError as error:
                logger.warning("%s", error)
                status, details = "", str(error)
            asked = time.monotonic()
            answered = asked if status else answered
            if asked - answered > patience_s:
                raise FederationError(f"no SuperLink for {patience_s:g} s: {details}")
            if status == "finished:stopped":
                raise FederationError(f"run {run_id} was stopped at the SuperLink; run again")
            if status.startswith("finished") and not has_ended(folder):
                reason = f"run {run_id} is {status} and left no result: {details or 'no details'}"
                return Lost(reason, had_replies)
        time.sleep(_POLL_S)
