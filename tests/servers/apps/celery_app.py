"""A Celery application whose module makes at import what its prefork children inherit."""

from __future__ import annotations

import os

from celery import Celery

if "WITH_FORKSAFE" in os.environ:
    import forksafe

    forksafe.install()

import preloaded

app = Celery("celery_app", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True



@app.task(name="count")
def count() -> object:
    return preloaded.count()


@app.task(name="executor")
def executor() -> object:
    return preloaded.run_executor()


@app.task(name="loop")
def loop() -> object:
    return preloaded.run_loop()


@app.task(name="references")
def references() -> int:
    return preloaded.references()


@app.task(name="daemon")
def daemon() -> object:
    return preloaded.daemon.pid


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="resets")
def resets() -> int:
    return preloaded.resets.count(os.getpid())
