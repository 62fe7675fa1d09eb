"""Creating, updating and deleting jobs and links; each operation is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import Definition, Difference, Kind
from airflow_provider_cdm.client.sansio import Flow, pause

CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What was done to make a job or link match its definition.

    :param action: ``created``, ``updated`` or ``unchanged``.
    :param differences: differences that an update removed.
    :param unmanaged: names of inputs that have a value in CDM and are not in the definition.
    :param warnings: warnings from CDM.
    """

    action: str
    differences: tuple[Difference, ...] = ()
    unmanaged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def create_new(api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
    """Create a job or link.

    :raises CdmAlreadyExists: when one of that name exists, whatever its definition; this call may
        have created it and lost the answer.
    """
    _ensure_secrets(wanted)
    warnings = yield from api.call(resources.create(cluster_id, wanted))
    return ApplyResult(CREATED, warnings=tuple(warnings))


def create(api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
    """Create a job or link; if it exists and matches the definition, that counts as created.

    :raises CdmAlreadyExists: when one of that name exists and differs; the error lists the
        differences.
    """
    try:
        return (yield from create_new(api, cluster_id, wanted))
    except errors.CdmAlreadyExists as refusal:
        # This call, or one of an earlier attempt, may have created it and lost the answer.
        shown = yield from api.find(wanted.kind, cluster_id, wanted.name)
        if shown is None:
            raise
        if differences := wanted.differences(shown):
            refusal.add_detail(" The existing one differs: " + _join(differences))
            raise
        return ApplyResult(UNCHANGED, unmanaged=tuple(wanted.unmanaged(shown)))


def update(api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
    """Replace the definition of a job or link, whether or not it differs.

    :raises CdmNotFound: when none of that name exists.
    :raises CdmInUse: when CDM cannot change it at the moment.
    """
    _ensure_secrets(wanted)
    warnings = yield from api.call(resources.update(cluster_id, wanted))
    return ApplyResult(UPDATED, warnings=tuple(warnings))


def apply(
    api: CdmApi, cluster_id: str, wanted: Definition, *, always: bool = False
) -> Flow[ApplyResult]:
    """Create or update a job or link, or do nothing if it matches the definition.

    :param always: whether to update it even if it matches.
    :raises CdmInUse: when it must be updated and CDM cannot change it at the moment.
    """
    job_type = wanted.wire.get("job_type")
    shown = yield from api.find(wanted.kind, cluster_id, wanted.name, job_type=job_type)
    if shown is None:
        return (yield from create(api, cluster_id, wanted))
    differences = tuple(wanted.differences(shown))
    unmanaged = tuple(wanted.unmanaged(shown))
    if not differences and not always:
        return ApplyResult(UNCHANGED, unmanaged=unmanaged)
    updated = yield from update(api, cluster_id, wanted)
    return replace(updated, differences=differences, unmanaged=unmanaged)


def delete(
    api: CdmApi, kind: Kind, cluster_id: str, name: str, *, give_up_after: float = 0.0
) -> Flow[bool]:
    """Delete a job or link.

    :param give_up_after: seconds for which to go on during an outage, or while the quota (120
        calls a minute) is used up; 0 by default.
    :returns: ``False`` if it did not exist.
    :raises CdmInUse: when the job is running, or the link is used by jobs.
    """
    give_up_at = api.exchanger.uptime() + give_up_after
    while True:
        try:
            yield from api.call(resources.delete(kind, cluster_id, name))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return False
        except (errors.CdmThrottled, errors.CdmUnavailable):
            if api.exchanger.uptime() >= give_up_at:
                raise
            yield from pause(10.0 + 20.0 * api.exchanger.random())
        else:
            return True


def _ensure_secrets(wanted: Definition) -> None:
    """Refuse to send secrets without a value, which could clear those that CDM has.

    :raises CdmConfigError: when there are any.
    """
    if names := ", ".join(wanted.secrets_without_value()):
        raise errors.CdmConfigError(
            f"The {wanted.kind.noun} {wanted.name!r} has no value for {names}. CDM does not show"
            " secrets, and sending none could clear those that it has. Refer to an Airflow"
            " connection, {{ conn.its_id.password }}; an empty text if there is none."
        )


def _join(differences: list[Difference]) -> str:
    return "; ".join(map(str, differences)) + "."
