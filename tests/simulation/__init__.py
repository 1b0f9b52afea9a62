"""Deterministic simulation: the real roles on simulated SQS and DynamoDB, one seeded event loop and virtual time.

``python -m tests.simulation --seed N`` replays one run exactly; ``--seeds A:B`` runs a range. Everything that happens
in a run follows from its seed: which processes there are, which calls to the engines fail, what else fails and when.

=====================================  ================================================================================
*time and machines*
`loop`                                 an event loop on virtual time, which can withhold or drop the callbacks of one
                                       process
`process`                              a simulated process: its clock, and how it is paused and killed
`flight`, `network`                    the outcome of a call: latency, loss, throttling, partitions
`quirks`                               faults of the engines themselves: partial failures, duplicates, torn reads
`engines`, `ledger`                    SQS, DynamoDB and the ledger in it as one process sees them, through that network
*a run*
`scenario`                             what a seed means: fleet, settings, kinds of faults and how likely they are
`world`                                one run's engines and processes
`process_parts`                        the real roles, started in simulated processes
`workload`, `jobs`, `clients`          users who submit, cancel and move jobs; their jobs; their connection to the API
`fault_injector`                       crashes, pauses, partitions, outages, clock steps, deploys
`forger`                               another program, which writes to our queues without the secret
`recovery`                             when the fleet must have recovered from all faults
`run`, `many`, `__main__`              one run, from seed to outcome; many, on several cores; the command line
*the records of a run*
`auditor`                              records what users were answered, and every delivery; decides nothing
`facts`                                what was at each key, and where each mark stood, at every moment
`evidence`                             what was done at the engines, by which process and when
`books`                                which jobs came in and went out, by the process that learned of it
*the checker, which shares no code with the product*
`checker`                              after a run: lost, early, cancelled and delivered, stranded, altered
`explain`                              could the product have known? If not, which named fault explains a second send
`answers`, `fidelity`                  every answer was true at some moment; every message is what was asked for
`conservation`                         whether the product's ledger balances against the books
`ownership`                            one owner a shard; nothing sent after a lease may have expired
`redriving`                            what `dynein redrive` sends when the run is over
`fifo`, `lateness`, `bounds`           order and duplicates on FIFO queues; how late a job may be; memory
*does the checker see?*
`mutation`, `mutations`, `bugs_...`    planted bugs that the simulation has to find
`planting`, `unit_tests`               whether unit tests find them too
=====================================  ================================================================================
"""
