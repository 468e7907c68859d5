"""``imax serve``: an open queue of posters behind HTTP.

``server.py`` runs a pool (jobs/) and, in a thread beside it, the application of ``app.py``. A request becomes
jobs in submissions.py; what clients see of a job is made in job_view.py; who may ask is decided in access.py.
"""
