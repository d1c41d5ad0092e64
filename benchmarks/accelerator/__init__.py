"""Training on a GPU: is it right, is it the same each time, how fast is it beside a plain Trainer?

python -m benchmarks.accelerator OUTPUT_FOLDER [--device cuda|cpu] [--only PART ...] [--tiny]

Every part is a module here with run(part), which measures, and rows(result), which says it in a few lines. A part runs
in a process of its own, within its budget. Models are drawn from their configurations and corpora are made here: speed
and equality need neither trained weights nor a network. It runs the stages without DVC, in temporary copies of the
project.
"""

# Part -> the seconds that it may take on a GPU of 2022 or later. The last one also gets what the others have left.
BUDGETS = {"machine": 20, "tasks": 80, "bytes": 75, "launchers": 40, "inference": 30, "speed": 230}
