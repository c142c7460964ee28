"""A Celery application, whose broker is in this process."""

from celery import Celery

app = Celery("tasks", broker="memory://")
