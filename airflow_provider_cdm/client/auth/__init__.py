"""Authorization of requests: who they are from.

A user is known to Huawei Cloud by a password or an access key:

* With a password, IAM issues a **token** that is sent with every call and expires after some hours.
* With an **access key** (AK/SK), every call is signed; no token is needed.
* An **agency** is the permission of another account to use its projects. A token for the agency is
  requested from IAM with either of the two.

IAM locks an account after some wrong passwords, and the API gateway an access key after some wrong
signatures; the **lock-out guard** stops sending credentials that were rejected.
"""

__all__ = [
    "access_key",
    "base",
    "factory",
    "iam",
    "lockout",
    "masking",
    "project",
    "rotation",
    "signing",
    "token",
    "token_cache",
]
