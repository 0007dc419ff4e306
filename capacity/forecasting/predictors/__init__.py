"""Predictors of forgetting side by side: the simulation, baselines B0 to B8, controls, ceilings.

All take the same `Setting` and return a `Prediction` per old task; `registry` lists them
(theory.md#predictors).
"""
