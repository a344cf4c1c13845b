"""What today's models need by this library's plan, and what other policies of giving memory back would hold for them.

    make bench-models                       # PYTHONPATH=bindings/python:tests/bench python -m plan_models

Graphs with the dimensions of public checkpoints (tests/data/shapes/models.json) are built through the public Python API
and planned; no weight, cache or arena is ever allocated. ``models`` builds the graphs from the ``layers`` of their
families, ``ops`` are the ops that those need beside the library's own, ``policies`` read a plan's JSON and count what
others would hold, one of them with ``torch_pool``'s model of PyTorch's allocator.
"""
