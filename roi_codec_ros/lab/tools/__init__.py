# SPDX-License-Identifier: Apache-2.0
"""Benchmarks, the soak run, and the processes that they start."""
