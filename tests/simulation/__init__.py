"""Deterministic simulation: the real roles on simulated SQS and DynamoDB, one seeded event loop and virtual time.

``python -m tests.simulation --seed N`` replays one run exactly; ``--seeds A:B`` runs a range. Everything that happens
in a run follows from its seed: which processes there are, what each call to the engines meets, what fails and when.

=====================================  ================================================================================
*time and machines*
`loop`                                 an event loop whose time is a number, and which can withhold or drop the
                                       callbacks of one process
`process`                              a simulated process: its clock, and how it is paused and killed
`flight`, `network`                    what becomes of a call: latency, loss, throttling, partitions
`quirks`                               how the engines themselves misbehave: partial failures, duplicates, torn reads
`engines`                              SQS and DynamoDB as one process sees them, through that network
*a run*
`scenario`                             what a seed stands for: fleet, settings, fault mix
`world`                                one run's engines and processes
`process_parts`                               the real roles, started in simulated processes
`workload`, `jobs`, `clients`          users who submit, cancel and move jobs; what they submit; how they reach the API
`fault_injector`                             crashes, pauses, partitions, outages, clock steps, deploys
`recovery`                             when all must be as good as new
`run`, `many`, `__main__`              one run, from seed to verdict; many, on several cores; the command line
*the judge, which shares no code with the product*
`evidence`                             what was done at the engines, by whom and when
`auditor`                              what users were answered, and every delivery
`checker`                              lost, early, cancelled and delivered, stranded, altered
`explain`                              which named fault explains that something happened twice
`ownership`                            one owner a shard; nothing sent past a lease
`fifo`, `lateness`, `bounds`           order and duplicates on FIFO queues; how late a job may be; memory
*is the judge blind?*
`mutation`, `mutations`, `bugs_...`    deliberate bugs that the simulation has to find
=====================================  ================================================================================
"""
