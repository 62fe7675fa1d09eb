"""Send a mail and a Slack message when a run makes no progress, and when a task fails."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG("told", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    # [START stalled]
    mail = SmtpNotifier(
        from_email="airflow@example.com",
        to="data-team@example.com",
        subject="{{ ti.dag_id }}.{{ ti.task_id }}: somebody should look",
        html_content="<pre>{{ exception | e }}</pre>",
    )
    slack = SlackWebhookNotifier(text="{{ ti.task_id }}: {{ exception }}")

    move_orders = CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        wait_for_completion=True,
        deferrable=True,
        wait_timeout=4 * 3600,
        stalled_after=30 * 60,
        min_rows_written=1,
        # The run makes no progress; the task goes on waiting.
        on_stalled=[mail, slack],
        # The run failed or missed a threshold, or it is left behind at the timeout.
        on_failure_callback=[mail, slack],
    )
    # [END stalled]
