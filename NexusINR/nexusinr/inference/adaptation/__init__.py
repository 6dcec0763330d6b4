"""A copy of the weights adapted to one case, taught by what the scans resolve within their slices.

A scan with thick slices is a fine reference within them. Patches of the case, as the network
restores it, are scanned once more with the same slices across one of the axes that were measured
finely, and the copy learns to take that back. Patches that are kept apart decide whether it is used
(see `tuning.adapt_to`).
"""
