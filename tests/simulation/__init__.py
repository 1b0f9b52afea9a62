"""Deterministic simulation: the real roles on simulated SQS and DynamoDB, one seeded event loop and virtual time.

``python -m tests.simulation --seed N`` replays one run exactly; ``--seeds A:B`` runs a range. Everything that happens
in a run follows from its seed: which processes there are, what each call to the engines meets, what fails and when.

================  ==================================================================================================
`loop`            an event loop whose time is a number, and which can withhold or drop the callbacks of one process
`process`         a simulated process: its clock, and how it is paused and killed
`network`         what lies between a process and an engine: latency, loss, throttling, partitions
`engines`         SQS and DynamoDB as one process sees them, through that network
`scenario`        what a seed stands for: fleet, settings, fault mix
`world`           one run's engines and processes
`agents`          the real roles, started in simulated processes
`saboteur`        crashes, pauses, partitions, outages, clock steps, deploys
`workload`        users who submit, cancel and move jobs
`explain`         which named fault explains that something happened twice
`mutations`       deliberate bugs that the simulation has to find
`auditor`         sees every accepted request and every delivery, and says what was wrong
================  ==================================================================================================
"""
