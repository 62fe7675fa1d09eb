"""Making CDM's jobs and links what they shall be: create, apply, remove; each may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmFlows
from airflow_provider_cdm.client.api.definitions import Definition, Difference, Kind
from airflow_provider_cdm.client.sansio import Flow, pause

CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done to make a job or link what it shall be.

    :param action: ``created``, ``updated`` or ``unchanged``.
    :param differences: what an update was made for.
    :param unnamed: inputs that CDM shows with a value and that the definition does not name.
    :param warnings: CDM's own.
    """

    action: str
    differences: tuple[Difference, ...] = ()
    unnamed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def create(flows: CdmFlows, cluster_id: str, wanted: Definition) -> Flow[Applied]:
    """Create a job or link; one that exists just as it is wanted is taken for ours.

    :raises CdmAlreadyExists: when there is another of that name; says what differs.
    """
    try:
        warnings = yield from flows.call(resources.create(cluster_id, wanted))
    except errors.CdmAlreadyExists as refusal:
        # It may be the work of this very call, or of an earlier attempt, whose answer was lost.
        shown = yield from flows.find(wanted.kind, cluster_id, wanted.name)
        if shown is None:
            raise
        if differences := wanted.differences(shown):
            refusal.tell_more(" What exists differs: " + _listed(differences))
            raise
        return Applied(UNCHANGED, unnamed=tuple(wanted.unnamed(shown)))
    return Applied(CREATED, warnings=tuple(warnings))


def update(flows: CdmFlows, cluster_id: str, wanted: Definition) -> Flow[Applied]:
    """Replace the definition of a job or link, whatever it is now.

    :raises CdmNotFound: when there is none of that name.
    :raises CdmInUse: when CDM cannot change it now.
    """
    warnings = yield from flows.call(resources.update(cluster_id, wanted))
    return Applied(UPDATED, warnings=tuple(warnings))


def apply(
    flows: CdmFlows, cluster_id: str, wanted: Definition, *, always: bool = False
) -> Flow[Applied]:
    """Create or update a job or link, or do nothing when it is as wanted.

    :param always: update it even then.
    :raises CdmInUse: when an update is needed and CDM cannot change it now.
    """
    shown = yield from flows.find(wanted.kind, cluster_id, wanted.name)
    if shown is None:
        made = yield from create(flows, cluster_id, wanted)
        return made
    differences = tuple(wanted.differences(shown))
    unnamed = tuple(wanted.unnamed(shown))
    if not differences and not always:
        return Applied(UNCHANGED, unnamed=unnamed)
    warnings = yield from flows.call(resources.update(cluster_id, wanted))
    return Applied(UPDATED, differences, unnamed, tuple(warnings))


def remove(
    flows: CdmFlows, kind: Kind, cluster_id: str, name: str, *, patience: float = 0.0
) -> Flow[bool]:
    """Delete a job or link.

    :param patience: seconds for which to bear outages and a quota (120 a minute) that is used up.
    :returns: ``False`` when it was gone already.
    :raises CdmInUse: when the job runs, or jobs use the link.
    """
    give_up_at = flows.exchanger.clock() + patience
    while True:
        try:
            yield from flows.call(resources.delete(kind, cluster_id, name))
        except errors.CdmNotFound as error:
            if not error.reported_by_cdm:
                raise
            return False
        except (errors.CdmThrottled, errors.CdmUnavailable):
            if flows.exchanger.clock() >= give_up_at:
                raise
            yield from pause(10.0 + 20.0 * flows.exchanger.random())
        else:
            return True


def _listed(differences: list[Difference]) -> str:
    return "; ".join(map(str, differences)) + "."
