"""Failures; those of a request know how they look on the wire."""

from __future__ import annotations

from typing import Any, ClassVar


class MissingExtraError(ImportError):
    """A package that only the simulator needs is not installed.

    :param package: name of the package.
    """

    def __init__(self, package: str) -> None:
        super().__init__(
            f"The simulator needs {package}: pip install 'airflow-provider-cdm[simulator]'",
            name=package,
        )


class WireError(Exception):
    """A request that is answered with an error.

    :param status: HTTP status.
    :param code: the service's error code, ``""`` where its body has none.
    :param message: what the body says.
    :param headers: additional headers of the answer.
    """

    #: Set when the error is answered; the gateway repeats it in its body.
    request_id = ""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        raise NotImplementedError


class CdmError(WireError):
    """A refusal by CDM itself: ``errCode`` and ``externalMessage``."""

    def body(self) -> dict[str, Any]:
        """Return the two keys that job and link routes answer with."""
        return {"errCode": self.code, "externalMessage": self.message}


class CdmWriteError(CdmError):
    """A refusal to create or update: the same twice, under four keys.

    :param err_code: ``errCode`` where it differs from ``code``, as in the update page's sample.
    """

    def __init__(self, status: int, code: str, message: str, err_code: str | None = None) -> None:
        super().__init__(status, code, message)
        self.err_code = err_code or code

    def body(self) -> dict[str, Any]:
        """Return the four keys that the create and update pages show."""
        return {
            "code": self.code,
            "errCode": self.err_code,
            "message": self.message,
            "externalMessage": self.message,
        }


class LinkTestError(WireError):
    """A link whose connection test failed; status 500, but no fault of the server.

    :param message: why the database could not be reached.
    """

    def __init__(self, message: str) -> None:
        super().__init__(500, "", message)

    def body(self) -> dict[str, Any]:
        """Return the validation result that the create-link page shows for this case."""
        finding = {"message": self.message, "status": "ERROR"}
        return {"validation-result": [{"linkConfig": [finding]}]}


class GatewayError(WireError):
    """A refusal by the API gateway in front of CDM."""

    def body(self) -> dict[str, Any]:
        """Return the gateway's three keys."""
        return {"error_msg": self.message, "error_code": self.code, "request_id": self.request_id}


class IamError(WireError):
    """A refusal by IAM: in the Keystone form, or in that of its v3.0 API when it has a code."""

    _TITLES: ClassVar = {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
    }

    def body(self) -> dict[str, Any]:
        """Return the Keystone error, or ``error_code`` and ``error_msg`` when there is a code."""
        if self.code:
            return {"error_msg": self.message, "error_code": self.code}
        title = self._TITLES.get(self.status, "Error")
        return {"error": {"code": self.status, "message": self.message, "title": title}}


def unauthorized(reason: str) -> GatewayError:
    """Return the gateway's answer to bad credentials.

    :param reason: one of the documented sub-messages, such as ``decrypt token fail``.
    """
    text = f"Incorrect IAM authentication information: {reason}"
    return GatewayError(401, "APIGW.0301", text)
