# SPDX-License-Identifier: Apache-2.0
"""What trains, measures and shows. Nothing outside this folder imports it."""
