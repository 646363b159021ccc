# SPDX-License-Identifier: Apache-2.0
"""`roi-codec demo`: processes, recorded results and their presentation."""
