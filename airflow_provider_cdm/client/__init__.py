"""The CDM and IAM client: everything that is true without Airflow.

Modules import only upward in this list: ``messages``, ``errors``, ``checks``, ``failures``,
``models``, ``records``, ``settings``, ``signing``, ``endpoints``, ``retry``, ``auth``, ``flows``,
``following``, ``starting``, ``progress``, ``session``.

Control flow is written once, as generators that yield what they wait for (``messages`` says how),
and driven from a thread or from an event loop by ``session``.
"""
