"""Cost and performance of Dynein, measured beside the alternatives. See ``docs/performance.md``.

Run all with ``python -m benchmarks``, one with ``python -m benchmarks.submit`` (or ``pipeline``, ``cost``, ``idle``,
``lateness``, ``fleet``), and print the results as Markdown with ``python -m benchmarks.report``.
"""
