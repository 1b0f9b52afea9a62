"""Submit jobs from Python, blocking (`Client`) or not (`AsyncClient`).

::

    from dynein.client import Client, Job

    with Client("http://dynein") as dynein:
        reminder = dynein.submit(Job("emails", json={"to": 42}, delay="15m"), once=True)
        dynein.move(reminder.token, delay="1h")
        dynein.cancel(reminder.token)

What it adds to a plain HTTP request:

* Connections are kept, and shared by threads or tasks.
* A request that was turned away (429, 503, no connection) is repeated for ``patience_s``, with growing, jittered pauses
  of at least the API's ``Retry-After``.
* If it is uncertain whether a job was accepted (no response), a submit is repeated only if that cannot deliver the job
  twice. A token taken beforehand makes sure of that: ``once=True`` takes one. Otherwise `Unanswered` is raised.
* `Client.submit_many` splits any number of jobs into batches and returns the outcome of each.

A consumer needs no library of Dynein's; one in Python may read its messages with `Delivery`.

The modules: `jobs` (requests and results), `delivery` (delivered messages), `errors`, `exchange` (one request and its
repeats) and `flows` (a function for each operation), all of them pure; `blocking` and `asynchronous` do the I/O.
"""

from dynein.client.asynchronous import AsyncClient
from dynein.client.blocking import Client
from dynein.client.delivery import Delivery
from dynein.client.errors import ClientError, NotDone, Refused, Unanswered
from dynein.client.jobs import Accepted, Job, JobWarning, Moved, Prepared, Status
from dynein.core.job import Policy

__all__ = [
    "Accepted",
    "AsyncClient",
    "Client",
    "ClientError",
    "Delivery",
    "Job",
    "JobWarning",
    "Moved",
    "NotDone",
    "Policy",
    "Prepared",
    "Refused",
    "Status",
    "Unanswered",
]
