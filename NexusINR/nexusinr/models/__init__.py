"""The networks: Nexus-INR and ICONet, their parts, and the loading of their weights."""

import os

# Under Linux torch then asks for large memory pages, where they are not the rule: feature maps of
# 100 MB come and go with every layer, and fetching them in small pages takes much of the time. It
# looks at the variable when it makes its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
