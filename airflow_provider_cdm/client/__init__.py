"""The CDM client: everything about CDM and IAM that does not depend on Airflow.

Packages and modules, from the top layer to the bottom; each imports only from layers below its own
(``pyproject.toml`` has the contract):

===== ==================== =======================================================================
Layer Name                 Purpose
===== ==================== =======================================================================
10    ``polling``          all waits of a cluster, within the rate limit
10    ``clusters``         start and stop clusters, and wait until they have
9     ``jobs``             what is done with one job and its run
9     ``watching``         which runs of a job have ended since the last look
8     ``session``          performs flows, on a thread or on an event loop
8     ``connection_test``  the steps behind the Test button
8     ``whole_database``   the tables of a whole-database job
8     ``poll_loop``        polls until something is done, or until a deadline
7     ``api``              the calls of CDM and the values that they return; it decides nothing
6     ``auth``             who a request is from: tokens, access keys, lock-out guard
5     ``http``             one HTTP exchange: transport, errors, retries
5     ``named_run``        which run the arguments of a task name
4     ``arguments``        checks of what users pass
4     ``bounded``          blocking work with a time limit
4     ``instants``         instants in the forms that users write
3     ``errors``           the errors of this package
2     ``sansio``           flows and the steps that they yield
2     ``submission``       runs, the meaning of their status, and their identity
2     ``settings``         endpoints, credentials, timeouts
1     ``locks``            locks that a forked process finds free
1     ``text``             texts of a server: sanitized and redacted
===== ==================== =======================================================================

Control flow is written once, as generators that yield each request and pause (``sansio``), and is
performed on a thread or on an event loop by ``session``.
"""

__all__ = [
    "api",
    "arguments",
    "auth",
    "bounded",
    "clusters",
    "connection_test",
    "errors",
    "http",
    "instants",
    "jobs",
    "locks",
    "named_run",
    "poll_loop",
    "polling",
    "sansio",
    "session",
    "settings",
    "submission",
    "text",
    "watching",
    "whole_database",
]
