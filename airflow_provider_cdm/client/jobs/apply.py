"""Making CDM's jobs and links what they shall be: create, apply, remove; each may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import Definition, Difference, Kind
from airflow_provider_cdm.client.sansio import Flow, pause

CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What was done to make a job or link what it shall be.

    :param action: ``created``, ``updated`` or ``unchanged``.
    :param differences: what an update was made for.
    :param unmanaged: inputs that CDM shows with a value and that the definition does not name.
    :param warnings: CDM's own.
    """

    action: str
    differences: tuple[Difference, ...] = ()
    unmanaged: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def create(api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
    """Create a job or link; one that exists just as it is wanted is taken for ours.

    :raises CdmAlreadyExists: when there is another of that name; says what differs.
    """
    try:
        warnings = yield from api.call(resources.create(cluster_id, wanted))
    except errors.CdmAlreadyExists as refusal:
        # It may be the work of this very call, or of an earlier attempt, whose answer was lost.
        shown = yield from api.find(wanted.kind, cluster_id, wanted.name)
        if shown is None:
            raise
        if differences := wanted.differences(shown):
            refusal.add_detail(" What exists differs: " + _listed(differences))
            raise
        return ApplyResult(UNCHANGED, unmanaged=tuple(wanted.unmanaged(shown)))
    return ApplyResult(CREATED, warnings=tuple(warnings))


def update(api: CdmApi, cluster_id: str, wanted: Definition) -> Flow[ApplyResult]:
    """Replace the definition of a job or link, whatever it is now.

    :raises CdmNotFound: when there is none of that name.
    :raises CdmInUse: when CDM cannot change it now.
    """
    warnings = yield from api.call(resources.update(cluster_id, wanted))
    return ApplyResult(UPDATED, warnings=tuple(warnings))


def apply(
    api: CdmApi, cluster_id: str, wanted: Definition, *, always: bool = False
) -> Flow[ApplyResult]:
    """Create or update a job or link, or do nothing when it is as wanted.

    :param always: update it even then.
    :raises CdmInUse: when an update is needed and CDM cannot change it now.
    """
    shown = yield from api.find(wanted.kind, cluster_id, wanted.name)
    if shown is None:
        made = yield from create(api, cluster_id, wanted)
        return made
    differences = tuple(wanted.differences(shown))
    unmanaged = tuple(wanted.unmanaged(shown))
    if not differences and not always:
        return ApplyResult(UNCHANGED, unmanaged=unmanaged)
    warnings = yield from api.call(resources.update(cluster_id, wanted))
    return ApplyResult(UPDATED, differences, unmanaged, tuple(warnings))


def delete(
    api: CdmApi, kind: Kind, cluster_id: str, name: str, *, give_up_after: float = 0.0
) -> Flow[bool]:
    """Delete a job or link.

    :param give_up_after: seconds for which to bear outages and a quota (120 a minute) that is used up.
    :returns: ``False`` when it was gone already.
    :raises CdmInUse: when the job runs, or jobs use the link.
    """
    give_up_at = api.exchanger.clock() + give_up_after
    while True:
        try:
            yield from api.call(resources.delete(kind, cluster_id, name))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return False
        except (errors.CdmThrottled, errors.CdmUnavailable):
            if api.exchanger.clock() >= give_up_at:
                raise
            yield from pause(10.0 + 20.0 * api.exchanger.random())
        else:
            return True


def _listed(differences: list[Difference]) -> str:
    return "; ".join(map(str, differences)) + "."
