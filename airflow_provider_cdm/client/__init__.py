"""The CDM and IAM client: everything that is true without Airflow.

Modules form layers and import only what lies below; ``tests/test_architecture.py`` has the order.

Control flow is written once, as generators that yield what they wait for (``messages`` says how),
and driven from a thread or from an event loop by ``session``.
"""
