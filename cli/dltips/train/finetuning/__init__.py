"""Starting from a trained net: its weights, the plan of what trains when, features that are computed once."""
