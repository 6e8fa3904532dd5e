"""What a student's file can ask for, and who does it.

    student.yaml ── dispatch.py ──► generate   story.py, one level up
                                    classify   labels.py reads a run's votes or choices ─► classify.py
                                    embed      embed.py
                                    on_policy  on_policy.py
                                    stages     chain.py: several of them, one after the other

In: a file, a dataset, a place. Out: the student's folder, and a report. Guarantees, for all of them: the file is whole
before anything is read, duties are checked before the first step and before saving, the folder appears at once, and the
same command finds it and does nothing.
"""
