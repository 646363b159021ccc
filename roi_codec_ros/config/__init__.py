# SPDX-License-Identifier: Apache-2.0
"""Parameters, the graph as data, launch files, SROS2 policies. Standard library only."""
