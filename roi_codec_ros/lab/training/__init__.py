# SPDX-License-Identifier: Apache-2.0
"""Losses, data and the training loop. Needs the extra ``train``."""
