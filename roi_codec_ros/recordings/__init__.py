# SPDX-License-Identifier: Apache-2.0
"""Recordings that exist already: bags, films, folders and pictures whose heads are hidden.

    frames ─► judge ─► BothWays ─► hide ─► written
              (workers)  (in order)  (workers)

Needs neither ROS nor a network; bags and films need packages of the extra ``recordings``.
"""
