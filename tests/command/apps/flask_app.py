"""A clean Flask application."""

import flask

app = flask.Flask("clean")
