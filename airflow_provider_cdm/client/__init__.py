"""The CDM and IAM client: everything that is true without Airflow.

Modules import only upward in this list: ``messages``, ``errors``, ``models``, ``endpoints``,
``retry``, ``auth``, ``flows``, ``session``. Control flow is written once, as generators that yield
what they wait for (see :mod:`~airflow_provider_cdm.client.messages`), and driven from a thread or
from an event loop by :mod:`~airflow_provider_cdm.client.session`.
"""
