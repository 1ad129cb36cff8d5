"""The video server: HTTP in front, one worker process per device behind, jobs in SQLite between them.

    app, routes_*    HTTP: check, ask the desk, answer         worker          the process that owns a device
    wire, faults     bodies in and out, errors                 worker_process  the server's end of its pipes
    desk             what can happen to a job                  supervisor      keeps one worker alive, busy
    store, outputs   rows and files                            protocol        what they say to each other

A job is created, admitted and stored (desk, admission, store), claimed by a supervisor (schedule), made by
its worker into a temporary file, moved into place (outputs) and only then called completed.
"""
