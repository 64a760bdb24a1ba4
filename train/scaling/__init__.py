"""Scaling laws: the published ones as values, measurements and fits of a user's own, and the planner that sets them side by side.

* `laws`: L(N, D) of Chinchilla and of Besiroglu et al.; repetition (Muennighoff et al.); routed models (Clark et al.)
* `kaplan`: the power laws, critical batch and allocation of Kaplan et al.
* `sweep`, `sweep_run`, `sweep_worker`, `sweep_plan`: one family at several sizes and budgets: grid, runs, tables, words
* `rows`: a CSV of measurements, read strictly
* `resample`: which rows a bootstrap resample holds, by a hash
* `fit`: Chinchilla's approach 3, the parametric loss
* `frontier`: Chinchilla's approaches 1 and 2, envelope of training curves and isoFLOP parabolas
* `routed`: the routed law by least squares
* `optimise`: scipy.optimize with one BLAS thread
* `planner`: a budget under every law; serving; repetition
* `saved`, `text`: fits and plans as JSON documents, and as tables
* `command`: `winnow train scaling`
"""
