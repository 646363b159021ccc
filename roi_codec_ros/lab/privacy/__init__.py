# SPDX-License-Identifier: Apache-2.0
"""The privacy audit: detectors, attackers, re-identification, and its report."""
