from forksafe.gunicorn import log_audit

log_audit()
