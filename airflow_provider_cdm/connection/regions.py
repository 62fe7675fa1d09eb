"""The hosts of a region, where a connection names no endpoints."""

from __future__ import annotations

#: Suffixes of hosts by the beginning of a region's name; a new one is added here, and nowhere else.
SUFFIXES = {
    # Dublin. Endpoint page of Huawei Cloud EU; the Terraform provider maps all of eu-west-1* so.
    # Its IAM is documented as iam.myhuaweicloud.eu as well (DRS API reference, "Endpoints").
    "eu-west-1": "myhuaweicloud.eu",
    # Open Telekom Cloud: docs.otc.t-systems.com, "Regions and endpoints".
    "eu-de": "otc.t-systems.com",
}
#: Suffix of all other regions. Endpoint pages of CDM and IAM, and the region files of the SDK.
DEFAULT_SUFFIX = "myhuaweicloud.com"


def endpoint(service: str, region: str | None) -> str:
    """Return the address of a service in a region.

    :param service: ``cdm`` or ``iam``.
    :param region: name of the region, such as ``eu-west-101``.
    """
    suffixes = (
        suffix for begin, suffix in SUFFIXES.items() if str(region).lower().startswith(begin)
    )
    return f"https://{service}.{region}.{next(suffixes, DEFAULT_SUFFIX)}"
