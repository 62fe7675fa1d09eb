"""Errors, including those that are returned to the client as an error response."""

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
    """An error that the client receives as the response to its request.

    :param status: HTTP status.
    :param code: error code of the service, ``""`` where its body has none.
    :param message: error message in the body.
    :param headers: additional headers of the response.
    """

    #: Id of the request, set when the response is built; the gateway repeats it in its body.
    request_id = ""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def body(self) -> dict[str, Any] | str:
        """Return the JSON object of the response, or its text."""
        raise NotImplementedError


class CdmError(WireError):
    """An error of CDM itself: ``errCode`` and ``externalMessage``."""

    def body(self) -> dict[str, Any]:
        """Return the two keys that job and link routes use."""
        return {"errCode": self.code, "externalMessage": self.message}


class CdmWriteError(CdmError):
    """An error of a create or update call: code and message, each under two keys.

    :param err_code: value of ``errCode`` where it differs from ``code``, as in the sample of the
        update page.
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
    """A failed connection test of a link; the status is 500 although the server is healthy.

    :param message: reason why the database could not be reached.
    """

    def __init__(self, message: str) -> None:
        super().__init__(500, "", message)

    def body(self) -> dict[str, Any]:
        """Return the validation result that the create-link page shows for this case."""
        finding = {"message": self.message, "status": "ERROR"}
        return {"validation-result": [{"linkConfig": [finding]}]}


class GatewayError(WireError):
    """An error of the API gateway in front of CDM."""

    def body(self) -> dict[str, Any]:
        """Return the three keys of the gateway."""
        return {"error_msg": self.message, "error_code": self.code, "request_id": self.request_id}


class IamError(WireError):
    """An error of IAM, in the Keystone form, or in the form of its v3.0 API if it has a code."""

    _TITLES: ClassVar = {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
    }

    def body(self) -> dict[str, Any]:
        """Return the Keystone error, or ``error_code`` and ``error_msg`` if there is a code."""
        if self.code:
            return {"error_msg": self.message, "error_code": self.code}
        title = self._TITLES.get(self.status, "Error")
        return {"error": {"code": self.status, "message": self.message, "title": title}}


class PolicyError(WireError):
    """A refusal by a policy; its code is in a nested object, as that of IAM."""

    def body(self) -> dict[str, Any]:
        """Return the nested object."""
        return {"error": {"code": self.code, "message": self.message}}


class PlainError(WireError):
    """An error without JSON."""

    def body(self) -> str:
        """Return the text."""
        return self.message


def unauthorized(reason: str) -> GatewayError:
    """Return the gateway's error for invalid credentials.

    :param reason: one of the documented sub-messages, such as ``decrypt token fail``.
    """
    text = f"Incorrect IAM authentication information: {reason}"
    return GatewayError(401, "APIGW.0301", text)
