"""What Dynein costs and how it performs, measured next to what a user could pick instead. See ``docs/performance.md``.

Run all with ``python -m benchmarks``, one with ``python -m benchmarks.submit`` (or ``pipeline``, ``cost``, ``idle``,
``lateness``, ``fleet``), and print the results as Markdown with ``python -m benchmarks.report``.
"""
