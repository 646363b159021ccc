# SPDX-License-Identifier: Apache-2.0
"""The verbs of `roi-codec`, one module each: parse, call, let errors speak for themselves."""
