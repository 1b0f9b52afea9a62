"""Submit jobs from Python, blocking (`Client`) or not (`AsyncClient`).

::

    from dynein.client import Client, Job

    with Client("http://dynein") as dynein:
        reminder = dynein.submit(Job("emails", json={"to": 42}, delay="15m"), once=True)
        dynein.move(reminder.token, delay="1h")
        dynein.cancel(reminder.token)

What it adds to a plain HTTP request:

* Connections are kept, and shared by threads or tasks.
* A request that was turned away (429, 503, nobody answers) is repeated for ``patience_s``, with pauses that grow, that
  are jittered, and that last at least as long as the API asked for.
* Where there is doubt whether a job was accepted (no answer came), a submit is repeated only if that cannot deliver it
  twice, which a token taken beforehand makes sure of: ``once=True`` takes one. Else it raises `Unanswered`.
* `Client.submit_many` cuts any number of jobs into batches and says of each what came of it.

A consumer needs nothing of ours; one in Python may read its messages with `Delivery`.

The pieces: `jobs` (what is sent and what comes back), `delivery` (what is delivered), `errors`, `exchange` (one request
and its repeats) and `flows` (one function for each thing to do), all of them pure; `blocking` and `asynchronous` do the
I/O.
"""

from dynein.client.asynchronous import AsyncClient
from dynein.client.blocking import Client
from dynein.client.delivery import Delivery
from dynein.client.errors import ClientError, NotDone, Refused, Unanswered
from dynein.client.jobs import Accepted, Job, Moved, Prepared, Status
from dynein.core.job import Policy

__all__ = [
    "Accepted",
    "AsyncClient",
    "Client",
    "ClientError",
    "Delivery",
    "Job",
    "Moved",
    "NotDone",
    "Policy",
    "Prepared",
    "Refused",
    "Status",
    "Unanswered",
]
