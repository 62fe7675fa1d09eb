"""What the user can do about a failed call: the last sentence of its error."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_cdm.client import errors


class Advice(NamedTuple):
    """Advice for one failure.

    :param text: what the user can check or change.
    :param concerns_project: whether the project, or the region of an endpoint, is in doubt.
    """

    text: str
    concerns_project: bool = False


TEMPORARY = "This is usually temporary. If it continues, check the endpoint and the proxy."
BAD_RESPONSE = "Check that the endpoint is the one of CDM, and that no proxy answers in its place."
PROXY = (
    "Check user and password in the proxy's URL: Proxy of the connection, or HTTPS_PROXY of this"
    " machine."
)
VALIDATION = (
    "CDM tested what was sent. Check host, port, user and password, and that the cluster can reach"
    " the data source."
)
_DEFAULT = "Change the request; repeating it does not help."
_BY_CLASS: dict[type[errors.CdmError], str] = {
    errors.CdmAuthError: (
        "Check user, password (or access key) and account of the connection. IAM answers the same"
        " to a HUAWEI ID, to a federated user and where login protection is on: use an IAM user"
        " with programmatic access, or an access key."
    ),
    errors.CdmNotFound: (
        "Check the spelling of the job or link, the cluster id, project and region. If user"
        " isolation is on, a cluster hides the jobs and links of other users."
    ),
    errors.CdmAlreadyExists: "Choose another name, or update the existing job or link.",
    errors.CdmAlreadyRunning: (
        "Wait until that run has ended, or set if_running to 'wait' or 'attach'."
    ),
    errors.CdmInUse: (
        "A job is in use while it runs, and a link while jobs refer to it: wait until those runs"
        " have ended, or stop or delete those jobs."
    ),
    errors.CdmThrottled: "Poll less often, or distribute the work over several IAM users.",
    errors.CdmUnavailable: TEMPORARY,
    errors.CdmBadResponse: BAD_RESPONSE,
}

_NO_SUCH_API = Advice(
    "There is no such API at this endpoint: it is not the one of CDM, or CDM does not exist in this"
    " region. Check Region and CDM Endpoint of the connection.",
    concerns_project=True,
)
#: A token that is rejected is replaced first, so this is read only where a new one was rejected.
_NEW_TOKEN = Advice(
    "The credentials are valid at IAM, but not here: the endpoint belongs to another region or"
    " cloud than IAM and the project, or the account is in arrears. Check Region, Project ID, CDM"
    " Endpoint and IAM Endpoint of the connection.",
    concerns_project=True,
)
_OTHER_PROJECT = Advice(
    "The project or its region is not one that these credentials may use. Check Project ID, Region"
    " and CDM Endpoint of the connection.",
    concerns_project=True,
)
_KEY = Advice(
    "Check Access Key, Secret Key and, for a temporary key, Security Token of the connection, and"
    " that the key exists and is enabled in this cloud."
)
_NO_HEADER = Advice(
    "The credentials did not arrive: check that no proxy removes headers of requests."
)
_PERMISSION = Advice(
    "The credentials are right, but they lack the permission. Ask for the permission to use CDM in"
    " this project, and check Project ID and Region of the connection."
)
_LOCKED = Advice(
    "Nobody can unlock the user earlier: correct the password in the connection, and wait for 15"
    " minutes or as long as the account's policy says."
)
_CONSOLE_ONLY = Advice(
    "Allow programmatic access for this IAM user, or use another user or an access key."
)
_ACCESS_LIST = Advice(
    "The credentials are right, but an access list refuses this address or account. Ask who"
    " maintains it."
)
_POLICY = Advice(
    "This is no answer of IAM or of the gateway about the credentials: a policy refuses the call."
    " Ask who maintains the policies of the account, such as those of enterprise projects."
)
_SHARED_ADDRESS = Advice(
    "The limit counts calls from this address, whoever makes them: poll less often, or let fewer"
    " programs use the address."
)

# APIG, "Error Codes", and what its 401 was recorded to mean. 0103 to 0105 appear with 404, 400 and
# 500; only the last is taken as temporary.
_BY_CODE = {
    **dict.fromkeys(("APIGW.0101", "APIGW.0103", "APIGW.0104", "APIGW.0105"), _NO_SUCH_API),
    # These codes are about other ways to authenticate than those of CDM's API.
    **dict.fromkeys(("APIGW.0303", "APIGW.0305", "APIGW.0311"), _NO_SUCH_API),
    "APIGW.0307": _NEW_TOKEN,
    **dict.fromkeys(("APIGW.0306", "APIGW.0310", "APIGW.0801", "APIGW.0802"), _OTHER_PROJECT),
    **dict.fromkeys(("APIGW.0401", "APIGW.0402", "APIGW.0403", "APIGW.0404"), _ACCESS_LIST),
    "Cdm.0032": _PERMISSION,
    "IAM.0061": _LOCKED,
    "IAM.0081": _CONSOLE_ONLY,
    **{f"IAM.{number}": _KEY for number in range(1104, 1109)},
}


def advice_for(cls: type[errors.CdmError], status: int, code: str | None, message: str) -> Advice:
    """Return the advice for a response.

    :param cls: class of the error.
    :param status: HTTP status.
    :param code: code of CDM, the gateway, IAM or another service; ``None`` for none.
    :param message: reason that the server gave.
    """
    if status == 407:
        return Advice(PROXY)
    if cls is errors.CdmThrottled and "policy ip" in message.lower():
        return _SHARED_ADDRESS
    if cls is not errors.CdmAuthError and not issubclass(cls, errors.CdmRefused):
        return Advice(_BY_CLASS.get(cls, _DEFAULT))
    if code == "APIGW.0301":
        return _for_rejected(message.lower())
    if code in _BY_CODE:
        return _BY_CODE[code]
    if cls is errors.CdmAuthError:
        return _for_refused(status, code)
    return Advice(_BY_CLASS.get(cls, _DEFAULT))


def _for_rejected(message: str) -> Advice:
    """Return the advice for rejected authentication, which the gateway tells apart by text only."""
    # "verify aksk signature fail, canonicalRequest:..." shows all headers, also one with a token.
    if "aksk" in message or "secretkey" in message:
        return _KEY
    if "token not found" in message:
        return _NO_HEADER
    if "token" in message:
        return _NEW_TOKEN
    # "ak ... not exist", "AK access failed to reach the limit".
    return _KEY if "ak " in message else Advice(_BY_CLASS[errors.CdmAuthError])


def _for_refused(status: int, code: str | None) -> Advice:
    if status == 401 and code is not None and not code.startswith(("APIGW.", "IAM.")):
        return _POLICY
    return _PERMISSION if status == 403 else Advice(_BY_CLASS[errors.CdmAuthError])
