"""Cluster files as data: where their parts stand, what is wrong or unsafe in them. Starts nothing."""
