"""A Celery application whose module makes at import what its prefork children inherit."""

from __future__ import annotations

import os
from multiprocessing import util

import billiard
from celery import Celery
from celery.signals import worker_process_shutdown

if "WITH_FORKSAFE" in os.environ:
    import forksafe

    forksafe.install()

import preloaded

app = Celery("celery_app", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True


if "END_WELL" in os.environ:
    # The pool's children end by os._exit(): what multiprocessing does at the end of a process,
    # here giving back references to the manager, is done by hand.
    @worker_process_shutdown.connect(weak=False)
    def end_well(**_: object) -> None:
        util._exit_function()  # type: ignore[attr-defined]


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


@app.task(name="child")
def child() -> object:
    """Run a process in a task, as one does in Celery."""
    process = billiard.Process(target=os.getpid)
    process.start()
    process.join(20)
    return process.exitcode
