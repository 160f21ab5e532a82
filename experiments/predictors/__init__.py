"""Rows of studies, and which measure of firing predicts what: EMD or a simpler one."""
