"""A program whose workers are Processes."""

import multiprocessing

from dirty import create

create(daemon=True)
worker = multiprocessing.get_context("fork").Process(target=print, args=("worked",))
worker.start()
worker.join()
